"""Requests are counted here: the report says how many were made, and how many may have cost something."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.doctor.dial import Dialer, Exchange, Request, Unreachable
from proxy.doctor.evidence import Head
from proxy.doctor.head import EVENT_STREAM, media_type

#: Seconds for each of the small questions beside the stream.
TIMEOUT = 5.0

#: Bytes of an answer that is no stream: enough to tell what it is.
SAMPLE_BYTES = 64 * 1024


@dataclass(slots=True)
class Asker:
    """Sends requests. ``requests`` counts them all, ``upstream`` those that an upstream sees."""

    dialer: Dialer = field(default_factory=Dialer)
    requests: int = 0
    upstream: int = 0

    async def send(self, request: Request, *, upstream: bool = False) -> Exchange:
        """Send a request. Raises Unreachable."""
        self.requests += 1
        exchange = await self.dialer.send(request)
        self.upstream += upstream
        return exchange

    async def ask(self, request: Request, *, upstream: bool = False) -> tuple[Head | None, bytes]:
        """Ask a small question on a connection of its own; no head where there was no answer."""
        try:
            exchange = await self.send(request, upstream=upstream)
        except Unreachable:
            return None, b""
        try:
            answer = await exchange.head(TIMEOUT)
            endless = answer.status == 101 or media_type(answer) == EVENT_STREAM
            body = b"" if endless else await exchange.whole(TIMEOUT, SAMPLE_BYTES)
        except Unreachable:
            return None, b""
        finally:
            exchange.drop()
        return answer, body
