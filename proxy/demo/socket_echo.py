"""``/api/socket``: every message comes back as it came, text as text and bytes as bytes.

The first subprotocol that the client offers is chosen, whichever it is; permessage-deflate only under
``?deflate=1``. A text that is one of these commands is done instead:

- ``{"do":"close","code":4001,"reason":"enough"}`` closes the socket so;
- ``{"do":"send","count":100,"bytes":65536}`` sends so many messages of so many bytes;
- ``{"do":"pause","seconds":2}`` reads nothing for so long: whatever the client sends meanwhile piles up
  on the way, and its pings go unanswered.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, NoReturn

import msgspec
from aiohttp import web

from proxy.demo import app_events
from proxy.demo.misbehaviour import MAX_COUNT, MAX_SECONDS, Misbehaviour
from proxy.demo.voice import Call
from proxy.demo.websocket import MAX_MESSAGE_BYTES, Socket, Talk

#: RFC 6455 §5.5: a control frame carries 125 bytes at most, two of which are the code.
MAX_REASON_BYTES = 123


class Close(msgspec.Struct, tag_field="do", tag="close"):
    """Close the socket. RFC 6455 §7.4.2 leaves the codes from 3000 to applications."""

    code: Annotated[int, msgspec.Meta(ge=1000, le=4999)] = 1000
    reason: str = ""

    async def obey(self, socket: Socket) -> None:
        """Do it; a reason that is too long is cut."""
        reason = self.reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        await socket.close(self.code, reason)


class Send(msgspec.Struct, tag_field="do", tag="send"):
    """Send ``count`` binary messages; ``bytes`` is the size of each."""

    count: Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)] = 1
    bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_MESSAGE_BYTES)] = 0

    async def obey(self, socket: Socket) -> None:
        """Do it, as fast as the client takes them. Each byte tells the number of its message, modulo 256."""
        for number in range(self.count):
            await socket.send(number.to_bytes(4, "big")[-1:] * self.bytes)


class Pause(msgspec.Struct, tag_field="do", tag="pause"):
    """Read nothing for so many seconds."""

    seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]

    async def obey(self, socket: Socket) -> None:
        """Do it."""
        await asyncio.sleep(self.seconds)


Command = Close | Send | Pause
_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


async def echo(socket: Socket) -> NoReturn:
    """Send back what comes, obey commands."""
    while True:
        message = await socket.receive()
        command = _command(message) if isinstance(message, str) else None
        if command is not None:
            await command.obey(socket)
        elif message is not None:
            await socket.send(message)


def _command(text: str) -> Command | None:
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError:
        return None  # an ordinary message


def join(request: web.Request, _call: Call, _misbehaviour: Misbehaviour) -> Talk:
    """The echo for one request."""
    offers = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ()))
    return Talk(
        hold=echo,
        complaint=app_events.socket_complaint,
        protocols=[offer.strip() for offer in offers.split(",")],
        deflate=request.query.get("deflate") == "1",
    )
