"""Pass-through: two WebSocket connections joined into one, frame by frame as they are.

The handshake is end to end. The client's key, extensions and subprotocols go upstream, and the upstream's
answer comes back, so what the two agreed on (compression, say) is theirs; a refusal is answered as the HTTP
that it is. Behind it bytes pass unchanged. Of frames, only headers are looked at (``Passage``), to know where
one of ours can go between: a ping for a peer that has fallen silent, a close when the sidecar leaves.

Each end has a protocol of its own, put in place of aiohttp's, which hears of the connection's end and nothing
else. A full socket on one side pauses reading on the other: what is held is one socket buffer each way.
"""

from __future__ import annotations

import asyncio
import math
import os
from typing import Literal

from aiohttp import hdrs, web
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

from proxy.errors import CapacityError, UpstreamBroken
from proxy.server import handshake, report
from proxy.server.direct import READ_A_TURN
from proxy.server.exchange import Exchange
from proxy.server.headers import NOT_RETURNED, end_to_end
from proxy.server.hub import GOODBYE_SECONDS, Hub
from proxy.server.plain import pass_on
from proxy.server.pool import Call, Reply
from proxy.server.wheel import Alarm
from proxy.server.wire import Gone, Switched, detached
from proxy.stream.websocket import CloseCode, Opcode, Passage, close_payload, frame
from proxy.telemetry import Joined

#: Bytes of the payload by which the pong to a ping of ours is known: nobody else's ping has the same.
TOKEN_BYTES = 8

#: A peer that has sent nothing for so many heartbeats, each of which began with a ping, is given up.
SILENT_BEATS = 2

Side = Literal["client", "upstream"]

#: Why it ended: a close frame passed, a peer's connection was lost without one, or it was our doing.
Cause = Literal["closed", "lost", "silent", "send_timeout", "too_big", "drain"]


class End(asyncio.Protocol):
    """One of the two connections. ``passage`` is the direction from here to the ``other`` end."""

    __slots__ = (
        "_before", "_exc", "_moved", "_paused", "_resting", "_tunnel", "_waiting", "farewell", "full", "gone",
        "leaving", "missed", "other", "passage", "side", "spoke", "transport",
    )  # fmt: skip

    other: End

    def __init__(
        self, tunnel: Tunnel, side: Side, transport: asyncio.Transport, before: BaseProtocol
    ) -> None:
        self._tunnel = tunnel
        self._before = before  # the protocol that was here, and still owns the connection
        self.side: Side = side
        self.transport = transport
        self.passage = Passage(tunnel.limit, tunnel.token)
        self.full = False  # whether the socket takes no more for now
        self.gone = isinstance(transport, Gone)  # whether the connection is over,
        self._exc: Exception | None = None  # and what ended it
        self.leaving = False  # whether nothing of it passes any more but the rest of the frame on its way,
        self.farewell = b""  # and the close frame that it gets when there is a place for one
        self.missed = 0  # pings since the last byte
        self.spoke = True  # whether anything passed since the last heartbeat
        self._paused = False  # whether it is not read, because the other end is full
        self._resting = False  # whether it is not read until the loop's next turn
        self._waiting = 0  # bytes that wait for a slow peer, when last looked at,
        self._moved = 0.0  # and the loop's time when that had become less

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer: the hot path."""
        self.missed = 0
        if self.leaving:
            self._take_last(data)
        else:
            passing = self.passage.feed(data)
            if passing:
                self.spoke = True
                transport = self.other.transport
                if not transport.is_closing():
                    transport.write(passing)
            if self.passage.ended:
                self._tunnel.ended(self)
        if len(data) >= READ_A_TURN:
            self._rest()

    def eof_received(self) -> None:
        """The peer sends no more, and then the connection ends: WebSocket knows no half-open state."""
        self._tunnel.left(self)

    def pause_writing(self) -> None:
        """Hear that the socket is full: the other end is not read until it is not."""
        self.full = True
        self.watch()
        self.other.pause(paused=True)

    def resume_writing(self) -> None:
        """Hear that there is room again."""
        self.full = False
        self.other.pause(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that it is over."""
        self.gone, self._exc = True, exc
        self._tunnel.left(self)

    # What the tunnel does

    def take_over(self, high_water: int) -> None:
        """Hear from now on what the transport tells."""
        if not self.gone:
            self.transport.set_protocol(self)
            self.transport.set_write_buffer_limits(high=high_water)

    def hand_back(self) -> None:
        """Let the connection's owner hear that it is over, if it has not."""
        if not isinstance(self.transport, Gone):
            self._before.connection_lost(self._exc)

    def pause(self, *, paused: bool) -> None:
        """Read no more, or go on."""
        self._paused = paused
        self.missed = 0
        self._read()

    def ping(self) -> None:
        """Put a ping of ours between the peer's frames, unless the last of these has passed."""
        if self.other.passage.closed is None and not (self.leaving or self.transport.is_closing()):
            self.transport.write(self._ours(Opcode.PING, self._tunnel.token))

    def say_goodbye(self, code: CloseCode, reason: str) -> None:
        """Tell the peer of the end as soon as it can ``part``, unless the other one has told it."""
        self.leaving = True
        if self.other.passage.closed is None:
            self.farewell = self._ours(Opcode.CLOSE, close_payload(code, reason))

    def part(self) -> None:
        """Send the farewell if there is a place for it: from then on only the peer's own close is to come."""
        if not self.other.passage.between_frames:
            return
        if self.farewell and not self.transport.is_closing():
            self.transport.write(self.farewell)
        self.farewell = b""
        self.other.pause(paused=False)
        if self.passage.finished:
            self._tunnel.close(self)  # both have said it

    def watch(self) -> None:
        """See from now on whether the peer takes what waits for it."""
        self._waiting = self.transport.get_write_buffer_size()
        self._moved = self._tunnel.clock()
        self._tunnel.look_at(self._moved + self._tunnel.patience)

    def stuck_at(self, now: float) -> float:
        """When the peer will have taken nothing of what waits for it, for too long."""
        if self.gone or not (self.full or self.transport.is_closing()):
            return math.inf
        waiting = self.transport.get_write_buffer_size()
        if waiting < self._waiting:
            self._waiting, self._moved = waiting, now
        return self._moved + self._tunnel.patience

    def is_silent(self) -> bool:
        """Ping at a heartbeat, if nothing came since the last; return whether the peer is gone."""
        if self._paused or self.full or not self.other.passage.between_frames:
            self.missed = 0  # its silence is our doing, or a ping would not arrive
        elif self.missed >= SILENT_BEATS:
            return not self.transport.is_closing()
        elif self.spoke:
            self.spoke = False
        else:
            self.ping()
            self.missed += 1
        return False

    def abort(self) -> None:
        """End the connection now, whatever waits in it."""
        self._moved = math.inf
        if not self.gone:
            self.transport.abort()

    def _take_last(self, data: bytes) -> None:
        """Take what still comes: the rest of a frame, on whose end the other one waits, and a close frame."""
        rest = data[: self.passage.left]
        if rest and self.other.farewell:
            passing = self.passage.feed(rest)
            if not self.other.transport.is_closing():
                self.other.transport.write(passing)
            self.other.part()
            data = data[len(rest) :]
        self.passage.feed(data)
        if self.passage.finished and not self.farewell:
            self._tunnel.close(self)  # both have said it

    def _ours(self, opcode: Opcode, payload: bytes) -> bytes:
        """Return a frame of ours for the peer."""
        return frame(opcode, payload, os.urandom(4) if self.side == "upstream" else None)

    def _rest(self) -> None:
        """Read on in the loop's next turn: the other connections have theirs."""
        if not self._resting:
            self._resting = True
            self._read()
            self._tunnel.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self._read()

    def _read(self) -> None:
        """Read, or do not, as things are."""
        if self.transport.is_closing():
            return
        if self._paused or self._resting:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class Tunnel:
    """One client's connection joined to the upstream's."""

    def __init__(self, hub: Hub, exchange: Exchange) -> None:
        self._hub = hub
        self._exchange = exchange
        self._route = exchange.route
        self._stats = hub.telemetry.route(exchange.route.name)
        self._ends: tuple[End, ...] = ()
        self._over: asyncio.Future[None] = hub.loop.create_future()
        self._alarm = Alarm(self._look)
        self._beats_at = math.inf  # the loop's time of the next heartbeat,
        self._ends_at = math.inf  # and when peers that were told of the end must have left
        self._cause: Cause | None = None
        self._by = "sidecar"
        self._code: int | None = None
        self._counted = [0, 0, 0, 0]  # messages and bytes of either end that the route has counted
        self.clock = hub.clock
        self.loop = hub.loop
        self.limit = exchange.route.max_message
        self.patience = exchange.route.timeouts.send
        self.token = os.urandom(TOKEN_BYTES)

    async def serve(self) -> web.StreamResponse:
        """Ask the upstream, and join the two; or answer what it answers. Raises SidecarError."""
        hub, exchange = self._hub, self._exchange
        key = handshake.check(exchange.request)
        caller = exchange.origin.address
        hub.admit_socket(self, self._stats, caller)
        try:
            response = await exchange.upstream.open(self._call(), exchange.tell_interim)
            if response.answer.status != 101:
                return await pass_on(exchange, response)
            try:
                if self._ends_at < math.inf:
                    raise CapacityError("the sidecar is draining")
                return await self._join(response.answer, key)
            finally:
                response.close()
        finally:
            hub.wheel.drop(self._alarm)
            hub.dismiss_socket(self, self._stats, caller)

    # What the hub needs

    def leave(self) -> None:
        """Nothing: what is said here has no ends, so it gets the whole of ``drain``."""

    def dismiss(self) -> None:
        """Tell both peers to come again elsewhere."""
        self._note("drain", "sidecar", CloseCode.GOING_AWAY)
        self._say_goodbye(CloseCode.GOING_AWAY, "draining; reconnect")

    def cut(self) -> None:
        """End both connections now."""
        self._note("drain", "sidecar", CloseCode.ABNORMAL)
        for end in self._ends:
            end.abort()

    def settle(self) -> None:
        """Count for the route what has passed since it was last asked."""
        if not self._ends:
            return
        stats, (client, upstream) = self._stats, self._ends
        now = [
            client.passage.messages, client.passage.bytes, upstream.passage.messages, upstream.passage.bytes
        ]  # fmt: skip
        new = [figure - before for figure, before in zip(now, self._counted, strict=True)]
        self._counted = now
        stats.websocket_messages["to_upstream"] += new[0]
        stats.websocket_bytes["to_upstream"] += new[1]
        stats.websocket_messages["to_client"] += new[2]
        stats.websocket_bytes["to_client"] += new[3]

    # How it begins

    def _call(self) -> Call:
        """Return the client's handshake as it goes upstream."""
        call = self._exchange.call()
        call.upgrade = True
        call.headers[hdrs.CONNECTION] = "Upgrade"
        call.headers[hdrs.UPGRADE] = "websocket"
        if self._exchange.credentials:
            handshake.without_secrets(call.headers)
        return call

    async def _join(self, reply: Reply, key: str) -> web.StreamResponse:
        request, exchange = self._exchange.request, self._exchange
        fault = handshake.fault_of(reply.headers, key)
        if fault is not None:
            raise UpstreamBroken(f"upstream {exchange.upstream.name!r}", fault, sent=True)
        answer = Switched(_fields(reply, credentials=exchange.credentials))
        await answer.prepare(request)
        assert reply.connection is not None
        assert reply.connection.protocol is not None
        try:
            self._open(request.protocol, reply.connection.protocol)
            await self._over
        finally:
            for end in self._ends:
                end.abort()  # both are gone, unless the sidecar stops
            if self._ends:
                self._tell()
            if all(end.gone for end in self._ends):
                for end in self._ends:
                    del end.other  # or two that know each other would wait for the garbage collector
                self._ends = ()
        return answer

    def _open(self, client: BaseProtocol, upstream: BaseProtocol) -> None:
        """Put our ends in the place of aiohttp's protocols, and let each take first what had come before."""
        transport, heard = detached(client)
        upstream_transport, told = detached(upstream)
        here = End(self, "client", transport, client)
        there = End(self, "upstream", upstream_transport, upstream)
        here.other, there.other = there, here
        self._ends = here, there
        self._beats_at = self.clock() + self._route.heartbeat
        self.look_at(self._beats_at)
        for end in self._ends:
            end.take_over(self._route.high_water)
        for end, data in ((here, heard), (there, told)):
            if data:
                end.data_received(data)
        for end in self._ends:
            if end.gone:
                self.left(end)

    # How it ends

    def ended(self, end: End) -> None:
        """A close frame has passed an end, or a header that announces more than any message may have."""
        if end.passage.too_big:
            said = f"a message of {end.passage.too_big} bytes or more; at most {self.limit}"
            self._note("too_big", end.side, CloseCode.TOO_BIG)
            self._say_goodbye(CloseCode.GOING_AWAY, "the other side sent too much", end, said)
        else:
            self._note("closed", end.side, end.passage.closed)

    def left(self, end: End) -> None:
        """A peer sends no more, or its connection is over: so is the other's, when that has been given what
        is left. When both are, so is the tunnel.
        """
        self._note("lost", end.side, CloseCode.ABNORMAL)
        self.close(end)
        if end.other.farewell or not end.other.leaving:
            self.close(end.other)
        if end.gone and end.other.gone:
            if not self._over.done():
                self._over.set_result(None)
            for each in self._ends:
                each.hand_back()

    def _note(self, cause: Cause, by: str, code: int | None) -> None:
        """Remember the first thing that ended it."""
        if self._cause is None:
            self._cause, self._by, self._code = cause, by, code

    def _say_goodbye(self, code: CloseCode, reason: str, culprit: End | None = None, told: str = "") -> None:
        """Tell both peers of the end, the ``culprit`` the truth, and do not wait for ever for an answer."""
        if self._ends_at < math.inf:
            return
        self._ends_at = self.clock() + GOODBYE_SECONDS
        self._beats_at = math.inf
        self.look_at(self._ends_at)
        for end in self._ends:
            if end is culprit:
                end.say_goodbye(CloseCode.TOO_BIG, told)
            else:
                end.say_goodbye(code, reason)
        for end in self._ends:
            end.part()

    def look_at(self, moment: float) -> None:
        """See at this moment, or before, whether both peers still live."""
        self._hub.wheel.set(self._alarm, moment)

    def _look(self, now: float) -> float | None:
        if now >= self._ends_at:
            for end in self._ends:
                end.abort()
            return None
        for end in self._ends:
            if end.stuck_at(now) <= now:
                self._give_up(end, "send_timeout")
        if now >= self._beats_at:
            self._beats_at = now + self._route.heartbeat
            for end in self._ends:
                if end.is_silent():
                    self._give_up(end, "silent")
        return min(self._beats_at, self._ends_at, *(end.stuck_at(now) for end in self._ends))

    def _give_up(self, end: End, cause: Cause) -> None:
        self._note(cause, end.side, CloseCode.ABNORMAL)
        end.abort()

    def close(self, end: End) -> None:
        """Close a connection when its peer has taken what waits for it, or takes nothing."""
        if not end.transport.is_closing():
            end.transport.close()
            end.watch()

    def _tell(self) -> None:
        """Count and tell of the end."""
        self.settle()
        exchange, (to_upstream, to_client) = self._exchange, [end.passage for end in self._ends]
        self._hub.telemetry.websocket_ended(
            Joined(
                route=self._route.name,
                upstream=exchange.upstream.name,
                path=exchange.request.rel_url.raw_path,
                client=exchange.origin.address,
                cause=self._cause or "lost",
                by=self._by,
                code=self._code,
                messages_to_upstream=to_upstream.messages,
                messages_to_client=to_client.messages,
                bytes_to_upstream=to_upstream.bytes,
                bytes_to_client=to_client.bytes,
                duration=report.precise(self.clock() - exchange.started),
            )
        )


def _fields(reply: Reply, *, credentials: bool) -> CIMultiDict[str]:
    """Return the fields of the 101 that the client gets: the upstream's."""
    headers = end_to_end(reply.headers, NOT_RETURNED if credentials else ())
    headers.popall(hdrs.CONTENT_LENGTH, None)  # there is no content, whatever it says
    headers[hdrs.UPGRADE] = "websocket"
    headers[hdrs.CONNECTION] = "Upgrade"
    return headers
