"""Gemini without ``alt=sse``: the same chunks, in one JSON array, printed over several lines."""

from __future__ import annotations

import json
from dataclasses import replace

from proxy.dialects.part import Error, Usage
from tests.transcripts.scripts.gemini import END, SIGNATURE, Chunk, broken_off, called, chunk, row, said
from tests.transcripts.transcript import Call, Script, Transcript

OVERLOADED = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
UNAVAILABLE = Error("The model is overloaded.", "UNAVAILABLE", 503)


def printed(value: Chunk) -> str:
    """A chunk as Google's servers print it where nobody asks for events."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def array(*chunks: Chunk) -> bytes:
    """A stream of chunks."""
    return ("[" + "\n,\r\n".join(map(printed, chunks)) + "\n]\n").encode()


def as_json(transcript: Transcript) -> Transcript:
    """The row of such a body."""
    return replace(transcript, suffix="json", content_type="application/json")


SCRIPTS = (
    Script(as_json(row("array", text='Hello [{"there"}].')), array(*said("Hello", ' [{"there"}', "]."), END)),
    Script(
        as_json(
            row(
                "array-function-call",
                thinking="Look.",
                signature=SIGNATURE,
                calls=(Call("", "get_weather", {"city": "São Paulo", "{": "}"}),),
                finish="tool_calls",
            )
        ),
        array(
            chunk({"text": "Look.", "thought": True}),
            chunk({**called("get_weather", {"city": "São Paulo", "{": "}"}), "thoughtSignature": SIGNATURE}),
            END,
        ),
    ),
    Script(
        as_json(
            broken_off(
                "array-error", text="So", error=UNAVAILABLE, usage=Usage(input_tokens=8, output_tokens=1)
            )
        ),
        array(*said("So"), OVERLOADED),
    ),
    Script(
        as_json(
            broken_off(
                "error-in-place-of-an-array", error=UNAVAILABLE, usage=Usage(), message_id="", model=""
            )
        ),
        (printed(OVERLOADED) + "\n").encode(),
    ),
    Script(
        as_json(broken_off("array-cut", text="Hello there", usage=Usage(input_tokens=8, output_tokens=2))),
        array(*said("Hello", " there"), END)[:-60],
    ),
)
