"""What the provider lets one see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from proxy.demo import Running, State, start_provider

from .wire import Wire, connect, get, post

TALK = "/api/chat?prompt=Hi&interval=0"


async def _json(running: Running, path: str) -> Any:
    async with aiohttp.ClientSession(running.url) as session, session.get(path) as response:
        return await response.json()


async def test_a_request_is_shown_with_what_it_carried(running: Running) -> None:
    """Method, target, headers, state, events; looking leaves no trace."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&tokens=3", "Authorization: Bearer demo"))
        await wire.head()
        await wire.chunks()
    [shown] = await _json(running, "/_provider/requests")
    assert shown == await _json(running, "/_provider/requests/1")
    assert (shown["method"], shown["path"], shown["query"]) == (
        "GET",
        "/api/chat",
        "prompt=Hi&interval=0&tokens=3",
    )
    assert ["Authorization", "Bearer demo"] in shown["headers"]
    assert (shown["state"], shown["events"], shown["streaming"]) == ("finished", 4, True)
    assert shown["closed_after_seconds"] < 5
    assert shown["started"] == running.requests[0].started
    assert [record.number for record in running.requests] == [1]


async def test_a_request_that_never_was_is_not_shown(running: Running) -> None:
    """404 names the number."""
    assert await _json(running, "/_provider/requests/7") == {"error": "no record of request 7 is held"}


async def test_open_streams_are_counted(running: Running) -> None:
    """Streams that run, not requests: a plain one is none."""
    async with connect(running) as one, connect(running) as other:
        for wire in (one, other):
            wire.send(get(f"{TALK}&hang_at=1"))
            await wire.head()
        assert await _json(running, "/_provider/open") == {"open": 2}
        one.hang_up()
        await running.ledger.until(lambda: running.ledger.open_streams == 1)
        assert await _json(running, "/_provider/open") == {"open": 1}
    await running.ledger.until(lambda: running.ledger.open_streams == 0)


async def _nothing(_wire: Wire) -> None:
    """Wait for nothing: the client goes before the headers."""


async def _headers(wire: Wire) -> None:
    await wire.head()


async def _two_events(wire: Wire) -> None:
    await wire.head()
    await wire.chunk()
    await wire.chunk()


@pytest.mark.parametrize(
    ("misbehaviour", "wait", "events"),
    [
        ("headers_delay=60", _nothing, 0),
        ("first_delay=60", _headers, 0),
        ("pause_at=2&pause=60", _two_events, 2),
        ("hang_at=2", _two_events, 2),
    ],
)
async def test_a_client_that_goes_is_noticed_at_once(
    running: Running, misbehaviour: str, wait: Callable[[Wire], Any], events: int
) -> None:
    """However long the provider would have slept, whatever it was waiting for."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&{misbehaviour}"))
        await running.ledger.until(lambda: running.ledger.open_streams == 1)
        await wait(wire)
    await running.ledger.until(lambda: not running.requests[0].running)
    record = running.requests[0]
    assert (record.state, record.events) == (State.CLIENT_GONE, events)


async def test_a_client_that_goes_while_events_flow_is_noticed(running: Running) -> None:
    """An endless stream without pauses stops with its reader."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&endless=1"))
        await wire.head()
    await running.ledger.until(lambda: not running.requests[0].running)
    assert running.requests[0].state is State.CLIENT_GONE


async def test_a_client_that_does_not_read_stops_the_provider(running: Running) -> None:
    """The provider waits for the socket, so what it counts stands still, and starts again with the reader."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&endless=1&size=1000000"))
        await wire.head()
        record = running.requests[0]
        await running.ledger.until(lambda: record.events > 3)
        with pytest.raises(TimeoutError):
            await running.ledger.until(lambda: record.events > 100, timeout=0.05)
        for _ in range(20):
            await wire.chunk()
        await running.ledger.until(lambda: record.events > 20)


async def test_a_refusal_that_was_asked_for_is_misbehaviour(running: Running) -> None:
    """A 404 is an answer like any other."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&status=500"))
        await wire.head()
    async with connect(running) as wire:
        wire.send(post("/nowhere", {}))
        assert (await wire.head())[0] == 404
    assert [record.state for record in running.requests] == [State.MISBEHAVED, State.FINISHED]


async def test_a_provider_that_closes_ends_its_streams() -> None:
    """``close`` takes no longer for a stream that hangs, and the port is free again."""
    provider = await start_provider()
    async with connect(provider) as wire:
        wire.send(get(f"{TALK}&hang_at=0"))
        await wire.head()
        await provider.close()
        assert await wire.rest() == b""
    again = await start_provider(port=provider.port)
    assert again.url == f"http://127.0.0.1:{provider.port}"
    with pytest.raises(OSError, match=str(again.port)):
        await start_provider(port=again.port)
    await again.close()
