"""AWS event stream messages (``application/vnd.amazon.eventstream``): binary, each one becomes a block.

A message is (all numbers big-endian; Smithy, "Amazon Event Stream Specification")::

    prelude     total length     u32    of the whole message, these bytes included
                headers length   u32
                CRC              u32    of the two lengths
    headers     name length u8, name, type u8, value; and the next
    payload
    CRC         u32                     of everything before it

What it means stands in headers: ``:message-type`` is ``event`` (its name in ``:event-type``), ``exception``
(``:exception-type``), or ``error`` (``:error-code``, ``:error-message``, and no payload).
"""

from __future__ import annotations

import json
import struct
from binascii import crc32
from typing import Final

from proxy.stream.framing import data_lines
from proxy.stream.sse import MAX_BLOCK_BYTES

#: Bytes of the prelude, and of the prelude and the last CRC together: no message is shorter.
PRELUDE_BYTES: Final = 12
LEAST_BYTES: Final = 16

#: Most bytes of headers in one message, as the specification says.
MAX_HEADERS_BYTES: Final = 128 * 1024

#: The event that tells of a message of type ``error``: its code could pass for an event's name.
ERROR_EVENT: Final = "error"

Value = bool | int | bytes | str

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")

#: Types of header values, by number: those that are their type, those of a fixed size (byte, short,
#: integer, long, and timestamp, in milliseconds of the epoch), and those that tell their length.
_CONSTANTS: Final = {0: True, 1: False}
_NUMBERS: Final = {2: ">b", 3: ">h", 4: ">i", 5: ">q", 8: ">q"}
_BYTES, _STRING, _UUID = 6, 7, 9
_UUID_BYTES = 16


class BadMessage(ValueError):
    """A message that is not as it should be. The text tells what came, what was expected, and where in it."""


class EventMessages:
    """Cuts messages into blocks ``event: <type>`` and ``data: <payload>``.

    ``overflowed`` and ``broken`` are a ``Framing``'s. A message that announces itself as too long is not
    waited for.
    """

    __slots__ = ("_at", "_begun", "_limit", "_needed", "broken", "overflowed")

    #: No byte of another format may pass as one of an event stream.
    between_blocks = False
    pending = b""

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self._limit = max_block_bytes
        self._begun = bytearray()  # the message that has not come whole
        self._needed = PRELUDE_BYTES  # as many of its bytes are needed to go on
        self._at = 0  # the byte of the body at which it begins
        self.overflowed = 0
        self.broken = ""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that ``data`` completes, oldest first."""
        if self.overflowed or self.broken:
            return []
        if self._begun:
            self._begun += data
            if len(self._begun) < self._needed:
                return []
            data = bytes(self._begun)
        blocks: list[bytes] = []
        try:
            place = self._cut(data, blocks)
        except BadMessage as error:
            self.broken = f"in the message that begins at byte {self._at}: {error}"
            place = len(data)
        self._begun = bytearray(data[place:])
        return blocks

    def finish(self) -> list[bytes]:
        """Return nothing: a message tells its length."""
        if self._begun and not (self.overflowed or self.broken):
            self.broken = f"the body ended after {len(self._begun)} bytes of the message that begins at byte "
            self.broken += f"{self._at}: at least {self._needed} were expected"
        return []

    def _cut(self, data: bytes, blocks: list[bytes]) -> int:
        """Add the blocks of whole messages; return where the next message begins. Raises BadMessage."""
        place = 0
        while True:
            self._needed = PRELUDE_BYTES
            if len(data) - place < PRELUDE_BYTES:
                return place
            self._needed = length = total_length(data, place)
            if length > self._limit:
                return self._overflow(length, data)
            if len(data) - place < length:
                return place
            block = block_of(data[place : place + length])
            if len(block) > self._limit:  # line breaks grow
                return self._overflow(len(block), data)
            blocks.append(block)
            place += length
            self._at += length

    def _overflow(self, size: int, data: bytes) -> int:
        self.overflowed = size
        return len(data)


def total_length(data: bytes, place: int) -> int:
    """Return the length of the message that begins at ``place``, from its prelude. Raises BadMessage."""
    length, headers_bytes, crc = _PRELUDE.unpack_from(data, place)
    _check("prelude's", crc, crc32(data[place : place + 8]))
    if headers_bytes > MAX_HEADERS_BYTES:
        raise BadMessage(f"{headers_bytes} bytes of headers came: at most {MAX_HEADERS_BYTES} are allowed")
    if length < LEAST_BYTES + headers_bytes:
        raise BadMessage(
            f"a length of {length} came with {headers_bytes} bytes of headers: "
            f"at least {LEAST_BYTES + headers_bytes} was expected"
        )
    return int(length)


def block_of(message: bytes) -> bytes:
    """Return the block that tells a whole message. Raises BadMessage."""
    _, headers_bytes, _ = _PRELUDE.unpack_from(message)
    end = len(message) - _CRC.size
    (crc,) = _CRC.unpack_from(message, end)
    _check("message's", crc, crc32(message[:end]))
    payload_from = PRELUDE_BYTES + headers_bytes
    headers = read_headers(message[PRELUDE_BYTES:payload_from])
    payload = message[payload_from:end]
    match headers.get(":message-type"):
        case "event":
            name = _name(headers, ":event-type")
        case "exception":
            name = _name(headers, ":exception-type")
        case "error":
            name, payload = ERROR_EVENT, _error(headers)
        case other:
            raise BadMessage(f"the :message-type {other!r} came: event, exception or error was expected")
    _check_text(payload, payload_from)
    return b"event: %b\n%b" % (name.encode(), data_lines(payload))


def read_headers(data: bytes) -> dict[str, Value]:
    """Return the headers of a message by name. Raises BadMessage."""
    headers: dict[str, Value] = {}
    place = 0
    while place < len(data):
        begins = place
        try:
            name, place = _sized(data, place, ">B")
            value, place = _value(data, place)
            text = name.decode()
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise BadMessage(f"the header at byte {PRELUDE_BYTES + begins} is not whole: {error}") from None
        if text in headers:
            raise BadMessage(f"the header {text!r} came twice, again at byte {PRELUDE_BYTES + begins}")
        headers[text] = value
    return headers


def _value(data: bytes, place: int) -> tuple[Value, int]:
    kind, place = data[place], place + 1
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], place
    if kind in _NUMBERS:
        (number,) = struct.unpack_from(_NUMBERS[kind], data, place)
        return int(number), place + struct.calcsize(_NUMBERS[kind])
    if kind == _UUID:
        return _taken(data, place, _UUID_BYTES)
    if kind not in (_BYTES, _STRING):
        raise BadMessage(
            f"a header of type {kind} came at byte {PRELUDE_BYTES + place - 1}: 0 to 9 are known"
        )
    value, place = _sized(data, place, ">H")
    return (value.decode() if kind == _STRING else value), place


def _sized(data: bytes, place: int, length_form: str) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(length_form, data, place)
    return _taken(data, place + struct.calcsize(length_form), length)


def _taken(data: bytes, place: int, length: int) -> tuple[bytes, int]:
    if len(data) - place < length:
        raise IndexError(f"{length} bytes were announced, {len(data) - place} are left")
    return data[place : place + length], place + length


def _name(headers: dict[str, Value], header: str) -> str:
    name = headers.get(header)
    if not isinstance(name, str) or not name.isprintable():
        raise BadMessage(f"the {header} {name!r} came: a name was expected")
    return name


def _error(headers: dict[str, Value]) -> bytes:
    code, message = (str(headers.get(header, "")) for header in (":error-code", ":error-message"))
    return json.dumps({"code": code, "message": message}, separators=(",", ":")).encode()


def _check(whose: str, came: int, computed: int) -> None:
    if came != computed:
        raise BadMessage(f"the {whose} CRC {came:08x} came: {computed:08x} was expected")


def _check_text(payload: bytes, at: int) -> None:
    """Raise BadMessage for a payload that an event stream, which is UTF-8, can not carry."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        place = at + error.start
        raise BadMessage(
            f"{error.object[error.start :][:1]!r} came at its byte {place}: UTF-8 was expected"
        ) from None
