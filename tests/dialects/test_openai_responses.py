"""OpenAI Responses."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import DIALECTS, Failure, Verdict
from proxy.stream.sse import decode

RESPONSES = DIALECTS["openai-responses"]


def event(name: str, number: int = 0, more: str = "") -> bytes:
    """An event with its sequence number, numbered as in a log."""
    data = f'{{"type":"{name}","sequence_number":{number}{more}}}'
    return f"id: s.{number + 1}\nevent: {name}\ndata: {data}".encode()


DELTA = event("response.output_text.delta", 4, ',"delta":"Hi"')


@pytest.mark.parametrize(
    "block",
    [
        event("response.created"),
        event("response.queued"),
        b'data: {"type":"response.created"}',
        event("error", 0, ',"error":{"message":"no"}'),
        b'data: {"type":"error","message":"no"}',
        b'data: {"error":{"message":"no"}}',
    ],
)
def test_confirms(block: bytes) -> None:
    """A stream begins with an event of the response family, named or typed, or with an error."""
    assert RESPONSES.confirms(block)


@pytest.mark.parametrize(
    "block",
    [b'data: {"type":"answer"}', b"event: respond\ndata: {}", b'data: {"error":null}', b"data: response."],
)
def test_does_not_confirm(block: bytes) -> None:
    """An app's own stream under /responses is not OpenAI's."""
    assert not RESPONSES.confirms(block)


@pytest.mark.parametrize(
    "tail",
    [
        [DELTA, event("response.completed", 5, ',"response":{"error":null,"usage":{}}')],
        [DELTA, event("response.incomplete", 5)],
        [DELTA, b'data: {"type":"response.completed"}'],
        [DELTA, event("response.completed"), b"data: [DONE]"],
        [DELTA, b"data: [DONE]"],
    ],
)
def test_complete(tail: list[bytes]) -> None:
    """Completed and incomplete responses have reached their end, and [DONE] means it too."""
    assert RESPONSES.verdict(tail) is Verdict.COMPLETE


@pytest.mark.parametrize(
    "tail",
    [
        [DELTA, event("response.failed", 5, ',"response":{"error":{"code":"server_error"}}')],
        [DELTA, event("error", 5, ',"error":{"type":"insufficient_quota"}'), event("response.failed", 6)],
        [DELTA, event("error", 5), b"data: [DONE]"],
        [DELTA, b'data: {"error":{"message":"no"}}'],
        [event("error"), event("response.completed")],
    ],
)
def test_error(tail: list[bytes]) -> None:
    """A failed response and an error event are the provider's error, whatever follows."""
    assert RESPONSES.verdict(tail) is Verdict.ERROR


@pytest.mark.parametrize(
    "tail",
    [
        [DELTA],
        [event("response.output_text.done"), event("response.output_item.done")],
        [event("response.mcp_call.failed"), event("response.mcp_call.completed")],
    ],
)
def test_open(tail: list[bytes]) -> None:
    """The end of an item, or a failed tool call, is not the end of the response."""
    assert RESPONSES.verdict(tail) is Verdict.OPEN


def test_failure_block() -> None:
    """A failure has the flat fields and the error object, and continues the stream's numbers."""
    block = RESPONSES.failure_block(Failure("truncated", "cut", 502), [DELTA, b"data: {}", b"data: x"])
    assert block is not None
    told = decode(block)
    assert told.event == "error"
    assert json.loads(told.data or "") == {
        "type": "error",
        "code": "truncated",
        "message": "cut",
        "param": None,
        "sequence_number": 5,
        "error": {"type": "server_error", "code": "truncated", "message": "cut", "param": None},
    }


def test_a_failure_before_the_first_event_has_number_zero() -> None:
    """The required number is there when no event has been."""
    block = RESPONSES.failure_block(Failure("upstream_error", "refused"))
    assert json.loads(decode(block or b"").data or "")["sequence_number"] == 0


def test_error_body() -> None:
    """Errors before the stream look as in chat completions."""
    assert RESPONSES.error_body(404, "no-route", "no") == DIALECTS["openai"].error_body(404, "no-route", "no")
