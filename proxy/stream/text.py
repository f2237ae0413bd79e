"""Plain text that arrives as it is written: each read becomes a block, its lines the block's data lines.

A character that is split over reads waits for its other half. What is no UTF-8 becomes U+FFFD, as a browser
reads it. Line ends become LF, the only one that an event's data can hold: the data of all blocks, put
together, is the text.
"""

from __future__ import annotations

import codecs

from proxy.stream.framing import data_lines
from proxy.stream.sse import MAX_BLOCK_BYTES

_decoder = codecs.getincrementaldecoder("utf-8")


class Text:
    """Cuts text where its reads end. A read that is longer than a block may be becomes several."""

    __slots__ = ("_after_cr", "_decoder", "_limit")

    #: Any text is text, and none is too long.
    broken = ""
    overflowed = 0

    #: No byte of another format may pass as one of an event stream.
    between_blocks = False
    pending = b""

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self._limit = max_block_bytes
        self._decoder = _decoder("replace")
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the block that ``data`` is, or several if one would be too long."""
        return self._blocks(self._with_lf_line_ends(self._decoder.decode(data)))

    def finish(self) -> list[bytes]:
        """Return the half of a character that never became whole, as U+FFFD."""
        return self._blocks(self._decoder.decode(b"", final=True))

    def _with_lf_line_ends(self, text: str) -> str:
        """Make every line end LF: at once after a CR, so that an LF in the next read is its second half."""
        if not text:
            return text
        after_cr, self._after_cr = self._after_cr, text.endswith("\r")
        if after_cr:
            text = text.removeprefix("\n")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _blocks(self, text: str) -> list[bytes]:
        if not text:
            return []
        block = data_lines(text.encode())
        if len(block) <= self._limit or len(text) == 1:
            return [block]
        half = len(text) // 2
        return [*self._blocks(text[:half]), *self._blocks(text[half:])]
