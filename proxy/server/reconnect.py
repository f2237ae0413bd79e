"""A feed whose upstream went away is asked for again, and its readers see no drop.

The sidecar is the EventSource here: it waits as long as the upstream's ``retry`` says, sends the
last id it saw, and stops at 204. A server that fails is asked less and less often, and given up
``reconnect_for`` after its last event.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from proxy.errors import UpstreamError
from proxy.server.coding import decoder
from proxy.server.headers import LAST_EVENT_ID
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.server.source import TaskSource
from proxy.server.sse import EVENT_STREAM
from proxy.server.upstream import Call, Response, Upstream
from proxy.stream.cursor import short
from proxy.stream.log import Reason

#: Before the first new attempt, in seconds, where the upstream named no ``retry``.
FIRST_WAIT = 0.25

#: Waiting doubles with every failed attempt, up to this many seconds.
LONGEST_WAIT = 30.0

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
        relay.on_end.append(self._stop)

    def reopen(self) -> None:
        """Begin to ask again. Called when the upstream's response is over."""
        self._task = self._hub.spawn(self._ask_again(), f"reconnect of {short(self._relay.id)}")

    async def _ask_again(self) -> None:
        relay = self._relay
        wait = FIRST_WAIT if relay.numbering.retry is None else relay.numbering.retry / 1000
        give_up = self._hub.loop.time() + relay.route.reconnect_for
        outcomes = self._hub.telemetry.route(relay.route.name).reconnects
        while True:
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))
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
                if relay.finished or status < 500 and status != 429:
                    relay.failed(failure, max(status, 400))
                    return
            if self._hub.loop.time() >= give_up:
                relay.failed(
                    f"{failure}; given up after {relay.route.reconnect_for:g}s (reconnect_for)", status
                )
                return
            wait = min(max(wait, FIRST_WAIT) * 2, LONGEST_WAIT)

    def _took(self, response: Response) -> bool:
        """Feed the relay from a new response, if it is one to be fed from."""
        answer, relay = response.answer, self._relay
        coding = decoder(answer.headers.get("Content-Encoding", ""))
        if answer.status == 200 and answer.content_type == EVENT_STREAM and coding is not None:
            relay.answered(TaskSource(response, coding, relay, f"upstream of {short(relay.id)}"))
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
            headers[LAST_EVENT_ID] = last_id.decode("utf-8", "surrogateescape")
        return replace(self._call, headers=headers)

    def _stop(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
