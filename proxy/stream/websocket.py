"""WebSocket frames: the wire format of RFC 6455 §5, as far as a proxy needs it.

::

    1 byte   FIN RSV1 RSV2 RSV3 opcode
    1 byte   MASK length (0 … 125), or 126: two bytes follow, or 127: eight bytes follow
    4 bytes  masking key, in frames from a client
    payload

Two readers of frames live here. ``Messages`` takes a client's frames apart, strictly, for a server that
speaks to it. ``Passage`` only finds where frames begin and end, for a proxy through which they pass
untouched: so it knows where a frame of its own can go between, how large a message gets, and which pong is
its own.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple


class Opcode(enum.IntEnum):
    """What a frame carries (§5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


KNOWN = frozenset(Opcode)

#: Opcodes from here on are control frames: never fragmented, never longer than MAX_CONTROL bytes (§5.5).
FIRST_CONTROL = 8
MAX_CONTROL = 125

FIN, RESERVED, OPCODE = 0x80, 0x70, 0x0F
MASKED, LENGTH = 0x80, 0x7F
MASK_BYTES = 4


class CloseCode(enum.IntEnum):
    """Why a connection ends (§7.4.1, and the registry that it began)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_TEXT = 1007
    TOO_BIG = 1009


#: Codes that a close frame may carry: those defined for it, those for libraries and applications (§7.4.2).
SENDABLE = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})

#: The longest reason that fits beside a code.
MAX_REASON = MAX_CONTROL - 2

_LONG = Struct("!BBQ")
_TWO, _EIGHT = Struct("!H"), Struct("!Q")


def frame(opcode: int, payload: bytes, key: bytes | None = None) -> bytes:
    """Return one whole, final frame; masked where ``key`` (4 bytes) is given, as a client's must be."""
    size, masked = len(payload), 0
    if key is not None:
        masked, payload = MASKED, key + mask(payload, key)
    if size <= MAX_CONTROL:
        return b"%c%c%b" % (FIN | opcode, masked | size, payload)
    if size < 1 << 16:
        return b"%c%c%c%c%b" % (FIN | opcode, masked | 126, size >> 8, size & 255, payload)
    return _LONG.pack(FIN | opcode, masked | 127, size) + payload


def close_payload(code: int, reason: str = "") -> bytes:
    """Return what a close frame carries; a reason that is too long is cut between two characters."""
    told = reason.encode()[:MAX_REASON].decode("utf-8", "ignore").encode()
    return _TWO.pack(code) + told


def close_code(payload: bytes) -> int:
    """Return the code in a close frame's payload; NO_STATUS where it has none."""
    return int(_TWO.unpack_from(payload)[0]) if len(payload) >= 2 else CloseCode.NO_STATUS


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask (§5.3): each byte XOR the key's, in turn. As one number, in one step."""
    size = len(payload)
    keys = key * (size // MASK_BYTES + 1)
    number = int.from_bytes(payload, "little") ^ int.from_bytes(keys[:size], "little")
    return number.to_bytes(size, "little")


#: Returns a payload with a key's mask taken off.
Unmask = Callable[[bytes, bytes], bytes]


class Header(NamedTuple):
    """A frame's header: its first byte, its payload's size and key, and its own size in bytes."""

    first: int
    size: int
    key: bytes | None
    length: int

    @property
    def final(self) -> bool:
        """Whether the frame is its message's last."""
        return bool(self.first & FIN)

    @property
    def opcode(self) -> int:
        """What the frame carries; not every value is one of ``Opcode``."""
        return self.first & OPCODE

    @property
    def control(self) -> bool:
        """Whether it is a control frame."""
        return self.opcode >= FIRST_CONTROL


def header_at(data: bytes, at: int = 0) -> Header | None:
    """Return the header that begins at ``at``, or None where it is not there whole."""
    end = at + 2
    if len(data) < end:
        return None
    first, second = data[at], data[at + 1]
    size = second & LENGTH
    if size >= 126:
        number = _TWO if size == 126 else _EIGHT
        if len(data) < end + number.size:
            return None
        size = number.unpack_from(data, end)[0]
        end += number.size
    key = None
    if second & MASKED:
        key = data[end : end + MASK_BYTES]
        end += MASK_BYTES
        if len(data) < end:
            return None
    return Header(first, size, key, end - at)


# ── a server's side ─────────────────────────────────────────────────────────────────────────────────────


class Message(NamedTuple):
    """A whole message or control frame, unmasked. Text is still UTF-8, and known to be valid."""

    opcode: Opcode
    data: bytes


@dataclass(frozen=True, slots=True)
class Violation:
    """What a peer did that ends the connection: the close code and reason that it is told."""

    code: CloseCode
    reason: str


class Messages:
    """A client's frames as messages, however they are split over reads and fragments.

    ``feed`` returns what is whole. Once a client has broken the protocol, or sent a message of more than
    ``limit`` bytes, ``violation`` says how, and nothing more is returned or kept. ``unmask`` may be a faster
    one: a message of megabytes would hold up everybody else.
    """

    __slots__ = ("_begun", "_fragments", "_limit", "_pending", "_unmask", "_wanted", "violation")

    def __init__(self, limit: int, unmask: Unmask | None = None) -> None:
        self._limit = limit
        self._unmask = mask if unmask is None else unmask
        self._pending = bytearray()  # a frame that is not whole yet
        self._wanted = 0  # so many bytes it takes at least until there is something to do
        self._begun: Opcode | None = None  # of the message whose last fragment has not come
        self._fragments = bytearray()  # not a list: a million empty fragments must cost nothing
        self.violation: Violation | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that ``data`` completes, oldest first."""
        if self.violation is not None:
            return []
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return []
            data = bytes(self._pending)
            self._pending = bytearray()
        messages: list[Message] = []
        at = self._wanted = 0
        while self.violation is None and at < len(data):
            header = header_at(data, at)
            if header is None:
                self._wanted = 2
                break
            self.violation = self._fault(header)
            end = at + header.length + header.size
            if self.violation is None and end > len(data):
                self._wanted = end - at
                break
            if self.violation is None:
                message = self._taken(header, data[at + header.length : end])
                if message is not None:
                    messages.append(message)
            at = end
        if self.violation is None:
            self._pending = bytearray(data[at:])
        else:
            self._fragments.clear()
        return messages

    def _fault(self, header: Header) -> Violation | None:
        """What is wrong with a frame, as far as its header tells."""
        opcode = header.opcode
        if header.first & RESERVED:
            return _broken("a reserved bit is set, and no extension was agreed on")
        if opcode not in KNOWN:
            return _broken(f"unknown opcode {opcode}")
        if header.key is None:  # "a server MUST close the connection" (§5.1)
            return _broken("a frame from a client must be masked")
        if header.control:
            if not header.final or header.size > MAX_CONTROL:
                return _broken("a control frame must be whole, and no longer than 125 bytes")
            return None
        if (opcode == Opcode.CONTINUATION) != (self._begun is not None):
            return _broken("a message's first frame names its kind, and only its first")
        size = len(self._fragments) + header.size
        if size > self._limit:
            return Violation(CloseCode.TOO_BIG, f"a message of {size} bytes or more; at most {self._limit}")
        return None

    def _taken(self, header: Header, payload: bytes) -> Message | None:
        """Take one whole frame; return the message that it is, or completes."""
        assert header.key is not None, "what is not masked is refused"
        payload = self._unmask(payload, header.key)
        opcode = Opcode(header.opcode)
        if header.control:
            self.violation = _close_fault(payload) if opcode is Opcode.CLOSE else None
            return Message(opcode, payload) if self.violation is None else None
        opcode = opcode if self._begun is None else self._begun
        if not header.final:
            self._begun = opcode
            self._fragments += payload
            return None
        if self._fragments:
            payload = bytes(self._fragments + payload)
            self._fragments = bytearray()
        self._begun = None
        if opcode is Opcode.TEXT and not _is_utf8(payload):
            self.violation = Violation(CloseCode.INVALID_TEXT, "a text message must be UTF-8")
            return None
        return Message(opcode, payload)


def _broken(how: str) -> Violation:
    return Violation(CloseCode.PROTOCOL_ERROR, how)


def _close_fault(payload: bytes) -> Violation | None:
    """§5.5.1: nothing, or a code that may be sent and a reason in UTF-8."""
    if payload and (len(payload) < 2 or close_code(payload) not in SENDABLE):
        return _broken("a close frame without a code that may be sent")
    if not _is_utf8(payload[2:]):
        return Violation(CloseCode.INVALID_TEXT, "a close reason must be UTF-8")
    return None


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# ── a proxy's side ──────────────────────────────────────────────────────────────────────────────────────


class Passage:
    """One direction of a connection whose frames pass untouched.

    ``feed`` returns what may pass on now: everything, but for headers and control frames that are not
    whole yet, pongs that answer our own ping (``token``), and whatever comes from a header on that announces
    a message of more than ``limit`` bytes. Then ``too_big`` is that message's size, and nothing passes any
    more. ``closed`` is the code of the close frame that has passed. ``ended`` says that either has happened,
    ``finished`` that the peer's close frame has come, also one that did not pass.
    What peers do wrong is between them: it passes.

    ``messages`` and ``bytes`` count data messages and their payload as it is on the wire.
    """

    __slots__ = (
        "_held",
        "_left",
        "_size",
        "_token",
        "bytes",
        "closed",
        "ended",
        "finished",
        "limit",
        "messages",
        "too_big",
    )

    def __init__(self, limit: int, token: bytes) -> None:
        self.limit = limit
        self._token = token
        self._held = b""  # the beginning of a frame that must be seen whole
        self._left = 0  # bytes of the current frame's payload that have not come
        self._size = 0  # bytes of the current message's earlier frames
        self.messages = 0
        self.bytes = 0
        self.too_big = 0
        self.closed: int | None = None
        self.ended = False
        self.finished = False

    @property
    def between_frames(self) -> bool:
        """Whether a frame of ours may follow what has passed."""
        return not self._left or self.too_big > 0  # what is too big is left out from its header on

    @property
    def left(self) -> int:
        """Bytes that belong to the frame of which the beginning has passed."""
        return 0 if self.too_big else self._left

    def feed(self, data: bytes) -> bytes:
        """Return what of the peer's bytes passes now."""
        if not (self._held or self.too_big):
            size = len(data)
            if self._left >= size:
                self._left -= size
                return data
            if not self._left and self._is_message(data, size):
                return data
        return self._feed_any(data)

    def _is_message(self, data: bytes, size: int) -> bool:
        """Count the read that nearly all are: one short data frame, whole and unfragmented."""
        first = data[0]
        if not 0 < first & OPCODE < FIRST_CONTROL or not first & FIN or size < 2:
            return False
        second = data[1]
        length, head = second & LENGTH, 6 if second & MASKED else 2
        if length == 126 and size >= 4:
            length = data[2] << 8 | data[3]
            head += 2
        elif length >= 126:
            return False
        if head + length != size or length > self.limit:
            return False
        self._size = 0
        self.messages += 1
        self.bytes += length
        return True

    def _feed_any(self, data: bytes) -> bytes:
        if self._held:
            data, self._held = self._held + data, b""
        passing: list[bytes] = []
        begin = len(data) if self.too_big else 0  # of what passes and is not yet in the list
        at = min(self._left, len(data))
        self._left -= at
        while at < len(data):
            header = header_at(data, at)
            if header is None:
                self._held = data[at:]
                break
            end = at + header.length + header.size
            if header.control and header.size <= MAX_CONTROL:
                if end > len(data):
                    self._held = data[at:]
                    break
                if self._is_ours(header, data[at + header.length : end]) and not self.too_big:
                    passing.append(data[begin:at])
                    begin = end
            elif not self._fits(header):
                passing.append(data[begin:at])
                begin = len(data)
            self._left = max(end - len(data), 0)
            at = min(end, len(data))
        passing.append(data[begin:at])
        return b"".join(passing)

    def _fits(self, header: Header) -> bool:
        """Count a frame; return whether things may still pass."""
        alone = header.control or header.opcode != Opcode.CONTINUATION
        size = header.size if alone else self._size + header.size
        if size > self.limit or self.too_big:
            self.too_big = self.too_big or size
            self.ended = True
            return False
        if not header.control:  # one that is too long for one is no message either
            self.bytes += header.size
            self.messages += header.final
            self._size = 0 if header.final else size
        return True

    def _is_ours(self, header: Header, payload: bytes) -> bool:
        """Look at a whole control frame; return whether it answers our ping."""
        if header.key is not None:
            payload = mask(payload, header.key)
        if header.opcode == Opcode.CLOSE and not self.finished:
            self.finished = self.ended = True
            self.closed = None if self.too_big else close_code(payload)
        return header.opcode == Opcode.PONG and payload == self._token
