"""The framings in which the provider writes a stream: events, lines, one array, or binary messages.

As with events, the encoders are its own, apart from the sidecar's decoders.
"""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Protocol

from proxy.demo.event import Event


class Framing(Protocol):
    """Writes a stream's events one by one. Stateless."""

    @property
    def content_type(self) -> str:
        """What the answer's header says."""
        ...

    @property
    def end(self) -> bytes:
        """The bytes after the last event of a stream that ends well, or with the API's own error."""
        ...

    def block(self, event: Event, *, first: bool, newline: str = "\n", size: int = 0) -> bytes:
        """An event's bytes, padded to at least ``size``; ``newline`` ends lines, where it has some."""
        ...


class EventStream:
    """Server-sent events."""

    content_type = "text/event-stream; charset=utf-8"
    end = b""

    def block(self, event: Event, *, first: bool, newline: str = "\n", size: int = 0) -> bytes:
        """The event's lines and an empty one."""
        return event.block(newline=newline, size=size)


class Lines:
    """Lines of JSON: an event's data alone."""

    content_type = "application/x-ndjson"
    end = b""

    def block(self, event: Event, *, first: bool, newline: str = "\n", size: int = 0) -> bytes:
        """The data and the end of its line."""
        return _padded(event.data, size - len(newline)) + newline.encode()


class Array:
    """One JSON array, its elements the data of events, as Google's servers write it."""

    content_type = "application/json; charset=UTF-8"
    end = b"\n]\n"

    def block(self, event: Event, *, first: bool, newline: str = "\n", size: int = 0) -> bytes:
        """What stands before the element, and the element."""
        before = b"[" if first else b",\r\n"
        return before + _padded(event.data, size - len(before))


class Messages:
    """AWS's ``application/vnd.amazon.eventstream``."""

    content_type = "application/vnd.amazon.eventstream"
    end = b""

    def block(self, event: Event, *, first: bool, newline: str = "\n", size: int = 0) -> bytes:
        """The event as a message. One whose name ends in ``Exception`` is one."""
        kind = "exception" if (event.name or "").endswith("Exception") else "event"
        headers = {
            f":{kind}-type": event.name or "",
            ":content-type": "application/json",
            ":message-type": kind,
        }
        missing = size - len(message(headers, event.data.encode()))
        payload = _padded(event.data, len(event.data.encode()) + missing)
        return message(headers, payload)


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message: lengths, their CRC, headers (all of them texts, type 7), the payload, the CRC of all."""
    head = b"".join(map(_header, headers.items()))
    lengths = struct.pack("!II", 12 + len(head) + len(payload) + 4, len(head))
    body = lengths + struct.pack("!I", crc32(lengths)) + head + payload
    return body + struct.pack("!I", crc32(body))


def _header(header: tuple[str, str]) -> bytes:
    name, value = (text.encode() for text in header)
    return struct.pack("!B", len(name)) + name + struct.pack("!BH", 7, len(value)) + value


def _padded(data: str, size: int) -> bytes:
    """The bytes of a JSON text, with white space after it up to a size."""
    return data.encode().ljust(size)


EVENT_STREAM: Framing = EventStream()
LINES: Framing = Lines()
ARRAY: Framing = Array()
MESSAGES: Framing = Messages()
