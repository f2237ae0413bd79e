r"""Lines of JSON, one value a line (NDJSON, JSON Lines): each line becomes a block.

"The line separator is '\n'. This means '\r\n' is also supported because surrounding white space is
implicitly ignored when parsing JSON values" (jsonlines.org). Lines are cut here and not parsed: what they say
is the affair of a dialect or of the client. Only how a line begins is looked at, which tells JSON from an
error page.
"""

from __future__ import annotations

import json

import msgspec

from proxy.stream.framing import DATA
from proxy.stream.sse import BYTE_ORDER_MARK, MAX_BLOCK_BYTES

#: JSON's white space but LF, which ends the line.
WHITE_SPACE = b" \t\r"

#: The bytes with which a JSON value can begin.
BEGINNINGS = frozenset(b'{["-0123456789tfn')


class Lines:
    """Cuts lines of JSON into blocks ``data: <line>``. Blank lines are skipped.

    ``overflowed`` and ``broken`` are a ``Framing``'s.
    """

    __slots__ = ("_at", "_begun", "_limit", "broken", "overflowed")

    #: No byte of another format may pass as one of an event stream.
    between_blocks = False
    pending = b""

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self._limit = max_block_bytes
        self._begun = bytearray()  # the line whose end has not come
        self._at = 0  # the byte of the body at which it begins
        self.overflowed = 0
        self.broken = ""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that ``data`` completes, oldest first."""
        if self.overflowed or self.broken:
            return []
        if b"\n" not in data:
            self._begun += data
            self._fits(len(self._begun))
            return []
        lines = (bytes(self._begun) + data if self._begun else data).split(b"\n")
        self._begun = bytearray(lines.pop())
        blocks = self._blocks(lines)
        self._fits(len(self._begun))
        return blocks

    def finish(self) -> list[bytes]:
        """Return the last line, if it has no end of its own; it must be whole."""
        line = bytes(self._begun)
        if self.overflowed or self.broken:
            return []
        blocks = self._blocks([line])
        if blocks and not _is_whole(blocks[0].removeprefix(DATA)):
            self.broken = f"the body ended after {len(line)} bytes of a line of JSON that began at byte "
            self.broken += f"{self._at - len(line) - 1}: the rest of its value was expected"
            return []
        return blocks

    def _blocks(self, lines: list[bytes]) -> list[bytes]:
        blocks: list[bytes] = []
        for line in lines:
            begins, self._at = self._at, self._at + len(line) + 1
            if not self._fits(len(line)):
                break
            value = (line if begins else line.removeprefix(BYTE_ORDER_MARK)).strip(WHITE_SPACE)
            if not value:
                continue
            if value[0] not in BEGINNINGS:
                self.broken = f"{value[:1]!r} came in the line at byte {begins}: a JSON value was expected"
                break
            # A CR between two tokens is white space to JSON, and the end of a line in an event stream.
            blocks.append(DATA + (value.replace(b"\r", b" ") if b"\r" in value else value))
        return blocks

    def _fits(self, line_bytes: int) -> bool:
        if len(DATA) + line_bytes > self._limit and not (self.broken or self.overflowed):
            self.overflowed = len(DATA) + line_bytes
            self._begun.clear()
        return not self.overflowed


def _is_whole(value: bytes) -> bool:
    """Whether it is a whole JSON value, in the reading of msgspec or of Python, which takes ``NaN`` too."""
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return _is_whole_to_python(value)
    return True


def _is_whole_to_python(value: bytes) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True
