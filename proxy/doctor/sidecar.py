"""A sidecar behind the edge: where a stream of its can be had again, and what it says of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from yarl import URL

from proxy.doctor.ask import Asker
from proxy.doctor.dial import Request, clock
from proxy.doctor.evidence import Head, Poll
from proxy.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from proxy.stream.cursor import is_stream_id, parse

#: How the sidecar's own refusals are known: the beginning of a problem document's ``type`` (RFC 9457).
PROBLEM = "urn:sse-sidecar:problem:"

#: Words that stand in OpenAI's form of an error, on its routes. Nobody else spells them so.
UPSTREAM_PROBLEMS = frozenset({UpstreamUnreachable.kind, UpstreamBroken.kind, UpstreamTimeout.kind})

#: Seconds between two looks at the sidecar's state: at first, and after so many looks.
LOOK, LATER_LOOK, MANY_LOOKS = 0.1, 0.5, 30

#: Looks at least, however short the stream: with two sidecars one look finds the right one by luck.
FEW_LOOKS = 4

_LINK = re.compile(r'<([^>]*)>\s*;[^,]*?\brel="?([\w-]+)"?')


@dataclass(frozen=True, slots=True)
class Address:
    """Where one stream can be resumed, cancelled, and asked for its state."""

    stream_id: str
    resume: URL
    cancel: URL

    @classmethod
    def of_head(cls, head: Head, url: URL) -> Address | None:
        """From the answer of ``url``: only addresses of its own origin, as credentials go along."""
        stream_id = head.get("Stream-Id")
        if not is_stream_id(stream_id):
            return None
        found = {rel: url.join(URL(target)) for target, rel in _LINK.findall(head.get("Link"))}
        links = {rel: link for rel, link in found.items() if link.origin() == url.origin()}
        usual = cls.usual(stream_id, url)
        return cls(stream_id, links.get("resume", usual.resume), links.get("cancel", usual.cancel))

    @classmethod
    def of_event(cls, event_id: str | None, url: URL) -> Address | None:
        """From an event's id, which still tells where the header was stripped."""
        cursor = parse(event_id or "")
        return cls.usual(cursor.stream, url) if cursor is not None else None

    @classmethod
    def usual(cls, stream_id: str, url: URL) -> Address:
        """Where a sidecar without ``public_path`` has it."""
        base = url.origin() / "_streams" / stream_id
        return cls(stream_id, base, base / "cancel")

    @property
    def state(self) -> URL:
        """Where its state is told."""
        return self.resume / "state"


class Looker:
    """Looks at the state of the stream at ``address``, once that is known; ``polls`` is what it saw.

    ``request`` is the one that began the stream: it says who asks.
    """

    def __init__(self, asker: Asker, request: Request) -> None:
        self.address: Address | None = None
        self.polls: list[Poll] = []
        self._asker = asker
        self.request = request

    def learn(self, address: Address | None) -> None:
        """Take the first address that is told."""
        self.address = self.address or address

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Look again and again, all the while."""
        task = asyncio.create_task(self._look_on(), name="looking")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look(self) -> Poll | None:
        """Look once."""
        if self.address is None:
            return None
        asked = clock()
        fields = {"Accept": "application/json", "Accept_Encoding": "identity"}
        head, body = await self._asker.ask(self.request.to(self.address.state, **fields))
        poll = poll_of(asked, clock(), head, body)
        self.polls.append(poll)
        return poll

    async def look_enough(self) -> Poll | None:
        """Look once more, and until there were enough looks; return the newest that told anything."""
        looks = max(1, FEW_LOOKS - len(self.polls))
        fresh = await asyncio.gather(*(self.look() for _ in range(looks)))
        return next((poll for poll in reversed(fresh) if poll is not None and poll.good), None)

    async def ended(self) -> None:
        """Return once the stream has ended; for ever where nobody tells."""
        poll = await self.look()
        while poll is not None and (poll.runs or not poll.good):
            await asyncio.sleep(LOOK)
            poll = await self.look()

    async def _look_on(self) -> None:
        while True:
            poll = await self.look()
            if poll is not None and poll.good and not poll.runs:
                return
            await asyncio.sleep(LOOK if len(self.polls) < MANY_LOOKS else LATER_LOOK)


def problem_of(body: bytes) -> str:
    """The sidecar's word for a refusal, or an empty string where the body is somebody else's."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    match document:
        case {"type": str(kind)} if kind.startswith(PROBLEM):
            return kind.removeprefix(PROBLEM)
        case {"error": {"code": str(kind)}} if kind in UPSTREAM_PROBLEMS:
            return kind
    return ""


def poll_of(asked: float, answered: float, head: Head | None, body: bytes) -> Poll:
    """What one look at the state has brought."""
    if head is None:
        return Poll(asked, answered, 0)
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(body) if head.status in (200, 202) else None
    match document:
        case {"state": str(state), "last": int(last), "reason": reason}:
            first, age = document.get("time_to_first_event"), document.get("age")
            told = (str(reason or ""), last, _seconds(first), _seconds(age))
            return Poll(asked, answered, head.status, "", state, *told)
    return Poll(asked, answered, head.status, problem_of(body))


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
