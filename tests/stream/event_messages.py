"""AWS event stream messages as they are written, for tests: every type of header, and what can be wrong."""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Mapping
from uuid import UUID

#: A header's value with its type, as ``encoded`` writes it.
Typed = tuple[int, bool | int | bytes | str | UUID]

NUMBERS = {2: ">b", 3: ">h", 4: ">i", 5: ">q", 8: ">q"}


def encoded(kind: int, value: bool | int | bytes | str | UUID) -> bytes:
    """Return a header's value with its type before it."""
    match value:
        case bool():
            body = b""
        case int():
            body = struct.pack(NUMBERS[kind], value)
        case UUID():
            body = value.bytes
        case str():
            body = struct.pack(">H", len(value.encode())) + value.encode()
        case bytes():
            body = struct.pack(">H", len(value)) + value
    return bytes([kind]) + body


def header(name: str, kind: int, value: bool | int | bytes | str | UUID) -> bytes:
    """Return one header."""
    return bytes([len(name.encode())]) + name.encode() + encoded(kind, value)


def framed(headers: bytes, payload: bytes = b"{}") -> bytes:
    """Return a message with these bytes as its headers."""
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", crc32(lengths)) + headers + payload
    return message + struct.pack(">I", crc32(message))


def message(headers: Mapping[str, Typed | str], payload: bytes = b"{}") -> bytes:
    """Return a message; a header that is only a text has its type."""
    typed = ((name, value if isinstance(value, tuple) else (7, value)) for name, value in headers.items())
    return framed(b"".join(header(name, *value) for name, value in typed), payload)


def event(name: str, payload: bytes = b"{}") -> bytes:
    """Return the message of an event."""
    return message(
        {":event-type": name, ":content-type": "application/json", ":message-type": "event"}, payload
    )


def exception(name: str, payload: bytes) -> bytes:
    """Return the message of an exception."""
    return message({":exception-type": name, ":message-type": "exception"}, payload)
