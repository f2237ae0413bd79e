"""A WebSocket as the provider holds one: every endpoint's talk goes over a ``Socket``.

It enters what happens in the ledger, and goes wrong as the request asked. An event is here a message
that the provider sends, counted from 1. These keys make sense on a socket:

- ``status`` and ``headers_delay`` act before the upgrade;
- ``pause_at``, ``hang_at`` and ``size`` do what they do to a stream: a socket that hangs sends no more
  messages, but still answers pings and a close; ``size`` pads JSON;
- ``error_at`` sends the API's own error and closes with 1011;
- ``truncate_at`` closes with 1000 in the middle of whatever was being said;
- ``drop_at`` sends half a frame and hangs up.

``interval``, ``first_delay``, ``tokens`` and ``endless`` are the endpoint's; the other keys are about
the bytes of an event stream and change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NoReturn

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from proxy.demo.ledger import Record, State
from proxy.demo.misbehaviour import Misbehaviour
from proxy.demo.playback import hang_up
from proxy.demo.voice import FAILURE

#: Bound of one message, in bytes. Sixteen MiB must pass; base64 and JSON around them need a third more.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

#: RFC 6455 §7.4.1: these two "MUST NOT be set as a status code in a Close control frame". They say that
#: the frame had none, and that no frame came.
NO_CODE = 1005
NO_CLOSE_FRAME = 1006


class Closed(Exception):
    """The socket is closed, by whichever side; there is nothing left to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What an endpoint does with a socket.

    ``hold`` talks until Closed is raised, ``complaint`` is the text that tells of a failure. ``protocols``
    are the subprotocols known: of those that a client offers, the first one among them is chosen.
    ``deflate`` accepts an offer of permessage-deflate.
    """

    hold: Callable[[Socket], Awaitable[NoReturn]]
    complaint: Callable[[], str]
    protocols: Collection[str] = ()
    deflate: bool = False


class Socket:
    """One WebSocket, from the upgrade to its end.

    CancelledError and ConnectionError out of any method mean that the connection was lost.
    """

    def __init__(
        self,
        request: web.Request,
        misbehaviour: Misbehaviour,
        record: Record,
        talk: Talk,
        headers: Mapping[str, str],
    ) -> None:
        self._request = request
        self._wrong = misbehaviour
        self._record = record
        self._talk = talk
        self._response = web.WebSocketResponse(
            protocols=talk.protocols,
            compress=talk.deflate,
            max_msg_size=MAX_MESSAGE_BYTES,
            autoclose=False,  # aiohttp answers every close with 1000, whatever code came
        )
        self._response.headers.update(headers)

    @property
    def possible(self) -> bool:
        """Whether the request asks for a WebSocket, as RFC 6455 §4.2.1 wants it asked."""
        return bool(self._response.can_prepare(self._request))

    async def hold(self) -> web.StreamResponse:
        """Upgrade, and talk until the socket is closed."""
        await self._response.prepare(self._request)
        self._record.begin_stream()
        try:
            await self._talk.hold(self)
        except Closed:
            pass
        except (asyncio.CancelledError, ConnectionError):
            self._record.note_close(NO_CLOSE_FRAME)
            raise asyncio.CancelledError from None  # of any other error aiohttp would tell as of a fault here
        return self._response

    async def receive(self, until: float | None = None) -> str | bytes | None:
        """The next message, a text or bytes; None when none came ``until`` then, on the loop's clock.

        Closed when the client closed the socket, or broke the protocol.
        """
        try:
            async with asyncio.timeout_at(until):
                message = await self._response.receive()
        except TimeoutError:
            return None
        match message.type:
            case WSMsgType.TEXT:
                return str(message.data)
            case WSMsgType.BINARY:
                return bytes(message.data)
            case WSMsgType.CLOSE:
                await self._answer_close(message)
        self._note_last_code()
        raise Closed

    async def send(self, message: str | bytes) -> None:
        """Send a message, gone wrong if it is time for that. Closed when that was the end."""
        wrong, sent = self._wrong, self._record.events
        if sent == wrong.pause_at:
            await asyncio.sleep(wrong.pause)
        if wrong.hang_at is not None and sent >= wrong.hang_at:
            return
        if sent == wrong.error_at:
            self._record.end(State.MISBEHAVED)
            await self._response.send_str(self._talk.complaint())
            await self.close(WSCloseCode.INTERNAL_ERROR, FAILURE)
        if sent == wrong.truncate_at:
            self._record.end(State.MISBEHAVED)
            await self.close()
        if sent == wrong.drop_at:
            self._record.end(State.MISBEHAVED)
            self._drop(message)
        await self._deliver(message)

    async def close(self, code: int = WSCloseCode.OK, reason: str = "") -> NoReturn:
        """Close the socket, wait for the client's close, and raise Closed."""
        await self._response.close(code=code, message=reason.encode())
        self._note_last_code()
        raise Closed

    async def _deliver(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            await self._response.send_bytes(message)
        else:
            await self._response.send_str(self._padded(message))
        self._record.count_events(1)

    def _padded(self, text: str) -> str:
        missing = self._wrong.size - len(text.encode()) if text.startswith("{") else 0
        return text + " " * missing

    async def _answer_close(self, message: WSMessage) -> NoReturn:
        """Answer a close; RFC 6455 §5.5.1: "the endpoint typically echos the status code it received"."""
        code, reason = message.data, message.extra or ""
        self._record.note_close(code or NO_CODE, reason)
        body = code.to_bytes(2, "big") + reason.encode() if code else b""
        await self._response.send_frame(body, WSMsgType.CLOSE)
        hang_up(self._request)
        raise Closed

    def _note_last_code(self) -> None:
        self._record.note_close(int(self._response.close_code or NO_CODE))

    def _drop(self, message: str | bytes) -> NoReturn:
        """Hang up in the middle of the frame that ``message`` would have been."""
        frame = _frame(message)
        if self._request.transport is not None:
            self._request.transport.write(frame[: len(frame) // 2])
        hang_up(self._request)
        self._record.note_close(NO_CLOSE_FRAME)
        raise Closed


def _frame(message: str | bytes) -> bytes:
    """The message as one unmasked frame (RFC 6455 §5.2)."""
    payload = message if isinstance(message, bytes) else message.encode()
    opcode = WSMsgType.BINARY if isinstance(message, bytes) else WSMsgType.TEXT
    length = len(payload)
    if length < 126:
        size = bytes([length])
    elif length < 1 << 16:
        size = b"\x7e" + length.to_bytes(2, "big")
    else:
        size = b"\x7f" + length.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + size + payload
