"""The bytes of an upstream's response, pushed as they come.

A source calls ``receive(data)`` for every read and ``ended(error)`` once. It can be paused, which
stops reading from the socket once aiohttp's own small buffer is full, and closed, which drops the
upstream connection at once; a closed source calls nothing any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from proxy.server.coding import Decoder
from proxy.server.wire import salvaged

if TYPE_CHECKING:
    from proxy.server.upstream import Response

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class Consumer(Protocol):
    """Who takes the bytes."""

    def receive(self, data: bytes) -> None:
        """Take one read's bytes."""

    def receive_last(self, data: bytes) -> None:
        """Take one read's bytes, behind which the response is over: ``ended`` comes next."""

    def ended(self, error: str | None) -> None:
        """Hear that the response is over: None for a clean end, else what broke it."""


class Source(Protocol):
    """Pushes one response's bytes to a consumer."""

    def start(self, spawn: Spawn) -> None:
        """Begin to read. ``spawn(coroutine, name)`` makes a task and owns it."""

    def poll(self) -> None:
        """Push now what has come already, if that can be told."""

    def pause(self) -> None:
        """Read no more until ``resume``."""

    def resume(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Drop the upstream connection, and push nothing any more."""


class TaskSource:
    """Reads a response in a task of its own: aiohttp's ordinary way."""

    def __init__(self, response: Response, decoder: Decoder, consumer: Consumer, name: str) -> None:
        self._response = response
        self._decoder = decoder
        self._consumer = consumer
        self._name = name
        self._go = asyncio.Event()
        self._go.set()
        self._task: asyncio.Task[None] | None = None

    def start(self, spawn: Spawn) -> None:
        """Begin to read."""
        self._task = spawn(self._read(), self._name)

    def poll(self) -> None:
        """The task will see."""

    def pause(self) -> None:
        """Read no more until ``resume``."""
        self._go.clear()

    def resume(self) -> None:
        """Read on."""
        self._go.set()

    def close(self) -> None:
        """Drop the upstream connection."""
        self._response.close()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._go.set()  # or the task itself, if it is the one that closes, would wait for ever

    async def _read(self) -> None:
        error = None
        try:
            await self._pump()
        except (aiohttp.ClientError, OSError, ValueError) as broken:
            error = broken_by(broken)
        except Exception as broken:  # a fault of ours, and no reason to let the readers wait
            self._consumer.ended(f"{type(broken).__name__}: {broken}")
            raise
        finally:
            self._response.close()
        self._consumer.ended(error)

    async def _pump(self) -> None:
        content = self._response.answer.content
        try:
            while data := await content.readany():
                await self._push(data)
        except aiohttp.ClientError:
            await self._push(salvaged(content))
            raise

    async def _push(self, data: bytes) -> None:
        for piece in self._decoder.decode(data):
            self._consumer.receive(piece)
            if not self._go.is_set():
                await self._go.wait()


def broken_by(error: BaseException) -> str:
    """Say what broke a body, for the stream's log line and its readers."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended inside the body"
    if isinstance(error, aiohttp.ClientError):
        return f"{type(error).__name__}: {error}"
    return str(error) or type(error).__name__
