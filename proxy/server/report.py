"""A stream as it is told: to the log when it ends, and to whoever asks for its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.stream.cursor import short
from proxy.telemetry import Facts

if TYPE_CHECKING:
    from proxy.server.relay import Relay


def told(seconds: float) -> float:
    """Return a time as precise as anybody wants to read it."""
    return round(seconds * 10_000) / 10_000


def facts(relay: Relay) -> Facts:
    """Return what the log line tells."""
    log, tally, birth = relay.log, relay.tally, relay.birth
    terminal = log.terminal
    return Facts(
        stream=short(relay.id),
        route=relay.route.name,
        upstream=birth.upstream,
        dialect=relay.dialect.name,
        method=birth.method,
        path=birth.path,
        client=birth.client,
        reason=str(terminal.reason) if terminal else "",
        message=terminal.message if terminal else "",
        events=log.last,
        bytes_in=tally.bytes_in,
        bytes_out=tally.bytes_out,
        first_event=None if tally.first_event is None else told(tally.first_event),
        duration=told(relay.age),
        longest_gap=told(tally.longest_gap),
        readers=tally.readers,
        resumes=tally.resumes,
        replayed=tally.replayed + sum([reader.replayed for reader in relay.readers]),
        heartbeats=tally.heartbeats,
        drops=tally.drops,
        pauses=tally.pauses,
        evicted=log.evicted,
        recorded=relay.recorded,
    )


def snapshot(relay: Relay) -> Mapping[str, object]:
    """Return the stream's state for ``/_streams/ID/state`` and the admin listing."""
    terminal, first_event = relay.log.terminal, relay.tally.first_event
    return {
        "state": relay.state.value,
        "reason": terminal.reason.value if terminal else None,
        "message": terminal.message if terminal else None,
        "first": relay.log.first,
        "last": relay.log.last,
        "bytes": relay.log.bytes,
        "started": relay.started.isoformat(timespec="milliseconds"),
        "age": told(relay.age),
        "time_to_first_event": None if first_event is None else told(first_event),
        "readers": len(relay.readers),
    }
