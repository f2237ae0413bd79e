"""A feed whose upstream went away is asked for again, and its readers see no drop.

The sidecar is the EventSource here: it waits as long as the upstream's ``retry`` says, sends the
last id it saw, and stops at 204. A server that fails is asked less and less often, and given up
``reconnect_for`` after its last event.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace

from proxy.errors import UpstreamError
from proxy.server.coding import decoder
from proxy.server.direct import source_of
from proxy.server.headers import LAST_EVENT_ID
from proxy.server.hub import Hub
from proxy.server.pool import Call
from proxy.server.relay import Relay
from proxy.server.upstream import Response, Upstream
from proxy.stream.cursor import short
from proxy.stream.log import Reason
from proxy.stream.sse import EVENT_STREAM

#: Before the first new attempt, in seconds, where the upstream named no ``retry``.
FIRST_WAIT = 0.25

#: What an upstream that says ``retry: 0`` is asked again after, in seconds.
LEAST_WAIT = 0.02

#: So often a wait can double before any is longer than the longest.
MOST_DOUBLINGS = 16

#: Waiting doubles with every failed attempt, up to this many seconds.
LONGEST_WAIT = 30.0

#: Up to this part of a wait is added to it, so that many feeds of one app do not come back at once.
JITTER = 0.4

#: "HTTP 204 No Content … the user agent should be told to stop reconnecting" (WHATWG HTML §9.2.3).
STOP = 204


class Reconnector:
    """Keeps one feed's relay fed."""

    def __init__(self, hub: Hub, relay: Relay, upstream: Upstream, call: Call) -> None:
        self._hub = hub
        self._relay = relay
        self._upstream = upstream
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._events = 0  # so many had come when the upstream was last reached
        self._reached = -math.inf
        self._give_up = 0.0
        self._attempts = 0  # since the upstream was last known to be well
        relay.on_end.append(self._stop)

    def reopen(self) -> None:
        """Begin to ask again. Called when the upstream's response is over.

        A response that ends soon and without an event is a failed attempt; but where the upstream has
        said how often it wants to be asked, it is one that is polled, and only gives up its turn.
        """
        relay, now = self._relay, self._hub.loop.time()
        well = relay.log.last > self._events or now > self._reached + LONGEST_WAIT
        if well:
            self._give_up = now + relay.route.reconnect_for
        elif now >= self._give_up:
            self._fail("the upstream answers and sends no event", 502)
            return
        if well or relay.numbering.retry is not None:
            self._attempts = 0
        self._task = self._hub.spawn(self._ask_again(), f"reconnect of {short(relay.id)}")

    async def _ask_again(self) -> None:
        """Ask until the relay is fed, or has ended."""
        try:
            await self._ask()
        except Exception as error:  # a fault of ours, and no reason to let the readers wait
            self._relay.failed(f"the sidecar failed: {type(error).__name__}", 500)
            raise

    async def _ask(self) -> None:
        relay = self._relay
        outcomes = self._hub.telemetry.route(relay.route.name).reconnects
        while True:
            await asyncio.sleep(self._next_wait())
            try:
                response = await self._upstream.open(self._with_last_id())
            except UpstreamError as error:
                outcomes[error.kind] += 1
                failure, status = str(error), error.status
            else:
                if self._took(response):
                    outcomes["reconnected"] += 1
                    return
                status = response.answer.status
                failure = f"the upstream answered {status} {response.answer.content_type} to a reconnect"
                outcomes[f"status_{status}"] += 1
                if status < 500 and status != 429:
                    relay.failed(failure, max(status, 400))
                    return
            if self._hub.loop.time() >= self._give_up:
                self._fail(failure, status)
                return

    def _fail(self, failure: str, status: int) -> None:
        patience = f"{self._relay.route.reconnect_for:g}s (reconnect_for)"
        self._relay.failed(f"{failure}; given up after {patience}", status)

    def _next_wait(self) -> float:
        """How long to wait before the next attempt, in seconds: first what the upstream's ``retry`` says,
        then longer every time. Jittered, but never shorter than that.
        """
        named = self._relay.numbering.retry
        wait = FIRST_WAIT if named is None else max(named / 1000, LEAST_WAIT)
        if self._attempts:
            doubled = max(wait, FIRST_WAIT) * 2 ** min(self._attempts, MOST_DOUBLINGS)
            wait = max(wait, min(doubled, LONGEST_WAIT))
        self._attempts += 1
        return wait * random.uniform(1.0, 1.0 + JITTER)

    def _took(self, response: Response) -> bool:
        """Feed the relay from a new response, if it is one to be fed from."""
        answer, relay = response.answer, self._relay
        coding = decoder(answer.headers.get("Content-Encoding", ""))
        if answer.status == 200 and answer.content_type == EVENT_STREAM and coding is not None:
            self._events, self._reached = relay.log.last, self._hub.loop.time()
            relay.answered(source_of(self._hub, response, coding, relay, relay.id))
            return True
        response.close()
        if answer.status == STOP:
            relay.end(Reason.COMPLETE, "the upstream answered a reconnect with 204: the feed is over")
            return True
        return False

    def _with_last_id(self) -> Call:
        headers = self._call.headers.copy()
        last_id = self._relay.numbering.last_id
        if last_id is not None:
            headers.popall(LAST_EVENT_ID, None)
        if last_id:  # an empty one takes the id back
            headers[LAST_EVENT_ID] = last_id.decode("utf-8", "surrogateescape")
        return replace(self._call, headers=headers)

    def _stop(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
