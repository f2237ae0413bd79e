"""Ollama's ``/api/chat`` and ``/api/generate``: lines of JSON, the last one with ``done`` and the counts."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from proxy.demo.event import Event
from proxy.demo.voice import FAILURE, THOUGHT, Call, ToolCall, choose_tool, last_prompt, word_count

#: What the provider says it needed for a token, in nanoseconds.
TOKEN_NANOSECONDS = 1_000_000


class FunctionSchema(msgspec.Struct):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: str
    parameters: Any = None


class Tool(msgspec.Struct):
    """One of ``tools``."""

    function: FunctionSchema


class Request(msgspec.Struct):
    """What the provider reads of either request; everything else is accepted and ignored."""

    model: str
    stream: bool = True
    think: bool | str | None = None
    messages: list[dict[str, Any]] = []
    prompt: str = ""
    tools: list[Tool] | None = None

    @property
    def asked(self) -> str:
        """The last thing that was said."""
        return last_prompt(self.messages) or self.prompt

    def tool_call(self) -> ToolCall | None:
        """The call that the request provokes, if it does. The API knows no way to force one."""
        functions = [(tool.function.name, tool.function.parameters) for tool in self.tools or []]
        return choose_tool(functions, forced=False, prompt=self.asked)


class OllamaVoice(ABC):
    """Answers one request, in the shape of one of the two endpoints."""

    def __init__(self, call: Call, request: Request) -> None:
        self._call = call
        self._request = request
        self._tool = request.tool_call()
        self._thought = THOUGHT if request.think else ()

    @property
    def streams(self) -> bool:
        """The request's ``stream``, on by default."""
        return self._request.stream

    @abstractmethod
    def said(self, *, content: str = "", thinking: str = "", tool: ToolCall | None = None) -> dict[str, Any]:
        """The endpoint's fields for a piece of the answer."""

    def events(self) -> Iterator[Event]:
        """A line a piece; a tool call comes whole; the last line has the counts."""
        for piece in self._thought:
            yield self._line(self.said(thinking=piece), done=False)
        if self._tool is not None:
            yield self._line(self.said(tool=self._tool), done=False)
        else:
            for piece in self._call.speech.pieces():
                yield self._line(self.said(content=piece), done=False)
        yield self._line(self.said(), **self._end())

    def complaint(self) -> Event:
        """The line with the error."""
        return Event(_json(refusal(500, FAILURE)))

    def answer(self) -> str:
        """One line with all of it."""
        content = "" if self._tool else self._call.speech.text()
        whole = self.said(content=content, thinking="".join(self._thought), tool=self._tool)
        return self._line(whole, **self._end()).data

    def _line(self, said: dict[str, Any], **state: Any) -> Event:
        created = datetime.fromtimestamp(self._call.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000001Z")
        return Event(_json({"model": self._request.model, "created_at": created, **said, **state}))

    def _end(self) -> dict[str, Any]:
        asked = word_count(self._request.asked)
        answered = len(self._tool.pieces()) if self._tool else self._call.speech.length()
        made = answered + len(self._thought)
        return {
            "done": True,
            "done_reason": "stop",
            "total_duration": (asked + made) * TOKEN_NANOSECONDS,
            "load_duration": 0,
            "prompt_eval_count": asked,
            "prompt_eval_duration": asked * TOKEN_NANOSECONDS,
            "eval_count": made,
            "eval_duration": made * TOKEN_NANOSECONDS,
        }


class ChatVoice(OllamaVoice):
    """``/api/chat``."""

    def said(self, *, content: str = "", thinking: str = "", tool: ToolCall | None = None) -> dict[str, Any]:
        """A ``message``."""
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if thinking:
            message["thinking"] = thinking
        if tool is not None:
            message["tool_calls"] = [{"function": {"name": tool.name, "arguments": tool.arguments}}]
        return {"message": message}


class GenerateVoice(OllamaVoice):
    """``/api/generate``, which has no tools."""

    def said(self, *, content: str = "", thinking: str = "", tool: ToolCall | None = None) -> dict[str, Any]:
        """A ``response``."""
        return {"response": content, **({"thinking": thinking} if thinking else {})}


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def refusal(status: int, message: str) -> dict[str, Any]:
    """The body of an answer with that status; the same object is the error of a stream."""
    return {"error": message}


def listen_chat(call: Call, body: bytes) -> ChatVoice:
    """The voice for ``/api/chat``; msgspec.ValidationError when ``body`` is no request."""
    return ChatVoice(call, msgspec.json.decode(body, type=Request))


def listen_generate(call: Call, body: bytes) -> GenerateVoice:
    """The voice for ``/api/generate``; msgspec.ValidationError when ``body`` is no request."""
    request = msgspec.json.decode(body, type=Request)
    request.tools = None
    return GenerateVoice(call, request)
