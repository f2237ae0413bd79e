"""Anthropic messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.dialects.anthropic_decoder import AnthropicDecoder
from proxy.dialects.base import Decoder, Dialect, Failure, Verdict, word_for
from proxy.dialects.payload import data_block, read, write
from proxy.stream.sse import decode

#: Events that add to the answer. After one of them an earlier stop reason no longer counts.
CONTENT = frozenset({"message_start", "content_block_start", "content_block_delta"})

EVENTS = CONTENT | {"content_block_stop", "message_delta", "message_stop", "ping", "error"}

ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    499: "api_error",  # a stream that somebody cancelled was not a bad request
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Delta(msgspec.Struct):
    """What matters here of a ``message_delta``'s delta."""

    stop_reason: Any = None


class Payload(msgspec.Struct):
    """What matters here of an event's data."""

    type: Any = None
    delta: Delta | None = None

    @property
    def stops(self) -> bool:
        """Whether it gives the reason why the model stopped."""
        return self.delta is not None and bool(self.delta.stop_reason)


class Anthropic(Dialect):
    """Named events, ``event:`` equal to ``data.type``, from ``message_start`` to ``message_stop``."""

    __slots__ = ()

    name = "anthropic"
    provider = "anthropic"

    def serves(self, segments: list[str]) -> bool:
        """``…/messages``; what lies below it (``count_tokens``, ``batches``) does not stream."""
        return segments[-1:] == ["messages"]

    def confirms(self, block: bytes) -> bool:
        """One of the protocol's events, its name in the ``event:`` line and in its data.

        Both, because an app's own feed may well send ``event: ping``, and because the SDKs ignore
        blocks without an ``event:`` line.
        """
        event = decode(block)
        return event.event in EVENTS and read(event.data, Payload).type == event.event

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Complete with ``message_stop``, finished with a stop reason that no content follows.

        The reason arrives when the last content block has been closed, together with the final
        usage. What then is missing is an event that carries nothing; clients have the whole answer.
        """
        verdict = Verdict.OPEN
        for event in map(decode, tail):
            if event.event == "error":
                return Verdict.ERROR
            if event.event in CONTENT:
                verdict = Verdict.OPEN
            elif event.event == "message_stop":
                verdict = Verdict.COMPLETE
            elif event.event == "message_delta" and read(event.data, Payload).stops:
                verdict = Verdict.FINISHED
        return verdict

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """An ``error`` event: the SDKs raise on its name."""
        return data_block(error_object(failure.status, failure.message), event="error")

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """The same object as in-band. It has no place for ``kind``."""
        return write(error_object(status, message))

    def decoder(self, salt: str) -> Decoder:
        """Return what reads a message's events."""
        return AnthropicDecoder(salt)


def error_object(status: int, message: str) -> dict[str, Any]:
    """Return Anthropic's error envelope. All its types end in ``_error``."""
    kind = word_for(status, ERROR_TYPES, "invalid_request_error", "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
