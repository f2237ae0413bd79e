"""Streams that no provider's rules apply to."""

from __future__ import annotations

from proxy.dialects import DIALECTS, Failure, Verdict

GENERIC = DIALECTS["generic"]


def test_nothing_is_an_end() -> None:
    """Another protocol's marker means nothing in an app's own stream."""
    assert GENERIC.verdict([b"data: [DONE]"]) is Verdict.OPEN
    assert GENERIC.verdict([b"event: error\ndata: {}"]) is Verdict.OPEN


def test_nothing_is_injected() -> None:
    """A failure breaks the connection, and an error before the stream is a problem document."""
    assert GENERIC.failure_block(Failure("truncated", "cut")) is None
    assert GENERIC.error_body(502, "upstream-broken", "cut") is None


def test_any_block_will_do() -> None:
    """Every stream can be generic, but none is asked for by body or by path."""
    assert GENERIC.confirms(b"data: 1")
    assert not GENERIC.wants_stream(b'{"stream":true}')
    assert not GENERIC.serves(["generic"])


def test_wire_form() -> None:
    """Browsers survive ids and comments."""
    assert (GENERIC.llm, GENERIC.ids_safe, GENERIC.heartbeat) == (False, True, b": ping\n")
