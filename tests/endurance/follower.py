"""A client on a bad network: it reads a stream, loses its connection as planned, and comes back.

It knows nothing of the sidecar's code: it takes chunks, frames and blocks apart by itself, and it holds on
to what an EventSource holds on to, the complete blocks and nothing else. It goes from SSE to WebSocket and
back, as its ways lead.
"""

from __future__ import annotations

import asyncio
import enum
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.endurance.link import BridgeLink, Link, SseLink, cross, dial
from tests.support.client import Truncated, read_answer

#: How long a follower waits for the next piece of an answer, in seconds. Only a failing test waits so long.
PATIENCE = 30.0


class Way(enum.Enum):
    """How a client comes back."""

    REPOST = "the stream's own route, same body, Last-Event-ID"
    HEADER = "/_streams/ID with Last-Event-ID"
    QUERY = "/_streams/ID?last_event_id="
    AFTER = "/_streams/ID?after="
    OLD = "/_streams/ID?after= in HTTP/1.0"
    ANEW = "/_streams/ID without a cursor: from the first block"
    BRIDGE_ID = "a WebSocket on the stream's own route: last_event_id"
    BRIDGE_AFTER = "a WebSocket on the stream's own route: stream and after"


#: Ways over a WebSocket.
BRIDGES = (Way.BRIDGE_ID, Way.BRIDGE_AFTER)


@dataclass(frozen=True, slots=True)
class Drop:
    """Where a connection is lost: behind block ``after``, ``spill`` bytes further on; and how.

    ``way`` is how the client comes back.
    """

    after: int
    spill: int
    reset: bool
    way: Way


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that begins a stream, and what must come of it.

    ``own_ids``: blocks are numbered ``<stream>.<seq>``; otherwise the app's ids 1, 2, 3 … are kept.
    ``bridge``: it is begun over a WebSocket.
    """

    method: str
    target: str
    body: bytes | None
    total: int
    text: str
    own_ids: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    bridge: bool = False

    @property
    def ways(self) -> tuple[Way, ...]:
        """How this stream can be come back to. An app's own id, on a route, is the app's own affair."""
        return tuple(way for way in Way if self.own_ids or way is not Way.REPOST)


@dataclass(slots=True)
class Tally:
    """What all followers met together: resumes by way, and by what the stream was then."""

    ways: Counter[Way] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    live: int = 0
    closed: int = 0
    bridged: int = 0  # streams that began over a WebSocket
    attached: int = 0  # readers that began with somebody else's stream
    halves: int = 0  # blocks that had begun when the connection was lost

    @property
    def resumes(self) -> int:
        """How often somebody came back."""
        return self.ways.total()


class Follower:
    """Reads one stream to its end, over as many connections as it takes.

    ``blocks`` are the blocks received, without heartbeats and retry hints. ``narrow`` gives it a tiny
    receive buffer, so that the sidecar's socket fills up. ``stream`` is the id, once known.
    """

    def __init__(
        self, url: str, asked: Asked, drops: Sequence[Drop], tally: Tally, *, narrow: bool = False
    ) -> None:
        self.blocks: list[bytes] = []
        self.stream: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._url = url
        self._asked = asked
        self._drops = drops
        self._tally = tally
        self._narrow = narrow
        self._over = False

    async def begin(self, *, twice: bool = False) -> None:
        """Begin the stream, and follow it to its end. ``twice``: lose the first answer before its head."""
        if twice:
            await self._forget()
        link = await self._start()
        self.stream.set_result(_stream_of(link))
        await self._follow(link)

    async def attach(self, stream: str, *, bridge: bool) -> None:
        """Follow a stream that somebody else began, from its first block; over a WebSocket or not."""
        self.stream.set_result(stream)
        self._tally.attached += 1
        if bridge:
            await self._follow(await self._cross({"type": "resume", "stream": stream}))
        else:
            await self._follow(await self._request("GET", f"/_streams/{stream}"))

    async def _follow(self, link: Link) -> None:
        try:
            for drop in self._drops:
                await self._read(link, drop)
                await hang_up(link.writer, reset=drop.reset)
                link = await self._come_back(drop.way)
            await self._read(link, None)
        finally:
            await hang_up(link.writer, reset=False)
        self._check_count()

    async def _read(self, link: Link, drop: Drop | None) -> None:
        """Take blocks until the connection is to be lost, or the stream is over."""
        rest = b""
        while drop is None or len(self.blocks) < drop.after or len(rest) < drop.spill:
            try:
                async with asyncio.timeout(PATIENCE):
                    data = await link.read()
            except Truncated as error:
                raise AssertionError(f"cut off after {len(self.blocks)} blocks: {error}") from error
            if not data:
                assert not _lines(rest), f"the answer ended inside a block: {rest!r}"
                self._check_count()
                return
            rest = self._take(link, rest + data, drop.after if drop is not None else None)
        self._tally.halves += bool(rest)

    def _take(self, link: Link, data: bytes, limit: int | None) -> bytes:
        """Note the complete blocks, but none beyond ``limit``: its bytes are on the way and get lost."""
        while limit is None or len(self.blocks) < limit:
            block, data = link.take(data)
            if block is None:
                break
            self._note(block)
        return data

    def _note(self, block: bytes) -> None:
        lines = _lines(block)
        if not lines and not self._asked.own_ids:
            return  # the app's own comments come as they are
        number = len(self.blocks) + 1
        expected = f"id: {self.stream.result()}.{number}" if self._asked.own_ids else f"id: {number}"
        assert lines[:1] == [expected.encode()], f"block {number} of the stream is {block!r}"
        self.blocks.append(b"\n".join(lines))

    def _check_count(self) -> None:
        came, asked = len(self.blocks), self._asked
        assert came == asked.total, (
            f"{came} of {asked.total} blocks of {asked.target} ({self.stream.result()})"
        )

    async def _come_back(self, way: Way) -> SseLink | BridgeLink:
        """Come back behind the last complete block."""
        if way is Way.ANEW:
            self.blocks.clear()
        seq = len(self.blocks)
        self._tally.ways[way] += 1
        link: SseLink | BridgeLink
        if way in BRIDGES:
            self._note_state(closed=await self._is_closed())
            link = await self._cross(self._resume_frame(way, seq))
            assert link.opened["resumed_from"] == seq
        else:
            link = await self._resume(way, seq)
            self._tally.statuses[link.answer.status] += 1
            assert link.answer.status in (200, 204), f"{way}: {link.answer.status}"
            self._note_state(closed=link.answer.header("stream-closed") == "true")
        assert _stream_of(link) == self.stream.result()
        return link

    def _note_state(self, *, closed: bool) -> None:
        self._tally.closed += closed
        self._tally.live += not closed

    async def _is_closed(self) -> bool:
        """Ask whether the stream is over; over a WebSocket it is not told beforehand."""
        link = await self._request("GET", f"/_streams/{self.stream.result()}/state")
        state = await link.answer.json()
        await hang_up(link.writer, reset=False)
        return state["reason"] is not None

    def _resume_frame(self, way: Way, seq: int) -> dict[str, object]:
        stream = self.stream.result()
        if way is Way.BRIDGE_ID:
            return {"type": "resume", "last_event_id": f"{stream}.{seq}"}
        return {"type": "resume", "stream": stream, "after": seq}

    async def _resume(self, way: Way, seq: int) -> SseLink:
        asked, stream = self._asked, self.stream.result()
        address = f"/_streams/{stream}"
        last_id = f"{stream}.{seq}" if asked.own_ids or not seq else str(seq)
        cursor = ("Last-Event-ID", last_id)
        match way:
            case Way.REPOST:
                return await self._request(asked.method, asked.target, (*asked.headers, cursor))
            case Way.HEADER:
                return await self._request("GET", address, (cursor,))
            case Way.QUERY:
                return await self._request("GET", f"{address}?last_event_id={last_id}")
            case Way.AFTER:
                return await self._request("GET", f"{address}?after={seq}")
            case Way.OLD:
                return await self._request("GET", f"{address}?after={seq}", version="HTTP/1.0")
            case Way.ANEW:
                return await self._request("GET", address)
        raise AssertionError(f"{way} is no way of SSE")

    async def _start(self) -> SseLink | BridgeLink:
        asked = self._asked
        if asked.bridge:
            self._tally.bridged += 1
            body = {} if asked.body is None else {"body": json.loads(asked.body)}
            return await self._cross({"type": "start", **body})
        link = await self._request(asked.method, asked.target, asked.headers)
        assert link.answer.status == 200, f"{link.answer.status} {await link.answer.body()!r}"
        return link

    async def _cross(self, command: dict[str, object]) -> BridgeLink:
        """Give a command to the bridge of the stream's own route."""
        return await cross(self._url, self._asked.target, command, narrow=self._narrow)

    async def _request(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] = (), version: str = "HTTP/1.1"
    ) -> SseLink:
        body = self._asked.body if method == "POST" else None
        sent = await call(self._url, method, target, headers, body, version=version, narrow=self._narrow)
        return SseLink(await read_answer(*sent, method))

    async def _forget(self) -> None:
        """Send the request, and lose the connection before anything comes back."""
        asked = self._asked
        _, writer = await call(self._url, asked.method, asked.target, asked.headers, asked.body)
        await writer.drain()
        await hang_up(writer, reset=False)

    def text(self) -> str:
        """What the blocks say."""
        return "".join(_words(json.loads(data)) for data in self._payloads())

    def _payloads(self) -> Iterator[bytes]:
        for block in self.blocks:
            data = block.partition(b"data: ")[2]
            if data != b"[DONE]":
                yield data


def _stream_of(link: SseLink | BridgeLink) -> str:
    """The stream's id, as it was told."""
    told = link.answer.header("stream-id") if isinstance(link, SseLink) else link.opened["stream"]
    return told or ""


def _lines(block: bytes) -> list[bytes]:
    """The lines of a block, without heartbeats and retry hints."""
    return [line for line in block.split(b"\n") if line and not line.startswith((b":", b"retry:"))]


def _words(document: dict[str, object]) -> str:
    match document:
        case {"choices": [{"delta": {"content": str(words)}}]} | {"text": str(words)}:
            return words
    return ""


def plan(rng: random.Random, asked: Asked, quota: int) -> list[Drop]:
    """Return ``quota`` drops, anywhere in the stream.

    Some come right after the headers, some right before the end (all blocks are there, the body's last
    chunk is not), and half in the middle of a block or chunk.
    """
    places = sorted(
        rng.choice((0, asked.total)) if rng.random() < 0.1 else rng.randrange(asked.total)
        for _ in range(quota)
    )
    ways = [way for way in asked.ways if way is not Way.ANEW]
    return [
        Drop(
            after=place,
            spill=rng.choice((0, 0, 1, 2, 25, 40)) if place < asked.total else 0,
            reset=rng.random() < 0.5,
            # Once in a while somebody has lost all, and reads the stream again from its beginning.
            way=Way.ANEW if rng.random() < 0.03 else rng.choice(ways),
        )
        for place in places
    ]


async def call(
    url: str,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    *,
    version: str = "HTTP/1.1",
    narrow: bool = False,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and write one request to it."""
    parts = urlsplit(url)
    fields = [("Host", parts.netloc), *headers]
    if body is not None:
        fields += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    head = f"{method} {target} {version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    reader, writer = await dial(url, narrow=narrow)
    writer.write(head.encode() + b"\r\n" + (body or b""))
    return reader, writer


async def hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Lose the connection: with a reset, as when a network goes away, or closed in good order."""
    if reset:
        link = writer.get_extra_info("socket")
        if link is not None and link.fileno() >= 0:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
    # Whoever leaves does not care how it went: the other side may have been first.
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
