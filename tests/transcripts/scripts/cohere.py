"""Cohere's chat."""

from __future__ import annotations

from typing import Any

from proxy.dialects.part import Error, Usage
from tests.transcripts.scripts.event import named
from tests.transcripts.transcript import Call, Script, Transcript

ID = "chat-29f14a5a-11de-4cae-9800-25e4747408ea"

Event = dict[str, Any]


def start() -> Event:
    """The first event, with empty lists in the places of all that may come."""
    message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return {"id": ID, "type": "message-start", "delta": {"message": message}}


def event(kind: str, index: int, **message: Any) -> Event:
    """An event that adds to the message."""
    delta = {"delta": {"message": message}} if message else {}
    return {"type": kind, "index": index, **delta}


def content(index: int, kind: str, *pieces: str) -> list[Event]:
    """A block of ``text`` or of ``thinking``."""
    return [
        event("content-start", index, content={"type": kind, kind: ""}),
        *(event("content-delta", index, content={kind: piece}) for piece in pieces),
        event("content-end", index),
    ]


def tool(index: int, call_id: str, name: str, *pieces: str) -> list[Event]:
    """A tool call, its arguments in fragments."""
    begun = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    fragments = ({"function": {"arguments": piece}} for piece in pieces)
    return [
        event("tool-call-start", index, tool_calls=begun),
        *(event("tool-call-delta", index, tool_calls=fragment) for fragment in fragments),
        event("tool-call-end", index),
    ]


def end(reason: str = "COMPLETE", **more: Any) -> Event:
    """The last event. Figures are floats, and those that are billed are told apart."""
    usage = {
        "billed_units": {"input_tokens": 17, "output_tokens": 12},
        "tokens": {"input_tokens": 215.0, "output_tokens": 15.0},
        "cached_tokens": 64.0,
    }
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage, **more}}


def body(*events: Event) -> bytes:
    """A stream of events."""
    return b"".join(map(named, events))


def row(name: str, **says: Any) -> Transcript:
    """A row of this dialect; most have the same id, figures and end. None has a model."""
    usage = Usage(input_tokens=215, output_tokens=15, cached_input_tokens=64)
    usual = {"message_id": ID, "finish": "stop", "native": "COMPLETE", "usage": usage}
    return Transcript("cohere", name, **{**usual, **says})


DOCUMENT = {
    "type": "document",
    "id": "doc:0",
    "document": {
        "id": "doc:0",
        "title": "Tall penguins",
        "url": "https://example.com/penguins",
        "snippet": "Emperor penguins are the tallest.",
    },
}
CITATION = {
    "start": 12,
    "end": 29,
    "text": "Emperor penguins.",
    "type": "TEXT_CONTENT",
    "content_index": 0,
    "sources": [
        DOCUMENT,
        {"type": "tool", "id": "search_x1:2", "tool_output": {"height": "1.2 m"}},
    ],
}

SCRIPTS = (
    Script(
        row("text", text="Grüße, 世界 👩🏽\u200d🚀!"),
        body(start(), *content(0, "text", "Grüße, ", "世界 ", "👩🏽\u200d", "🚀!"), end()),
    ),
    Script(
        row("thinking", thinking="27 is 3 cubed.", text="It is 3."),
        body(
            start(),
            *content(0, "thinking", "27 is", " 3 cubed."),
            *content(1, "text", "It is", " 3."),
            end(),
        ),
    ),
    Script(
        row(
            "tool-calls",
            thinking="I will look up both.",
            calls=(
                Call("get_weather_a1", "get_weather", {"city": "Kyōto 京都"}),
                Call("get_time_b2", "get_time", {}),
            ),
            finish="tool_calls",
            native="TOOL_CALL",
        ),
        body(
            start(),
            event("tool-plan-delta", 0, tool_plan="I will look"),
            event("tool-plan-delta", 0, tool_plan=" up both."),
            *tool(0, "get_weather_a1", "get_weather", '{"city": "Kyō', "to 京", '都"}'),
            *tool(1, "get_time_b2", "get_time"),
            end("TOOL_CALL"),
        ),
    ),
    Script(
        row(
            "citations",
            text="The tallest: Emperor penguins.",
            citations=("https://example.com/penguins", "search_x1:2"),
        ),
        body(
            start(),
            *content(0, "text", "The tallest: ", "Emperor penguins.")[:-1],
            event("citation-start", 0, citations=CITATION),
            event("citation-end", 0),
            event("content-end", 0),
            end(),
        ),
    ),
    Script(
        row("max-tokens", text="1, 2, ", finish="length", native="MAX_TOKENS"),
        body(start(), *content(0, "text", "1, ", "2, "), end("MAX_TOKENS")),
    ),
    Script(
        row(
            "error-in-the-middle",
            text="Hel",
            finish=None,
            native="",
            error=Error("internal server error, this has been reported to our developers", "ERROR", 500),
        ),
        body(
            start(),
            *content(0, "text", "Hel")[:-1],
            end("ERROR", error="internal server error, this has been reported to our developers"),
        ),
    ),
    Script(
        row("cut-in-text", text="Hello", finish=None, native="", usage=Usage(), truncated=True),
        body(start(), *content(0, "text", "Hel", "lo")[:-1]) + b'event: content-delta\ndata: {"type":"cont',
    ),
)
