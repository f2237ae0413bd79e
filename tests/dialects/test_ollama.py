"""Ollama's own API."""

from __future__ import annotations

import json
from typing import Any

import httpx
import ollama
import pytest

from proxy.dialects import DIALECTS, Failure, Verdict
from proxy.dialects.base import Decoder
from proxy.dialects.part import (
    End,
    Error,
    File,
    Finish,
    Part,
    Raw,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    ToolFault,
    ToolStart,
    Usage,
)
from proxy.stream.lines import Lines

OLLAMA = DIALECTS["ollama"]
CREATED = "2025-10-01T12:00:00.123456789Z"


def block(**fields: Any) -> bytes:
    """A line, as a block."""
    return b"data: " + json.dumps({"model": "llama3.2", "created_at": CREATED, **fields}).encode()


def said(content: str = "", **more: Any) -> bytes:
    """A line of a chat."""
    return block(message={"role": "assistant", "content": content, **more}, done=False)


def last(reason: str | None = "stop", **more: Any) -> bytes:
    """The last line of a chat."""
    return block(message={"role": "assistant", "content": ""}, done=True, done_reason=reason, **more)


def started() -> Decoder:
    """A decoder that has seen the first line."""
    decoder = OLLAMA.decoder("salt")
    assert decoder is not None
    decoder.decode(said())
    return decoder


def told(*blocks: bytes) -> list[Part]:
    """What lines say after a first one."""
    decoder = started()
    return [part for each in blocks for part in decoder.decode(each)] + decoder.finish()


@pytest.mark.parametrize(
    "first",
    [
        said("Hi"),
        last(),
        block(response="Hi", done=False),
        b'data: {"error":"no"}',
        b'data: {"status":"pulling"}',
    ],
)
def test_confirms(first: bytes) -> None:
    """A stream begins with a line of an answer, an error, or a progress."""
    assert OLLAMA.confirms(first)


@pytest.mark.parametrize("first", [b'data: {"text":"Hi"}', b"data: [1]", b'data: {"model":"x"}'])
def test_does_not_confirm(first: bytes) -> None:
    """Anything else is an app's."""
    assert not OLLAMA.confirms(first)


@pytest.mark.parametrize(
    ("tail", "verdict"),
    [
        ([], Verdict.OPEN),
        ([said("Hi")], Verdict.OPEN),
        ([said("Hi"), last()], Verdict.COMPLETE),
        ([block(response="", done=True)], Verdict.COMPLETE),
        ([b'data: {"status":"verifying sha256 digest"}'], Verdict.OPEN),
        ([b'data: {"status":"verifying sha256 digest"}', b'data: {"status":"success"}'], Verdict.COMPLETE),
        ([said("Hi"), b'data: {"error":"an error was encountered"}'], Verdict.ERROR),
        ([b'data: {"error":"an error was encountered"}', last()], Verdict.ERROR),
    ],
)
def test_verdict(tail: list[bytes], verdict: Verdict) -> None:
    """``done`` is the end, and so is a progress' ``success``; an error outweighs both."""
    assert OLLAMA.verdict(tail) is verdict


@pytest.mark.parametrize(
    ("path", "streams"),
    [("api/chat", True), ("ollama/api/generate", True), ("api/pull", True), ("api/tags", False)],
)
def test_paths_that_stream(path: str, streams: bool) -> None:
    """Not every path of the API streams by default."""
    assert OLLAMA.streams_at(path.split("/")) is streams


@pytest.mark.parametrize(
    ("body", "wants"),
    [
        (b'{"model":"llama3.2","messages":[]}', True),
        (b'{"model":"llama3.2","stream":true}', True),
        (b'{"model":"llama3.2","stream":false}', False),
        (b'{"name":"llama3.2"}', True),
        (b"", False),
        (b"[]", False),
    ],
)
def test_wants_stream(body: bytes, wants: bool) -> None:
    """A request streams unless it says otherwise."""
    assert OLLAMA.wants_stream(body) is wants


def test_lines_of_json_are_its_streams() -> None:
    """The API's own content type, beside event streams, in which another sidecar may stand before it."""
    assert OLLAMA.framings["application/x-ndjson"] is Lines
    assert "text/event-stream" in OLLAMA.framings


def test_its_client_raises_on_the_failure_block() -> None:
    """The data of the block, as a line, is what the SDK raises on; a body before the stream too."""
    failure = OLLAMA.failure_block(Failure("truncated", "the upstream closed"))
    assert failure is not None
    answers = [
        httpx.Response(200, content=failure.removeprefix(b"data: ") + b"\n"),
        httpx.Response(503, content=OLLAMA.error_body(503, "capacity", "the upstream closed")),
    ]
    transport = httpx.MockTransport(lambda _request: answers.pop(0))
    with ollama.Client(transport=transport) as client:
        for status in (-1, 503):
            with pytest.raises(ollama.ResponseError, match="the upstream closed") as error:
                list(client.chat(model="llama3.2", messages=[], stream=True))
            assert error.value.status_code == status


def test_the_first_line_starts() -> None:
    """The model and the time, which has nanoseconds; no second line says it again."""
    decoder = OLLAMA.decoder("salt")
    assert decoder is not None
    assert decoder.decode(said("Hi")) == [Start(model="llama3.2", created=1_759_320_000), Text("Hi")]
    assert decoder.decode(said("!")) == [Text("!")]


@pytest.mark.parametrize("created", ["", "yesterday", "99999-01-01T00:00:00Z"])
def test_a_time_that_is_none(created: str) -> None:
    """What is no time is left out."""
    decoder = OLLAMA.decoder("salt")
    assert decoder is not None
    assert decoder.decode(block(created_at=created, response="Hi", done=False))[0] == Start(model="llama3.2")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (said(), []),
        (said("Hi", thinking="Hm"), [Thinking("Hm"), Text("Hi")]),
        (block(response="Hi", thinking="Hm", done=False), [Thinking("Hm"), Text("Hi")]),
        (block(image="iVBORw0KGgo=", done=False), [File("image/png", data="iVBORw0KGgo=")]),
        (last(), [Finish("stop", "stop"), End()]),
        (last("length"), [Finish("length", "length"), End()]),
        (last("load"), [Finish("other", "load"), End()]),
        (last(None), [Finish("stop", ""), End()]),
        (
            last(prompt_eval_count=26, eval_count=298),
            [Usage(input_tokens=26, output_tokens=298), Finish("stop", "stop"), End()],
        ),
        (b'data: {"error":"overloaded"}', [Error("overloaded", "error", 500)]),
        (b'data: {"error":"slow down","status":429}', [Error("slow down", "error", 429)]),
        (b'data: {"status":"success"}', [Raw("message", '{"status":"success"}'), End()]),
        (b"data: nonsense", []),
        (b": comment", []),
    ],
)
def test_a_line(line: bytes, parts: list[Part]) -> None:
    """What each kind of line says."""
    assert told(line) == parts


def test_what_no_part_can_hold_is_raw() -> None:
    """Durations and probabilities stay to be had."""
    line = last(total_duration=5_589_157_167)
    assert told(line) == [
        Raw("message", line.removeprefix(b"data: ").decode()),
        Finish("stop", "stop"),
        End(),
    ]


def called(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    """One call."""
    return {**more, "function": {"name": name, "arguments": arguments}}


def test_tool_calls() -> None:
    """They come whole. Those without an id get one; the finish reason is that of calls."""
    calls = [called("now", {}), called("weather", {"city": "Zürich"}, id="call_7")]
    assert told(said(tool_calls=calls), last()) == [
        ToolStart(0, "call_salt_1", "now"),
        ToolDelta(0, "call_salt_1", "{}"),
        ToolCall(0, "call_salt_1", "now", {}, "{}"),
        ToolStart(1, "call_7", "weather"),
        ToolDelta(1, "call_7", '{"city":"Zürich"}'),
        ToolCall(1, "call_7", "weather", {"city": "Zürich"}, '{"city":"Zürich"}'),
        Finish("tool_calls", "stop"),
        End(),
    ]


def test_arguments_as_a_text() -> None:
    """Servers that imitate the API send the JSON text; it may be none."""
    parts = told(said(tool_calls=[called("a", '{"b":1}'), called("a", "{"), called("a", None)]))
    ends = [part for part in parts if isinstance(part, ToolCall | ToolFault)]
    assert [type(end) for end in ends] == [ToolCall, ToolFault, ToolCall]
    assert [end.arguments for end in ends if isinstance(end, ToolCall)] == [{"b": 1}, {}]
