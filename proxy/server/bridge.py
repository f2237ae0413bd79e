"""The bridge: a client that talks back, over one WebSocket, about the streams of a route.

A start is one request upstream, and goes the way of any request that comes over HTTP: the same route, guards,
bounds, upstream and relay. What differs is how its stream is read: as frames, by a ``WsReader``. Commands
are obeyed in the call in which they arrive, while frames go out; nothing is queued. The connection's task
waits for room in the socket and for the ends of streams, and tells of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.errors import (
    AnsweredWithError,
    BadFrame,
    Busy,
    CapacityError,
    Gap,
    NothingRunning,
    SidecarError,
    UnknownStream,
    UpstreamBroken,
)
from proxy.server import guard, handshake, inject, report, resume
from proxy.server.coding import IDENTITY, Decoder, decoder
from proxy.server.exchange import Exchange
from proxy.server.hub import GOODBYE_SECONDS, Hub
from proxy.server.opening import Begun, Opener
from proxy.server.problem import PASSING
from proxy.server.relay import Relay
from proxy.server.room import wait_for_room
from proxy.server.source import broken_by
from proxy.server.upstream import Response
from proxy.server.wheel import Alarm
from proxy.server.wire import FrontProtocol, Switched, standing_for, unmask
from proxy.server.ws import WsReader
from proxy.stream import cursor, frames
from proxy.stream.frames import SUBPROTOCOL, Cancel, Command, Ping, Resume, Start
from proxy.stream.log import Reason, Terminal
from proxy.stream.sse import EVENT_STREAM
from proxy.stream.websocket import CloseCode, Message, Messages, Opcode, close_code, close_payload, frame

#: Bytes of answers to a client that does not read them, after which it is not listened to any more.
MAX_UNREAD = 64 * 1024

#: Bytes of a client that are listened to in one go: what they make us answer cannot be known before. The
#: worst are frames of 6 bytes, each of which is told in some 200 what is wrong with it.
HEARD_AT_ONCE = 2 * 1024

#: After so many messages of one client, the other connections have their turn. The attack: a flood of tiny
#: frames, whose answers are read as fast as they come.
HEARD_A_TURN = 100

#: Of an error that the upstream answers with, so much is told, in bytes.
ERROR_BYTES = 64 * 1024

#: Fields of a handshake that mean nothing to a request that is made in its name. (Connection stays until it
#: has told which others end here.)
NOT_OF_A_START = (
    hdrs.UPGRADE,
    hdrs.SEC_WEBSOCKET_KEY,
    hdrs.SEC_WEBSOCKET_VERSION,
    hdrs.SEC_WEBSOCKET_PROTOCOL,
    hdrs.SEC_WEBSOCKET_EXTENSIONS,
    hdrs.CONTENT_LENGTH,
    hdrs.TRANSFER_ENCODING,
    hdrs.EXPECT,
    "Last-Event-ID",
    "Idempotency-Key",  # it would make one stream of all starts
)

#: Returns the exchange that a request in a handshake's name is now. Raises SidecarError.
Ask = Callable[[web.BaseRequest], Exchange]


class Bridge:
    """One WebSocket connection, and the streams that are followed over it."""

    def __init__(self, hub: Hub, exchange: Exchange, opener: Opener, ask: Ask) -> None:
        request, route = exchange.request, exchange.route
        self._hub = hub
        self._route = route
        self._opener = opener
        self._ask = ask
        self._caller = exchange.origin.address
        self._request = request
        self._key = handshake.check(request)
        names = handshake.offered(request.headers)
        self._subprotocol = SUBPROTOCOL if SUBPROTOCOL in names else None
        self._client = standing_for(request, hdrs.METH_GET, _fields(request, names), None)
        self._protocol = cast(FrontProtocol, request.protocol)
        self._messages = Messages(route.max_message, unmask)
        self._opening: set[asyncio.Task[None]] = set()
        self._readers: dict[str, WsReader] = {}
        self._wake: asyncio.Future[None] | None = None
        self._alarm = Alarm(self._beat)
        self._missed = 0  # heartbeats since the client was last heard
        self._unread = 0  # bytes of answers that did not fit into the socket
        self._unheard = b""  # what came and must wait: for room for its answers, or for its turn
        self._held = False  # whether nothing is read meanwhile
        self._leaving = False
        self._closing = False  # whether our close frame is sent
        self._closed_at = 0.0  # when the client's last word is waited for no more, in the loop's time
        self._closed = False  # whether the connection is at its end

    async def serve(self) -> web.StreamResponse:
        """Speak WebSocket until either side has enough. Raises CapacityError."""
        hub, request, send = self._hub, self._request, self._route.timeouts.send
        answer = Switched(handshake.switching(self._key, self._subprotocol))
        stats = hub.telemetry.route(self._route.name)
        hub.admit_socket(self, stats, self._caller)
        try:
            await answer.prepare(request)
            self.transport = cast(asyncio.Transport, request.transport)
            self.transport.set_write_buffer_limits(high=self._route.high_water)
            self._protocol.on_full = self._fill_up
            hub.wheel.set(self._alarm, hub.loop.time() + self._route.heartbeat)
            self._protocol.take_over(self._take)
            while not self._closed:
                self._look_round()
                if self._protocol.writing_paused:
                    await wait_for_room(request, send)
                else:
                    await self._sleep()
                if not self._protocol.writing_paused:
                    self._go_on()  # also where there was room again before anybody could wait for it
            await wait_for_room(request, send)
        except TimeoutError:
            for reader in self._readers.values():
                reader.relay.tally.dropped("send_timeout")
            self.transport.abort()
        finally:
            self._protocol.on_full = None
            hub.wheel.drop(self._alarm)
            hub.dismiss_socket(self, stats, self._caller)
            self._let_go()
            self._protocol.hear_no_more()
        return answer

    # What readers need: a Line

    @property
    def full(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._protocol.writing_paused

    def write(self, data: bytes) -> None:
        """Give frames to the socket, unless our last word is said."""
        if not (self._closing or self.transport.is_closing()):
            self.transport.write(data)

    def wake_up(self) -> None:
        """Let the connection's task look."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # What the hub needs

    def leave(self) -> None:
        """Take no further start, and close when nothing runs any more."""
        self._leaving = True
        self.wake_up()

    def dismiss(self) -> None:
        """Close now: the client may come again."""
        self._tell_ends()
        self._close(CloseCode.GOING_AWAY, "draining; reconnect")

    def cut(self) -> None:
        """End now."""
        self.dismiss()
        self._finish()

    def settle(self) -> None:
        """Nothing: what passes here is counted with the streams."""

    # The connection's task

    async def _sleep(self) -> None:
        """Wait until there is something to see; for the client's last word, not for ever."""
        self._wake = wake = self._hub.loop.create_future()
        if not self._closing:
            await wake
            return
        patience = self._closed_at - self._hub.clock()
        await asyncio.wait({wake}, timeout=patience)
        self._closed = self._closed or not wake.done()

    def _tell_ends(self) -> None:
        """Take leave of the streams that are over, and tell how they ended."""
        for reader in [reader for reader in self._readers.values() if reader.over]:
            relay = reader.relay
            del self._readers[relay.id]
            reader.exit(self._caller)
            if reader.lost is not None:
                self._tell(reader.lost, stream=relay.id)
            elif not reader.dropped and relay.log.terminal is not None:
                self._answer(frames.end_frame(relay.id, relay.log.terminal))

    def _look_round(self) -> None:
        """See whether there is anything left to stay for."""
        self._tell_ends()
        if self._leaving and not self._busy:
            self.dismiss()

    def _go_on(self) -> None:
        """The socket has room again."""
        if self.transport.is_closing():
            return  # uvloop's do not let themselves be resumed then; this task is about to be cancelled
        self._unread = 0
        self._listen()
        for reader in self._readers.values():
            reader.pump()
        if len(self._readers) > 1:
            # Another is first next time: one that always has more would take all the room there is.
            first = next(iter(self._readers))
            self._readers[first] = self._readers.pop(first)

    def _let_go(self) -> None:
        """The client hears nothing more: what is opened for it ends, what it followed lingers."""
        for task in self._opening:
            task.cancel()
        for reader in self._readers.values():
            reader.exit(self._caller)
        self._readers.clear()

    @property
    def _busy(self) -> int:
        """How many streams are followed or about to be."""
        return len(self._readers) + len(self._opening)

    # What the client says

    def _take(self, data: bytes) -> None:
        """Take bytes from the client."""
        self._missed = 0
        self._unheard += data
        self._listen()

    def _listen(self) -> None:
        """Hear what has come, as long as there is room for the answers and the turn is this client's."""
        if self.transport.is_closing():
            return  # nothing can be answered, and uvloop's are not resumed then
        data, self._unheard = self._unheard, b""
        heard = 0
        for at in range(0, len(data), HEARD_AT_ONCE):
            if heard >= HEARD_A_TURN or self._unread > MAX_UNREAD:
                self._unheard = data[at:]
                break
            for message in self._messages.feed(data[at : at + HEARD_AT_ONCE]):
                self._receive(message)
                heard += 1
        self._hold(held=bool(self._unheard))
        if self._unheard and self._unread <= MAX_UNREAD:
            self._hub.loop.call_soon(self._listen)
        violation = self._messages.violation
        if violation is not None and not self._closing:
            self._tell(BadFrame(violation.reason))
            self._close(violation.code, violation.reason)
            if self.transport.can_write_eof():
                self.transport.write_eof()  # to close now would reset a client that is still sending

    def _hold(self, *, held: bool) -> None:
        """Read nothing more while something is unheard."""
        if held != self._held:
            self._held = held
            if held:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _receive(self, message: Message) -> None:
        if message.opcode is Opcode.CLOSE:
            self._close(close_code(message.data) if message.data else CloseCode.NORMAL)
            self._finish()
        elif self._closing:
            pass
        elif message.opcode is Opcode.TEXT:
            try:
                self._obey(frames.parse(message.data))
            except SidecarError as error:
                self._tell(error)
        elif message.opcode is Opcode.BINARY:
            size = len(message.data)
            self._tell(BadFrame(f"a binary message of {size} bytes; expected text messages of JSON"))
        elif message.opcode is Opcode.PING:
            self._answer(frame(Opcode.PONG, message.data))

    def _obey(self, command: Command) -> None:
        """Do what the client says. Raises SidecarError."""
        match command:
            case Start(body):
                self._start(body)
            case Cancel(None):
                self._cancel_all()
            case Cancel(str(stream_id)):
                self._cancel(stream_id)
            case Resume():
                self._resume(command)
            case Ping():
                self._answer(frames.told("pong"))

    def _start(self, body: bytes | None) -> None:
        """Send a request upstream, in a task."""
        self._check_busy()
        task = self._hub.spawn(self._open(body), f"start on {self._route.name}")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, body: bytes | None) -> None:
        request, started = self._client, self._hub.clock()
        status, told = report.CLIENT_LEFT, False
        try:
            request = self._asked(body)
            exchange = self._ask(request)
            guard.check_caller(request, exchange.config, exchange.route, credentials=exchange.credentials)
            exchange.upload.check_head()
            await inject.add(exchange)
            opening = await self._opener.prepare(exchange, exchange.call())
            begun = await opening()
            told = begun.relay is None and self._hub.telemetry.tells_requests
            status = await self._begin(begun)
        except SidecarError as error:
            status, told = error.status, error.status >= 500 or self._hub.telemetry.tells_requests
            self._tell(error)
        except Exception:
            status, told = 500, True
            self._tell(SidecarError("the sidecar failed; its log says why"))
            raise
        finally:
            report.request(
                self._hub, self._route.name, request, self._caller, status=status, started=started, told=told
            )
            self._opening.discard(cast(asyncio.Task[None], asyncio.current_task()))
            self.wake_up()

    async def _begin(self, begun: Begun) -> int:
        """Follow what has begun, or tell what came instead; return the status of either."""
        if begun.relay is None:
            assert begun.response is not None
            return await self._tell_answer(begun.response)
        relay = begun.relay
        try:
            self._follow(relay, 0)
        except SidecarError as error:
            error.sent = True  # the upstream works on it already: asked again, it would be paid twice
            relay.cancel_unread(f"its reader was refused: {error}")
            raise
        finally:
            relay.cancel_unread("the client left before the stream began")
        return 200

    def _follow(self, relay: Relay, seq: int, **said: Any) -> None:
        """Read a stream from behind ``seq`` on. Raises TooManyReaders or CapacityError."""
        reader = WsReader(self._hub, relay, self, seq)
        reader.enter(self._caller, resumed=bool(said))
        self._readers[relay.id] = reader
        self._answer(frames.told("open", stream=relay.id, status=200, **said))
        reader.begin()

    async def _tell_answer(self, response: Response) -> int:
        """Tell of an answer that is no stream: a good one as a stream of one event, any other as an error."""
        status, reason = response.answer.status, response.answer.reason
        good = 200 <= status < 300
        body = await self._read(response, self._route.max_message if good else ERROR_BYTES)
        if good:
            self._answer(frames.told("open", stream=None, status=status))
            if body:
                self._answer(frames.told("event", id=None, event="message", data=frames.as_json(body)))
            self._answer(frames.end_frame(None, Terminal(Reason.COMPLETE)))
            return status
        error = AnsweredWithError(f"upstream {self._route.upstream!r}", f"{status} {reason}".rstrip())
        self._tell(error, status=status, recoverable=status in PASSING, body=frames.as_json(body))
        return status

    async def _read(self, response: Response, limit: int) -> bytes:
        """Return a body of at most ``limit`` bytes; an error's is cut there. Raises UpstreamBroken."""
        body, idle, coding = bytearray(), self._route.idle_for(feed=False), _coding_of(response)
        try:
            while len(body) <= limit:
                async with asyncio.timeout(idle):
                    data = await response.answer.content.readany()
                if not data:
                    return bytes(body)
                for piece in coding.decode(data):
                    body += piece
                    if len(body) > limit:
                        break  # a few kilobytes can decode to gigabytes
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise UpstreamBroken("the upstream's answer", broken_by(error), sent=True) from error
        finally:
            response.close()
        if response.answer.status >= 300:
            return bytes(body[:limit])
        said = f"is no stream, and over {limit} bytes (max_message)"
        raise UpstreamBroken("the upstream's answer", said, sent=True)

    def _resume(self, asked: Resume) -> None:
        """Go on with a stream, wherever it was begun. Raises SidecarError."""
        self._check_busy()
        relay = self._find(_stream_of(asked))
        with resume.counted(self._hub, relay):
            if relay.id in self._readers:
                raise Busy("this connection follows the stream already")
            seq = resume.position(relay, asked.last_event_id, asked.after)
            if not resume.is_at_end(relay, seq):
                self._follow(relay, seq, resumed_from=seq)
                return
        assert relay.log.terminal is not None
        self._answer(frames.told("open", stream=relay.id, status=200, resumed_from=seq))
        self._answer(frames.end_frame(relay.id, relay.log.terminal))

    def _cancel(self, stream_id: str) -> None:
        """Stop a stream, wherever it was begun; its end is told here. Raises SidecarError."""
        relay = self._find(stream_id)
        relay.cancel("client", "cancelled by the client")
        if relay.id not in self._readers and relay.log.terminal is not None:
            self._answer(frames.end_frame(relay.id, relay.log.terminal))

    def _cancel_all(self) -> None:
        """Stop what runs here, also what has not begun. Raises NothingRunning."""
        self._tell_ends()
        if not self._busy:
            raise NothingRunning("nothing runs on this connection; name a stream that runs elsewhere")
        for task in list(self._opening):
            self._opening.discard(task)
            task.cancel()
            self._answer(frames.end_frame(None, Terminal(Reason.CANCELLED, "cancelled by the client")))
        for reader in list(self._readers.values()):
            reader.relay.cancel("client", "cancelled by the client")

    def _find(self, stream_id: str) -> Relay:
        """Return a stream that this client may use here. Raises SidecarError."""
        if not cursor.is_stream_id(stream_id):
            raise UnknownStream
        relay, config = resume.find(self._hub, stream_id, self._client), self._hub.config
        guard.check_caller(self._client, config, relay.route, credentials=relay.birth.credentials)
        handshake.check_origin(self._client, config, relay.route)
        return relay

    def _check_busy(self) -> None:
        if self._leaving:
            raise CapacityError("the sidecar is draining; connect again")
        self._tell_ends()  # what is over does not count, even if nobody has looked yet
        limit = self._route.max_concurrent
        if self._busy >= limit:
            raise Busy(f"{self._busy} of {limit} streams run on this connection (max_concurrent)")

    def _asked(self, body: bytes | None) -> web.BaseRequest:
        """Return the request that a start is: a POST, or what the route takes instead, best a GET."""
        methods = self._route.methods or (hdrs.METH_POST,)
        method = next((name for name in (hdrs.METH_POST, hdrs.METH_GET) if name in methods), methods[0])
        headers = CIMultiDict(self._client.headers)
        if body is not None:
            headers[hdrs.CONTENT_TYPE] = "application/json"
            headers[hdrs.CONTENT_LENGTH] = str(len(body))
        return standing_for(self._client, method, headers, body)

    # What the client is told

    def _tell(self, error: SidecarError, **said: Any) -> None:
        """Tell of an error, after which the connection lives on."""
        recoverable = error.status in PASSING and not error.sent
        told = {"code": error.kind, "message": str(error), "recoverable": recoverable, "status": error.status}
        if isinstance(error, Gap):
            told["earliest"] = error.earliest
        self._answer(frames.told("error", **(told | said)))

    def _answer(self, data: bytes) -> None:
        """Write what is no event of a stream. A client that asks and does not read is not listened to."""
        self.write(data)
        if self._protocol.writing_paused:
            self._unread += len(data)
            self.wake_up()

    def _close(self, code: int, reason: str = "") -> None:
        """Say the last word, once."""
        if not self._closing:
            self.write(frame(Opcode.CLOSE, close_payload(code, reason)))
            self._closing = True
            self._closed_at = self._hub.clock() + GOODBYE_SECONDS
            self._let_go()  # there is no way to tell of anything any more
            self.wake_up()

    def _finish(self) -> None:
        """Both have said it, or nothing that comes can be understood."""
        self._closed = True
        self.wake_up()

    def _fill_up(self) -> None:
        """Hear that the socket is full."""
        for reader in self._readers.values():
            reader.fall_behind()
        self.wake_up()

    def _beat(self, now: float) -> float | None:
        """Ping, and give up a peer that was silent for two heartbeats.

        Where the socket is full, a ping would not arrive: then ``timeouts.send`` decides.
        """
        if self._closing or self.transport.is_closing():
            return None
        if self._protocol.writing_paused:
            self._missed = 0
        elif self._missed >= 2:
            for reader in self._readers.values():
                reader.relay.tally.dropped("silent")
            self.transport.abort()
            return None
        else:
            self._missed += 1
            self.write(frame(Opcode.PING, b""))
            for reader in self._readers.values():
                reader.relay.tally.beat()
        return now + self._route.heartbeat


def _fields(request: web.BaseRequest, subprotocols: list[str]) -> CIMultiDict[str]:
    """Return the fields of a client's starts: its handshake's own, and what a page could not say there."""
    headers = CIMultiDict(request.headers)
    for name in NOT_OF_A_START:
        headers.popall(name, None)
    headers[hdrs.ACCEPT] = EVENT_STREAM
    token = handshake.bearer_of(subprotocols)
    if token is not None and hdrs.AUTHORIZATION not in headers:
        headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
    return headers


def _coding_of(response: Response) -> Decoder:
    """Return what undoes an answer's coding, which a frame cannot tell of. What nobody knows stays."""
    codings = response.answer.headers.getall(hdrs.CONTENT_ENCODING, ())
    return decoder(", ".join(codings)) or IDENTITY


def _stream_of(asked: Resume) -> str:
    """Return the stream that a resume is about. Raises BadFrame."""
    if asked.stream is not None:
        return asked.stream
    named = cursor.parse(asked.last_event_id or "")
    if named is None:
        raise BadFrame("last_event_id is not of the form <stream>.<seq>; name the stream beside it")
    return named.stream
