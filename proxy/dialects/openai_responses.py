"""OpenAI Responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.dialects.base import Decoder, Dialect, Failure, Verdict
from proxy.dialects.openai import error_object
from proxy.dialects.openai_decoder import is_done
from proxy.dialects.openai_responses_decoder import OpenAIResponsesDecoder
from proxy.dialects.payload import data_block, read, write
from proxy.stream.sse import Event, decode

#: The events after which nothing comes. An ``incomplete`` response is as whole as the caller's own
#: token limit, or the provider's filter, let it be; ``failed`` is the provider telling an error.
ENDS: Mapping[str, Verdict] = {
    "response.completed": Verdict.COMPLETE,
    "response.incomplete": Verdict.COMPLETE,
    "response.failed": Verdict.ERROR,
    "error": Verdict.ERROR,
}


class Payload(msgspec.Struct):
    """What matters here of an event's data."""

    type: Any = None
    error: Any = None
    sequence_number: int | None = None


class OpenAIResponses(Dialect):
    """Named, numbered events, ``event:`` equal to ``data.type``; the last is one of ``ENDS``."""

    __slots__ = ()

    name = "openai-responses"
    provider = "openai"
    streams_get = True

    def serves(self, segments: list[str]) -> bool:
        """``…/responses``, and ``…/responses/resp_…``, where a running response is streamed again.

        Its siblings (``…/responses/compact``, ``…/resp_…/cancel``) do not stream.
        """
        return segments[-1:] == ["responses"] or (
            segments[-2:-1] == ["responses"] and segments[-1].startswith("resp_")
        )

    def confirms(self, block: bytes) -> bool:
        """An event of the ``response.`` family, or an error."""
        name = name_of(decode(block))
        return name.startswith("response.") or name == "error"

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Decided by the terminal event; servers that add OpenAI chat's ``[DONE]`` mean the end too."""
        verdicts = {verdict_of(event) for event in map(decode, tail)}
        return next((end for end in (Verdict.ERROR, Verdict.COMPLETE) if end in verdicts), Verdict.OPEN)

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """An ``error`` event with the documented flat fields *and* an ``error`` object.

        The flat form alone is a silent short answer in OpenAI's own SDKs, the object alone is one in
        others. ``sequence_number`` continues the stream's numbers: it is required, and a client may
        go by it when it resumes.
        """
        error = error_object(failure.status, failure.reason, failure.message)
        flat = {"type": "error", "code": failure.reason, "message": failure.message, "param": None}
        number = next_sequence_number(tail)
        return data_block({**flat, "sequence_number": number, "error": error}, event="error")

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """``{"error": …}``, as chat completions answer."""
        return write({"error": error_object(status, kind, message)})

    def decoder(self, salt: str) -> Decoder:
        """Return what reads a response's events."""
        return OpenAIResponsesDecoder(salt)


def name_of(event: Event) -> str:
    """Return an event's name: its ``event:`` line, or where a server leaves that out, its type."""
    if event.event != "message":
        return event.event
    payload = read(event.data, Payload)
    return "error" if payload.error else str(payload.type)


def verdict_of(event: Event) -> Verdict:
    """Return what one event says about the stream's end."""
    if is_done(event):
        return Verdict.COMPLETE
    return ENDS.get(name_of(event), Verdict.OPEN)


def next_sequence_number(tail: Sequence[bytes]) -> int:
    """Return one more than the last number in ``tail``, or 0 where there is none."""
    numbers = (read(decode(block).data, Payload).sequence_number for block in reversed(tail))
    return next((number + 1 for number in numbers if number is not None), 0)
