"""Anthropic messages."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import DIALECTS, Failure, Verdict

ANTHROPIC = DIALECTS["anthropic"]


def event(name: str, more: str = "") -> bytes:
    """An event, numbered as in a log."""
    return f'id: s.1\nevent: {name}\ndata: {{"type":"{name}"{more}}}'.encode()


TEXT = event("content_block_delta", ',"index":0,"delta":{"type":"text_delta","text":"Hi"}')
BLOCK_STOP = event("content_block_stop", ',"index":0')
STOP_REASON = event("message_delta", ',"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}')
USAGE = event("message_delta", ',"delta":{"stop_reason":null},"usage":{"output_tokens":9}')
STOP = event("message_stop")
PING = event("ping")


@pytest.mark.parametrize(
    "block", [event("message_start"), PING, event("error", ',"error":{"type":"overloaded_error"}')]
)
def test_confirms(block: bytes) -> None:
    """A stream begins with its start, a ping or an error."""
    assert ANTHROPIC.confirms(block)


@pytest.mark.parametrize(
    "tail",
    [
        [TEXT, BLOCK_STOP, STOP_REASON, STOP],
        [TEXT, BLOCK_STOP, STOP_REASON],
        [TEXT, BLOCK_STOP, STOP_REASON, PING],
        [TEXT, STOP],
        [STOP_REASON, USAGE],
        [b"event: message_stop\ndata: {"],
    ],
    ids=[
        "whole",
        "no message_stop",
        "ping after the reason",
        "no reason",
        "usage after the reason",
        "by name",
    ],
)
def test_complete(tail: list[bytes]) -> None:
    """message_stop is the end; a stop reason that no content follows is one if the close is clean."""
    marked = b"message_stop" in tail[-1]
    assert ANTHROPIC.verdict(tail) is (Verdict.COMPLETE if marked else Verdict.FINISHED)


@pytest.mark.parametrize(
    "tail",
    [
        [TEXT],
        [TEXT, BLOCK_STOP],
        [TEXT, BLOCK_STOP, USAGE],
        [TEXT, event("message_delta")],
        [STOP_REASON, event("content_block_start"), BLOCK_STOP],
        [STOP, event("message_start")],
        [PING],
        [b'data: {"type":"message_stop"}'],
    ],
    ids=[
        "text",
        "a block's end",
        "a null reason",
        "no delta",
        "content after the reason",
        "another message",
        "ping",
        "no event line, so no event for the SDK",
    ],
)
def test_open(tail: list[bytes]) -> None:
    """The end of a block, or usage without a reason, is not the end of the message."""
    assert ANTHROPIC.verdict(tail) is Verdict.OPEN


@pytest.mark.parametrize(
    "tail",
    [
        [TEXT, event("error", ',"error":{"type":"overloaded_error","message":"Overloaded"}')],
        [TEXT, event("error"), STOP_REASON, STOP],
        [b"event: error\ndata: Overloaded"],
    ],
)
def test_error(tail: list[bytes]) -> None:
    """The provider's own error counts by its name, as the SDKs take it."""
    assert ANTHROPIC.verdict(tail) is Verdict.ERROR


def test_failure_block() -> None:
    """A failure is an error event with the provider's envelope."""
    assert ANTHROPIC.failure_block(Failure("truncated", "cut")) == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"cut"}}'
    )


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (499, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_error_body(status: int, type_: str) -> None:
    """An error answer has Anthropic's envelope, its type said by the status."""
    error = {"type": type_, "message": "no"}
    assert json.loads(ANTHROPIC.error_body(status, "kind", "no") or b"") == {"type": "error", "error": error}
