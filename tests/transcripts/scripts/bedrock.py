"""Bedrock's binary messages, each an event of ConverseStream."""

from __future__ import annotations

import json
from typing import Any

from proxy.dialects.part import Error, Usage
from tests.stream import event_messages
from tests.transcripts.transcript import Call, Script, Transcript

Event = tuple[str, dict[str, Any]]


def block(index: int, *deltas: dict[str, Any], start: dict[str, Any] | None = None) -> list[Event]:
    """A content block; one of text has no start."""
    at = {"contentBlockIndex": index}
    begun: list[Event] = [("contentBlockStart", {**at, "start": start})] if start else []
    pieces: list[Event] = [("contentBlockDelta", {**at, "delta": delta}) for delta in deltas]
    return [*begun, *pieces, ("contentBlockStop", at)]


def said(*pieces: str, index: int = 0) -> list[Event]:
    """A block of text."""
    return block(index, *({"text": piece} for piece in pieces))


def called(index: int, call_id: str, name: str, *pieces: str, **more: str) -> list[Event]:
    """A tool call."""
    start = {"toolUse": {"toolUseId": call_id, "name": name, **more}}
    return block(index, *({"toolUse": {"input": piece}} for piece in pieces), start=start)


def end(reason: str = "end_turn", **more: Any) -> list[Event]:
    """The last two events."""
    usage = {"inputTokens": 21, "outputTokens": 9, "totalTokens": 30, **more.pop("usage", {})}
    return [
        ("messageStop", {"stopReason": reason}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 551}, **more}),
    ]


def payload(data: dict[str, Any], size: int = 0) -> bytes:
    """A payload as the service writes it, with a text of some length beside its fields."""
    padded = {**data, "p": "abcdefghijklmnopqrstuvwxyz"[: 4 + size % 22]}
    return json.dumps(padded, ensure_ascii=False, separators=(",", ":")).encode()


def body(*events: Event) -> bytes:
    """A stream of events, from the start of the message."""
    all_of_it: list[Event] = [("messageStart", {"role": "assistant"}), *events]
    return b"".join(
        event_messages.event(name, payload(data, size)) for size, (name, data) in enumerate(all_of_it)
    )


def row(name: str, **says: Any) -> Transcript:
    """A row of this dialect, whose streams name neither themselves nor a model; most end alike."""
    usual = {"finish": "stop", "native": "end_turn", "usage": Usage(input_tokens=21, output_tokens=9)}
    return Transcript("bedrock", name, "bin", "application/vnd.amazon.eventstream", **{**usual, **says})


def broken_off(name: str, **says: Any) -> Transcript:
    """A row of a stream that stops short, or with an error."""
    ending = {"finish": None, "native": "", "usage": Usage(), "truncated": "error" not in says}
    return row(name, **{**ending, **says})


THROTTLED = "Too many tokens, please wait before trying again."
BLOCKED = "Sorry, I can not talk about that."

SCRIPTS = (
    Script(row("text", text="Hello there."), body(*said("Hello", " there", "."), *end())),
    Script(
        row("reasoning", thinking="Two and two.", signature="EqoBCkgIBRABGAIiQA==", text="Four."),
        body(
            *block(
                0,
                {"reasoningContent": {"text": "Two and"}},
                {"reasoningContent": {"text": " two."}},
                {"reasoningContent": {"signature": "EqoBCkgIBRABGAIiQA=="}},
            ),
            *said("Four", ".", index=1),
            *end(),
        ),
    ),
    Script(
        row("reasoning-redacted", redacted="RXJvQkNr", text="No."),
        body(*block(0, {"reasoningContent": {"redactedContent": "RXJvQkNr"}}), *said("No.", index=1), *end()),
    ),
    Script(
        row(
            "tool-uses",
            text="Both.",
            calls=(
                Call("tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", "get_weather", {"city": "São Paulo", "days": [1, 2]}),
                Call("tooluse_T1m3zoneB6eAyJE5GIl7Q1", "get_time", {}),
            ),
            finish="tool_calls",
            native="tool_use",
        ),
        body(
            *said("Both."),
            *called(
                1,
                "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q",
                "get_weather",
                "",
                '{"city": "São',
                ' Paulo", "da',
                'ys": [1, 2]}',
            ),
            *called(2, "tooluse_T1m3zoneB6eAyJE5GIl7Q1", "get_time"),
            *end("tool_use"),
        ),
    ),
    Script(
        row(
            "tool-use-cut-by-length",
            calls=(Call("tooluse_1", "get_weather", source='{"city": "São'),),
            finish="length",
            native="max_tokens",
        ),
        body(*called(0, "tooluse_1", "get_weather", '{"city": "São'), *end("max_tokens")),
    ),
    Script(
        row(
            "service-tool",
            calls=(Call("srv_1", "nova_grounding", {}, executed=True),),
            results=("nova_grounding",),
            text="It rains.",
            citations=("https://example.com/rain", "0"),
        ),
        body(
            *called(0, "srv_1", "nova_grounding", "{}", type="server_tool_use"),
            *block(
                1,
                {"toolResult": [{"text": "rain"}]},
                start={
                    "toolResult": {"toolUseId": "srv_1", "type": "nova_grounding_result", "status": "success"}
                },
            ),
            *block(
                2,
                {"text": "It rains."},
                {
                    "citation": {
                        "location": {"web": {"url": "https://example.com/rain", "domain": "example.com"}}
                    }
                },
                {
                    "citation": {
                        "title": "Report",
                        "sourceContent": [{"text": "rain"}],
                        "location": {"documentChar": {"documentIndex": 0, "start": 3, "end": 7}},
                    }
                },
            ),
            *end(),
        ),
    ),
    Script(
        row("guardrail", text=BLOCKED, finish="content_filter", native="guardrail_intervened"),
        body(
            *said(BLOCKED),
            *end("guardrail_intervened", trace={"guardrail": {"actionReason": "Guardrail blocked."}}),
        ),
    ),
    Script(
        row(
            "cached",
            text="Hi.",
            usage=Usage(
                input_tokens=1045, output_tokens=9, cached_input_tokens=1000, cache_write_input_tokens=24
            ),
        ),
        body(
            *said("Hi."),
            *end(usage={"cacheReadInputTokens": 1000, "cacheWriteInputTokens": 24, "totalTokens": 1054}),
        ),
    ),
    Script(
        row("unicode", text="Grüße, 世界 👩🏽\u200d🚀\u2028 \x85. \n\nمرحبا"),
        body(*said("Grüße, ", "世界 ", "👩🏽\u200d", "🚀\u2028 \x85", ". \n\nمرحبا"), *end()),
    ),
    Script(  # a stop reason and a clean close are enough
        row("no-metadata", text="Hello.", usage=Usage()),
        body(*said("Hello."), end()[0]),
    ),
    Script(
        broken_off("exception", text="So far", error=Error(THROTTLED, "throttlingException", 429)),
        body(*said("So", " far"))
        + event_messages.exception("throttlingException", payload({"message": THROTTLED})),
    ),
    Script(
        broken_off("error-message", error=Error("It broke.", "InternalFailure", 500)),
        event_messages.message(
            {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "It broke."}, b""
        ),
    ),
    Script(
        broken_off("cut-in-text", text="Hello there"),
        body(*said("Hello", " there"))[:-40],
    ),
)
