"""What Cohere's chat says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from proxy.dialects.base import WORDLESS, Decoder
from proxy.dialects.json_value import whole_number, word
from proxy.dialects.part import Citation, End, Error, Finish, Part, Raw, Reason, Start, Text, Thinking, Usage
from proxy.dialects.payload import Data, as_text, reader
from proxy.dialects.tool_calls import ToolCalls
from proxy.stream.sse import named_data

REASONS: Mapping[str, Reason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}

#: Reasons that are failures, and the HTTP statuses that would have said so.
FAILURES: Mapping[str, int] = {"ERROR": 500, "TIMEOUT": 504}


class _Content(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    # The first event has lists here, all empty; the others have one object each.
    content: _Content | list[Any] | None = None
    tool_calls: _Call | list[Any] | None = None
    citations: dict[str, Any] | list[Any] | None = None
    tool_plan: str | None = None


class _Tokens(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None


class _Usage(msgspec.Struct):
    tokens: _Tokens | None = None
    billed_units: Any = None
    cached_tokens: float | None = None


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    error: str | None = None
    usage: _Usage | None = None


class Event(msgspec.Struct):
    """What matters of an event's data."""

    type: str = ""
    id: str | None = None
    index: int = 0
    delta: _Delta = msgspec.field(default_factory=_Delta)
    logprobs: Any = None

    @property
    def fails(self) -> bool:
        """Whether it tells of an error."""
        return bool(self.delta.error) or self.delta.finish_reason in FAILURES

    @property
    def message(self) -> _Message:
        """What it adds to the message."""
        return self.delta.message or _Message()


_read_event = reader(Event)


def event_of(block: bytes) -> Event:
    """Return what a block says. The SDK goes by the data's ``type``, and so do we."""
    return _read_event(named_data(block)[1])


class CohereDecoder(Decoder):
    """Reads events. What the model plans to do with its tools is thinking."""

    __slots__ = ("_calls", "_read", "_started")

    def __init__(self, salt: str) -> None:
        self._calls = ToolCalls(salt)
        self._started = False
        self._read: Mapping[str, Callable[[Event], list[Part]]] = {
            "content-delta": _content,
            "content-start": _content,
            "tool-plan-delta": _plan,
            "tool-call-delta": self._call_delta,
            "tool-call-start": self._call_start,
            "tool-call-end": lambda event: self._calls.end(event.index),
            "citation-start": lambda event: list(_citations(event)),
            "message-start": self._start,
            "content-end": _nothing,
            "citation-end": _nothing,
        }

    def decode(self, block: bytes) -> list[Part]:
        """Return what the next event says."""
        name, data = named_data(block)
        event = _read_event(data)
        if event.type == "message-end":
            return self._end(event, data)
        read = self._read.get(event.type)
        if read is None:
            return [Raw(name, as_text(data))] if data else []
        more: list[Part] = [] if event.logprobs is None else [Raw(event.type, as_text(data))]
        return [*read(event), *more]

    def finish(self) -> list[Part]:
        """Return the calls that are still open."""
        return self._calls.end_all()

    def _start(self, event: Event) -> list[Part]:
        if self._started:
            return []
        self._started = True
        return [Start(event.id or "")]  # the API does not say which model it is

    def _call_start(self, event: Event) -> list[Part]:
        call = _call_of(event)
        function = call.function or _Function()
        begun = self._calls.start(event.index, function.name or "", call.id or "")
        return [*begun, *self._calls.add(event.index, function.arguments or "")]

    def _call_delta(self, event: Event) -> list[Part]:
        function = _call_of(event).function or _Function()
        return self._calls.add(event.index, function.arguments or "")

    def _end(self, event: Event, data: Data) -> list[Part]:
        delta = event.delta
        parts = self._calls.end_all()
        if delta.usage is not None:
            parts.append(_usage(delta.usage))
        native = delta.finish_reason or ""
        if event.fails:
            return [*parts, Error(delta.error or WORDLESS, native or "ERROR", FAILURES.get(native, 500))]
        if delta.usage is not None and delta.usage.billed_units is not None:
            parts.append(Raw(event.type, as_text(data)))
        return [*parts, Finish(REASONS.get(native, "other"), native), End()]


def _nothing(event: Event) -> list[Part]:
    return []


def _content(event: Event) -> list[Part]:
    content = event.message.content
    if not isinstance(content, _Content):
        return []
    thinking: list[Part] = [Thinking(content.thinking, event.index)] if content.thinking else []
    return [*thinking, Text(content.text, event.index)] if content.text else thinking


def _plan(event: Event) -> list[Part]:
    plan = event.message.tool_plan
    return [Thinking(plan, event.index)] if plan else []


def _call_of(event: Event) -> _Call:
    call = event.message.tool_calls
    return call if isinstance(call, _Call) else _Call()


def _citations(event: Event) -> Iterator[Citation]:
    """Yield a citation for each source of one, which it tells alone.

    Its places are in the answer unless it cites for a plan.
    """
    told = event.message.citations
    if not isinstance(told, dict):
        return
    said = told.get("sources")
    sources = said if isinstance(said, list) else []
    of_text = word(told.get("type")) in ("", "TEXT_CONTENT")
    for source in sources or [{}]:
        known = source if isinstance(source, dict) else {}
        inner = known.get("document")
        document = inner if isinstance(inner, dict) else {}
        yield Citation(
            url=word(document.get("url")),
            title=word(document.get("title")),
            text=word(told.get("text")),
            document=word(known.get("id")),
            start=whole_number(told.get("start")) if of_text else None,
            end=whole_number(told.get("end")) if of_text else None,
            block=whole_number(told.get("content_index")) or 0,
            source={**told, "sources": [source]} if sources else told,
        )


def _usage(told: _Usage) -> Usage:
    """Return the figures. The API writes whole numbers as floats; its input includes what was cached."""
    tokens = told.tokens or _Tokens()
    return Usage(
        input_tokens=_count(tokens.input_tokens),
        output_tokens=_count(tokens.output_tokens),
        cached_input_tokens=_count(told.cached_tokens),
    )


def _count(told: float | None) -> int | None:
    return int(told) if told is not None and math.isfinite(told) else None
