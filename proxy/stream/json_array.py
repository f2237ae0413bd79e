r"""One JSON array of objects that arrives in pieces: each element becomes a block as soon as it is whole.

So Gemini streams without ``alt=sse``: ``[{…}``, then ``,\r\n{…}`` as the model speaks, then ``]``. An error
that comes before the array stands in its place, as a bare object.

The scanner has to know where an element ends, and nothing else of it: it counts the brackets outside of
strings. One match of ``_TO_BRACKET`` runs over everything up to the next of them, strings included, so that
Python's own steps are as many as the brackets. No byte is looked at twice, but those of a string that a
read cuts in two.
"""

from __future__ import annotations

import enum
import re

from proxy.stream.framing import DATA
from proxy.stream.sse import MAX_BLOCK_BYTES


class State(enum.Enum):
    """Where in the body the scanner is. The value says what is expected there."""

    OPENING = "a JSON array"
    FIRST = "an object, or the array's end"
    ELEMENT = "the rest of an object"
    NEXT = "a comma, or the array's end"
    VALUE = "an object"
    END = "nothing more"


#: What each byte leads to where no element is open. White space changes nothing; any other byte is wrong.
STEPS: dict[State, dict[bytes, State]] = {
    State.OPENING: {b"[": State.FIRST, b"{": State.ELEMENT},
    State.FIRST: {b"{": State.ELEMENT, b"]": State.END},
    State.NEXT: {b",": State.VALUE, b"]": State.END},
    State.VALUE: {b"{": State.ELEMENT},
    State.END: {},
}

_NO_SPACE = re.compile(rb"[^ \t\r\n]")
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_TO_QUOTE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)

#: Outside of strings a line break is white space between two tokens; inside, none may stand (RFC 8259 §7).
_LINE_BREAKS = b"\r\n"


class JsonArray:
    """Cuts a JSON array into blocks ``data: <element>``, one line each.

    ``overflowed`` and ``broken`` are a ``Framing``'s.
    """

    __slots__ = (
        "_before",
        "_begun",
        "_depth",
        "_escaped",
        "_in_string",
        "_limit",
        "_start",
        "_state",
        "_then",
        "broken",
        "overflowed",
    )

    #: No byte of another format may pass as one of an event stream.
    between_blocks = False
    pending = b""

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self._limit = max_block_bytes
        self._state = State.OPENING
        self._then = State.NEXT  # the state after the element
        self._before = 0  # bytes of the body before this read
        self._begun = bytearray()  # the element's bytes from earlier reads
        self._start = 0  # where in this read the element begins, or goes on
        self._depth = 0  # its open brackets
        self._in_string = False
        self._escaped = False  # whether a backslash was the last byte
        self.overflowed = 0
        self.broken = ""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that ``data`` completes, oldest first."""
        blocks: list[bytes] = []
        place = self._start = 0
        while place < len(data) and not (self.broken or self.overflowed):
            if self._state is not State.ELEMENT:
                place = self._step(data, place)
            elif self._in_string:
                place = self._to_quote(data, place)
            else:
                place = self._to_end(data, place)
                if not self._depth:
                    blocks += self._cut(data, place)
        if self._state is State.ELEMENT and not self.overflowed:
            self._begun += data[self._start :]
            self._fits(len(self._begun))
        self._before += len(data)
        return blocks

    def finish(self) -> list[bytes]:
        """Return nothing: an element ends with its bracket, and so does the array."""
        if self._state is not State.END and not (self.broken or self.overflowed):
            self.broken = f"the body ended at byte {self._before}: {self._state.value} was expected"
        return []

    def _step(self, data: bytes, place: int) -> int:
        """Take the next byte between elements."""
        found = _NO_SPACE.search(data, place)
        if found is None:
            return len(data)
        after = STEPS[self._state].get(found[0])
        if after is None:
            at = self._before + found.start()
            self.broken = f"{found[0]!r} came at byte {at}: {self._state.value} was expected"
        elif after is State.ELEMENT:
            self._start, self._depth = found.start(), 1
            self._then = State.END if self._state is State.OPENING else State.NEXT
        self._state = after or self._state
        return found.end()

    def _to_end(self, data: bytes, place: int) -> int:
        """Go behind the element, or to a string that this read does not end, or to the end of the read."""
        size = len(data)
        while True:
            place = _TO_BRACKET.match(data, place).end()  # type: ignore[union-attr]  # it may match nothing
            if place == size:
                return place
            byte = data[place]
            place += 1
            if byte in b"{[":
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1
                if not self._depth:
                    self._state = self._then
                    return place
            else:
                self._in_string = True
                return place

    def _to_quote(self, data: bytes, place: int) -> int:
        """Go behind the quote that ends the string, or to the end of the read."""
        place += self._escaped
        place = _TO_QUOTE.match(data, place).end()  # type: ignore[union-attr]  # it may match nothing
        self._escaped = data.startswith(b"\\", place)
        self._in_string = self._escaped or place >= len(data)
        return place + 1

    def _cut(self, data: bytes, end: int) -> list[bytes]:
        """Return the block of the element that ends there."""
        element = bytes(self._begun) + data[self._start : end]
        self._begun.clear()
        return [DATA + element.translate(None, _LINE_BREAKS)] if self._fits(len(element)) else []

    def _fits(self, element_bytes: int) -> bool:
        if len(DATA) + element_bytes > self._limit:
            self.overflowed = len(DATA) + element_bytes
            self._begun.clear()
        return not self.overflowed
