"""Cohere's chat. Built as plain dicts, so that the provider needs one provider's SDK only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.demo.event import Event
from proxy.demo.voice import FAILURE, Call, ToolCall, choose_tool, last_prompt, word_count


class FunctionSchema(msgspec.Struct):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: str
    parameters: Any = None


class Tool(msgspec.Struct):
    """One of ``tools``."""

    function: FunctionSchema


class Request(msgspec.Struct):
    """What the provider reads of a request; everything else is accepted and ignored."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: str | None = None

    def tool_call(self) -> ToolCall | None:
        """The call that the request provokes, if it does."""
        return choose_tool(
            [(tool.function.name, tool.function.parameters) for tool in self.tools],
            forced=self.tool_choice == "REQUIRED",
            prompt=last_prompt(self.messages),
        )


class CohereVoice:
    """Answers one ``POST /v2/chat``."""

    def __init__(self, call: Call, request: Request) -> None:
        self._call = call
        self._request = request
        self._tool = request.tool_call()

    @property
    def streams(self) -> bool:
        """The request's ``stream``."""
        return self._request.stream

    def events(self) -> Iterator[Event]:
        """A start, the text or the tool call in fragments, and an end with the usage; no ``[DONE]``."""
        empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        yield _event("message-start", id=self._call.identity("chat-"), delta={"message": empty})
        yield from self._text_events() if self._tool is None else self._tool_events(self._tool)
        yield _event("message-end", delta={"finish_reason": self._finish_reason, "usage": self._usage()})

    def complaint(self) -> Event:
        """An end that tells of an error, as this API does in mid-stream."""
        return _event("message-end", delta={"finish_reason": "ERROR", "error": FAILURE})

    def answer(self) -> str:
        """One whole answer."""
        return _json(
            {
                "id": self._call.identity("chat-"),
                "finish_reason": self._finish_reason,
                "message": {"role": "assistant", **self._content()},
                "usage": self._usage(),
            }
        )

    @property
    def _finish_reason(self) -> str:
        return "COMPLETE" if self._tool is None else "TOOL_CALL"

    def _text_events(self) -> Iterator[Event]:
        yield _event("content-start", index=0, delta=_message("content", {"type": "text", "text": ""}))
        for piece in self._call.speech.pieces():
            yield _event("content-delta", index=0, delta=_message("content", {"text": piece}))
        yield _event("content-end", index=0)

    def _tool_events(self, tool: ToolCall) -> Iterator[Event]:
        yield _event("tool-call-start", index=0, delta=_message("tool_calls", self._called(tool.name, "")))
        for piece in tool.pieces():
            yield _event(
                "tool-call-delta",
                index=0,
                delta=_message("tool_calls", {"function": {"arguments": piece}}),
            )
        yield _event("tool-call-end", index=0)

    def _content(self) -> dict[str, Any]:
        if self._tool is None:
            return {"content": [{"type": "text", "text": self._call.speech.text()}]}
        return {"tool_calls": [self._called(self._tool.name, self._tool.arguments_json)]}

    def _called(self, name: str, arguments: str) -> dict[str, Any]:
        return {
            "id": self._call.identity("call_"),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def _usage(self) -> dict[str, Any]:
        said = self._call.speech.length() if self._tool is None else len(self._tool.pieces())
        tokens = {"input_tokens": word_count(last_prompt(self._request.messages)), "output_tokens": said}
        return {"billed_units": tokens, "tokens": tokens}


def _message(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"message": {kind: fields}}


def _event(kind: str, **fields: Any) -> Event:
    return Event(_json({"type": kind, **fields}), name=kind)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def refusal(_status: int, message: str) -> dict[str, Any]:
    """The body of an answer that says no: a message, whatever the status."""
    return {"message": message}


def listen(call: Call, body: bytes) -> CohereVoice:
    """The voice that answers ``body``; msgspec.ValidationError when it is not a request of this API."""
    return CohereVoice(call, msgspec.json.decode(body, type=Request))
