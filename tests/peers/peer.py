"""One face for several WebSocket clients: what a test says, each library does in its own way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection as BlockingConnection
from websockets.sync.client import connect as blocking_connect
from websockets.typing import Subprotocol

from tests.support.origin import PATIENCE, PROGRAM_PATIENCE

#: Bound of what a peer takes, in bytes. The tests' largest message has a quarter of it.
MAX_MESSAGE = 64 * 1024 * 1024

#: RFC 6455 §7.1.5: what a client calls the code of a connection that ended without a close frame.
ABNORMAL = 1006

NODE = Path(__file__).parent / "node"


class Closed(Exception):
    """The connection has ended, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason!r}")
        self.code = code
        self.reason = reason


class Rejected(Exception):
    """The handshake was answered with another status than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the handshake was answered {status}")
        self.status = status


class Peer(ABC):
    """One open WebSocket. ``subprotocol`` and ``extensions`` are what its 101 said, "" for nothing."""

    subprotocol = ""
    extensions = ""

    @abstractmethod
    async def send(self, message: str | bytes) -> None:
        """Send a message, a text or bytes."""

    @abstractmethod
    async def receive(self) -> str | bytes:
        """Return the next message. Raises Closed."""

    @abstractmethod
    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame; ``receive`` tells how it was answered."""

    @abstractmethod
    async def drop(self) -> None:
        """Lose the connection, without a word."""

    # The bridge's language, on top of that

    async def say(self, kind: str, **fields: Any) -> None:
        """Send a command to the bridge."""
        await self.send(json.dumps({"type": kind, **fields}))

    async def hear(self) -> Any:
        """Return what the bridge says next."""
        message = await self.receive()
        assert isinstance(message, str), message
        return json.loads(message)

    async def hear_until(self, kind: str) -> list[Any]:
        """Return what the bridge says up to the first frame of this ``type``, that one included."""
        heard = [await self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(await self.hear())
        return heard

    async def ended(self) -> tuple[int, str]:
        """Wait for the end of the connection, and return its code and reason."""
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed.code, closed.reason


#: Opens a WebSocket: its URL, the subprotocols offered, header fields, and whether to offer compression.
#: Raises Rejected.
Join = Callable[[str, Sequence[str], Mapping[str, str], bool], contextlib.AbstractAsyncContextManager[Peer]]


def _options(subprotocols: Sequence[str], headers: Mapping[str, str], deflate: bool) -> dict[str, Any]:
    """Options that both clients of ``websockets`` have."""
    return {
        "subprotocols": [Subprotocol(name) for name in subprotocols] or None,
        "additional_headers": headers,
        "compression": "deflate" if deflate else None,
        "max_size": MAX_MESSAGE,
        "proxy": None,
        "close_timeout": PATIENCE,
    }


def _closed(error: ConnectionClosed) -> Closed:
    told = error.rcvd
    return Closed(ABNORMAL, "") if told is None else Closed(told.code, told.reason)


class WebsocketsPeer(Peer):
    """The asyncio client of Python's ``websockets``."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol or ""
        assert connection.response is not None
        self.extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")

    async def send(self, message: str | bytes) -> None:
        """Send it."""
        await self._connection.send(message)

    async def receive(self) -> str | bytes:
        """Receive it."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._connection.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close."""
        await self._connection.close(code, reason)

    async def drop(self) -> None:
        """Drop."""
        self._connection.transport.abort()


@contextlib.asynccontextmanager
async def websockets_peer(
    url: str, subprotocols: Sequence[str], headers: Mapping[str, str], deflate: bool
) -> AsyncIterator[Peer]:
    """Connect with ``websockets.asyncio``."""
    options = _options(subprotocols, headers, deflate)
    try:
        connection = await connect(url, **options)
    except InvalidStatus as error:
        raise Rejected(error.response.status_code) from error
    async with connection:
        yield WebsocketsPeer(connection)


class ThreadedPeer(Peer):
    """The blocking client of Python's ``websockets``, each call in a thread."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol or ""
        assert connection.response is not None
        self.extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")

    async def send(self, message: str | bytes) -> None:
        """Send it."""
        await asyncio.to_thread(self._connection.send, message)

    async def receive(self) -> str | bytes:
        """Receive it."""
        try:
            return await asyncio.to_thread(self._connection.recv, PATIENCE)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close."""
        await asyncio.to_thread(self._connection.close, code, reason)

    async def drop(self) -> None:
        """Drop."""
        self._connection.socket.shutdown(socket.SHUT_RDWR)


@contextlib.asynccontextmanager
async def threaded_peer(
    url: str, subprotocols: Sequence[str], headers: Mapping[str, str], deflate: bool
) -> AsyncIterator[Peer]:
    """Connect with ``websockets.sync``."""
    options = _options(subprotocols, headers, deflate)
    try:
        connection = await asyncio.to_thread(lambda: blocking_connect(url, legacy=True, **options))
    except InvalidStatus as error:
        raise Rejected(error.response.status_code) from error
    try:
        yield ThreadedPeer(connection)
    finally:
        await asyncio.to_thread(connection.close)


class NodePeer(Peer):
    """Node's ``ws``, in a process of its own; ``node/peer.mjs`` tells the language that it speaks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._tidings = process.stdin, process.stdout

    async def opened(self) -> None:
        """Wait until it is open. Raises Rejected."""
        told = await self._told()
        if told["what"] == "refused":
            raise Rejected(told["status"])
        assert told["what"] == "open", told
        self.subprotocol, self.extensions = told["subprotocol"], told["extensions"]

    async def send(self, message: str | bytes) -> None:
        """Send it."""
        if isinstance(message, str):
            await self._order("text", data=message)
        else:
            await self._order("binary", data=base64.b64encode(message).decode())

    async def receive(self) -> str | bytes:
        """Receive it."""
        told = await self._told()
        if told["what"] == "close":
            raise Closed(told["code"], told["reason"])
        return str(told["data"]) if told["what"] == "text" else base64.b64decode(told["data"])

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close."""
        await self._order("close", code=code, reason=reason)

    async def drop(self) -> None:
        """Drop."""
        await self._order("drop")

    async def _order(self, deed: str, **details: object) -> None:
        self._orders.write(json.dumps({"do": deed, **details}).encode() + b"\n")
        await self._orders.drain()

    async def _told(self) -> dict[str, Any]:
        async with asyncio.timeout(PROGRAM_PATIENCE):
            line = await self._tidings.readline()
        assert line, "the peer is gone"
        return cast(dict[str, Any], json.loads(line))


@contextlib.asynccontextmanager
async def node_peer(
    url: str, subprotocols: Sequence[str], headers: Mapping[str, str], deflate: bool
) -> AsyncIterator[Peer]:
    """Connect with Node's ``ws``."""
    wanted = {"url": url, "subprotocols": subprotocols, "headers": headers, "deflate": deflate}
    process = await asyncio.create_subprocess_exec(
        *("node", str(NODE / "peer.mjs"), json.dumps(wanted)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2 * MAX_MESSAGE,
    )
    try:
        peer = NodePeer(process)
        await peer.opened()
        yield peer
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def lacking_node() -> str:
    """What of Node is not here; "" where all of it is."""
    if shutil.which("node") is None:
        return "there is no node on PATH"
    if not (NODE / "node_modules" / "ws").is_dir():
        return f"ws is not installed in {NODE.relative_to(NODE.parents[2])}; tests/install.sh test does that"
    return ""


PEERS: Mapping[str, Join] = {
    "websockets": websockets_peer,
    "websockets-threads": threaded_peer,
    "node-ws": node_peer,
}
