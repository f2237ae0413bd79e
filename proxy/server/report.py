"""A stream as it is told: to the log when it ends, and to whoever asks for its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.stream.cursor import short
from proxy.telemetry import Facts, Visited

if TYPE_CHECKING:
    from aiohttp import web

    from proxy.server.hub import Hub
    from proxy.server.relay import Relay


def precise(seconds: float) -> float:
    """Return a time as precise as anybody wants to read it."""
    return round(seconds * 10_000) / 10_000


#: The status noted for a client that left before it was answered; nginx's word for it.
CLIENT_LEFT = 499


def request(
    hub: Hub,
    route: str,
    asked: web.BaseRequest,
    client: str,
    *,
    status: int,
    started: float,
    sent: int = 0,
    told: bool = False,
) -> None:
    """Count a request that is over and, where the log is to have it or it must be ``told``, write its line.

    ``started`` is the loop's time of its arrival, ``sent`` the bytes of the answer's body.
    """
    hub.telemetry.count_request(route, asked.method, status)
    if told:
        hub.telemetry.request_ended(
            Visited(
                route=route,
                method=asked.method,
                path=shown_path(asked.rel_url.raw_path),
                client=client,
                status=status,
                bytes=sent,
                duration=precise(hub.loop.time() - started),
            )
        )


#: Where streams are read by their ids.
STREAMS_PREFIX = "/_streams/"


def shown_path(path: str) -> str:
    """Return a request's path as it may be logged: a whole id would let the log's readers in."""
    if not path.startswith(STREAMS_PREFIX):
        return path
    stream_id, slash, rest = path.removeprefix(STREAMS_PREFIX).partition("/")
    return f"{STREAMS_PREFIX}{short(stream_id)}{slash}{rest}"


def facts(relay: Relay) -> Facts:
    """Return what the log line tells."""
    log, tally, birth = relay.log, relay.tally, relay.birth
    terminal = log.terminal
    return Facts(
        stream=short(relay.id),
        route=relay.route.name,
        upstream=birth.upstream,
        dialect=relay.dialect.name,
        emit=relay.emit_name,
        method=birth.method,
        path=birth.path,
        client=birth.client,
        reason=str(terminal.reason) if terminal else "",
        message=terminal.message if terminal else "",
        events=log.last,
        bytes_in=tally.bytes_in,
        bytes_out=tally.bytes_out,
        first_event=None if tally.first_event is None else precise(tally.first_event),
        duration=precise(relay.age),
        longest_gap=precise(tally.longest_gap),
        readers=tally.readers,
        resumes=tally.resumes,
        replayed=tally.replayed + sum([reader.replayed for reader in relay.readers]),
        heartbeats=tally.heartbeats,
        drops=tally.drops,
        pauses=tally.pauses,
        evicted=log.evicted,
        recorded=relay.recorded,
        **relay.heard._asdict(),
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
        "age": precise(relay.age),
        "time_to_first_event": None if first_event is None else precise(first_event),
        "readers": len(relay.readers),
    }
