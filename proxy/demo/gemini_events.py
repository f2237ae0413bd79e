"""Gemini ``generateContent``: camelCase, data-only events, and no terminal marker but a finish reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.demo.event import Event
from proxy.demo.voice import FAILURE, Call, ToolCall, choose_tool, last_prompt, word_count

_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class FunctionSchema(msgspec.Struct, rename="camel"):
    """A function that the model may call, with its schema in one of the two forms that the API takes."""

    name: str
    parameters: Any = None
    parameters_json_schema: Any = None


class Tool(msgspec.Struct, rename="camel"):
    """One of ``tools``; those that declare no functions are left alone."""

    function_declarations: list[FunctionSchema] = []


class FunctionCallingConfig(msgspec.Struct):
    """``mode`` ANY forces a call."""

    mode: str = "AUTO"


class ToolConfig(msgspec.Struct, rename="camel"):
    """``toolConfig`` of a request."""

    function_calling_config: FunctionCallingConfig = msgspec.field(default_factory=FunctionCallingConfig)


class Request(msgspec.Struct, rename="camel"):
    """What the provider reads of a request; everything else is accepted and ignored."""

    contents: list[dict[str, Any]]
    tools: list[Tool] = []
    tool_config: ToolConfig = msgspec.field(default_factory=ToolConfig)

    def tool_call(self) -> ToolCall | None:
        """The call that the request provokes, if it does."""
        functions = [function for tool in self.tools for function in tool.function_declarations]
        return choose_tool(
            [
                (function.name, function.parameters or function.parameters_json_schema)
                for function in functions
            ],
            forced=self.tool_config.function_calling_config.mode == "ANY",
            prompt=last_prompt(self.contents),
        )


class GeminiVoice:
    """Answers one ``:generateContent`` or ``:streamGenerateContent``."""

    def __init__(self, call: Call, request: Request, *, streams: bool) -> None:
        self._call = call
        self._streams = streams
        self._asked = word_count(last_prompt(request.contents))
        self._tool = request.tool_call()

    @property
    def streams(self) -> bool:
        """What the request's URL says."""
        return self._streams

    def events(self) -> Iterator[Event]:
        """Growing usage beside each piece; the last one carries the finish reason."""
        said = 0
        for said, part in enumerate(self._parts(), start=1):
            yield Event(_json(self._document([part], None, said)))
        yield Event(_json(self._document([{"text": ""}], "STOP", said)))

    def complaint(self) -> Event:
        """The error object as a block."""
        return Event(json.dumps(refusal(503, FAILURE)))

    def answer(self) -> str:
        """One whole response."""
        if self._tool is None:
            return _json(
                self._document([{"text": self._call.speech.text()}], "STOP", self._call.speech.length())
            )
        return _json(self._document(list(self._parts()), "STOP", 1))

    def _parts(self) -> Iterator[dict[str, Any]]:
        if self._tool is None:
            return ({"text": piece} for piece in self._call.speech.pieces())
        # Gemini sends a function call in one piece.
        call = {"id": self._call.identity("call_"), "name": self._tool.name, "args": self._tool.arguments}
        return iter([{"functionCall": call}])

    def _document(self, parts: list[dict[str, Any]], finish_reason: str | None, said: int) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish_reason is not None:
            candidate["finishReason"] = finish_reason
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": self._asked,
                "candidatesTokenCount": said,
                "totalTokenCount": self._asked + said,
            },
            "modelVersion": self._call.path_model,
            "responseId": self._call.identity(""),
        }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def refusal(status: int, message: str) -> dict[str, Any]:
    """The body of an answer with that status; the same object is the error of a stream."""
    name = _STATUS_NAMES.get(status, "UNKNOWN")
    return {"error": {"code": status, "message": message, "status": name}}


def listen_streaming(call: Call, body: bytes) -> GeminiVoice:
    """The voice for ``:streamGenerateContent``; msgspec.ValidationError when ``body`` is no request."""
    return GeminiVoice(call, msgspec.json.decode(body, type=Request), streams=True)


def listen_whole(call: Call, body: bytes) -> GeminiVoice:
    """The voice for ``:generateContent``; msgspec.ValidationError when ``body`` is no request."""
    return GeminiVoice(call, msgspec.json.decode(body, type=Request), streams=False)
