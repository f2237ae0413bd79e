"""Ollama's own API: ``/api/chat`` and ``/api/generate``, and the progress of ``/api/pull`` and its like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from proxy.dialects.base import Decoder, Dialect, Failure, Verdict, error_status
from proxy.dialects.part import (
    End,
    Error,
    File,
    Finish,
    Part,
    Raw,
    Reason,
    Start,
    Text,
    Thinking,
    Usage,
)
from proxy.dialects.payload import as_text, data_block, read, reader, write
from proxy.dialects.tool_calls import ToolCalls
from proxy.stream.lines import Lines
from proxy.stream.sse import named_data

#: Where the API streams unless the request says otherwise.
STREAMING = frozenset({"chat", "generate", "pull", "push", "create"})

#: What ``/api/pull`` and its like say last.
SUCCESS = "success"

REASONS: Mapping[str, Reason] = {"stop": "stop", "length": "length", "": "stop"}

#: What image models draw.
IMAGE_TYPE = "image/png"


class Function(msgspec.Struct):
    """A call of a tool. ``arguments`` are an object."""

    name: str = ""
    arguments: Any = None


class ToolCall(msgspec.Struct):
    """One of a message's calls; older servers give it no id."""

    id: str = ""
    function: Function = msgspec.field(default_factory=Function)


class Message(msgspec.Struct):
    """A piece of a chat's answer."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None


class Line(msgspec.Struct):
    """What matters here of a line, whichever path it came from."""

    model: str | None = None
    created_at: str | None = None
    message: Message | None = None
    response: str | None = None
    thinking: str | None = None
    image: str | None = None
    done: Any = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None
    status: Any = None
    logprobs: Any = None
    total_duration: Any = None
    completed: Any = None

    @property
    def ends(self) -> bool:
        """Whether nothing follows."""
        return bool(self.done) or self.status == SUCCESS

    @property
    def says_more(self) -> bool:
        """Whether it says what no part can hold: probabilities, durations, a progress."""
        return any(
            value is not None for value in (self.logprobs, self.total_duration, self.completed, self.status)
        )


read_line = reader(Line)


def line_of(block: bytes) -> Line:
    """Return what a block says."""
    return read_line(named_data(block)[1])


class Ollama(Dialect):
    """Lines of JSON: the last one has ``done``, one with ``error`` tells of a failure."""

    __slots__ = ()

    name = "ollama"
    provider = "ollama"
    framings = MappingProxyType({**Dialect.framings, "application/x-ndjson": Lines})

    def serves(self, segments: list[str]) -> bool:
        """Never by its path: ``/api/chat`` is the commonest path of apps. A route names this dialect."""
        return False

    def streams_at(self, segments: list[str]) -> bool:
        """``/api/chat`` and the like; ``/api/tags`` or ``/api/show`` do not stream."""
        return bool(segments) and segments[-1] in STREAMING

    def confirms(self, block: bytes) -> bool:
        """A line with what every one of an answer has, an error, or a progress."""
        line = line_of(block)
        return bool(line.error or line.status) or (line.model is not None and line.done is not None)

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Complete with ``done``, or with the ``success`` of a progress."""
        lines = [line_of(block) for block in tail]
        if any(line.error for line in lines):
            return Verdict.ERROR
        return Verdict.COMPLETE if any(line.ends for line in lines) else Verdict.OPEN

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """``data: {"error": "…"}``: the SDKs raise on any line with an ``error``."""
        return data_block({"error": failure.message})

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """The same object as in-band. It has no place for ``kind``."""
        return write({"error": message})

    def decoder(self, salt: str) -> Decoder:
        """Return what reads one stream."""
        return OllamaDecoder(salt)

    def wants_stream(self, body: bytes) -> bool:
        """Unless the body says ``"stream": false``: the API streams by default."""
        request = read(body, Request)
        return bool(request.model or request.name) and request.stream is not False


class Request(msgspec.Struct):
    """What matters here of a request's body: each one names a model, in ``name`` where the API is old."""

    model: Any = None
    name: Any = None
    stream: Any = None


class OllamaDecoder(Decoder):
    """Reads lines. A call comes whole, in one line, and without an id from older servers."""

    __slots__ = ("_called", "_calls", "_started")

    def __init__(self, salt: str) -> None:
        self._calls = ToolCalls(salt)
        self._called = False
        self._started = False

    def decode(self, block: bytes) -> list[Part]:
        """Return what a line says: its thinking before its text, its calls after it."""
        data = named_data(block)[1]
        line = read_line(data)
        if line.error:
            return [error_of(line)]
        parts = self._start(line)
        parts += self._said(line.message or Message(line.response, line.thinking))
        if line.image:
            parts.append(File(IMAGE_TYPE, data=line.image))
        if line.says_more:
            parts.append(Raw("message", as_text(data)))
        if line.done:
            parts += self._finish(line)
        if line.ends:
            parts.append(End())
        return parts

    def _start(self, line: Line) -> list[Part]:
        if self._started or line.model is None:
            return []
        self._started = True
        return [Start(model=line.model, created=_seconds(line.created_at))]

    def _said(self, message: Message) -> list[Part]:
        parts: list[Part] = []
        if message.thinking:
            parts.append(Thinking(message.thinking))
        if message.content:
            parts.append(Text(message.content))
        for call in message.tool_calls or ():
            self._called = True
            parts += self._call(call)
        return parts

    def _call(self, call: ToolCall) -> list[Part]:
        name, arguments = call.function.name, call.function.arguments
        if not isinstance(arguments, str):
            return self._calls.whole(name, arguments, call.id)
        # Some servers that imitate the API send the JSON text.
        begun = self._calls.start(name, name, call.id)
        return [*begun, *self._calls.add(name, arguments), *self._calls.end(name)]

    def _finish(self, line: Line) -> list[Part]:
        native = line.done_reason or ""
        reason = REASONS.get(native, "other")
        if self._called and reason == "stop":  # the API has no word of its own for it
            reason = "tool_calls"
        usage = Usage(input_tokens=line.prompt_eval_count, output_tokens=line.eval_count)
        told = usage != Usage()
        return [usage, Finish(reason, native)] if told else [Finish(reason, native)]


def error_of(line: Line) -> Error:
    """Return the error that a line tells. It has no code; newer servers add the HTTP status."""
    message = line.error if isinstance(line.error, str) else str(line.error)
    return Error(message, "error", error_status(line.status) or 500)


def _seconds(created_at: str | None) -> int | None:
    """Return a time in RFC 3339's form as seconds of the epoch."""
    try:
        return int(datetime.fromisoformat(created_at or "").timestamp())
    except (ValueError, OverflowError, OSError):
        return None
