"""How a request asks for misbehaviour."""

from __future__ import annotations

from dataclasses import fields

import pytest

from proxy.demo.misbehaviour import KEYS, BadMisbehaviour, Misbehaviour, asked, misbehaviours
from proxy.demo.speech import Speech


def test_every_field_has_a_key_and_every_key_a_field() -> None:
    """The table that reads requests is the list of what can go wrong."""
    assert {key.name for key in KEYS} == {field.name for field in fields(Misbehaviour)}


def test_the_header_wins_over_the_query() -> None:
    """Both may ask; an endpoint's own query parameters ask for nothing."""
    keys = asked(
        {"prompt": "Hi", "tokens": "3", "interval": "1"},
        ["interval=0; drop_at=2", " status=429 "],
        own_keys={"prompt"},
    )
    assert keys == {"tokens": "3", "interval": "0", "drop_at": "2", "status": "429"}
    assert Misbehaviour.read(keys) == Misbehaviour(tokens=3, interval=0, drop_at=2, status=429)


def test_nothing_asked_is_good_behaviour() -> None:
    """The defaults, the endpoint's own interval, and a speech of forty words."""
    assert Misbehaviour.read({}) == Misbehaviour()
    assert Misbehaviour.read({}, interval=1.0).interval == 1.0
    assert Misbehaviour().speech == Speech(40)
    assert Misbehaviour.read({"endless": "1"}).speech == Speech(None)


def test_an_unknown_key_is_named_beside_the_known_ones() -> None:
    """The message is all that a typing error needs."""
    with pytest.raises(BadMisbehaviour, match=r"unknown key 'dropat'; known are .*drop_at.*status"):
        Misbehaviour.read({"dropat": "1"})


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("tokens", "many", "whole number"),
        ("tokens", "-1", "whole number"),
        ("burst", "0", "from 1"),
        ("first_delay", "nan", "seconds"),
        ("first_delay", "soon", "seconds"),
        ("pause", "-1", "seconds"),
        ("status", "200", "from 400 to 599"),
        ("encoding", "zip", "gzip, deflate, br"),
        ("newline", "lfcr", "lf, crlf, cr"),
        ("endless", "yes", "0, 1"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_would(name: str, text: str, fault: str) -> None:
    """The message holds the key, the value and the bound."""
    with pytest.raises(BadMisbehaviour, match=f"{name}={text}: must be .*{fault}"):
        Misbehaviour.read({name: text})


def test_the_table_documents_itself() -> None:
    """Each key comes with the form of its value and a sentence."""
    table = dict(misbehaviours())
    assert len(table) == len(KEYS)
    assert table["drop_at=N"].startswith("after N events, half of the next")
