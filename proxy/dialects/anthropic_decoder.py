"""What Anthropic's messages say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from proxy.dialects.base import WORDLESS, Decoder
from proxy.dialects.json_value import source_of, whole_number, word
from proxy.dialects.part import (
    Citation,
    End,
    Error,
    Finish,
    Part,
    Raw,
    Reason,
    Start,
    Text,
    Thinking,
    ToolResult,
    Usage,
)
from proxy.dialects.payload import Data, as_text, reader
from proxy.dialects.tool_calls import MAX_CALLS, ToolCalls
from proxy.stream.sse import named_data

REASONS: Mapping[str, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

#: The HTTP statuses that Anthropic's error types stand for.
STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

#: Content blocks that are tool calls, and whether the provider runs the tool.
CALLS: Mapping[str, bool] = {"tool_use": False, "server_tool_use": True, "mcp_tool_use": True}

RESULT = "_tool_result"

#: Longest id and name, together, of a call whose name is kept for its result. Anthropic's have about 60.
MAX_NAME = 1024


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None


class _BlockDelta(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None


class _BlockStart(msgspec.Struct):
    index: int = 0
    content_block: dict[str, Any] | None = None


class _BlockStop(msgspec.Struct):
    index: int = 0


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: _Usage | None = None


class _MessageStart(msgspec.Struct):
    message: _Message | None = None


class _End(msgspec.Struct):
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None
    container: Any = None


class _MessageDelta(msgspec.Struct):
    delta: _End | None = None
    usage: _Usage | None = None
    context_management: Any = None


class _Failure(msgspec.Struct):
    type: str | None = None
    message: str | None = None


class _ErrorEvent(msgspec.Struct):
    error: _Failure | None = None


_read_block_delta = reader(_BlockDelta)
_read_block_start = reader(_BlockStart)
_read_block_stop = reader(_BlockStop)
_read_message_start = reader(_MessageStart)
_read_message_delta = reader(_MessageDelta)
_read_error = reader(_ErrorEvent)


class AnthropicDecoder(Decoder):
    """Reads named events; one without a name is none for Anthropic's SDKs.

    The reason to stop is told when the message stops, with all that came after it.
    """

    __slots__ = ("_calls", "_finish", "_inputs", "_names", "_read", "_sent", "_started")

    def __init__(self, salt: str) -> None:
        self._calls = ToolCalls(salt)
        self._names: dict[str, str] = {}  # of the tools that the provider runs, by the call's id
        self._inputs: dict[int, str] = {}  # arguments that came with the call's start
        self._sent = _Usage()  # the newest figures of what was sent
        self._finish: Finish | None = None
        self._started = False
        self._read: Mapping[str, Callable[[Data], list[Part]]] = {
            "content_block_delta": self._block_delta,
            "content_block_start": self._block_start,
            "content_block_stop": self._block_stop,
            "message_start": self._message_start,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
            "error": _error,
            "ping": _nothing,
        }

    def decode(self, block: bytes) -> list[Part]:
        """Return what the next event says."""
        name, data = named_data(block)
        read = self._read.get(name)
        if read is not None:
            return read(data)
        return [Raw(name, as_text(data))] if data else []

    def finish(self) -> list[Part]:
        """Return the calls that are still open, and why the message ended."""
        finish, self._finish = self._finish, None
        return [*self._calls.end_all(), *([] if finish is None else [finish])]

    def _block_delta(self, data: Data) -> list[Part]:
        event = _read_block_delta(data)
        delta, block = event.delta, event.index
        kind = "" if delta is None else delta.type
        if delta is None:
            return [Raw("content_block_delta", as_text(data))]
        if kind == "text_delta":
            return [Text(delta.text, block)] if delta.text else []
        if kind == "input_json_delta":
            return self._calls.add(block, delta.partial_json or "")
        if kind == "thinking_delta":
            return [Thinking(delta.thinking, block)] if delta.thinking else []
        if kind == "signature_delta":
            return [Thinking("", block, signature=delta.signature)] if delta.signature else []
        if kind == "citations_delta":
            return [_citation(delta.citation, block)]
        return [Raw("content_block_delta", as_text(data))]

    def _block_start(self, data: Data) -> list[Part]:
        event = _read_block_start(data)
        content, block = event.content_block or {}, event.index
        kind = word(content.get("type"))
        if kind == "text":
            return _text(content, block)
        if kind == "thinking":
            thinking = Thinking(
                word(content.get("thinking")), block, signature=word(content.get("signature"))
            )
            return [thinking] if thinking.content or thinking.signature else []
        if kind == "redacted_thinking":
            return [Thinking("", block, redacted=word(content.get("data")))]
        if kind in CALLS:
            return self._call(content, block, executed=CALLS[kind])
        if kind.endswith(RESULT):
            return [self._result(content, kind)]
        return [Raw("content_block_start", as_text(data))]

    def _call(self, content: dict[str, Any], block: int, *, executed: bool) -> list[Part]:
        name, call_id = word(content.get("name")), word(content.get("id"))
        parts = self._calls.start(block, name, call_id, executed=executed)
        if executed and len(self._names) < MAX_CALLS and len(call_id) + len(name) <= MAX_NAME:
            self._names[call_id] = name
        if content.get("input") and block in self._calls:  # the API sends fragments; some servers do not
            self._inputs[block] = source_of(content["input"])
        return parts

    def _result(self, content: dict[str, Any], kind: str) -> ToolResult:
        call_id, output = word(content.get("tool_use_id")), content.get("content")
        told = output.get("type") if isinstance(output, dict) else ""
        failed = content.get("is_error") is True or word(told).endswith("_error")
        return ToolResult(call_id, self._names.get(call_id, kind.removesuffix(RESULT)), output, failed)

    def _block_stop(self, data: Data) -> list[Part]:
        block = _read_block_stop(data).index
        supplied = self._calls.supply(block, self._inputs.pop(block, ""))
        return [*supplied, *self._calls.end(block)]

    def _message_start(self, data: Data) -> list[Part]:
        message = _read_message_start(data).message or _Message()
        start = [] if self._started else [Start(message.id or "", message.model or "")]
        self._started = True
        return [*start, *([] if message.usage is None else [self._usage(message.usage)])]

    def _message_delta(self, data: Data) -> list[Part]:
        event = _read_message_delta(data)
        end = event.delta or _End()
        parts: list[Part] = [] if event.usage is None else [self._usage(event.usage)]
        if end.stop_reason:
            self._finish = Finish(REASONS.get(end.stop_reason, "other"), end.stop_reason)
        if end.stop_sequence is not None or end.stop_details or end.container or event.context_management:
            parts.append(Raw("message_delta", as_text(data)))
        return parts

    def _message_stop(self, data: Data) -> list[Part]:
        return [*self.finish(), End()]

    def _usage(self, told: _Usage) -> Usage:
        """Return the figures so far. They are totals; one that is left out stays as it was."""
        sent = self._sent = _newer(self._sent, told)
        read, written, details = (
            sent.cache_read_input_tokens,
            sent.cache_creation_input_tokens,
            told.output_tokens_details,
        )
        return Usage(
            input_tokens=None
            if sent.input_tokens is None
            else sent.input_tokens + (read or 0) + (written or 0),
            output_tokens=told.output_tokens,
            cached_input_tokens=read,
            cache_write_input_tokens=written,
            reasoning_tokens=None if details is None else details.thinking_tokens,
        )


def _nothing(data: Data) -> list[Part]:
    return []


def _error(data: Data) -> list[Part]:
    error = _read_error(data).error or _Failure()
    kind = error.type or "api_error"
    message = error.message or as_text(data) or WORDLESS
    return [Error(message, kind, STATUSES.get(kind, 500))]


def _newer(before: _Usage, told: _Usage) -> _Usage:
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    figures = {name: getattr(told, name) for name in names}
    return _Usage(
        **{name: getattr(before, name) if count is None else count for name, count in figures.items()}
    )


def _text(content: dict[str, Any], block: int) -> list[Part]:
    """Return what a block of text begins with: nothing, nearly always."""
    text, citations = word(content.get("text")), content.get("citations")
    said: list[Part] = [Text(text, block)] if text else []
    return said + [_citation(each, block) for each in (citations if isinstance(citations, list) else ())]


def _citation(citation: Any, block: int) -> Citation:
    """Return a citation of any kind. Its places are in the document, not in the answer."""
    told = citation if isinstance(citation, dict) else {}
    document = told.get("document_title") or told.get("file_id")
    number = whole_number(told.get("document_index"))
    url = word(told.get("url")) or word(told.get("source"))
    return Citation(
        url=url,
        title=word(told.get("title")) or word(told.get("document_title")),
        text=word(told.get("cited_text")),
        document=word(document) or ("" if number is None else str(number)),
        block=block,
        source=citation,
    )
