"""What the provider remembers."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo.ledger import MAX_RECORDS, Ledger, Record, State


def _open(ledger: Ledger) -> Record:
    return ledger.open(method="GET", target="/api/events?count=3", headers=[("Accept", "*/*")])


def test_a_record_tells_how_a_request_came_and_ended() -> None:
    """Target in two parts, headers under any case, the first end and no later one."""
    record = _open(Ledger())
    assert (record.number, record.path, record.query) == (1, "/api/events", "count=3")
    assert (record.header("ACCEPT"), record.header("Cookie")) == ("*/*", None)
    assert (record.running, record.closed_after_seconds) == (True, None)
    record.end(State.MISBEHAVED)
    record.end(State.CLIENT_GONE)
    assert (record.state, record.running) == (State.MISBEHAVED, False)
    assert record.closed_after_seconds is not None


def test_the_oldest_records_give_way() -> None:
    """The newest thousand are held, a record keeps its number, a stream is counted while it runs."""
    ledger = Ledger()
    first = _open(ledger)
    first.begin_stream()
    for _ in range(MAX_RECORDS):
        _open(ledger)
    assert len(ledger.records) == MAX_RECORDS
    assert ledger.find(1) is None
    assert ledger.find(2) is ledger.records[0]
    assert ledger.open_streams == 1
    first.end(State.FINISHED)
    assert ledger.open_streams == 0


async def test_waiting_ends_with_the_change_that_was_waited_for() -> None:
    """A condition is looked at after every change, not after a time."""
    ledger = Ledger()
    record = _open(ledger)
    waiting = asyncio.create_task(ledger.until(lambda: record.events >= 2))
    await asyncio.sleep(0)
    record.count_events(1)
    await asyncio.sleep(0)
    assert not waiting.done()
    record.count_events(1)
    await waiting


async def test_waiting_in_vain_ends_as_well() -> None:
    """A condition that never holds is a TimeoutError."""
    with pytest.raises(TimeoutError):
        await Ledger().until(lambda: False, timeout=0.01)
