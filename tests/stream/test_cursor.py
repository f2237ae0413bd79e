"""Cursors: ids of our form are ours, every other id is somebody else's."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadCursor
from proxy.stream.cursor import (
    MAX_SEQ_DIGITS,
    NODE_PATTERN,
    RANDOM_LENGTH,
    Cursor,
    is_stream_id,
    node_of,
    parse,
    parse_after,
    short,
)

STREAM = "AZaz09-_AZaz09-_AZaz09"


@given(st.binary(min_size=16, max_size=16), st.integers(0, 10**MAX_SEQ_DIGITS - 1))
def test_a_cursor_is_read_back(key: bytes, seq: int) -> None:
    """What a block carries as its id, a reader can bring back."""
    stream = base64.urlsafe_b64encode(key).decode().rstrip("=")
    assert is_stream_id(stream)
    assert parse(f"{stream}.{seq}") == Cursor(stream, seq)


@pytest.mark.parametrize(
    "last_event_id",
    [
        "",
        "7",
        STREAM,
        f"{STREAM}.",
        f"{STREAM}.x",
        f"{STREAM}.-1",
        f"{STREAM}.+1",
        f"{STREAM}. 1",
        f"{STREAM}.1 ",
        f"{STREAM}.1\n",
        f"{STREAM}.1.2",
        f"{STREAM}.1_0",
        f"{STREAM}.٣",
        f"{STREAM}." + "1" * (MAX_SEQ_DIGITS + 1),
        f"{STREAM[:-1]}.1",
        f"{STREAM}A.1",
        f"{STREAM[:-1]}=.1",
        f"{STREAM[:-1]}é.1",
        f" {STREAM}.1",
    ],
)
def test_somebody_elses_id(last_event_id: str) -> None:
    """An id that is not of our form to the letter is the app's."""
    assert parse(last_event_id) is None


@given(st.text(max_size=40))
def test_any_text_is_an_id_of_somebody(text: str) -> None:
    """Whatever a client sends is either a cursor that says the same again, or not ours."""
    cursor = parse(text)
    assert cursor is None or text.startswith(f"{cursor.stream}.")


@pytest.mark.parametrize(
    ("value", "seq"),
    [("0", 0), ("12", 12), ("007", 7), ("now", 42), ("9" * MAX_SEQ_DIGITS, 10**MAX_SEQ_DIGITS - 1)],
)
def test_after(value: str, seq: int) -> None:
    """``after`` is a number of blocks, or ``now`` for the head."""
    assert parse_after(value, head=42) == seq


@pytest.mark.parametrize(
    "value", ["", "-1", "1.0", "NOW", " 1", "1\n", "٣", "²", "1" * (MAX_SEQ_DIGITS + 1), "x" * 9999]
)
def test_a_malformed_after(value: str) -> None:
    """Anything else is refused; the message quotes no more than the beginning of it."""
    with pytest.raises(BadCursor, match="expected a number of blocks") as caught:
        parse_after(value, head=42)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("value", "yes"),
    [
        (STREAM, True),
        (STREAM[1:], False),
        (STREAM + "A", False),
        (STREAM + "\n", False),
        ("." * RANDOM_LENGTH, False),
        ("", False),
    ],
)
def test_is_stream_id(value: str, yes: bool) -> None:
    """A stream id is 22 characters of base64url, which is what 16 random bytes make."""
    assert is_stream_id(value) is yes
    assert len(secrets.token_urlsafe(16)) == RANDOM_LENGTH


def test_short() -> None:
    """Logs show too little of an id to use it."""
    assert short(STREAM) == "AZaz09"
    assert not is_stream_id(short(STREAM))


NODES = st.from_regex(rf"\A{NODE_PATTERN}\Z")


@given(NODES, st.binary(min_size=16, max_size=16), st.integers(0, 10**MAX_SEQ_DIGITS - 1))
def test_a_node_is_read_back(node: str, key: bytes, seq: int) -> None:
    """Whatever dashes the random part holds, the id of a sidecar with a name tells whose it is."""
    random = base64.urlsafe_b64encode(key).decode().rstrip("=")
    stream = f"{node}-{random}"
    assert is_stream_id(stream)
    assert node_of(stream) == node
    assert node_of(random) is None
    assert parse(f"{stream}.{seq}") == Cursor(stream, seq)
    assert short(stream) == f"{node}-{random[:6]}"


@pytest.mark.parametrize(
    "prefix", ["-", "A-", "-a-", "a", "a--", "a.", "a_b-", "ä-", "a/", f"{'a' * 33}-", "a-\n"]
)
def test_what_is_no_node(prefix: str) -> None:
    """A prefix of another form makes it somebody else's id, and no more of it is shown than of any."""
    assert not is_stream_id(prefix + STREAM)
    assert parse(f"{prefix}{STREAM}.1") is None
    assert node_of(prefix + STREAM) is None
    assert short(prefix + STREAM) == (prefix + STREAM)[:6]
