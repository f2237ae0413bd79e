"""Ollama's lines of JSON."""

from __future__ import annotations

import json
from typing import Any

from proxy.dialects.part import Error, Usage
from tests.transcripts.transcript import Call, Script, Transcript

MODEL = "qwen3:8b"
CREATED = "2025-10-01T12:00:00.123456789Z"


def line(**fields: Any) -> dict[str, Any]:
    """A line of an answer."""
    return {"model": MODEL, "created_at": CREATED, **fields}


def said(*pieces: str, key: str = "content") -> list[dict[str, Any]]:
    """Lines of a chat."""
    empty = {"role": "assistant", "content": ""}
    return [line(message={**empty, key: piece}, done=False) for piece in pieces]


def called(*calls: dict[str, Any]) -> dict[str, Any]:
    """A line with tool calls, whole."""
    return line(message={"role": "assistant", "content": "", "tool_calls": calls}, done=False)


def call(name: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One of them."""
    return {**more, "function": {"name": name, "arguments": arguments}}


def end(reason: str = "stop", **more: Any) -> dict[str, Any]:
    """The last line: why, and what it took, in nanoseconds."""
    durations = {"total_duration": 5_191_566_416, "load_duration": 2_154_458, "eval_duration": 4_799_921_000}
    counts = {"prompt_eval_count": 26, "prompt_eval_duration": 383_809_000, "eval_count": 12}
    usual = {"message": {"role": "assistant", "content": ""}}
    return line(**(more or usual), done_reason=reason, done=True, **durations, **counts)


def body(*lines: dict[str, Any]) -> bytes:
    """A stream of lines, as Go writes JSON: without spaces, and with ``<`` and its like escaped."""
    texts = (json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in lines)
    return "".join(text.replace("<", "\\u003c").replace(">", "\\u003e") + "\n" for text in texts).encode()


def row(name: str, **says: Any) -> Transcript:
    """A row of this dialect; most have the same model, figures and end."""
    usual = {"model": MODEL, "finish": "stop", "native": "stop"}
    usage = Usage(input_tokens=26, output_tokens=12)
    return Transcript("ollama", name, "ndjson", "application/x-ndjson", **{**usual, "usage": usage, **says})


def broken_off(name: str, **says: Any) -> Transcript:
    """A row of a stream that stops short, or with an error."""
    ending = {"finish": None, "native": "", "usage": Usage(), "truncated": "error" not in says}
    return row(name, **{**ending, **says})


SCRIPTS = (
    Script(row("text", text="Hello there."), body(*said("Hello", " there", "."), end())),
    Script(
        row("generate", thinking="Blue?", text="Because it <scatters>."),
        body(
            *(line(response="", thinking=piece, done=False) for piece in ("Blu", "e?")),
            *(line(response=piece, done=False) for piece in ("Because it", " <scatters>.")),
            end(response="", context=[151644, 872, 198]),
        ),
    ),
    Script(
        row("thinking", thinking="Two and two.", text="Four."),
        body(*said("Two and", " two.", key="thinking"), *said("Four", "."), end()),
    ),
    Script(
        row("tool-call", calls=(Call("", "get_weather", {"city": "Zürich"}),), finish="tool_calls"),
        body(called(call("get_weather", {"city": "Zürich"})), end()),
    ),
    Script(
        row(
            "tool-calls-several",
            text="Both.",
            calls=(
                Call("call_ke7xd1yz", "get_weather", {"city": "Tokyo", "days": [1, 2]}),
                Call("call_p9b2u0aa", "get_time", {}),
                Call("", "get_weather", {"city": "Paris", "days": []}),
            ),
            finish="tool_calls",
        ),
        body(
            *said("Both."),
            called(
                call("get_weather", {"city": "Tokyo", "days": [1, 2]}, id="call_ke7xd1yz"),
                call("get_time", {}, id="call_p9b2u0aa"),
            ),
            called(call("get_weather", {"city": "Paris", "days": []})),
            end(),
        ),
    ),
    Script(
        row("length", text="Once upon", finish="length", native="length"),
        body(*said("Once", " upon"), end("length")),
    ),
    Script(
        row("unicode", text='Grüße, 世界 👩🏽\u200d🚀\u2028 \x85 "\\n" \n\nمرحبا'),
        body(*said("Grüße, ", "世界 ", "👩🏽\u200d", "🚀\u2028 \x85", ' "\\n" \n\nمرحبا'), end()),
    ),
    Script(
        broken_off(
            "error-in-the-middle",
            text="So far",
            error=Error("an error was encountered while running the model", "error"),
        ),
        body(*said("So", " far"), {"error": "an error was encountered while running the model"}),
    ),
    Script(
        broken_off("cut-in-text", text="Hello there"),
        body(*said("Hello", " there")) + b'{"model":"qwen3:8b","created_at":"20',
    ),
)
