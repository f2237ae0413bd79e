"""Where a stream can be had again, and what its state says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.doctor.evidence import Poll
from proxy.doctor.sidecar import Address, poll_of, problem_of
from tests.doctor.seen import ID, head

EDGE = URL("https://edge.example/llm/v1/chat/completions?key=1")


def link(base: str) -> tuple[str, str]:
    """The Link field of a sidecar whose ``public_path`` is ``base``."""
    return "Link", f'<{base}/_streams/{ID}>; rel="resume", <{base}/_streams/{ID}/cancel>; rel="cancel"'


@pytest.mark.parametrize(
    ("fields", "resume"),
    [
        ((("Stream-Id", ID), link("")), f"https://edge.example/_streams/{ID}"),
        ((("Stream-Id", ID), link("/llm")), f"https://edge.example/llm/_streams/{ID}"),
        ((("Stream-Id", ID),), f"https://edge.example/_streams/{ID}"),
        ((("Stream-Id", ID), link("https://evil.example")), f"https://edge.example/_streams/{ID}"),
    ],
    ids=["usual", "public-path", "no-link", "another-host"],
)
def test_an_address_is_of_the_streams_own_origin(fields: tuple[tuple[str, str], ...], resume: str) -> None:
    """Credentials go along with every request, so a link to another host is not followed."""
    address = Address.of_head(head(*fields), EDGE)
    assert address is not None
    assert str(address.resume) == resume
    assert str(address.state) == f"{resume}/state"
    assert str(address.cancel) == f"{resume}/cancel"


def test_an_events_id_tells_the_address_too() -> None:
    """Where the header was stripped; an app's own id tells nothing."""
    address = Address.of_event(f"a-{ID}.7", EDGE)
    assert address is not None
    assert str(address.resume) == f"https://edge.example/_streams/a-{ID}"
    assert Address.of_event("7", EDGE) is None
    assert Address.of_event(None, EDGE) is None
    assert Address.of_head(head(("Stream-Id", "x")), EDGE) is None


STATE = {"state": "live", "reason": None, "last": 7, "time_to_first_event": 0.5, "age": 2.0, "readers": 1}


@pytest.mark.parametrize(
    ("status", "body", "poll"),
    [
        (200, json.dumps(STATE), Poll(1, 2, 200, state="live", last=7, first_event=0.5, age=2.0)),
        (404, '{"type":"urn:sse-sidecar:problem:unknown-stream"}', Poll(1, 2, 404, "unknown-stream")),
        (404, "<html>", Poll(1, 2, 404)),
        (200, "<html>", Poll(1, 2, 200)),
        (200, "[1]", Poll(1, 2, 200)),
        (200, "[" * 100_000, Poll(1, 2, 200)),
    ],
    ids=["state", "another", "nobody", "page", "list", "attack"],
)
def test_a_look_tells_what_was_sent(status: int, body: str, poll: Poll) -> None:
    """Or who answered in the sidecar's place."""
    assert poll_of(1, 2, head(status=status), body.encode()) == poll
    assert poll.good is bool(poll.state)


def test_no_answer_is_a_look_as_well() -> None:
    """It tells nothing."""
    assert not poll_of(1, 2, None, b"").good


@given(st.binary(max_size=200))
def test_any_body_is_read_or_passed_over(body: bytes) -> None:
    """Whoever sent it."""
    assert isinstance(problem_of(body), str)
    assert poll_of(1, 2, head(), body).status == 200


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('{"type":"urn:sse-sidecar:problem:capacity"}', "capacity"),
        ('{"error":{"message":"x","code":"upstream-unreachable"}}', "upstream-unreachable"),
        ('{"error":{"message":"x","code":"rate_limit_exceeded"}}', ""),
        ('{"type":"error","error":{"type":"api_error"}}', ""),
        ('{"type":"about:blank"}', ""),
    ],
    ids=["problem", "openai", "provider", "anthropic", "edge"],
)
def test_the_sidecars_word_is_known_in_openais_form_too(body: str, problem: str) -> None:
    """On a provider's route it answers as the provider would."""
    assert problem_of(body.encode()) == problem
