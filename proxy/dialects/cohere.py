"""Cohere's chat, version 2."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.dialects.base import Decoder, Dialect, Failure, Verdict
from proxy.dialects.cohere_decoder import CohereDecoder, event_of
from proxy.dialects.payload import write

#: Events that only this API sends, by their ``type``.
EVENTS = frozenset({"message-start", "message-end"})


class Cohere(Dialect):
    """Events whose data has a ``type``, from ``message-start`` to ``message-end``."""

    __slots__ = ()

    name = "cohere"
    provider = "cohere"

    def serves(self, segments: list[str]) -> bool:
        """``…/v2/chat``. Version 1 streams in another form, and ``/chat`` alone is any app's."""
        return segments[-2:] == ["v2", "chat"]

    def confirms(self, block: bytes) -> bool:
        """The beginning of a message; or its end, where the model failed at once."""
        return event_of(block).type in EVENTS

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Complete with ``message-end``, unless that tells of an error."""
        ends = [event for event in map(event_of, tail) if event.type == "message-end"]
        if any(event.fails for event in ends):
            return Verdict.ERROR
        return Verdict.COMPLETE if ends else Verdict.OPEN

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """None: the SDK raises on no event, but it does where the connection breaks."""
        return None

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """The API's error object, which has no place for ``kind``."""
        return write({"message": message})

    def decoder(self, salt: str) -> Decoder:
        """Return what reads a message's events."""
        return CohereDecoder(salt)
