"""One body through one framing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.stream.framing import Framing
from proxy.stream.sse import MAX_BLOCK_BYTES

Kind = Callable[[int], Framing]


def frame(kind: Kind, reads: Iterable[bytes], limit: int = MAX_BLOCK_BYTES) -> tuple[list[bytes], Framing]:
    """Return the blocks of a body that comes in these reads and ends well, and the framing as it is left."""
    framing = kind(limit)
    blocks = [block for read in reads for block in framing.feed(read)]
    return blocks + framing.finish(), framing
