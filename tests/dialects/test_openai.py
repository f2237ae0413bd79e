"""OpenAI chat completions, as OpenAI and its many imitators send them."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import DIALECTS, Failure, Verdict

OPENAI = DIALECTS["openai"]


def chunk(*choices: str, **more: object) -> bytes:
    """A chunk with these choices, numbered as in a log."""
    extra = "".join(f',"{key}":{json.dumps(value)}' for key, value in more.items())
    return (
        f'id: s.1\ndata: {{"object":"chat.completion.chunk","choices":[{",".join(choices)}]{extra}}}'.encode()
    )


def text(index: int = 0, content: str = "Hi") -> str:
    """A choice that goes on."""
    return f'{{"index":{index},"delta":{{"content":"{content}"}},"finish_reason":null}}'


def stop(index: int = 0) -> str:
    """A choice that ends."""
    return f'{{"index":{index},"delta":{{}},"finish_reason":"stop"}}'


DONE = b"id: s.9\ndata: [DONE]"
USAGE = chunk(usage={"total_tokens": 9})


@pytest.mark.parametrize(
    "block",
    [
        chunk(text()),
        b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}],"object":"","model":""}',
        b'data: {"object":"chat.completion.chunk","id":"1"}',
        b'data: {"choices":null}',
        b'data: {"error":{"message":"no credit","code":402}}',
        b'data: {"object":"error","message":"too long","code":400}',
        b'event: error\ndata: {"message":"no","code":"provider_error"}',
        b"data: [DONE]",
        b"data:[DONE] ",
    ],
)
def test_confirms(block: bytes) -> None:
    """A stream may begin with a chunk, Azure's filter results, an error in any form, or end at once."""
    assert OPENAI.confirms(block)


@pytest.mark.parametrize(
    "block",
    [
        b"data: hello",
        b'data: {"text":"hi"}',
        b'data: {"type":"text-delta","id":"0","delta":"Hi"}',
        b'data: {"error":null}',
        b'data: {"id":"\\",\\"choices\\":[","text":"hi"}',
        b'data: {"id":"1","message":{"object":"chat.completion.chunk","choices":[]}}',
        b"data: [DONE]\ndata: more",
    ],
)
def test_does_not_confirm(block: bytes) -> None:
    """An app's own stream under the same path is not OpenAI's."""
    assert not OPENAI.confirms(block)


@pytest.mark.parametrize(
    "tail",
    [
        [chunk(text()), DONE],
        [chunk(text()), chunk(stop()), DONE],
        [chunk(text()), chunk(stop())],
        [chunk(text()), chunk(stop()), USAGE],
        [chunk('{"index":0,"delta":{"content":"last"},"finish_reason":"length"}')],
        [chunk(text(0)), chunk(text(1)), chunk(stop(1)), chunk(text(0)), chunk(stop(0))],
        [chunk(stop(0), stop(1))],
        [chunk(stop()), chunk('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}')],
        [chunk(stop()), chunk('{"index":0,"finish_reason":null,"content_filter_offsets":{"end_offset":9}}')],
        [chunk('{"delta":{"content":"\\ud83d"},"finish_reason":"length"}')],
        [chunk('{"index":null,"delta":null,"finish_reason":"stop"}')],
    ],
    ids=[
        "the marker alone",
        "reason and marker",
        "a reason, no marker",
        "usage after the reason",
        "text beside the reason",
        "two choices, interleaved",
        "two choices in one chunk",
        "OpenRouter's usage chunk",
        "Azure's filter results",
        "half an emoji, no index",
        "null index",
    ],
)
def test_complete(tail: list[bytes]) -> None:
    """[DONE] is the end; a finish reason for every choice is one if the close is clean."""
    assert OPENAI.verdict(tail) is (Verdict.COMPLETE if tail[-1] == DONE else Verdict.FINISHED)


@pytest.mark.parametrize(
    "tail",
    [
        [chunk(text())],
        [USAGE],
        [chunk('{"index":0,"delta":{"content":"Hi"},"finish_reason":""}')],
        [chunk(text(0)), chunk(text(1)), chunk(stop(0))],
        [chunk(stop()), chunk(text(content="more"))],
        [chunk(stop()), chunk('{"index":0,"delta":{"tool_calls":[{"index":0}]},"finish_reason":null}')],
        [chunk(text()), b"data: [DONE]synthetic"],
        [chunk(text(content="data: [DONE]"))],
    ],
    ids=[
        "text",
        "usage only",
        "Ollama's empty reason",
        "one of two choices",
        "text after a reason",
        "a tool call after a reason",
        "not the marker",
        "the marker in a text",
    ],
)
def test_open(tail: list[bytes]) -> None:
    """Without a marker and with a choice unfinished, the stream was cut."""
    assert OPENAI.verdict(tail) is Verdict.OPEN


@pytest.mark.parametrize(
    "tail",
    [
        [chunk(text()), b'data: {"error":{"message":"overloaded"}}'],
        [b'data: {"error":"overloaded"}', DONE],
        [b'data: {"\\u0065rror":"overloaded"}', DONE],
        [chunk('{"index":0,"delta":{"content":""},"finish_reason":"error"}', error={"code": 502}), DONE],
        [chunk(text()), b'data: {"object":"error","message":"CUDA"}', DONE],
        [chunk(text()), b'event: error\ndata: {"message":"rejected","type":"server_error"}'],
        [chunk(text()), b"event: error\ndata: rejected"],
    ],
    ids=["OpenAI", "vLLM", "escaped", "OpenRouter", "older vLLM", "named, flat", "named, text"],
)
def test_error(tail: list[bytes]) -> None:
    """The provider's own error counts, even with a finish reason in it or [DONE] behind it."""
    assert OPENAI.verdict(tail) is Verdict.ERROR


def test_failure_block() -> None:
    """A failure is one data line with an error object."""
    assert OPENAI.failure_block(Failure("idle_timeout", "silent", 504)) == (
        b'data: {"error":{"message":"silent","type":"server_error","param":null,"code":"idle_timeout"}}'
    )


@pytest.mark.parametrize(
    ("status", "kind", "type_"),
    [
        (413, "body-too-large", "invalid_request_error"),
        (429, "too-many-readers", "rate_limit_error"),
        (499, "cancelled", "server_error"),
        (503, "capacity", "server_error"),
    ],
)
def test_error_body(status: int, kind: str, type_: str) -> None:
    """An error answer has OpenAI's shape, its type said by the status."""
    error = {"message": "no", "type": type_, "param": None, "code": kind}
    assert json.loads(OPENAI.error_body(status, kind, "no") or b"") == {"error": error}


def test_wants_stream() -> None:
    """The body says whether a stream is wanted."""
    assert OPENAI.wants_stream(b'{"model":"m","stream":true}')
    assert not OPENAI.wants_stream(b'{"model":"m"}')


def test_wire_form() -> None:
    """Ids and comments are safe for OpenAI's SDKs, the comment with a single line end."""
    assert (OPENAI.llm, OPENAI.ids_safe, OPENAI.heartbeat) == (True, True, b": ping\n")
