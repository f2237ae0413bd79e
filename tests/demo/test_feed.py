"""The app's feed."""

from __future__ import annotations

from itertools import islice

import pytest

from proxy.demo import Running
from proxy.demo.feed import BadNumber, Feed, feed_event, parse_number

from .wire import connect, get


def test_a_feed_counts_from_one_and_hints_once() -> None:
    """Ids count up, the retry hint stands in the first event, every fifth event is a note."""
    events = list(islice(Feed().events(), 6))
    assert [event.id for event in events] == ["1", "2", "3", "4", "5", "6"]
    assert [event.retry for event in events] == [1000, None, None, None, None, None]
    assert [event.name for event in events] == ["tick", "tick", "tick", "tick", "note", "tick"]


def test_an_event_is_always_the_same() -> None:
    """What a reader gets for an id does not depend on when it came."""
    [event] = islice(Feed(last_id=41).events(), 1)
    assert event.block() == feed_event(42, retry=1000).block()


def test_numbers_are_read_strictly() -> None:
    """Nothing but digits is an id of this feed."""
    assert (parse_number("count", ""), parse_number("count", "0"), parse_number("count", "12")) == (
        None,
        0,
        12,
    )
    for wrong in ("-1", "1.5", "abc.1", "²"):
        with pytest.raises(BadNumber, match="Last-Event-ID is"):
            parse_number("Last-Event-ID", wrong)


async def test_a_reader_that_comes_back_misses_and_repeats_nothing(running: Running) -> None:
    """The next connection goes on with the id after the last one seen."""
    async with connect(running) as wire:
        wire.send(get("/api/events?interval=0&count=7&drop_at=4"))
        status, headers = await wire.head()
        *first, half = await wire.chunks_before_cut()
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    async with connect(running) as wire:
        wire.send(get("/api/events?interval=0&count=7", "Last-Event-ID: 4"))
        await wire.head()
        second = await wire.chunks()
    assert first == [feed_event(n, retry=1000 if n == 1 else None).block() for n in (1, 2, 3, 4)]
    assert feed_event(5).block().startswith(half)
    assert second == [feed_event(n, retry=1000 if n == 5 else None).block() for n in (5, 6, 7)]


async def test_a_feed_is_endless_unless_counted(running: Running) -> None:
    """Without a count there is always a next event."""
    async with connect(running) as wire:
        wire.send(get("/api/events?interval=0"))
        await wire.head()
        for number in range(1, 200):
            assert f"id: {number}\n".encode() in await wire.chunk()


async def test_after_its_end_a_feed_says_so(running: Running) -> None:
    """204 stops an EventSource that would come back forever."""
    async with connect(running) as wire:
        wire.send(get("/api/events?count=7", "Last-Event-ID: 7"))
        assert (await wire.head())[0] == 204


async def test_an_id_that_is_none_of_its_own_is_refused(running: Running) -> None:
    """So a proxy that forwards its own ids is found out."""
    async with connect(running) as wire:
        wire.send(get("/api/events", "Last-Event-ID: AbCdEf.7", "Connection: close"))
        assert (await wire.head())[0] == 400
        assert b"AbCdEf.7" in await wire.rest()


async def test_a_head_plays_no_feed(running: Running) -> None:
    """HEAD is not served, as it would be a stream to nobody."""
    async with connect(running) as wire:
        wire.send(b"HEAD /api/events HTTP/1.1\r\nHost: demo\r\n\r\n")
        assert (await wire.head())[0] == 405
