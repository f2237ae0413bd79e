"""Gemini's chunks: events without names, and no marker at the end."""

from __future__ import annotations

from typing import Any

from proxy.dialects.part import Error, Usage
from tests.transcripts.scripts.event import data
from tests.transcripts.transcript import Call, Script, Transcript

ID = "mDQZaZqYO_GWvdIPu7mNwAE"
MODEL = "gemini-2.5-flash"

Chunk = dict[str, Any]
Part = dict[str, Any]


def usage(made: int | None = None, **more: int) -> dict[str, Any]:
    """The figures so far."""
    told = {"promptTokenCount": 8, **({} if made is None else {"candidatesTokenCount": made}), **more}
    counts = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
    return {**told, "totalTokenCount": sum(told.get(name, 0) for name in counts)}


def chunk(*parts: Part, finish: str = "", index: int = 0, made: int | None = None, **more: Any) -> Chunk:
    """A chunk with one candidate."""
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}} if parts else {}
    if finish:
        candidate["finishReason"] = finish
    candidate = {**candidate, "index": index, **more}
    return {"candidates": [candidate], "usageMetadata": usage(made), "modelVersion": MODEL, "responseId": ID}


def said(*pieces: str, index: int = 0) -> list[Chunk]:
    """Chunks of text, with figures that grow."""
    return [chunk({"text": piece}, index=index, made=count) for count, piece in enumerate(pieces, start=1)]


def called(name: str, arguments: dict[str, Any] | None = None, call_id: str = "") -> Part:
    """A function call, whole."""
    own = {"id": call_id} if call_id else {}
    return {"functionCall": {**own, "name": name, **({} if arguments is None else {"args": arguments})}}


def body(*chunks: Chunk) -> bytes:
    """A stream of chunks; lines end in CRLF, as Google's servers write them.

    What Python's ``splitlines`` takes for the end of a line is escaped: Google's own SDK reads with that.
    """
    wire = b"".join(data(each, spaced=True) for each in chunks).replace(b"\n", b"\r\n")
    return wire.replace("\u2028".encode(), rb"\u2028").replace("\x85".encode(), rb"\u0085")


def row(name: str, **says: Any) -> Transcript:
    """A row of this dialect; most have the same id, model and end."""
    usual = {"message_id": ID, "model": MODEL, "finish": "stop", "native": "STOP"}
    return Transcript("gemini", name, **{**usual, "usage": Usage(input_tokens=8, output_tokens=5), **says})


def broken_off(name: str, **says: Any) -> Transcript:
    """A row of a stream that stops short, or with an error."""
    return row(name, **{"finish": None, "native": "", "truncated": "error" not in says, **says})


END = chunk({"text": ""}, finish="STOP", made=5)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SIGNATURE = "CikB0e2Kb5R3HPfGcRoQXg=="
WHOLE = "Пизанская башня: 56 метров. Она стоит."
SEGMENT = "Пизанская башня: 56 метров."

SCRIPTS = (
    Script(row("text", text="Hello there."), body(*said("Hello", " there", "."), END)),
    Script(
        row("max-tokens", text="Once upon", finish="length", native="MAX_TOKENS"),
        body(*said("Once"), chunk({"text": " upon"}, finish="MAX_TOKENS", made=5)),
    ),
    Script(
        row(
            "thoughts",
            thinking="**Adding** Two and two.",
            signature=SIGNATURE,
            text="Four.",
            usage=Usage(input_tokens=12, output_tokens=35, cached_input_tokens=4, reasoning_tokens=30),
        ),
        body(
            chunk({"text": "**Adding** ", "thought": True}),
            chunk({"text": "Two and two.", "thought": True}),
            chunk({"text": "Four", "thoughtSignature": SIGNATURE}),
            {
                **chunk({"text": "."}, finish="STOP"),
                "usageMetadata": usage(
                    5, thoughtsTokenCount=30, cachedContentTokenCount=4, toolUsePromptTokenCount=4
                ),
            },
        ),
    ),
    Script(
        row(
            "function-calls-parallel",
            text="Both.",
            signature=SIGNATURE,
            calls=(
                Call("fc-1", "get_weather", {"city": "São Paulo", "days": [1, 2]}),
                Call("fc-2", "get_time", {}),
            ),
            finish="tool_calls",
        ),
        body(
            *said("Both."),
            chunk(
                {
                    **called("get_weather", {"city": "São Paulo", "days": [1, 2]}, "fc-1"),
                    "thoughtSignature": SIGNATURE,
                },
                called("get_time", {}, "fc-2"),
            ),
            END,
        ),
    ),
    Script(
        row(
            "function-call-without-id",
            calls=(Call("", "get_time", {}),),
            finish="tool_calls",
        ),
        body(chunk(called("get_time"), finish="STOP", made=5)),
    ),
    Script(  # Vertex AI, where the request asks for streamed arguments
        row(
            "function-call-streamed",
            calls=(
                Call("", "book", {"from": "New Delhi", "stops": [{"n": 1}, {"n": 2}], "ok": True, "x": None}),
                Call("", "get_time", {"tz": 2}),
            ),
            finish="tool_calls",
        ),
        body(
            chunk({"functionCall": {"name": "book", "willContinue": True}}),
            *(
                chunk({"functionCall": {"partialArgs": [piece], "willContinue": True}})
                for piece in (
                    {"jsonPath": "$.from", "stringValue": "New ", "willContinue": True},
                    {"jsonPath": "$.from", "stringValue": "Delhi", "willContinue": True},
                    {"jsonPath": "$.from", "stringValue": ""},
                    {"jsonPath": "$.stops[0].n", "numberValue": 1},
                    {"jsonPath": "$.stops[1]['n']", "numberValue": 2},
                    {"jsonPath": "$.ok", "boolValue": True},
                    {"jsonPath": "$.x", "nullValue": "NULL_VALUE"},
                )
            ),
            chunk({"functionCall": {}}),
            chunk(called("get_time", {"tz": 2})),
            END,
        ),
    ),
    Script(
        row(
            "grounding",
            text=WHOLE,
            citations=("https://example.com/pisa", "https://example.com/tower", "https://example.com/other"),
        ),
        body(
            *said("Пизанская башня:", " 56 метров.", " Она стоит."),
            chunk(
                {"text": ""},
                finish="STOP",
                made=5,
                groundingMetadata={
                    "webSearchQueries": ["высота пизанской башни"],
                    "searchEntryPoint": {"renderedContent": "<div></div>"},
                    "groundingChunks": [
                        {"web": {"uri": "https://example.com/pisa", "title": "pisa.example"}},
                        {"web": {"uri": "https://example.com/tower", "title": "tower.example"}},
                        {"web": {"uri": "https://example.com/other", "title": "other.example"}},
                    ],
                    "groundingSupports": [
                        {
                            "segment": {"endIndex": len(SEGMENT.encode()), "text": SEGMENT},
                            "groundingChunkIndices": [0, 1],
                        }
                    ],
                },
            ),
        ),
    ),
    Script(
        row(
            "recitation",
            text="To be, or not",
            citations=("https://example.com/hamlet",),
            finish="content_filter",
            native="RECITATION",
        ),
        body(
            *said("To be,"),
            chunk(
                {"text": " or not"},
                finish="RECITATION",
                made=5,
                citationMetadata={
                    "citations": [{"startIndex": 3, "endIndex": 13, "uri": "https://example.com/hamlet"}]
                },
            ),
        ),
    ),
    Script(
        row(
            "code-execution",
            text="It is 4.",
            calls=(Call("", "code_execution", {"language": "PYTHON", "code": "print(2+2)"}, executed=True),),
            results=("code_execution",),
        ),
        body(
            chunk({"executableCode": {"language": "PYTHON", "code": "print(2+2)"}}),
            chunk({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "4\n"}}),
            *said("It is 4."),
            END,
        ),
    ),
    Script(
        row("image", text="Here: ", files=("image/png",)),
        body(*said("Here: "), chunk({"inlineData": {"mimeType": "image/png", "data": PIXEL}}), END),
    ),
    Script(
        row("several-candidates", text="Heads.", others=("Tails.",)),
        body(
            *said("Hea"),
            *said("Tai", index=1),
            chunk({"text": "ds."}, finish="STOP"),
            chunk({"text": "ls."}, finish="MAX_TOKENS", index=1, made=5),
        ),
    ),
    Script(
        row("safety", text="Well,", finish="content_filter", native="SAFETY"),
        body(
            *said("Well,"),
            chunk(
                finish="SAFETY",
                made=5,
                safetyRatings=[{"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH"}],
            ),
        ),
    ),
    Script(
        row(
            "prompt-blocked",
            error=Error("the prompt was blocked: PROHIBITED_CONTENT", "PROHIBITED_CONTENT", 400),
            finish=None,
            native="",
            usage=Usage(input_tokens=8),
        ),
        body(
            {
                "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                "usageMetadata": usage(),
                "modelVersion": MODEL,
                "responseId": ID,
            }
        ),
    ),
    Script(
        row("unicode", text="Grüße, 世界 👩🏽\u200d🚀\u2028 \x85\ud83d. \n\nمرحبا"),
        body(*said("Grüße, ", "世界 ", "👩🏽\u200d", "🚀\u2028 \x85", "\ud83d", ". \n\nمرحبا"), END),
    ),
    Script(  # as 2.0 models send it: a reason everywhere
        row("finish-on-every-chunk", text="One two"),
        body(chunk({"text": "One"}, finish="STOP", made=2), chunk({"text": " two"}, finish="STOP", made=5)),
    ),
    Script(
        broken_off(
            "error-in-the-middle",
            text="So far",
            error=Error("The model is overloaded. Please try again later.", "UNAVAILABLE", 503),
            usage=Usage(input_tokens=8, output_tokens=2),
        ),
        body(
            *said("So", " far"),
            {
                "error": {
                    "code": 503,
                    "message": "The model is overloaded. Please try again later.",
                    "status": "UNAVAILABLE",
                }
            },
        ),
    ),
    Script(
        broken_off("cut-in-text", text="Hello there", usage=Usage(input_tokens=8, output_tokens=2)),
        body(*said("Hello", " there")) + b'data: {"candidates": [{"con',
    ),
)
