"""What of the events of OpenAI's responses is read."""

from __future__ import annotations

from typing import Any

import msgspec


class InputDetails(msgspec.Struct):
    """How many of the tokens that were sent were read from a cache, or written to it."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    """How many of the tokens that were made are reasoning."""

    reasoning_tokens: int | None = None


class ResponseUsage(msgspec.Struct):
    """Tokens in all."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class OutputItem(msgspec.Struct):
    """An item of a finished response."""

    type: str | None = None


class IncompleteDetails(msgspec.Struct):
    """Why a response ended before its end."""

    reason: str | None = None


class ResponseError(msgspec.Struct):
    """Why a response failed."""

    code: Any = None
    type: str | None = None
    message: str | None = None


class Response(msgspec.Struct):
    """The response, with what is known of it so far."""

    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    output: list[OutputItem] | None = None
    usage: ResponseUsage | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None


class Delta(msgspec.Struct):
    """A piece of something, and where it belongs."""

    type: str | None = None
    delta: Any = None
    output_index: int = 0
    content_index: int | None = None
    summary_index: int | None = None
    logprobs: Any = None
    error: Any = None


class ResponseEvent(msgspec.Struct):
    """An event with the whole response."""

    response: Response | None = None


class ItemEvent(msgspec.Struct):
    """An event with a whole item."""

    output_index: int = 0
    item: dict[str, Any] | None = None


class ArgumentsEvent(msgspec.Struct):
    """An event with all that a call's fragments make together."""

    output_index: int = 0
    arguments: str | None = None
    input: str | None = None


class AnnotationEvent(msgspec.Struct):
    """An event with a citation."""

    output_index: int = 0
    content_index: int | None = None
    annotation: Any = None


class ErrorEvent(msgspec.Struct):
    """An error, flat, as it is documented, or in an object."""

    code: Any = None
    message: str | None = None
    error: ResponseError | None = None
