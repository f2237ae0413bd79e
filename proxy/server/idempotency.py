"""Idempotency-Key: the same request, sent again, gets the stream that the first one began.

A phone that loses its network while the model still thinks has no stream id to resume with. It has
its key: the second request waits for the first one's headers with it, or attaches to its stream.
The key is bound to the caller's credentials, so nobody can reach another caller's answer by guessing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web

from proxy.config import Route
from proxy.errors import BadRequest, BodyDiffers, SidecarError
from proxy.server.exchange import owner
from proxy.server.headers import CREDENTIALS
from proxy.server.hub import Hub
from proxy.server.opening import Begun
from proxy.server.wheel import Alarm

IDEMPOTENCY_KEY = "Idempotency-Key"

#: Longest key in characters; clients use UUIDs.
MAX_KEY_LENGTH = 255

Key = tuple[str, bytes, str]  # route, digest of the caller's credentials, key


Asked = tuple[str, bytes | None]  # the target, and the body's digest


@dataclass(eq=False, slots=True)
class Attempt:
    """The first request under a key. ``begun`` resolves to what it led to, or to its failure.

    ``sharers`` counts the requests that wait for it, or are being answered by what it led to.
    """

    key: Key
    asked: Asked
    begun: asyncio.Future[Begun]
    task: asyncio.Task[None] | None = None
    sharers: int = 0
    alarm: Alarm | None = None
    claimed: bool = False

    def claim(self) -> bool:
        """Whether the caller may pass on an answer that is no stream: only one can."""
        first, self.claimed = not self.claimed, True
        return first

    @property
    def outcome(self) -> Begun | None:
        """What it led to; None while nobody knows, and where it failed."""
        begun = self.begun
        failed = not begun.done() or begun.cancelled() or begun.exception() is not None
        return None if failed else begun.result()


def key_of(request: web.BaseRequest, route: Route) -> Key | None:
    """Return the key of a request, or None where it has none, or no credential to bind it to.

    Where the route binds streams to a principal, so are their keys: several may share one credential.

    Raises BadRequest where the field is repeated or too long.
    """
    values = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not values or request.method != hdrs.METH_POST:
        return None
    if len(values) > 1 or not 0 < len(values[0]) <= MAX_KEY_LENGTH:
        raise BadRequest(f"expected one Idempotency-Key of 1 to {MAX_KEY_LENGTH} characters")
    caller = hashlib.blake2b(owner(request, route.principal) or b"", digest_size=16)
    bound = False
    for name, value in sorted((name.lower(), value) for name, value in request.headers.items()):
        if name in CREDENTIALS:
            bound = True
            caller.update(f"{name}\0{value}\0".encode("utf-8", "surrogateescape"))
    return (route.name, caller.digest(), values[0]) if bound else None


class Attempts:
    """Requests under way or answered by a stream that is still held, by key."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._attempts: dict[Key, Attempt] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._attempts

    def __len__(self) -> int:
        return len(self._attempts)

    def get(self, key: Key, asked: Asked) -> Attempt | None:
        """Return the attempt under ``key``. Raises BodyDiffers where it asked for something else."""
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.asked != asked:
            raise BodyDiffers("this Idempotency-Key was used with another request body, path or query")
        return attempt

    def begin(self, key: Key, asked: Asked, opening: Coroutine[Any, Any, Begun]) -> Attempt:
        """Run ``opening`` as the first attempt under ``key``, in a task that outlives its client."""
        attempt = Attempt(key, asked, self._hub.loop.create_future())
        self._attempts[key] = attempt
        attempt.task = self._hub.spawn(self._run(attempt, opening), f"attempt on {key[0]}")
        return attempt

    @contextlib.contextmanager
    def shared(self, attempt: Attempt, linger: float) -> Iterator[None]:
        """Hold on to an attempt for as long as a request waits for it, or is answered by it.

        When the last one leaves, the attempt goes on for ``linger``, and so does the stream that it led
        to, if nobody has come to read it.
        """
        attempt.sharers += 1
        try:
            yield
        finally:
            attempt.sharers -= 1
            if not attempt.sharers:
                self._abandon(attempt, linger)

    async def _run(self, attempt: Attempt, opening: Coroutine[Any, Any, Begun]) -> None:
        try:
            attempt.begun.set_result(await opening)
        except Exception as error:
            attempt.begun.set_exception(error)
            attempt.begun.exception()  # perhaps nobody is left to hear it
            if not isinstance(error, SidecarError):
                raise
        finally:
            attempt.begun.cancel()  # where neither a result nor an error came: the task was cancelled
            if attempt.alarm is not None:
                self._hub.wheel.drop(attempt.alarm)
            self._settle(attempt)

    def _settle(self, attempt: Attempt) -> None:
        """Release the key, now or, where a stream began, when that is forgotten."""
        outcome = attempt.outcome
        if outcome is None or outcome.relay is None:
            self._release(attempt)
        else:
            relay = outcome.relay
            relay.on_forgotten.append(lambda: self._release(attempt))
            # An early open whose upstream then gave no stream is a failure like any other.
            relay.on_end.append(lambda: None if relay.was_answered else self._release(attempt))
        if not attempt.sharers:
            _leave(outcome)

    def _release(self, attempt: Attempt) -> None:
        if self._attempts.get(attempt.key) is attempt:
            del self._attempts[attempt.key]

    def _abandon(self, attempt: Attempt, linger: float) -> None:
        if attempt.begun.done():
            _leave(attempt.outcome)
            return

        def give_up(now: float) -> None:
            if not attempt.sharers and attempt.task is not None:
                self._release(attempt)  # at once: who comes while the task ends must not wait for it
                attempt.task.cancel()

        if attempt.alarm is not None:
            self._hub.wheel.drop(attempt.alarm)
        attempt.alarm = Alarm(give_up)
        self._hub.wheel.set(attempt.alarm, self._hub.loop.time() + linger)


def _leave(outcome: Begun | None) -> None:
    """Let a stream linger that nobody reads, and close an answer that nobody passes on."""
    if outcome is None:
        return
    if outcome.relay is not None:
        outcome.relay.abandon()
    elif outcome.response is not None:
        outcome.response.close()
