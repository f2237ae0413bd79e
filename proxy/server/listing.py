"""The streams held, as operators look at them: chosen, sorted, and no more of them than was asked for.

There may be ten thousand. Choosing the ones to show costs little; what is told of each is put together
for these only, and in slices, between which the streams themselves go on.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final, Self

from proxy import __version__
from proxy.errors import BadRequest
from proxy.server import report
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.stream.cursor import short
from proxy.stream.lifecycle import State
from proxy.stream.log import Reason

#: So many rows are put together without a break, which takes a few milliseconds.
SLICE = 100

GOOD_ENDS: Final = (Reason.COMPLETE, Reason.CANCELLED)

#: What ``state`` can choose: a state, how a stream ended, or one of these.
CHOICES: Final[Mapping[str, Callable[[Relay], bool]]] = {
    "running": lambda relay: not relay.finished,
    "paused": lambda relay: relay.paused and not relay.finished,
    "broken": lambda relay: relay.log.terminal is not None and relay.log.terminal.reason not in GOOD_ENDS,
    "unrecorded": lambda relay: not relay.recorded,
}

#: What ``sort`` can say: the first row is that with the smallest of these.
ORDERS: Final[Mapping[str, Callable[[Relay], float]]] = {
    "newest": lambda relay: -relay.birth.at,
    "oldest": lambda relay: relay.birth.at,
    "events": lambda relay: -relay.log.last,
    "bytes": lambda relay: -relay.log.bytes,
    "readers": lambda relay: -len(relay.readers),
    "silent": lambda relay: relay.tally.last_sent,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What to show. ``limit`` None: all; ``stream`` is the beginning of an id, as far as it is ever shown."""

    limit: int | None = None
    state: str = ""
    route: str = ""
    stream: str = ""
    sort: str = "newest"

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        """Read the query of a request. Raises BadRequest, which names what would have fitted."""
        limit = query.get("limit", "")
        if limit and not (limit.isascii() and limit.isdigit() and len(limit) <= 6):
            raise BadRequest(f"limit={limit[:20]}: must be a number of rows")
        state = query.get("state", "")
        _check("state", state, ("", *CHOICES, *State, *Reason))
        sort = query.get("sort", "newest")
        _check("sort", sort, tuple(ORDERS))
        return cls(
            limit=int(limit) if limit else None,
            state=state,
            route=query.get("route", ""),
            stream=query.get("stream", ""),
            sort=sort,
        )

    def shows(self, relay: Relay) -> bool:
        """Whether a stream is among those asked for."""
        return (
            (not self.route or relay.route.name == self.route)
            and (not self.state or self._in_state(relay))
            and (not self.stream or short(relay.id).startswith(self.stream))
        )

    def _in_state(self, relay: Relay) -> bool:
        choice = CHOICES.get(self.state)
        if choice is not None:
            return choice(relay)
        terminal = relay.log.terminal
        return relay.state == self.state or (terminal is not None and terminal.reason == self.state)


def _check(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise BadRequest(f"{name}={value[:20]}: must be one of {', '.join(filter(None, known))}")


async def listing(hub: Hub, view: View) -> bytes:
    """Return the document that ``/streams`` answers with: rows, running streams first, and totals."""
    every = [*hub.running, *(relay for relay in hub.store if relay not in hub.running)]
    chosen = [relay for relay in every if view.shows(relay)]
    totals = _totals(hub, len(chosen))
    rows: list[bytes] = []
    for relay in _sorted(chosen, view):
        rows.append(json.dumps(row(relay, hub.clock())).encode())
        if not len(rows) % SLICE:
            await asyncio.sleep(0)
    return b'{"streams": [%b], "totals": %b, "sidecar": %b}\n' % (
        b", ".join(rows),
        json.dumps(totals).encode(),
        json.dumps(_sidecar(hub)).encode(),
    )


def _sorted(chosen: list[Relay], view: View) -> list[Relay]:
    order = ORDERS[view.sort]

    def rank(relay: Relay) -> tuple[bool, float]:
        return (relay.finished, order(relay))

    return sorted(chosen, key=rank) if view.limit is None else nsmallest(view.limit, chosen, key=rank)


def row(relay: Relay, now: float) -> Mapping[str, object]:
    """Return what is told of one stream. Its id is shortened: a whole one opens its stream."""
    log, tally, birth = relay.log, relay.tally, relay.birth
    ended = report.precise(now - relay.finished_at) if relay.finished else None
    return {
        "stream": short(relay.id),
        "route": relay.route.name,
        "dialect": relay.dialect.name,
        "emit": relay.emit_name,
        "client": birth.client,
        "paused": relay.paused,
        "recorded": relay.recorded,
        **report.snapshot(relay),
        "ended": ended,
        "silent": None if relay.finished else report.precise(now - tally.last_sent),
        "max_bytes": log.max_bytes,
        "upstream": birth.upstream,
        "method": birth.method,
        "path": birth.path,
        "longest_gap": report.precise(tally.longest_gap),
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "readers_ever": tally.readers,
        "resumes": tally.resumes,
        "heartbeats": tally.heartbeats,
        "drops": tally.drops,
        "pauses": tally.pauses,
        "evicted": log.evicted,
        **relay.heard._asdict(),
    }


def _totals(hub: Hub, matched: int) -> Mapping[str, object]:
    """What holds for all streams, whatever was asked for; ``matched`` is how many of them that were."""
    states = Counter(relay.state for relay in hub.running)
    return {
        "matched": matched,
        "running": len(hub.running),
        "lingering": states[State.LINGERING],
        "paused": sum(relay.paused for relay in hub.running),
        "unrecorded": len(hub.unrecorded),
        "finished": len(hub.store) + len(hub.unrecorded) - len(hub.running),
        "readers": hub.readers,
        "websockets": len(hub.sockets),
        "bytes": hub.store.bytes,
        "max_bytes": hub.store.max_bytes,
        "evicted": hub.store.evicted,
        "routes": {name: stats.streams for name, stats in hub.telemetry.routes.items()},
    }


def _sidecar(hub: Hub) -> Mapping[str, object]:
    """Who says so, and since when: after a restart it is another one."""
    return {
        "version": __version__,
        "node": hub.config.node,
        "started": hub.started.isoformat(timespec="milliseconds"),
        "draining": hub.draining,
    }
