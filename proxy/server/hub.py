"""What all handlers share: the streams, the clock, the tasks, the counters and the bounds."""

from __future__ import annotations

import asyncio
import binascii
import os
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from proxy.config import Config
from proxy.errors import CapacityError, SidecarError, TooManyReaders, TooManyWebSockets
from proxy.server.alias import Aliases
from proxy.server.wheel import Wheel
from proxy.store.memory import MemoryStore
from proxy.telemetry import RouteStats, StoreFigures, Telemetry

if TYPE_CHECKING:
    from proxy.server.relay import Relay

#: Random bytes in a stream id: 128 bits cannot be guessed.
STREAM_ID_BYTES = 16

#: From base64 to its form for URLs (RFC 4648 §5).
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


#: How long the peers of a WebSocket that were told of its end may take to say so too, in seconds.
GOODBYE_SECONDS = 5.0


class Socket(Protocol):
    """A WebSocket connection, as a drain sees it."""

    def leave(self) -> None:
        """Begin nothing more, and close when nothing runs any more."""

    def dismiss(self) -> None:
        """Close now, with 1001."""

    def cut(self) -> None:
        """End now: nobody's answer is waited for any more."""

    def settle(self) -> None:
        """Count for its route what has been counted here alone."""


class Hub:
    """Owns every stream, task and timer of the data plane."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        self.config = config
        self.telemetry = telemetry
        self.loop = asyncio.get_running_loop()
        self.clock = self.loop.time  # one for all: each look-up of a method makes an object
        self.wheel = Wheel(self.loop)
        self.store: MemoryStore[Relay] = MemoryStore(config.store.memory)
        self.running: set[Relay] = set()
        self.unrecorded: dict[str, Relay] = {}  # running, and not in the store
        self.aliases = Aliases()
        self.draining = False
        self.started = datetime.now(UTC)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._readers: dict[str, int] = {}  # by caller
        self.sockets: set[Socket] = set()
        self._sockets: Counter[str] = Counter()  # by caller
        self.readers = 0
        telemetry.store = self._figures
        telemetry.settle = self._settle

    def configure(self, config: Config) -> None:
        """Take over a new configuration's bounds; what runs keeps its route."""
        self.config = config
        self.store.configure(config.store.memory)

    def new_stream_id(self) -> str:
        """Return a fresh stream id, which begins with our node where we have one."""
        text = binascii.b2a_base64(os.urandom(STREAM_ID_BYTES), newline=False)
        random = text.translate(_URL_SAFE).rstrip(b"=").decode()
        return random if self.config.node is None else f"{self.config.node}-{random}"

    def find(self, stream_id: str) -> Relay | None:
        """Return a stream that runs or is kept."""
        return self.store.get(stream_id) or self.unrecorded.get(stream_id)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine in a named task that the hub owns."""
        task = self.loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def refusal(self, caller: str) -> SidecarError | None:
        """Return what a new stream of this caller would be refused with now, or None."""
        return self._stream_refusal() or self._reader_refusal(caller)

    def admit_stream(self) -> None:
        """Raise CapacityError where one more stream would be too many."""
        refusal = self._stream_refusal()
        if refusal is not None:
            raise refusal

    def admit_reader(self, relay: Relay, caller: str) -> None:
        """Count a reader in. Raises TooManyReaders or CapacityError where it does not fit."""
        limit = self.config.limits.readers_per_stream
        if len(relay.readers) >= limit:
            raise TooManyReaders(
                f"the stream has {limit} readers, which is the limit (limits.readers_per_stream)"
            )
        refusal = self._reader_refusal(caller)
        if refusal is not None:
            raise refusal
        self.readers += 1
        self._readers[caller] = self._readers.get(caller, 0) + 1

    def _stream_refusal(self) -> SidecarError | None:
        limit = self.config.limits.streams
        if len(self.running) < limit:
            return None
        return CapacityError(f"{limit} streams are running, which is the limit (limits.streams)")

    def _reader_refusal(self, caller: str) -> SidecarError | None:
        limits = self.config.limits
        own, limit = self._readers.get(caller, 0), limits.readers_per_caller
        if limit is not None and own >= limit:
            return TooManyReaders(
                f"this caller has {own} readers, which is the limit (limits.readers_per_caller)"
            )
        if self.readers >= limits.readers:
            return CapacityError(f"{self.readers} readers are connected, which is the limit (limits.readers)")
        return None

    def dismiss_reader(self, caller: str) -> None:
        """Count a reader out."""
        self.readers -= 1
        left = self._readers[caller] - 1
        if left:
            self._readers[caller] = left
        else:
            del self._readers[caller]

    def admit_socket(self, socket: Socket, stats: RouteStats, caller: str) -> None:
        """Hold a caller's WebSocket to a route. Raises TooManyWebSockets or CapacityError."""
        limits = self.config.limits
        own, limit = self._sockets[caller], limits.websockets_per_caller
        if self.draining:
            raise CapacityError("the sidecar is draining")
        if limit is not None and own >= limit:
            raise TooManyWebSockets(
                f"this caller has {own} WebSockets, which is the limit (limits.websockets_per_caller)"
            )
        if len(self.sockets) >= limits.websockets:
            raise CapacityError(
                f"{limits.websockets} WebSockets are open, which is the limit (limits.websockets)"
            )
        self.sockets.add(socket)
        self._sockets[caller] += 1
        stats.websockets += 1

    def dismiss_socket(self, socket: Socket, stats: RouteStats, caller: str) -> None:
        """Hold it no more."""
        self.sockets.remove(socket)
        self._sockets[caller] -= 1
        if not self._sockets[caller]:
            del self._sockets[caller]
        stats.websockets -= 1

    async def close(self) -> None:
        """End every task. Streams that still run are cancelled upstream."""
        for relay in list(self.running):
            relay.shut_down()
        for socket in list(self.sockets):
            socket.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.wheel.close()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.telemetry.log.error("task failed", task=task.get_name(), exc_info=error)

    def _settle(self) -> None:
        for relay in self.running:
            relay.tally.settle(relay.log.last)
        for socket in self.sockets:
            socket.settle()

    def _figures(self) -> StoreFigures:
        store = self.store
        return StoreFigures(store.bytes, store.max_bytes, len(store), store.tombstones, store.evicted)
