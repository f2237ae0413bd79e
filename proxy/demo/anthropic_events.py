"""Anthropic messages. Built as plain dicts, so that the provider needs one provider's SDK only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.demo.event import Event
from proxy.demo.voice import FAILURE, Call, ToolCall, choose_tool, last_prompt, word_count

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Tool(msgspec.Struct):
    """One of ``tools``; server tools have no ``input_schema``."""

    name: str
    input_schema: Any = None


class ToolChoice(msgspec.Struct):
    """``tool_choice``: ``any`` and ``tool`` force a call."""

    type: str


class Request(msgspec.Struct):
    """What the provider reads of a request; everything else is accepted and ignored."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None

    def tool_call(self) -> ToolCall | None:
        """The call that the request provokes, if it does."""
        return choose_tool(
            [(tool.name, tool.input_schema) for tool in self.tools],
            forced=self.tool_choice is not None and self.tool_choice.type in ("any", "tool"),
            prompt=last_prompt(self.messages),
        )


class MessagesVoice:
    """Answers one ``POST /v1/messages``."""

    def __init__(self, call: Call, request: Request) -> None:
        self._call = call
        self._request = request
        self._tool = request.tool_call()

    @property
    def streams(self) -> bool:
        """The request's ``stream``."""
        return self._request.stream

    def events(self) -> Iterator[Event]:
        """A message start, one content block with its deltas and a ping in between, a message stop."""
        yield _event("message_start", message=self._message([], None, 1))
        yield _event("content_block_start", index=0, content_block=self._block(begun=True))
        yield _event("ping")
        for delta in self._deltas():
            yield _event("content_block_delta", index=0, delta=delta)
        yield _event("content_block_stop", index=0)
        yield _event(
            "message_delta",
            delta={"stop_reason": self._stop_reason, "stop_sequence": None},
            usage={"output_tokens": self._output_tokens()},
        )
        yield _event("message_stop")

    def complaint(self) -> Event:
        """The ``error`` event, which the SDK raises."""
        return Event(json.dumps(refusal(529, FAILURE)), name="error")

    def answer(self) -> str:
        """One whole ``message``."""
        content = [self._block(begun=False)]
        return _json(self._message(content, self._stop_reason, self._output_tokens()))

    @property
    def _stop_reason(self) -> str:
        return "end_turn" if self._tool is None else "tool_use"

    def _deltas(self) -> Iterator[dict[str, str]]:
        if self._tool is None:
            return ({"type": "text_delta", "text": piece} for piece in self._call.speech.pieces())
        return ({"type": "input_json_delta", "partial_json": piece} for piece in self._tool.pieces())

    def _block(self, *, begun: bool) -> dict[str, Any]:
        if self._tool is None:
            return {"type": "text", "text": "" if begun else self._call.speech.text()}
        return {
            "type": "tool_use",
            "id": self._call.identity("toolu_"),
            "name": self._tool.name,
            "input": {} if begun else self._tool.arguments,
        }

    def _message(
        self, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int
    ) -> dict[str, Any]:
        return {
            "id": self._call.identity("msg_"),
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": word_count(last_prompt(self._request.messages)),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": output_tokens,
            },
        }

    def _output_tokens(self) -> int:
        return self._call.speech.length() if self._tool is None else len(self._tool.pieces())


def _event(kind: str, **fields: Any) -> Event:
    return Event(_json({"type": kind, **fields}), name=kind)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def refusal(status: int, message: str) -> dict[str, Any]:
    """The body of an answer with that status; the same object is the payload of an ``error`` event."""
    return {"type": "error", "error": {"type": _ERROR_TYPES.get(status, "api_error"), "message": message}}


def listen(call: Call, body: bytes) -> MessagesVoice:
    """The voice that answers ``body``; msgspec.ValidationError when it is not a request of this API."""
    return MessagesVoice(call, msgspec.json.decode(body, type=Request))
