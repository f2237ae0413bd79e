"""The protocol that applications want: one set of events for every provider.

``event:`` is the type, and so is ``data.type``. A stream is one ``start``, then what the answer says, and at
the end one ``done`` or one ``error`` (an ``error`` with a ``tool`` is that call's alone; the stream goes on).
``unified.schema.json`` and ``unified.d.ts`` beside this module define each event; docs/unified.md explains
them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.dialects import payload
from proxy.dialects.part import (
    Citation,
    Error,
    File,
    Finish,
    Raw,
    Refusal,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    ToolFault,
    ToolResult,
    ToolStart,
    Usage,
)
from proxy.dialects.summary import Summary
from proxy.emit.base import INVALID_ARGUMENTS, Emit, Writer, may_pass

#: Said by every ``start``. A client of this version knows all events and fields; later ones only add.
VERSION = 1

#: Raw events that wait for the ``start`` to be told behind it.
MAX_EARLY = 16


class UnifiedWriter(Writer):
    """Tells one stream in the unified protocol."""

    __slots__ = ("_early", "_raw", "_started")

    def __init__(self, *, raw: bool) -> None:
        super().__init__()
        self._raw = raw
        self._started = False
        self._early: list[Raw] = []

    def start(self, part: Start) -> None:
        """``start``, with the model where the provider names it."""
        if not self._started:
            self._started = True
            self._tell("start", version=VERSION, id=part.id, model=part.model, created=part.created)
            for early in self._early:
                self.raw(early)
            self._early.clear()

    def text(self, part: Text) -> None:
        """``text_delta``: the hot path."""
        if not part.content:
            return
        if not self._started:
            self.start(Start())
        place = _place(part.block, part.choice) if part.block or part.choice else b""
        content = payload.text(part.content)
        self.put(b'event: text_delta\ndata: {"type":"text_delta","content":%b%b}' % (content, place))

    def refusal(self, part: Refusal) -> None:
        """A ``text_delta`` that says so: whoever does not look shows it, as they should."""
        self._say("text_delta", content=part.content, refusal=True, block=part.block, choice=part.choice)

    def thinking(self, part: Thinking) -> None:
        """``thinking``."""
        self._say(
            "thinking",
            content=part.content,
            signature=part.signature,
            redacted=part.redacted,
            block=part.block,
            choice=part.choice,
        )

    def tool_start(self, part: ToolStart) -> None:
        """``tool_start``."""
        self._call("tool_start", part)

    def tool_delta(self, part: ToolDelta) -> None:
        """``tool_delta``, which an interface may show and nothing has to read."""
        if not self._started:
            self.start(Start())
        place = _place(0, part.choice) if part.choice else b""
        self.put(
            b'event: tool_delta\ndata: {"type":"tool_delta","index":%d,"id":%b,"arguments":%b%b}'
            % (part.index, payload.text(part.id), payload.text(part.arguments), place)
        )

    def tool_call(self, part: ToolCall) -> None:
        """``tool_call``: once, whole, its arguments parsed."""
        self._call("tool_call", part, arguments=part.arguments)

    def tool_fault(self, part: ToolFault) -> None:
        """An ``error`` that names its ``tool``, with the arguments as far as they came."""
        tool = {"index": part.index, "id": part.id, "name": part.name, "arguments": part.source}
        self._say(
            "error",
            message=part.message,
            code=INVALID_ARGUMENTS,
            recoverable=True,
            tool=tool,
            choice=part.choice,
        )

    def tool_result(self, part: ToolResult) -> None:
        """``tool_result``, of a tool that the provider has run."""
        fields = {"id": part.id, "name": part.name, "output": part.output, "failed": part.failed}
        self._say("tool_result", **fields, choice=part.choice)

    def citation(self, part: Citation) -> None:
        """``citation``."""
        fields = {name: getattr(part, name) for name in part.__struct_fields__}
        self._say("citation", **fields)

    def file(self, part: File) -> None:
        """``file``."""
        self._say("file", media_type=part.media_type, data=part.data, url=part.url, choice=part.choice)

    def raw(self, part: Raw) -> None:
        """``raw``, where it is wanted: the event's name, and its data, parsed where it is JSON."""
        if not self._raw:
            return
        if not self._started and len(self._early) < MAX_EARLY:  # what a filter says comes before the model
            self._early.append(part)
        else:
            self._say("raw", event=part.event, data=_value(part.data))

    def close(self, summary: Summary, now: float) -> None:
        """``done``: why it ended, what it took of tokens and time."""
        finish = summary.finish
        several = [_finished(end) for _, end in sorted(summary.finishes.items())]
        self._say(
            "done",
            finish_reason=finish.reason if finish else "stop",
            native_finish_reason=finish.native if finish else "",
            choices=several if len(several) > 1 else None,
            usage=_usage(summary.usage),
            metrics=_metrics(summary, now),
        )

    def fail(self, error: Error, summary: Summary, now: float) -> None:
        """``error``: the last event. ``recoverable``: asking again may help."""
        usage = _usage(summary.usage)
        cost = {"usage": usage} if usage else {}
        self._say("error", message=error.message, code=error.code, recoverable=may_pass(error), **cost)

    def _call(self, kind: str, part: ToolStart | ToolCall, **more: Any) -> None:
        fields = {"index": part.index, "id": part.id, "name": part.name}
        self._say(kind, **fields, **more, executed=part.executed, choice=part.choice)

    def _say(self, kind: str, **fields: Any) -> None:
        """Put an event, behind the ``start`` that every stream begins with."""
        if not self._started:
            self.start(Start())
        self._tell(kind, **fields)

    def _tell(self, kind: str, **fields: Any) -> None:
        told = {name: value for name, value in fields.items() if name in ALWAYS or _says(name, value)}
        self.put(payload.data_block({"type": kind, **told}, event=kind))


class Unified(Emit):
    """``event:`` = type, one JSON object as data."""

    __slots__ = ()

    name = "unified"

    def writer(self, salt: str, *, raw: bool) -> Writer:
        """Return what tells one stream."""
        return UnifiedWriter(raw=raw)


#: Fields that stand in their events whatever their value; any other is left out where it says nothing.
ALWAYS = frozenset(
    {"arguments", "content", "finish_reason", "index", "metrics", "name", "output", "recoverable", "usage"}
)  # fmt: skip


def _place(block: int, choice: int) -> bytes:
    """Return the fields that tell where a piece belongs, where that is not the first place."""
    told = b',"block":%d' % block if block else b""
    return told + b',"choice":%d' % choice if choice else told


def _says(name: str, value: Any) -> bool:
    return (
        bool(value)
        if name in ("block", "choice")
        else value is not None and value is not False and value != ""
    )


def _finished(finish: Finish) -> dict[str, Any]:
    return {"choice": finish.choice, "finish_reason": finish.reason, "native_finish_reason": finish.native}


def _usage(usage: Usage) -> dict[str, int]:
    told = {name: getattr(usage, name) for name in usage.__struct_fields__}
    return {name: count for name, count in told.items() if count is not None}


def _metrics(summary: Summary, now: float) -> dict[str, float]:
    first, pace = summary.time_to_first_token, summary.time_per_token
    metrics = {"total_ms": _milliseconds(now - summary.began)}
    if first is not None:
        metrics["ttft_ms"] = _milliseconds(first)
    if pace:
        metrics["tokens_per_second"] = round(1 / pace, 1)
    return metrics


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _value(data: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return data
