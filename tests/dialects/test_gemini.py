"""Google Gemini."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import DIALECTS, Failure, Verdict

GEMINI = DIALECTS["gemini"]


def chunk(*candidates: str, more: str = "") -> bytes:
    """A chunk with these candidates."""
    return f'data: {{"candidates":[{",".join(candidates)}],"modelVersion":"gemini-3-pro"{more}}}'.encode()


def text(value: str = "Hi", more: str = "") -> str:
    """A candidate with one part of text."""
    return f'{{"content":{{"parts":[{{"text":"{value}"}}],"role":"model"}}{more}}}'


STOP = ',"finishReason":"STOP"'
USAGE = b'data: {"usageMetadata":{"totalTokenCount":9}}'


@pytest.mark.parametrize(
    "block",
    [
        chunk(text()),
        USAGE,
        b'data: {"promptFeedback":{"blockReason":"SAFETY"}}',
        b'data: {"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}',
        b'data: {\ndata:   "candidates": []\ndata: }',
    ],
)
def test_confirms(block: bytes) -> None:
    """A stream begins with candidates, usage, the verdict on the prompt, or an error."""
    assert GEMINI.confirms(block)


@pytest.mark.parametrize("block", [b'data: {"text":"Hi"}', b'data: [{"candidates":[]}]', b"data: candidates"])
def test_does_not_confirm(block: bytes) -> None:
    """Anything else is not Gemini's."""
    assert not GEMINI.confirms(block)


@pytest.mark.parametrize(
    "tail",
    [
        [chunk(text()), chunk(text("", STOP))],
        [chunk(text()), chunk(text("last", STOP))],
        [chunk(text()), chunk('{"finishReason":"MAX_TOKENS"}', more=',"usageMetadata":{}')],
        [chunk(text("", STOP)), USAGE],
        [chunk(text("", STOP)), chunk(text(""))],
        [chunk(text("a", STOP)), chunk(text("b", STOP))],
        [b'data: {"promptFeedback":{"blockReason":"SAFETY"}}'],
        [b'data: {"promptFeedback":{"blockReason":"SAFETY"}}', USAGE],
        [chunk(text("a", ',"index":0' + STOP), text("b", ',"index":1' + STOP))],
        [chunk('{"content":{"role":"model"},"index":null,"finishReason":"STOP"}')],
    ],
    ids=[
        "reason",
        "text beside the reason",
        "no content",
        "usage after the reason",
        "an empty part after the reason",
        "a reason on every chunk",
        "blocked prompt",
        "usage after a blocked prompt",
        "two candidates",
        "null index, no parts",
    ],
)
def test_complete(tail: list[bytes]) -> None:
    """A finish reason for every candidate, or a blocked prompt, is an end if the close is clean."""
    assert GEMINI.verdict(tail) is Verdict.FINISHED


@pytest.mark.parametrize(
    "tail",
    [
        [chunk(text())],
        [USAGE],
        [chunk(text("", STOP)), chunk(text("the answer"))],
        [chunk(text("a", ',"index":0' + STOP), text("b", ',"index":1'))],
        [chunk(text(), more=',"promptFeedback":{"safetyRatings":[]}')],
        [b'data: {"candidates":null,"promptFeedback":null,"error":null}'],
    ],
    ids=["text", "usage only", "text after a reason", "one of two", "harmless feedback", "nulls"],
)
def test_open(tail: list[bytes]) -> None:
    """Without a reason for every candidate the stream was cut: no marker would have come."""
    assert GEMINI.verdict(tail) is Verdict.OPEN


def test_error() -> None:
    """The provider's own error counts, with a finish reason before it or after."""
    error = b'data: {"error":{"code":500,"message":"Internal","status":"INTERNAL"}}'
    assert GEMINI.verdict([chunk(text("", STOP)), error]) is Verdict.ERROR
    assert GEMINI.verdict([error, chunk(text("", STOP))]) is Verdict.ERROR


def test_failure_block() -> None:
    """A failure is one data line whose first key is the error."""
    assert GEMINI.failure_block(Failure("idle_timeout", "silent", 504)) == (
        b'data: {"error":{"code":504,"message":"silent","status":"DEADLINE_EXCEEDED"}}'
    )


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "INVALID_ARGUMENT"),
        (404, "NOT_FOUND"),
        (413, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "CANCELLED"),
        (500, "INTERNAL"),
        (502, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_error_body(status: int, word: str) -> None:
    """An error answer has Google's shape, the status as number and as word."""
    error = {"code": status, "message": "no", "status": word}
    assert json.loads(GEMINI.error_body(status, "kind", "no") or b"") == {"error": error}


def test_wire_form() -> None:
    """Google's SDKs survive an empty line and nothing else, and the path alone asks for a stream."""
    assert (GEMINI.llm, GEMINI.ids_safe, GEMINI.heartbeat) == (True, False, b"\n")
    assert GEMINI.wants_stream(b"{}")
