"""A wire that can be looked at and cut, between two ends that a test does not hold itself."""

from __future__ import annotations

import asyncio
from typing import Self
from urllib.parse import urlsplit


class Wire:
    """One connection through a forwarder: the bytes that it carried each way, and how to cut it.

    ``allowance`` is how many more bytes may reach the client before the wire breaks by itself, ``rate`` how
    many in a second.
    """

    def __init__(
        self, client: asyncio.StreamWriter, allowance: int | None, rate: float | None = None
    ) -> None:
        self.sent = bytearray()
        self.received = bytearray()
        self.allowance = allowance
        self.rate = rate
        self._ends = [client]

    @property
    def open(self) -> bool:
        """Whether bytes can still pass."""
        return not any(end.is_closing() for end in self._ends)

    def cut(self) -> None:
        """Break the connection to both ends, whatever was under way."""
        for end in self._ends:
            end.transport.abort()

    def body(self) -> bytes:
        """Return what has come of the body of the first response, which must be a chunked one."""
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        assert b"\r\ntransfer-encoding: chunked" in head.lower(), head
        chunks = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            chunks.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        return b"".join(chunks)

    async def join(self, reader: asyncio.StreamReader, host: str | None, port: int | None) -> None:
        """Connect to the far end and pass bytes on until either end closes."""
        far_reader, far_writer = await asyncio.open_connection(host, port)
        near_writer = self._ends[0]
        self._ends.append(far_writer)
        try:
            async with asyncio.TaskGroup() as copying:
                copying.create_task(self._send(reader, far_writer), name="to the server")
                copying.create_task(self._receive(far_reader, near_writer), name="to the client")
        finally:
            self.cut()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.sent += data
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536 if self.rate is None else 8192):
            if self.allowance is not None and len(data) > self.allowance:
                data = data[: self.allowance]
            self.received += data
            writer.write(data)
            await writer.drain()
            if self.rate is not None:
                await asyncio.sleep(len(data) / self.rate)
            if self.allowance is not None:
                self.allowance -= len(data)
                if self.allowance <= 0:
                    break
        writer.close()


class Forwarder:
    """Listens on a loopback port and passes every connection on to the server at ``target``, a base URL.

    ``wires`` are the connections, oldest first. ``allowance`` is what each new one may carry to its
    client, in bytes, and ``rate`` in bytes per second. A forwarder that was stopped refuses connections
    until it is started again, on the same port. As a context manager it is started and stopped.
    """

    def __init__(self, target: str, *, allowance: int | None = None, rate: float | None = None) -> None:
        self.wires: list[Wire] = []
        self.allowance = allowance
        self.rate = rate
        self.port = 0
        self._target = urlsplit(target)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL of the near end."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Break every connection that is open."""
        for wire in self.wires:
            wire.cut()

    async def stop(self) -> None:
        """Refuse new connections and break the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        wire = Wire(writer, self.allowance, self.rate)
        self.wires.append(wire)
        try:
            await wire.join(reader, self._target.hostname, self._target.port)
        except* OSError:
            pass  # an end went away, which is what this is for
        finally:
            self._tasks.discard(task)
            writer.close()
