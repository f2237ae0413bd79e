r"""Bytes to blocks, blocks to bytes: the event stream format of the WHATWG HTML standard, §9.2.

The standard describes a parser that consumes lines and dispatches events. A proxy needs something a
little different: it passes events on and looks inside only when it must. So this parser cuts the
byte stream into *blocks*, one per event, and leaves their lines as they are.

Three observations make it both exact and fast:

* Only line ends need care while cutting. "Lines must be separated by either a U+000D CARRIAGE RETURN
  U+000A LINE FEED (CRLF) character pair, a single U+000A LINE FEED (LF) character, or a single
  U+000D CARRIAGE RETURN (CR) character." Almost every upstream sends bare LF, so any other form is
  first rewritten to LF, and the rest of the code knows only LF. A CR that ends one read is a line
  end at once; an LF that begins the next read is then the second half of a pair and is dropped.
* UTF-8 never needs decoding here: the bytes LF, CR and ``:`` cannot be part of a longer sequence.
* An event ends at an empty line, that is, at two LFs in a row. What follows the last such pair is
  kept for the next read, and never becomes an event unless its empty line comes: "Once the end of
  the file is reached, any pending data must be discarded."
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: The media type of event streams.
EVENT_STREAM = "text/event-stream"

#: Longest block a parser accepts unless told otherwise, in bytes. Image events run to megabytes; a
#: peer that never sends an empty line must not be able to fill the memory.
MAX_BLOCK_BYTES = 16 * 1024 * 1024


class Parser:
    """Cuts one event stream into blocks, however its bytes are split over reads.

    ``feed`` takes the next bytes and returns the blocks they complete. A block is the event's lines,
    joined by LF, without the empty line that ends it; blocks of comments or other lines without data
    are returned as well. Empty lines that end nothing are skipped.

    When a block grows beyond ``max_block_bytes``, ``overflowed`` becomes its size in bytes (as far as
    it has come), and the parser keeps and returns nothing more: the stream has to end.
    """

    __slots__ = ("_after_cr", "_at_start", "_limit", "_pending", "_scanned", "overflowed")

    #: No bytes are wrong in an event stream.
    broken = ""

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self._limit = max_block_bytes
        self._pending = bytearray()  # the beginning of a block whose empty line has not come
        self._scanned = 0  # so much of it is known to hold no empty line
        self._at_start = True
        self._after_cr = False
        self.overflowed = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that ``data`` completes, oldest first."""
        if self._at_start:
            data = self._without_byte_order_mark(data)
        if self.overflowed or not data:
            return []
        if self._after_cr or b"\r" in data:
            data = self._with_lf_line_ends(data)
        pending = self._pending
        if pending:
            pending += data
            if pending.find(b"\n\n", self._scanned) < 0:
                self._scanned = len(pending) - 1
                return self._within_limit([])
            data = bytes(pending)
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        if rest or pending:
            # Anything before a first non-empty line ends no event, so it can go at once.
            self._pending = bytearray(rest.lstrip(b"\n"))
            self._scanned = max(len(self._pending) - 1, 0)
        if b"\n\n\n" in data or data.startswith(b"\n"):
            blocks = [block for block in (block.lstrip(b"\n") for block in blocks) if block]
        return self._within_limit(blocks) if len(data) > self._limit else blocks

    def finish(self) -> list[bytes]:
        """Return nothing: an event ends with its empty line alone."""
        return []

    @property
    def between_blocks(self) -> bool:
        """Whether the next byte begins a block, and nothing that came before has a say in what it means."""
        return not (self._pending or self._after_cr or self._at_start or self.overflowed)

    @property
    def pending(self) -> bytes:
        """The block that has begun and not ended."""
        return bytes(self._pending)

    def _within_limit(self, blocks: list[bytes]) -> list[bytes]:
        """Return ``blocks``, or those before the first one that is too long."""
        for index, block in enumerate(blocks):
            if len(block) > self._limit:
                return self._overflow(len(block), blocks[:index])
        begun = len(self._pending) - self._pending.endswith(b"\n")  # that LF may be half of an empty line
        return self._overflow(begun, blocks) if begun > self._limit else blocks

    def _overflow(self, size: int, before: list[bytes]) -> list[bytes]:
        self.overflowed = size
        self._pending = bytearray()
        return before

    def _without_byte_order_mark(self, data: bytes) -> bytes:
        """Drop one leading BOM, even one that is split over reads.

        "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
        """
        data = bytes(self._pending) + data
        self._pending.clear()
        if len(data) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(data):
            self._pending += data
            return b""
        self._at_start = False
        return data.removeprefix(BYTE_ORDER_MARK)

    def _with_lf_line_ends(self, data: bytes) -> bytes:
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


@dataclass(frozen=True, slots=True)
class Event:
    """What a block means to a client. ``data`` is None where the block has no data line.

    ``id`` and ``retry`` (milliseconds) are None where the block does not set them.
    """

    event: str
    data: str | None
    id: str | None
    retry: int | None


def decode(block: bytes) -> Event:
    """Interpret the fields of one block, as the standard's §9.2.6 does."""
    event = "message"
    data: list[str] = []
    last_id: str | None = None
    retry: int | None = None
    for name, value in fields(block):
        if name == b"data":
            data.append(value.decode("utf-8", "replace"))
        elif name == b"event":
            event = value.decode("utf-8", "replace") or "message"
        elif name == b"id" and b"\0" not in value:  # "If the field value does not contain U+0000 NULL"
            last_id = value.decode("utf-8", "replace")
        elif name == b"retry" and is_digits(value):
            retry = int(value)
    return Event(event, "\n".join(data) if data else None, last_id, retry)


#: An event in the form in which nearly all come.
_USUAL = re.compile(rb"(?:event: ([^\n]+)\n)?data: ([^\n]*)")


def named_data(block: bytes) -> tuple[str, bytes | str]:
    """Return an event's name and its data, nothing where it has none, as ``decode`` does, but cheaply.

    Data of one line is left in bytes.
    """
    usual = _USUAL.fullmatch(block)
    if usual is None:
        event = decode(block)
        return event.event, event.data or ""
    name, data = usual.groups()
    return ("message" if name is None else name.decode("utf-8", "replace")), data


def fields(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the block's ``(name, value)`` pairs in order; a comment has an empty name.

    "If the line contains a U+003A COLON character (:), collect the characters on the line before the
    first colon, and let field be that string. Collect the characters after it, and let value be that
    string. If value starts with a U+0020 SPACE character, remove it from value."
    """
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        yield name, value.removeprefix(b" ")


def is_digits(value: bytes) -> bool:
    """Whether a ``retry`` value counts: "consists of only ASCII digits" (but not of too many)."""
    return value.isdigit() and len(value) <= MAX_RETRY_DIGITS


#: A retry of more digits than this (in milliseconds: months) is noise, and int() of a huge one is slow.
MAX_RETRY_DIGITS = 10


def has_data(block: bytes) -> bool:
    """Whether the block has a data line, so that a client dispatches an event for it."""
    if block.startswith(b"data:") or b"\ndata:" in block:
        return True
    return b"data" in block and any(line == b"data" for line in block.split(b"\n"))
