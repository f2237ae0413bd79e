"""What OpenAI's responses say.

A response is a list of items: messages, reasoning, and calls of many kinds, some of tools that OpenAI runs
itself. An item is announced, then told in pieces, then told whole; ``openai_responses_items`` knows which
of them are calls. Blocks are counted here, since the API's own counts are three (of items, of their
contents, of the parts of a summary).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from proxy.dialects.base import WORDLESS, Decoder
from proxy.dialects.json_value import source_of, whole_number, word
from proxy.dialects.openai_decoder import DONE, STATUSES
from proxy.dialects.openai_responses_events import (
    AnnotationEvent,
    ArgumentsEvent,
    Delta,
    ErrorEvent,
    IncompleteDetails,
    InputDetails,
    ItemEvent,
    OutputDetails,
    Response,
    ResponseError,
    ResponseEvent,
    ResponseUsage,
)
from proxy.dialects.openai_responses_items import CLIENT_CALLS, Call, call_of, inside, output_of, results_of
from proxy.dialects.part import (
    Citation,
    End,
    Error,
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
from proxy.dialects.payload import Data, as_text, reader
from proxy.dialects.tool_calls import ToolCalls
from proxy.stream import sse

#: By the reason of ``incomplete_details``.
REASONS: Mapping[str, Reason] = {"max_output_tokens": "length", "content_filter": "content_filter"}

#: The HTTP statuses of error codes that are told by no type.
CODES: Mapping[str, int] = {
    "rate_limit_exceeded": 429,
    "vector_store_timeout": 504,
    **dict.fromkeys(
        (
            "bio_policy",
            "data_residency_mismatch",
            "empty_image_file",
            "failed_to_download_image",
            "image_content_policy_violation",
            "image_file_not_found",
            "image_file_too_large",
            "image_parse_error",
            "image_too_large",
            "image_too_small",
            "invalid_base64_image",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "invalid_prompt",
            "misalignment_policy_violation",
            "unsupported_image_media_type",
        ),
        400,
    ),
}

#: Events that say again what others have said.
REPETITIONS = frozenset(
    {
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.done",
        "response.refusal.done",
        "response.reasoning_text.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.done",
        "response.code_interpreter_call_code.done",
    }
)


_read = reader(Delta)
_read_response = reader(ResponseEvent)
_read_item = reader(ItemEvent)
_read_arguments = reader(ArgumentsEvent)
_read_annotation = reader(AnnotationEvent)
_read_error = reader(ErrorEvent)
Place = tuple[int, int | None, int | None]


class OpenAIResponsesDecoder(Decoder):
    """Reads events by their name, or where a server leaves that out, by their type."""

    __slots__ = (
        "_block",
        "_by_name",
        "_called",
        "_calls",
        "_finish",
        "_open",
        "_place",
        "_started",
        "_untold",
    )

    def __init__(self, salt: str) -> None:
        self._calls = ToolCalls(salt)
        self._open: dict[int, Call] = {}  # calls that have begun and not ended, by their item's index
        self._untold: set[int] = set()  # those of which no fragment has come
        self._called = False  # whether the client has a call to make
        self._place: Place | None = None  # of the newest text or thinking
        self._block = -1  # its number
        self._finish: Finish | None = None
        self._started = False
        self._by_name: Mapping[str, Callable[[Data], list[Part]]] = {
            "response.output_text.delta": self._text,
            "response.reasoning_text.delta": self._thinking,
            "response.reasoning_summary_text.delta": self._thinking,
            "response.refusal.delta": self._refusal,
            "response.function_call_arguments.delta": self._fragment,
            "response.custom_tool_call_input.delta": self._fragment,
            "response.mcp_call_arguments.delta": self._fragment,
            "response.code_interpreter_call_code.delta": self._fragment,
            "response.function_call_arguments.done": self._arguments,
            "response.custom_tool_call_input.done": self._arguments,
            "response.mcp_call_arguments.done": self._arguments,
            "response.output_text.annotation.added": self._annotation,
            "response.output_item.added": self._item_added,
            "response.output_item.done": self._item_done,
            "response.created": self._start,
            "response.queued": self._start,
            "response.in_progress": self._start,
            "response.completed": self._completed,
            "response.incomplete": self._incomplete,
            "response.failed": self._failed,
            "error": _error,
        }

    def decode(self, block: bytes) -> list[Part]:
        """Return what the next event says."""
        name, data = sse.named_data(block)
        if name == "message":
            name = _name_of(data)
        read = self._by_name.get(name)
        if read is not None:
            return read(data)
        if name == DONE:
            return [*self.finish(), End()]
        return [] if name in REPETITIONS or not data else [Raw(name, as_text(data))]

    def finish(self) -> list[Part]:
        """Return the calls that are still open, and why the response ended."""
        finish, self._finish = self._finish, None
        return [*self._calls.end_all(), *([] if finish is None else [finish])]

    # What is said in pieces

    def _text(self, data: Data) -> list[Part]:
        event = _read(data)
        if not event.delta:
            return []
        block = self._number((event.output_index, event.content_index, None))
        said: list[Part] = [Text(word(event.delta), block)]
        if event.logprobs:
            said.append(Raw("logprobs", source_of({"block": block, "logprobs": event.logprobs})))
        return said

    def _thinking(self, data: Data) -> list[Part]:
        event = _read(data)
        place = (event.output_index, event.content_index, event.summary_index)
        return [Thinking(word(event.delta), self._number(place))] if event.delta else []

    def _refusal(self, data: Data) -> list[Part]:
        event = _read(data)
        place = (event.output_index, event.content_index, None)
        return [Refusal(word(event.delta), self._number(place))] if event.delta else []

    def _annotation(self, data: Data) -> list[Part]:
        event = _read_annotation(data)
        return [_citation(event.annotation, self._number((event.output_index, event.content_index, None)))]

    def _number(self, place: Place) -> int:
        """Return the number of the block of text at a place: one more with each place."""
        if place != self._place:
            self._place = place
            self._block += 1
        return self._block

    # Items, and calls among them

    def _item_added(self, data: Data) -> list[Part]:
        event = _read_item(data)
        item = event.item or {}
        call = call_of(item)
        if call is not None:
            return self._begin(event.output_index, call)
        kind = word(item.get("type"))
        told_later = kind in ("message", "reasoning") or kind.endswith("_output")
        return [] if told_later else [Raw("response.output_item.added", as_text(data))]

    def _item_done(self, data: Data) -> list[Part]:
        event = _read_item(data)
        item, key = event.item or {}, event.output_index
        call = call_of(item)
        if call is not None:
            begun = [] if key in self._open else self._begin(key, call)
            return [*begun, *self._end(key, call), *results_of(item, call)]
        if item.get("type") == "reasoning":
            return self._reasoning(item, key)
        output = output_of(item)
        if output is not None:
            return [output]
        return [] if item.get("type") == "message" else [Raw("response.output_item.done", as_text(data))]

    def _reasoning(self, item: dict[str, Any], index: int) -> list[Part]:
        """Return the reasoning that only OpenAI can read. It belongs to the last part of the summary."""
        encrypted = word(item.get("encrypted_content"))
        if not encrypted:
            return []
        told = self._place is not None and self._place[0] == index
        block = self._block if told else self._number((index, None, None))
        return [Thinking("", block, redacted=encrypted)]

    def _begin(self, key: int, call: Call) -> list[Part]:
        parts = self._calls.start(key, call.name, call.id, executed=call.executed)
        self._called = self._called or not call.executed
        if key in self._calls:
            self._open[key] = call
            self._untold.add(key)
        return parts

    def _fragment(self, data: Data) -> list[Part]:
        event = _read(data)
        return self._add(event.output_index, word(event.delta))

    def _arguments(self, data: Data) -> list[Part]:
        """Take what a call's fragments make together, where none has come."""
        event = _read_arguments(data)
        told = event.output_index not in self._untold
        return [] if told else self._add(event.output_index, event.arguments or event.input or "")

    def _add(self, key: int, fragment: str) -> list[Part]:
        call = self._open.get(key)
        if call is None or not fragment:
            return []
        opening = call.opening if key in self._untold else ""
        self._untold.discard(key)
        return self._calls.add(key, opening + (inside(fragment) if call.quoted else fragment))

    def _end(self, key: int, call: Call) -> list[Part]:
        rest = call.source if key in self._untold else call.closing
        self._untold.discard(key)
        self._open.pop(key, None)
        return [*self._calls.add(key, rest), *self._calls.end(key)]

    # The response as a whole

    def _start(self, data: Data) -> list[Part]:
        return self._started_by(_read_response(data).response or Response())

    def _started_by(self, response: Response) -> list[Part]:
        if self._started:
            return []
        self._started = True
        created = response.created_at
        seconds = int(created) if created is not None and math.isfinite(created) else None
        return [Start(response.id or "", response.model or "", seconds)]

    def _completed(self, data: Data) -> list[Part]:
        response = _read_response(data).response or Response()
        called = self._called or any(item.type in CLIENT_CALLS for item in response.output or ())
        return self._ended(response, Finish("tool_calls" if called else "stop", "completed"))

    def _incomplete(self, data: Data) -> list[Part]:
        response = _read_response(data).response or Response()
        details = response.incomplete_details or IncompleteDetails()
        native = details.reason or "incomplete"
        return self._ended(response, Finish(REASONS.get(native, "other"), native))

    def _ended(self, response: Response, finish: Finish) -> list[Part]:
        self._finish = finish
        return [*self._started_by(response), *_usage(response.usage), *self.finish(), End()]

    def _failed(self, data: Data) -> list[Part]:
        response = _read_response(data).response or Response()
        error = _error_of(response.error or ResponseError(), as_text(data))
        return [*self._started_by(response), *_usage(response.usage), error]


def _name_of(data: Data) -> str:
    """Return the type of an event without a name; that of an error may be missing."""
    if as_text(data[: 2 * len(DONE)]).strip() == DONE:
        return DONE
    event = _read(data)
    return event.type or ("error" if event.error else "message")


def _error(data: Data) -> list[Part]:
    """Return an error in either form: flat, as it is documented, or an object under ``error``."""
    event = _read_error(data)
    return [_error_of(event.error or ResponseError(event.code, None, event.message), as_text(data))]


def _error_of(error: ResponseError, told: str) -> Error:
    code = word(error.code) or error.type or "server_error"
    status = CODES.get(code) or STATUSES.get(code) or STATUSES.get(error.type or "", 500)
    return Error(error.message or told or WORDLESS, code, status)


def _usage(usage: ResponseUsage | None) -> list[Part]:
    if usage is None:
        return []
    sent, made = (
        usage.input_tokens_details or InputDetails(),
        usage.output_tokens_details or OutputDetails(),
    )
    return [
        Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=sent.cached_tokens,
            cache_write_input_tokens=sent.cache_write_tokens,
            reasoning_tokens=made.reasoning_tokens,
        )
    ]


def _citation(annotation: Any, block: int) -> Citation:
    """Return a citation of a page or a file. An ``index`` counts files: it is no place in the text."""
    told = annotation if isinstance(annotation, dict) else {}
    return Citation(
        url=word(told.get("url")),
        title=word(told.get("title")),
        document=word(told.get("filename")) or word(told.get("file_id")),
        start=whole_number(told.get("start_index")),
        end=whole_number(told.get("end_index")),
        block=block,
        source=annotation,
    )
