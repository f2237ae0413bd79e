"""Both ends of a WebSocket that passes through: a client, and an upstream that says what the test says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.server.app import Sidecar
from proxy.telemetry import Joined
from tests.conftest import StartOrigin, StartSidecar, eventually, transports
from tests.endurance.peace import nothing_held
from tests.support.client import Answer
from tests.support.origin import PATIENCE, Connection, Origin, Script
from tests.support.websocket import Socket, connect

#: The tunnel does not know how plain HTTP is read: one way of that is enough.
ONE_WAY_OF_HTTP = pytest.mark.parametrize("start_sidecar", [True], ids=[""], indirect=True)

#: Either end of a tunnel does what the test tells.
SIDES = pytest.mark.parametrize("side", ["client", "upstream"])


def switching(request: Connection, *fields: str) -> bytes:
    """Return the 101 that a handshake asks for, with these header lines more."""
    key = request.header("sec-websocket-key") or ""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}"
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", accept, *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def accepts(*fields: str, early: bytes = b"", leaves: bool = False) -> Script:
    """Answer every handshake with a 101, and ``early`` right behind it; what follows is the test's to say.

    ``leaves``: the connection is closed behind that.
    """

    async def script(request: Connection) -> None:
        await request.send(switching(request, *fields) + early)
        if leaves:
            await request.close()
        else:
            await asyncio.Event().wait()  # until the origin stops

    return script


class Peer(Socket):
    """An upstream's side of a WebSocket. ``request`` is the handshake as it came."""

    def __init__(self, request: Connection) -> None:
        super().__init__(Answer(request.reader, request.writer, 101, "", [], "GET", "HTTP/1.1"))
        self.request = request

    async def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        """Send one frame, not masked."""
        await super().send(opcode, payload, **{"masked": False, **options})


async def came(socket: Socket, size: int) -> bytes:
    """Return the next bytes that an end has got, as they are."""
    async with asyncio.timeout(PATIENCE):
        return await socket.answer.reader.readexactly(size)


async def rest(socket: Socket) -> bytes:
    """Return all that an end gets until its connection ends, with a reset or without."""
    pieces: list[bytes] = []
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            while piece := await socket.answer.reader.read(1 << 20):
                pieces.append(piece)
    return b"".join(pieces)


@dataclass(slots=True)
class Pair:
    """Two ends that a sidecar has joined. ``told`` are the log lines of the tunnels that are over."""

    sidecar: Sidecar
    origin: Origin
    client: Socket
    upstream: Peer
    told: list[Joined] = field(default_factory=list)

    async def end(self) -> Joined:
        """Wait until the tunnel is over, and return how the log tells it."""
        await eventually(lambda: self.told, "the tunnel's log line")
        return self.told[0]

    def seen_from(self, side: str) -> tuple[Socket, Socket]:
        """Return the end that acts, and the other."""
        return (self.client, self.upstream) if side == "client" else (self.upstream, self.client)


#: Starts an origin and a sidecar before it, connects, and returns both ends. ``window`` is for both what it
#: is for ``client.send``.
Join = Callable[..., Awaitable[Pair]]


@contextlib.asynccontextmanager
async def joining(start_origin: StartOrigin, start_sidecar: StartSidecar) -> AsyncIterator[Join]:
    """Make pairs; in the end drop them, and see that nothing of them is left, nor anything has failed."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))
    pairs: list[Pair] = []

    async def join(
        script: Script | None = None,
        *,
        target: str = "/",
        headers: Mapping[str, str | None] | None = None,
        early: bytes = b"",
        window: int | None = None,
        route: dict[str, Any] | None = None,
        **top: Any,
    ) -> Pair:
        origin = await start_origin(script or accepts())
        if window is not None:
            narrow(origin, window)
        settings = {"websocket": "passthrough", **(route or {})}
        sidecar = await start_sidecar(origin.url, route=settings, **top)
        told = heard(sidecar)
        client = await connect(sidecar.url, target, headers, early=early, window=window)
        pairs.append(Pair(sidecar, origin, client, Peer(await origin.request()), told))
        return pairs[-1]

    yield join
    for pair in pairs:
        pair.client.abort()
        pair.upstream.abort()
    for pair in pairs:
        await nothing_left(pair.sidecar)
    assert not failures, failures


def narrow(origin: Origin, window: int) -> None:
    """Let the kernel keep so many bytes, about, that an origin's connections to come have not read."""
    assert origin._server is not None
    origin._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)


def heard(sidecar: Sidecar) -> list[Joined]:
    """Return what the log of a sidecar will be told of tunnels."""
    told: list[Joined] = []
    publish = sidecar.telemetry.websocket_ended

    def hear(joined: Joined) -> None:
        publish(joined)
        told.append(joined)

    sidecar.telemetry.websocket_ended = hear  # type: ignore[method-assign]  # it publishes all the same
    return told


async def nothing_left(sidecar: Sidecar) -> None:
    """Wait until no WebSocket, and nothing else, is left in ``sidecar``."""
    await nothing_held(sidecar)
    await eventually(lambda: not sidecar.hub.sockets, "no tunnel is left")
    await eventually(lambda: not transports(sidecar), "no client's connection is left")
    assert all(stats.websockets == 0 for stats in sidecar.telemetry.routes.values())
