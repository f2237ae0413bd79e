"""What a sidecar in this process may hold when everybody has left: nothing."""

from __future__ import annotations

import asyncio
import os

from proxy.server.app import Sidecar
from proxy.server.upstream import Upstream
from tests.conftest import eventually


class Peace:
    """The tasks and sockets that were there before; ``restored`` waits until nothing else is left."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._sockets = sockets()

    async def restored(self, sidecar: Sidecar) -> None:
        """Wait until ``sidecar`` holds nothing, and this process no more than it did before."""
        await nothing_held(sidecar)
        await eventually(lambda: asyncio.all_tasks() <= self._tasks, "no task is left")
        await eventually(lambda: sockets() <= self._sockets, "no socket is left")


async def nothing_held(sidecar: Sidecar) -> None:
    """Wait until no stream, log, request, timer, counter or key is left in ``sidecar``."""
    hub, gateway = sidecar.hub, sidecar.gateway
    await eventually(lambda: not hub.running, "no stream runs")
    await eventually(lambda: not hub.sockets, "no WebSocket is open")
    await eventually(lambda: not gateway.in_flight, "no request is being answered")
    await eventually(lambda: not len(hub.store), "no log is kept")
    await eventually(lambda: not len(hub.wheel), "no timer is set")
    await eventually(lambda: not len(gateway._attempts), "no key is held")
    await eventually(lambda: not any(map(_busy, gateway._upstreams.values())), "no upstream is asked")
    assert hub.store.bytes == 0
    assert hub.readers == 0
    assert not hub._readers
    for stats in sidecar.telemetry.routes.values():
        assert (stats.streams, stats.readers, stats.websockets) == (0, 0, 0)


def _busy(upstream: Upstream) -> int:
    return upstream._busy + sum(server.streams for server in upstream.servers)


def sockets() -> int:
    """How many sockets this process has open."""
    return sum(map(_is_socket, os.listdir("/proc/self/fd")))


def _is_socket(descriptor: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    except FileNotFoundError:  # a thread has closed it, or it was the listing's own
        return False
