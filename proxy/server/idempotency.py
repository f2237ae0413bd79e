"""Idempotency-Key: the same request, sent again, gets the stream that the first one began.

A phone that loses its network while the model still thinks has no stream id to resume with. It has
its key: the second request waits for the first one's headers with it, or attaches to its stream.
The key is bound to the caller's credentials, so nobody can reach another caller's answer by guessing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web

from proxy.errors import BadRequest, BodyDiffers, SidecarError
from proxy.server.headers import CREDENTIALS
from proxy.server.hub import Hub
from proxy.server.opening import Begun
from proxy.server.wheel import Alarm

IDEMPOTENCY_KEY = "Idempotency-Key"

#: Longest key in characters; clients use UUIDs.
MAX_KEY_LENGTH = 255

Key = tuple[str, bytes, str]  # route, digest of the caller's credentials, key


@dataclass(eq=False, slots=True)
class Attempt:
    """The first request under a key. ``begun`` resolves to what it led to, or to its failure."""

    fingerprint: bytes | None
    begun: asyncio.Future[Begun]
    task: asyncio.Task[None] | None = None
    waiting: int = 0
    alarm: Alarm | None = None


def key_of(request: web.BaseRequest, route: str) -> Key | None:
    """Return the key of a request, or None where it has none, or no credential to bind it to.

    Raises BadRequest where the field is repeated or too long.
    """
    values = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not values or request.method != hdrs.METH_POST:
        return None
    if len(values) > 1 or not 0 < len(values[0]) <= MAX_KEY_LENGTH:
        raise BadRequest(f"expected one Idempotency-Key of 1 to {MAX_KEY_LENGTH} characters")
    caller = hashlib.blake2b(digest_size=16)
    bound = False
    for name, value in sorted((name.lower(), value) for name, value in request.headers.items()):
        if name in CREDENTIALS:
            bound = True
            caller.update(f"{name}\0{value}\0".encode("utf-8", "surrogateescape"))
    return (route, caller.digest(), values[0]) if bound else None


class Attempts:
    """Requests under way or answered by a stream that is still held, by key."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._attempts: dict[Key, Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def get(self, key: Key, fingerprint: bytes | None) -> Attempt | None:
        """Return the attempt under ``key``. Raises BodyDiffers where it had another body."""
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.fingerprint != fingerprint:
            raise BodyDiffers("this Idempotency-Key was used with another request body")
        return attempt

    def begin(self, key: Key, fingerprint: bytes | None, opening: Coroutine[Any, Any, Begun]) -> Attempt:
        """Run ``opening`` as the first attempt under ``key``, in a task that outlives its client."""
        attempt = Attempt(fingerprint, self._hub.loop.create_future())
        self._attempts[key] = attempt
        attempt.task = self._hub.spawn(self._run(key, attempt, opening), f"attempt on {key[0]}")
        return attempt

    async def wait(self, attempt: Attempt, linger: float) -> Begun:
        """Wait for what the attempt leads to; when nobody waits any more, it goes on for ``linger``."""
        attempt.waiting += 1
        try:
            return await asyncio.shield(attempt.begun)
        finally:
            attempt.waiting -= 1
            if not attempt.waiting and not attempt.begun.done():
                self._abandon(attempt, linger)

    async def _run(self, key: Key, attempt: Attempt, opening: Coroutine[Any, Any, Begun]) -> None:
        try:
            begun = await opening
        except BaseException as error:
            self._release(key, attempt)
            if isinstance(error, SidecarError):
                attempt.begun.set_exception(error)
                attempt.begun.exception()  # perhaps nobody is left to hear it
                return
            attempt.begun.cancel()
            raise
        finally:
            if attempt.alarm is not None:
                self._hub.wheel.drop(attempt.alarm)
        if begun.relay is None:
            self._release(key, attempt)
            if begun.response is not None and not attempt.waiting:
                begun.response.close()
        else:
            begun.relay.on_forgotten.append(lambda: self._release(key, attempt))
            if not attempt.waiting:
                begun.relay.abandon()
        attempt.begun.set_result(begun)

    def _release(self, key: Key, attempt: Attempt) -> None:
        if self._attempts.get(key) is attempt:
            del self._attempts[key]

    def _abandon(self, attempt: Attempt, linger: float) -> None:
        def give_up(now: float) -> None:
            if not attempt.waiting and attempt.task is not None:
                attempt.task.cancel()

        if attempt.alarm is not None:
            self._hub.wheel.drop(attempt.alarm)
        attempt.alarm = Alarm(give_up)
        self._hub.wheel.set(attempt.alarm, self._hub.loop.time() + linger)
