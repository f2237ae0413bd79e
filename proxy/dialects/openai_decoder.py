"""What OpenAI's chat completions say, and what the many servers say that speak nearly the same."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import msgspec

from proxy.dialects.base import WORDLESS, Decoder, error_status
from proxy.dialects.json_value import source_of, whole_number, word
from proxy.dialects.part import (
    Citation,
    End,
    Error,
    File,
    Finish,
    Part,
    Raw,
    Reason,
    Refusal,
    Start,
    Text,
    Thinking,
    Usage,
)
from proxy.dialects.payload import FORGIVING_BYTES, Data, as_text, reader
from proxy.dialects.summary import MOST_CHOICES
from proxy.dialects.tool_calls import ToolCalls
from proxy.stream import sse

#: The terminal marker, alone in its block. The SDKs look at the beginning only, but a block that
#: goes on after it is a provider's garbage and no end.
DONE = "[DONE]"

REASONS: Mapping[str, Reason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

#: HTTP statuses of errors that are told by their type alone.
STATUSES: Mapping[str, int] = {
    "authentication_error": 401,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 503,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}

_PREFIX = b"data: "
_DONE_BLOCK = _PREFIX + DONE.encode()


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    annotations: Any = None
    images: Any = None
    audio: Any = None


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: Any = None
    logprobs: Any = None
    usage: Any = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek's
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _GroqExtension(msgspec.Struct):
    usage: Any = None


class _Chunk(msgspec.Struct):
    id: Any = None
    object: Any = None
    created: Any = None
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: _GroqExtension | None = None


_read_chunk = reader(_Chunk)


class OpenAIDecoder(Decoder):
    """Reads chunks.

    A finish reason is told when the stream ends, and so is a call: some servers put a reason on every chunk,
    and fragments of a call may come until then.
    """

    __slots__ = ("_calls", "_finishes", "_keys", "_started")

    def __init__(self, salt: str) -> None:
        self._calls = ToolCalls(salt)
        self._keys: dict[int, Hashable] = {}  # of the call that each choice has last added to
        self._finishes: dict[int, Finish] = {}
        self._started = False

    def decode(self, block: bytes) -> list[Part]:
        """Return what the next chunk says."""
        if block.startswith(b"data: {") and b"\n" not in block:
            data: Data = block[len(_PREFIX) :]
            named = False
        elif block == _DONE_BLOCK:
            return [*self.finish(), End()]
        else:
            event = sse.decode(block)
            if is_done(event):
                return [*self.finish(), End()]
            data, named = event.data or "", event.event == "error"
        chunk = _read_chunk(data)
        if chunk.error or named or chunk.object == "error":
            return [_error(data)]
        parts = [] if self._started else self._start(chunk)
        for choice in chunk.choices or ():
            self._choice(choice, parts)
        if chunk.usage is not None:
            parts.append(_usage(chunk.usage))
        if chunk.x_groq is not None and chunk.x_groq.usage is not None:
            parts.append(_usage(chunk.x_groq.usage))
        return parts if parts or chunk.choices else [Raw("message", as_text(data))] if data else []

    def finish(self) -> list[Part]:
        """Return the calls, whole, and why each choice ended."""
        finishes, self._finishes = self._finishes, {}
        return [*self._calls.end_all(), *(finishes[choice] for choice in sorted(finishes))]

    def _start(self, chunk: _Chunk) -> list[Part]:
        """Tell of the beginning, once the model is known: Azure's filter speaks first, for no model."""
        if not (chunk.model or chunk.choices):
            return []
        self._started = True
        created = chunk.created if type(chunk.created) is int else None
        return [Start(word(chunk.id), word(chunk.model), created)]

    def _choice(self, choice: _Choice, parts: list[Part]) -> None:
        """Add what a choice says: nearly always a piece of text, and nothing else."""
        delta, index = choice.delta, choice.index or 0
        if delta is not None:
            # DeepSeek's and vLLM's key, or OpenRouter's and Groq's: who sends both says the same in both.
            if thinking := delta.reasoning_content or delta.reasoning:
                parts.append(Thinking(_string_or_json(thinking), 0, index))
            content = delta.content
            if content and type(content) is str:
                parts.append(Text(content, 0, index))
            if _is_unusual(delta):
                parts += self._unusual(delta, index)
        if choice.finish_reason:
            native = word(choice.finish_reason)
            if index in self._finishes or len(self._finishes) < MOST_CHOICES:
                self._finishes[index] = Finish(REASONS.get(native, "other"), native, index)
        if choice.logprobs is not None:
            parts.append(Raw("logprobs", source_of({"choice": index, "logprobs": choice.logprobs})))
        if choice.usage is not None:
            parts.append(_usage(choice.usage))

    def _unusual(self, delta: _Delta, index: int) -> Iterator[Part]:
        """Yield what is neither a chunk's text nor its reasoning."""
        if isinstance(delta.content, list):
            yield from _pieces(delta.content, index)
        if delta.refusal:
            yield Refusal(delta.refusal, 0, index)
        for call in delta.tool_calls or ():
            yield from self._tool_call(call, index)
        if delta.function_call is not None:
            yield from self._fragment(
                (index, "function_call"), delta.function_call, "", index, new=bool(delta.function_call.name)
            )
        yield from _citations(delta.annotations, index)
        yield from _images(delta.images, index)
        if delta.audio is not None:
            yield Raw("audio", source_of({"choice": index, "audio": delta.audio}))

    def _tool_call(self, call: _ToolCall, choice: int) -> Iterator[Part]:
        """Yield what a fragment says. Its call is told by its index, else by its id, else it is the last one.

        Another id under the same index is another call: servers that send calls whole count them all 0.
        """
        call_id, function = call.id or "", call.function or _Function()
        if call.index is not None:
            key: Hashable = (choice, call.index)
        elif call_id:
            key = (choice, call_id)
        else:
            key = self._keys.get(choice, (choice, 0))
        known = self._calls.id_of(key)
        new = key not in self._calls or (call_id != "" and call_id != known)
        if choice in self._keys or len(self._keys) < MOST_CHOICES:
            self._keys[choice] = key
        yield from self._fragment(key, function, call_id, choice, new=new)

    def _fragment(
        self, key: Hashable, function: _Function, call_id: str, choice: int, *, new: bool
    ) -> Iterator[Part]:
        if new:
            yield from self._calls.start(key, function.name or "", call_id, choice=choice)
        arguments = function.arguments
        yield from self._calls.add(key, "" if arguments is None else _string_or_json(arguments))


def is_done(event: sse.Event) -> bool:
    """Whether the block is the terminal marker."""
    return event.data is not None and event.data.strip() == DONE


def _is_unusual(delta: _Delta) -> bool:
    return bool(
        delta.tool_calls
        or delta.refusal
        or delta.annotations
        or delta.images
        or delta.function_call is not None
        or delta.audio is not None
        or isinstance(delta.content, list)
    )


def _string_or_json(value: Any) -> str:
    return value if isinstance(value, str) else source_of(value)


def _error(data: Data) -> Error:
    """Return an error, in whatever form: an object under ``error``, a text there, or the object itself."""
    told = _value(data)
    inner = told.get("error") if isinstance(told, dict) else told
    if not inner:
        inner = told
    if not isinstance(inner, dict):
        return Error(word(inner) or WORDLESS, "error")
    code, kind = inner.get("code"), word(inner.get("type"))
    message = word(inner.get("message")) or source_of(inner)[:FORGIVING_BYTES]
    if isinstance(code, int):
        return Error(message, kind or str(code), error_status(code) or STATUSES.get(kind, 500))
    return Error(message, word(code) or kind or "error", STATUSES.get(kind) or STATUSES.get(word(code), 500))


def _value(data: Data) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return as_text(data)


def _usage(told: Any) -> Usage:
    try:
        usage = msgspec.convert(told, _Usage, strict=False)
    except ValueError:  # of another shape, or a text in it is half of an emoji
        return Usage()
    before, after = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = before.cached_tokens if before is not None else None
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_input_tokens=usage.prompt_cache_hit_tokens if cached is None else cached,
        reasoning_tokens=after.reasoning_tokens if after is not None else None,
    )


def _pieces(content: list[Any], choice: int) -> Iterator[Part]:
    """Yield a content that is a list, as Mistral's thinking models send it."""
    for piece in content:
        kind = piece.get("type") if isinstance(piece, dict) else None
        if kind == "text":
            yield Text(word(piece.get("text")), 0, choice)
        elif kind == "thinking":
            told = piece.get("thinking")
            pieces = told if isinstance(told, list) else [{"text": told}]
            texts = [word(each.get("text")) for each in pieces if isinstance(each, dict)]
            yield Thinking("".join(texts), 0, choice)
        else:
            yield Raw("content", source_of({"choice": choice, "content": piece}))


def _citations(annotations: Any, choice: int) -> Iterator[Part]:
    for annotation in annotations if isinstance(annotations, list) else ():
        cited = annotation.get("url_citation") if isinstance(annotation, dict) else None
        if isinstance(cited, dict):
            yield Citation(
                url=word(cited.get("url")),
                title=word(cited.get("title")),
                text=word(cited.get("content")),
                start=whole_number(cited.get("start_index")),
                end=whole_number(cited.get("end_index")),
                choice=choice,
                source=annotation,
            )


def _images(images: Any, choice: int) -> Iterator[Part]:
    """Yield images as OpenRouter sends them, nearly always as ``data:`` URLs (RFC 2397)."""
    for image in images if isinstance(images, list) else ():
        inner = image.get("image_url") if isinstance(image, dict) else None
        url = word(inner.get("url")) if isinstance(inner, dict) else ""
        head, comma, data = url.partition(",")
        if comma and head.startswith("data:") and head.endswith(";base64"):
            yield File(head[len("data:") : -len(";base64")], data=data, choice=choice)
        elif url:
            yield File("image/*", url=url, choice=choice)
