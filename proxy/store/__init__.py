"""Where logs live.

``memory`` is the embedded default: the logs of this process, bounded together. A store that several
sidecars share is a *mirror*: the local log stays synchronous and authoritative for the sidecar that
holds the upstream connection, and what it logs is published in batches, so that no event waits for
a round trip. ``SharedStore`` is the shape such a mirror must have; it is cut so that one Redis
Stream per log fits it: the seq is the entry's id (``XADD key 0-<seq>``), a batch is one pipeline,
``page`` is ``XRANGE``, ``tail`` is ``XREAD BLOCK``, and a cancel is heard on a channel of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.stream.log import Terminal


@dataclass(frozen=True, slots=True)
class Page:
    """A range of a log: ``entries`` are its wire blocks from ``first`` on.

    ``terminal`` is set on the page that holds the log's end.
    """

    first: int
    entries: Sequence[bytes]
    terminal: Terminal | None = None


class SharedStore(Protocol):
    """The asynchronous mirror of local logs, for sidecars that resume each other's streams."""

    async def publish(self, stream: str, page: Page) -> None:
        """Append a batch. Batches of one stream are published in order, by one sidecar only."""

    async def page(self, stream: str, after: int, budget: int) -> Page | None:
        """Return the blocks behind ``after``, about ``budget`` bytes of them; None: unknown stream.

        A ``first`` greater than ``after`` + 1 tells of a gap.
        """

    def tail(self, stream: str, after: int) -> AsyncIterator[Page]:
        """Yield what follows ``after``, waiting for more, until a page with the terminal record."""

    async def cancel(self, stream: str) -> None:
        """Ask the sidecar that holds the upstream connection to close it."""

    def cancelled(self) -> AsyncIterator[str]:
        """Yield the ids of streams of this sidecar that another one was asked to cancel."""
