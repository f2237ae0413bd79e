"""What a reader does with a stream that it has lost, or wants no more: resume, and cancel."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from proxy.doctor.ask import SAMPLE_BYTES, TIMEOUT, Asker
from proxy.doctor.dial import Exchange, Request, Unreachable, clock
from proxy.doctor.evidence import Head, Stream
from proxy.doctor.head import EVENT_STREAM, media_type
from proxy.doctor.recovery import CANCEL_TIMEOUT, RESUME_TIMEOUT, Cancelled, Resumed
from proxy.doctor.sidecar import Address, Looker, poll_of, problem_of
from proxy.doctor.transcript import Transcript

#: Events that are asked for again on a resume, to compare.
OVERLAP = 3

#: Events beyond the known ones that are awaited after a resume.
FRESH = 5

#: Seconds that a resume may take in all: a slow line may still be at what had come before.
RESUME_TOTAL = 20.0

#: Seconds for the events beyond the known ones: there may be none.
FRESH_TIMEOUT = 2.0


def resumption(request: Request, stream: Stream, address: Address | None) -> tuple[int, Request] | None:
    """The request that goes on behind an event, and that event's number; None where there is none for free.

    Only a sidecar's stream can be had again without a second POST, for which somebody might have to pay.
    """
    if not stream.arrivals:
        return None
    after = max(len(stream.arrivals) - OVERLAP, 0)
    last = stream.arrivals[after - 1].id if after else None
    fields = {"Accept": "text/event-stream"} | ({"Last_Event_ID": last} if last is not None else {})
    if address is not None:
        url = address.resume if last is not None else address.resume.with_query(after=after)
        return after, request.to(url, **fields)
    if request.method != "GET" or last is None:
        return None
    return after, request.to(request.url, **fields)


async def resume(
    asker: Asker, request: Request, stream: Stream, address: Address | None
) -> tuple[Exchange | None, Resumed | None]:
    """Resume ``stream``; the exchange is open where that worked, and the caller's to drop."""
    wanted = resumption(request, stream, address)
    if wanted is None:
        return None, None
    after, again = wanted
    exchange: Exchange | None = None
    try:
        exchange = await asker.send(again, upstream=address is None)
        head = await exchange.head(TIMEOUT)
    except Unreachable as error:
        if exchange is not None:
            exchange.drop()
        return None, Resumed(after, None, failure=str(error))
    if head.status != 200 or media_type(head) != EVENT_STREAM:
        body = await exchange.whole(TIMEOUT, SAMPLE_BYTES)
        exchange.drop()
        return None, Resumed(after, _seen(exchange, Transcript(head)), problem_of(body))
    return exchange, Resumed(after, await _read(exchange, head, len(stream.arrivals) - after))


async def _read(exchange: Exchange, head: Head, known: int) -> Stream:
    """Read what had come before, for as long as its bytes keep coming, and then some of what is new."""
    seen, loop = Transcript(head), asyncio.get_running_loop()
    last = loop.time() + RESUME_TOTAL
    with suppress(TimeoutError):
        async with asyncio.timeout(RESUME_TIMEOUT) as limit:
            while len(seen.arrivals) < known and (data := await exchange.read()):
                seen.receive(data, clock())
                if seen.reads[-1].cut:  # a heartbeat is no part of what is due
                    limit.reschedule(min(loop.time() + RESUME_TIMEOUT, last))
        async with asyncio.timeout(FRESH_TIMEOUT):
            while len(seen.arrivals) < known + FRESH and (data := await exchange.read()):
                seen.receive(data, clock())
    return _seen(exchange, seen)


def _seen(exchange: Exchange, seen: Transcript) -> Stream:
    return seen.stream(exchange, clock(), ending=exchange.ending)


async def cancel(
    asker: Asker, request: Request, address: Address, exchange: Exchange | None, looker: Looker
) -> Cancelled:
    """Press stop, and wait for the end: the reader's own or, where there is no reader, the sidecar's word."""
    head, body = await asker.ask(replace(request.to(address.cancel), method="POST"))
    began = clock()
    if head is None:
        return Cancelled(0)
    told = poll_of(began, began, head, body).good
    if head.status != 202 or not told:
        return Cancelled(head.status, problem_of(body), told=told)
    with suppress(TimeoutError):
        async with asyncio.timeout(CANCEL_TIMEOUT):
            if exchange is None:
                await looker.ended()
            else:
                while await exchange.read():
                    pass
            return Cancelled(202, ended_after=clock() - began, told=True)
    return Cancelled(202, told=True)
