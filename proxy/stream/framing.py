"""How a body is cut into blocks, whatever format it comes in.

Event streams are cut by ``sse.Parser``. Other formats that stream (lines of JSON, one JSON array, AWS's
binary messages, plain text) become blocks of the same kind, so that everything behind them is the same: ids,
replay, heartbeats.
"""

from __future__ import annotations

from typing import Protocol


class Framing(Protocol):
    """Cuts one body into blocks, however its bytes are split over reads. It never raises."""

    @property
    def overflowed(self) -> int:
        """The size of a block that is longer than the limit, in bytes; then nothing more is cut. Else 0."""

    @property
    def broken(self) -> str:
        """What is wrong with a body that is not of this format; then nothing more is cut. Else nothing."""

    @property
    def between_blocks(self) -> bool:
        """Whether the next byte begins a block, and nothing that came before has a say in what it means."""

    @property
    def pending(self) -> bytes:
        """The lines of an event stream's block that has begun and not ended; nothing in other formats."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that ``data`` completes, oldest first."""

    def finish(self) -> list[bytes]:
        """Return the blocks that the good end of the body completes.

        A body that ended where its format has more to come is ``broken``.
        """


#: What stands before the data of a block that a framing makes.
DATA = b"data: "


def data_lines(payload: bytes) -> bytes:
    """Return the lines of an event stream that say ``payload``, whose line ends become LF."""
    if b"\r" in payload:
        payload = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return DATA + payload.replace(b"\n", b"\n" + DATA)
