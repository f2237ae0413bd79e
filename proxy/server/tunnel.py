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
import os
from typing import Literal

from aiohttp import hdrs, web
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

from proxy.errors import UpstreamBroken
from proxy.server import handshake, report
from proxy.server.direct import READ_A_TURN
from proxy.server.exchange import Exchange
from proxy.server.headers import NOT_RETURNED, end_to_end
from proxy.server.hub import Hub
from proxy.server.plain import pass_on
from proxy.server.pool import Call, Reply
from proxy.server.wheel import Alarm
from proxy.server.wire import Switched, detached
from proxy.stream.websocket import CloseCode, Opcode, Passage, close_payload, frame
from proxy.telemetry import Joined

#: Bytes of the payload by which the pong to a ping of ours is known: nobody else's ping has the same.
TOKEN_BYTES = 8

#: How long peers that were told of the end may take to say so too, in seconds.
GOODBYE_SECONDS = 5.0

#: So many heartbeats without a byte, two pings among them, and a peer is given up.
SILENT_BEATS = 2

Side = Literal["client", "upstream"]

#: Why it ended: a close frame passed, a peer's connection was lost without one, or it was our doing.
Cause = Literal["closed", "lost", "silent", "send_timeout", "too_big", "drain"]


class End(asyncio.Protocol):
    """One of the two connections. ``passage`` is the direction from here to the ``other`` end."""

    __slots__ = (
        "_before", "_moved", "_paused", "_resting", "_tunnel", "_waiting", "full", "leaving", "missed",
        "other", "passage", "side", "spoke", "transport",
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
        self.leaving = False  # whether it was told of the end, by us
        self.missed = 0  # heartbeats since the last byte
        self.spoke = True  # whether anything passed since the last heartbeat
        self._paused = False  # whether it is not read, because the other end is full
        self._resting = False  # whether it is not read until the loop's next turn
        self._waiting = 0  # bytes in its full socket, when last looked at,
        self._moved = 0.0  # and the loop's time when that had become less

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer: the hot path."""
        self.missed = 0
        passing = self.passage.feed(data)
        if passing:
            self.spoke = True
            transport = self.other.transport
            if not (self.leaving or transport.is_closing()):
                transport.write(passing)
        if self.passage.ended:
            self._tunnel.ended(self)
            if self.leaving and self.passage.closed is not None:
                self.transport.close()  # both have said it
        if len(data) >= READ_A_TURN:
            self._rest()

    def eof_received(self) -> None:
        """The peer sends no more, and then the connection ends: WebSocket knows no half-open state."""

    def pause_writing(self) -> None:
        """Hear that the socket is full: the other end is not read until it is not."""
        self.full = True
        self._waiting = self.transport.get_write_buffer_size()
        self._moved = self._tunnel.clock()
        self.other.pause(paused=True)

    def resume_writing(self) -> None:
        """Hear that there is room again."""
        self.full = False
        self.other.pause(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that it is over, and let the connection's owner hear it."""
        self._before.connection_lost(exc)
        self._tunnel.lost(self)

    # What the tunnel does

    def begin(self, data: bytes) -> None:
        """Take the connection over, and first what had come before."""
        self.transport.set_protocol(self)
        if data:
            self.data_received(data)

    def pause(self, *, paused: bool) -> None:
        """Read no more, or go on."""
        self._paused = paused
        self.missed = 0
        self._read()

    def send(self, opcode: Opcode, payload: bytes) -> bool:
        """Put a frame of ours between the peer's; return whether there was a place for it."""
        into = self.other.passage
        if not into.between_frames or into.closed is not None or self.leaving or self.transport.is_closing():
            return False
        key = os.urandom(4) if self.side == "upstream" else None
        self.transport.write(frame(opcode, payload, key))
        return True

    def say_goodbye(self, code: CloseCode, reason: str) -> None:
        """Tell the peer of the end; where there is no place for that, end it."""
        if self.send(Opcode.CLOSE, close_payload(code, reason)):
            self.leaving = True
            self._paused = False
            self._read()
        else:
            self._tunnel.close(self)

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Whether the peer has taken nothing of what waits for it, for so long."""
        if not self.full:
            return False
        waiting = self.transport.get_write_buffer_size()
        if waiting < self._waiting:
            self._waiting, self._moved = waiting, now
        return now >= self._moved + seconds

    def is_silent(self) -> bool:
        """Count a heartbeat, and ping if nothing came since the last; return whether the peer is gone."""
        if self._paused or self.full:
            self.missed = 0  # its silence is our doing, or a ping would not arrive
            return False
        if self.missed >= SILENT_BEATS:
            return True
        self.missed += 1
        if not self.spoke:
            self.send(Opcode.PING, self._tunnel.token)
        self.spoke = False
        return False

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
        self._alarm = Alarm(self._beat)
        self._cause: Cause | None = None
        self._by = "sidecar"
        self._code: int | None = None
        self._ending = False  # whether the peers were told of the end, by us
        self._counted = [0, 0, 0, 0]  # messages and bytes of either end that the route has counted
        self.clock = hub.clock
        self.loop = hub.loop
        self.limit = exchange.route.max_message
        self.token = os.urandom(TOKEN_BYTES)

    async def serve(self) -> web.StreamResponse:
        """Ask the upstream, and join the two; or answer what it answers. Raises SidecarError."""
        hub, exchange = self._hub, self._exchange
        key = handshake.check(exchange.request)
        hub.admit_socket(self, self._stats)
        try:
            response = await exchange.upstream.open(self._call(), exchange.tell_interim)
            if response.answer.status != 101:
                return await pass_on(exchange, response)
            try:
                return await self._join(response.answer, key)
            finally:
                response.close()
        finally:
            hub.dismiss_socket(self, self._stats)

    # What the hub needs

    def leave(self) -> None:
        """Nothing: what is said here has no ends, so it gets the whole of ``drain``."""

    def dismiss(self) -> None:
        """Tell both peers to come again elsewhere."""
        self._note("drain", "sidecar", CloseCode.GOING_AWAY)
        self._say_goodbye(CloseCode.GOING_AWAY, "draining; reconnect")

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
        if reply.headers.get(hdrs.SEC_WEBSOCKET_ACCEPT) != handshake.accept_of(key):
            who = f"upstream {exchange.upstream.name!r}"
            raise UpstreamBroken(who, "its Sec-WebSocket-Accept does not fit the key", sent=True)
        answer = Switched(_fields(reply, credentials=exchange.credentials))
        await answer.prepare(request)
        assert reply.connection is not None
        assert reply.connection.protocol is not None
        try:
            self._open(request.protocol, reply.connection.protocol)
            await self._over
        finally:
            self._hub.wheel.drop(self._alarm)
            for end in self._ends:
                self.close(end)
            self._tell()
        return answer

    def _open(self, client: BaseProtocol, upstream: BaseProtocol) -> None:
        """Put our ends in the place of aiohttp's protocols."""
        early = []
        sides: tuple[tuple[Side, BaseProtocol], ...] = (("client", client), ("upstream", upstream))
        for side, protocol in sides:
            transport, data = detached(protocol)
            transport.set_write_buffer_limits(high=self._route.high_water)
            self._ends += (End(self, side, transport, protocol),)
            early.append(data)
        here, there = self._ends
        here.other, there.other = there, here
        self._hub.wheel.set(self._alarm, self.clock() + self._route.heartbeat)
        for end, data in zip(self._ends, early, strict=True):
            end.begin(data)

    # How it ends

    def ended(self, end: End) -> None:
        """A close frame has passed an end, or a header that announces more than any message may have."""
        if end.passage.too_big:
            said = f"a message of {end.passage.too_big} bytes or more; at most {self.limit}"
            self._note("too_big", end.side, CloseCode.TOO_BIG)
            self._say_goodbye(CloseCode.GOING_AWAY, "the other side sent too much", end, said)
        else:
            self._note("closed", end.side, end.passage.closed)

    def lost(self, end: End) -> None:
        """An end's connection is over: so is the other's, when that has been given what is left."""
        self._note("lost", end.side, CloseCode.ABNORMAL)
        if not end.other.leaving:
            self.close(end.other)
        if end.side == "upstream" and end.other.transport.is_closing() and not self._over.done():
            self._over.set_result(None)  # where it is the client's, aiohttp cancels the waiting

    def _note(self, cause: Cause, by: str, code: int | None) -> None:
        """Remember the first thing that ended it."""
        if self._cause is None:
            self._cause, self._by, self._code = cause, by, code

    def _say_goodbye(self, code: CloseCode, reason: str, culprit: End | None = None, told: str = "") -> None:
        """Tell both peers of the end, the ``culprit`` the truth, and do not wait for ever for an answer."""
        if self._ending:
            return
        self._ending = True
        for end in self._ends:
            if end is culprit:
                end.say_goodbye(CloseCode.TOO_BIG, told)
            else:
                end.say_goodbye(code, reason)
        self._hub.wheel.set(self._alarm, self.clock() + GOODBYE_SECONDS)

    def _beat(self, now: float) -> float | None:
        """See whether both peers still live."""
        if self._ending:
            for end in self._ends:
                end.transport.abort()
            return None
        for end in self._ends:
            if end.transport.is_closing():
                return None
            if end.is_stuck(now, self._route.timeouts.send):
                self._give_up(end, "send_timeout")
                return None
            if end.is_silent():
                self._give_up(end, "silent")
                return None
        return now + self._route.heartbeat

    def _give_up(self, end: End, cause: Cause) -> None:
        self._note(cause, end.side, CloseCode.ABNORMAL)
        end.transport.abort()

    def close(self, end: End) -> None:
        """Close a connection when its peer has taken what waits for it, or takes nothing."""
        transport = end.transport
        if not transport.is_closing():
            transport.close()
            if transport.get_write_buffer_size():
                self.loop.call_later(self._route.timeouts.send, transport.abort)

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
    headers[hdrs.UPGRADE] = "websocket"
    headers[hdrs.CONNECTION] = "Upgrade"
    return headers
