"""The unified protocol: its events, and that each of them is what the schema and the types say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import proxy.emit
from proxy.dialects import DIALECTS
from proxy.dialects.part import (
    Citation,
    Error,
    File,
    Finish,
    Part,
    Raw,
    Refusal,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    ToolFault,
    ToolResult,
    ToolStart,
    Usage,
)
from proxy.dialects.summary import Summary
from proxy.emit import emit_for
from proxy.emit.unified import MAX_EARLY, Unified
from proxy.stream.sse import decode
from tests.transcripts import TRANSCRIPTS, Transcript, translated

SCHEMA = json.loads((Path(proxy.emit.__file__).parent / "unified.schema.json").read_text("utf-8"))
VALID = Draft202012Validator(SCHEMA)

Event = dict[str, Any]


def told(*parts: Part, raw: bool = False, end: Error | None = None, started: bool = True) -> list[Event]:
    """What a writer makes of parts, and of the end; all at 2 s of a request that came at 1 s."""
    writer, summary = Unified().writer("salt", raw=raw), Summary(1.0)
    for part in (Start("id", "model"), *parts) if started else parts:
        summary.note(part, 2.0)
        writer.handlers[type(part)](part)
    if end is None:
        writer.close(summary, 2.0)
    else:
        writer.fail(end, summary, 2.0)
    events = events_of(b"".join(block + b"\n\n" for block in writer.take()))
    return events[1:] if started else events


def events_of(body: bytes) -> list[Event]:
    """The events of a stream, each of them valid, and named as its data says."""
    events = []
    for block in body.split(b"\n\n")[:-1]:
        event = decode(block)
        value = json.loads(event.data or "")
        VALID.validate(value)
        assert event.event == value["type"]
        events.append(value)
    return events


def test_a_stream_of_text() -> None:
    """A start, text, and an end with its reason, tokens and times."""
    parts = (Text("Hel"), Text("lo"), Usage(9, 2, 3), Finish("stop", "end_turn"))
    assert told(Start("id", "model", 5), *parts, started=False) == [
        {"type": "start", "version": 1, "id": "id", "model": "model", "created": 5},
        {"type": "text_delta", "content": "Hel"},
        {"type": "text_delta", "content": "lo"},
        {
            "type": "done",
            "finish_reason": "stop",
            "native_finish_reason": "end_turn",
            "usage": {"input_tokens": 9, "output_tokens": 2, "cached_input_tokens": 3},
            "metrics": {"total_ms": 1000.0, "ttft_ms": 1000.0},
        },
    ]


@pytest.mark.parametrize(
    ("part", "event"),
    [
        (Text("a", 2, 1), {"type": "text_delta", "content": "a", "block": 2, "choice": 1}),
        (Refusal("no"), {"type": "text_delta", "content": "no", "refusal": True}),
        (Thinking("hm", 1), {"type": "thinking", "content": "hm", "block": 1}),
        (Thinking(signature="sig"), {"type": "thinking", "content": "", "signature": "sig"}),
        (Thinking(redacted="x"), {"type": "thinking", "content": "", "redacted": "x"}),
        (ToolStart(0, "1", "f"), {"type": "tool_start", "index": 0, "id": "1", "name": "f"}),
        (ToolDelta(0, "1", '{"'), {"type": "tool_delta", "index": 0, "id": "1", "arguments": '{"'}),
        (ToolDelta(0, "1", "{", 2),
         {"type": "tool_delta", "index": 0, "id": "1", "arguments": "{", "choice": 2}),
        (ToolCall(0, "1", "f", {}, ""),
         {"type": "tool_call", "index": 0, "id": "1", "name": "f", "arguments": {}}),
        (ToolCall(1, "2", "search", {"q": 1}, "", executed=True),
         {"type": "tool_call", "index": 1, "id": "2", "name": "search", "arguments": {"q": 1},
          "executed": True}),
        (ToolFault(0, "1", "f", '{"a', "cut"),
         {"type": "error", "message": "cut", "code": "invalid_tool_arguments", "recoverable": True,
          "tool": {"index": 0, "id": "1", "name": "f", "arguments": '{"a'}}),
        (ToolResult("2", "search", None),
         {"type": "tool_result", "id": "2", "name": "search", "output": None}),
        (ToolResult("2", "search", [1], failed=True),
         {"type": "tool_result", "id": "2", "name": "search", "output": [1], "failed": True}),
        (Citation("https://a.example", "A", "words", "d", 0, 4, source={"k": 1}),
         {"type": "citation", "url": "https://a.example", "title": "A", "text": "words", "document": "d",
          "start": 0, "end": 4, "source": {"k": 1}}),
        (File("image/png", "AAAA"), {"type": "file", "media_type": "image/png", "data": "AAAA"}),
        (File("image/*", url="https://a.example/i"),
         {"type": "file", "media_type": "image/*", "url": "https://a.example/i"}),
    ],
)  # fmt: skip
def test_events(part: Part, event: Event) -> None:
    """Each part has one event; fields that say nothing are left out."""
    assert told(part)[0] == event


def test_empty_text_says_nothing() -> None:
    """The first chunk of most providers holds none."""
    assert [event["type"] for event in told(Text(""), Text("", 1))] == ["done"]


def test_raw_events_on_demand() -> None:
    """They come where they are wanted, their data parsed where it is JSON."""
    parts = (Raw("filter", '{"verdict": "safe"}'), Raw("odd", "no JSON"), Raw("deep", "[" * 100_000))
    assert [event["type"] for event in told(*parts)] == ["done"]
    first, second, third, _ = told(*parts, raw=True)
    assert first == {"type": "raw", "event": "filter", "data": {"verdict": "safe"}}
    assert second == {"type": "raw", "event": "odd", "data": "no JSON"}
    assert third["data"] == "[" * 100_000


def test_raw_events_wait_for_the_beginning() -> None:
    """Azure's filter speaks before the model is known; where no beginning comes, the end brings one."""
    early = [Raw("filter", str(n)) for n in range(3)]
    behind = told(*early, Start("id", "model"), raw=True, started=False)
    alone = told(*early, raw=True, started=False)
    assert [event["type"] for event in behind] == ["start", "raw", "raw", "raw", "done"]
    assert behind[0]["model"] == "model"
    assert [event.get("data") for event in alone] == [None, 0, 1, 2, None]


def test_not_too_many_wait() -> None:
    """A stream of raw events alone is told as it comes."""
    events = told(*[Raw("odd", str(n)) for n in range(MAX_EARLY + 2)], raw=True, started=False)
    assert [event.get("data") for event in events[1:-1]] == list(range(MAX_EARLY + 2))


@pytest.mark.parametrize("part", [Text("a"), ToolDelta(0, "1", "{"), Refusal("no"), Finish("stop", "stop")])
def test_a_stream_without_a_beginning_gets_one(part: Part) -> None:
    """A client may rely on ``start``."""
    assert told(part, started=False)[0] == {"type": "start", "version": 1}


def test_a_beginning_is_told_once() -> None:
    """Whatever the provider does."""
    assert [event["type"] for event in told(Start("again"))] == ["done"]


@pytest.mark.parametrize(("status", "recoverable"), [(429, True), (503, True), (400, False), (499, False)])
def test_an_error_is_the_end(status: int, recoverable: bool) -> None:
    """It says whether asking again may help, and what the stream has cost by then."""
    (text, error) = told(Text("a"), Usage(9), end=Error("it broke", "broken", status))
    assert text["type"] == "text_delta"
    assert error == {
        "type": "error",
        "message": "it broke",
        "code": "broken",
        "recoverable": recoverable,
        "usage": {"input_tokens": 9},
    }


def test_several_choices() -> None:
    """The end tells each one's reason."""
    (done,) = told(Finish("stop", "stop", 1), Finish("length", "max", 0))
    assert done["finish_reason"] == "length"
    assert done["choices"] == [
        {"choice": 0, "finish_reason": "length", "native_finish_reason": "max"},
        {"choice": 1, "finish_reason": "stop", "native_finish_reason": "stop"},
    ]


def test_tokens_per_second() -> None:
    """From the first token to the last: one less than there are, in that time."""
    writer, summary = Unified().writer("salt", raw=False), Summary(0.0)
    for part, at in ((Text("a"), 1.0), (Text("b"), 3.0), (Usage(output_tokens=11), 4.0)):
        summary.note(part, at)
    writer.close(summary, 5.0)
    done = events_of(writer.take()[-1] + b"\n\n")[0]
    assert done["metrics"] == {"total_ms": 5000.0, "ttft_ms": 1000.0, "tokens_per_second": 5.0}


#: Those whose meaning is known.
KNOWN = [each for each in TRANSCRIPTS.values() if emit_for("unified", DIALECTS[each.dialect])]


@pytest.mark.parametrize("transcript", KNOWN, ids=[each.id for each in KNOWN])
def test_recorded_streams(transcript: Transcript) -> None:
    """Whatever the provider: valid events, the same answer, and an end that says how it was."""
    events = events_of(translated(transcript, "unified", raw=True))
    assert events[0]["type"] == "start"
    assert events[0].get("model", "") == transcript.model
    first = [event for event in events if not event.get("choice")]
    texts = [event for event in first if event["type"] == "text_delta"]
    assert "".join(event["content"] for event in texts if not event.get("refusal")) == transcript.text
    assert "".join(event["content"] for event in texts if event.get("refusal")) == transcript.refusal
    thoughts = [event["content"] for event in first if event["type"] == "thinking"]
    assert "".join(thoughts) == transcript.thinking
    called = [event for event in events if event["type"] == "tool_call"]
    whole = [call for call in transcript.calls if call.source is None]
    assert [(call["name"], call["arguments"]) for call in called] == [
        (call.name, call.arguments) for call in whole
    ]
    assert all(call.id in ("", came["id"]) for call, came in zip(whole, called, strict=True))
    assert [event["type"] for event in events].count("citation") == len(transcript.citations)
    last = events[-1]
    if transcript.whole:
        assert last["type"] == "done"
        assert last["finish_reason"] == (transcript.finish or "stop")
    else:
        assert last["type"] == "error"
        assert "tool" not in last
        if transcript.error is not None:
            assert (last["message"], last["code"]) == (transcript.error.message, transcript.error.code)
