"""Bodies larger than any buffer pass through a plain route, both ways, in bounded memory."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from proxy.demo import Running
from tests.conftest import StartOrigin, at_rest
from tests.endurance.conftest import StartProcess, Tell
from tests.endurance.follower import call
from tests.endurance.process import MIB, SidecarProcess
from tests.support.client import Answer, read_answer
from tests.support.origin import Connection

GIB = 1024 * MIB

#: What a transfer may add to the sidecar's memory at any moment, however large it is.
GROWTH = 40 * MIB

PIECE = bytes(range(251)) * 1024  # a prime pattern, so that a piece in the wrong place shows

Transfer = Callable[[str, int], Awaitable[str]]


def pieces(size: int) -> Iterator[bytes]:
    """A body of ``size`` bytes: the pattern 0 … 250, again and again."""
    for start in range(0, size, len(PIECE)):
        yield PIECE[: size - start]


def digest_of(size: int) -> str:
    """The hash of that body."""
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


async def upload(url: str, size: int) -> str:
    """Upload with a Content-Length; return the hash of what the provider received."""
    reader, writer = await call(url, "POST", "/api/upload", [("Content-Length", str(size))])
    for piece in pieces(size):
        writer.write(piece)
        await writer.drain()
    return await told(await read_answer(reader, writer, "POST"), size)


async def upload_in_chunks(url: str, size: int) -> str:
    """Upload in chunks; return the hash of what the provider received."""
    reader, writer = await call(url, "POST", "/api/upload", [("Transfer-Encoding", "chunked")])
    for piece in pieces(size):
        writer.writelines([b"%x\r\n" % len(piece), piece, b"\r\n"])
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    return await told(await read_answer(reader, writer, "POST"), size)


async def told(answer: Answer, size: int) -> str:
    """Return the hash that the provider tells."""
    document = await answer.json()
    answer.close()
    assert document["bytes"] == size
    return str(document["sha256"])


async def download(url: str, size: int) -> str:
    """Download with a Content-Length; return the hash of what came."""
    return await received(url, f"/api/download?bytes={size}", "HTTP/1.1")


async def download_in_old_http(url: str, size: int) -> str:
    """Download in HTTP/1.0."""
    return await received(url, f"/api/download?bytes={size}", "HTTP/1.0")


async def received(url: str, target: str, version: str = "HTTP/1.1") -> str:
    """Return the hash of an answer's body."""
    answer = await read_answer(*await call(url, "GET", target, version=version))
    digest = hashlib.sha256()
    while data := await answer.chunk():
        digest.update(data)
    answer.close()
    return digest.hexdigest()


async def measured(
    process: SidecarProcess, name: str, transfer: Awaitable[str], size: int, tell: Tell
) -> None:
    """Run one transfer; check that all of it arrived, and how much memory it took at most."""
    before = (await process.census()).resident
    process.forget_peak()
    start = time.monotonic()
    digest = await transfer
    rate = size / (time.monotonic() - start)
    growth = process.peak() - before
    tell(
        f"{name}, {size / MIB:.0f} MiB: RSS {before / MIB:.1f} → at most {process.peak() / MIB:.1f} MiB "
        f"(+{growth / MIB:.1f}); {rate / MIB:.0f} MiB/s with client, sidecar and upstream on one machine"
    )
    assert digest == digest_of(size)
    assert growth < GROWTH


@pytest.mark.long
@pytest.mark.parametrize("transfer", [upload, upload_in_chunks, download, download_in_old_http])
async def test_a_gigabyte_passes_in_bounded_memory(
    transfer: Transfer, provider: Running, start_process: StartProcess, tell: Tell
) -> None:
    """1 GiB arrives whole, while the sidecar holds no more of it than a few buffers."""
    process = await start_process(plain(provider.url))
    await transfer(process.url, MIB)
    await measured(process, transfer.__name__, transfer(process.url, GIB), GIB, tell)
    assert process.complaints() == []


@pytest.mark.long
async def test_a_gigabyte_in_chunks_passes_in_bounded_memory(
    start_origin: StartOrigin, start_process: StartProcess, tell: Tell
) -> None:
    """An answer of unknown length passes as it comes."""

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces(int(connection.target.removeprefix("/"))):
            await connection.chunk(piece)
        await connection.end()

    origin = await start_origin(script)
    process = await start_process(plain(origin.url))
    await received(process.url, f"/{MIB}")
    await measured(process, "download_in_chunks", received(process.url, f"/{GIB}"), GIB, tell)
    assert process.complaints() == []


async def test_a_client_that_does_not_read_holds_the_upstream_back(
    start_origin: StartOrigin, start_process: StartProcess
) -> None:
    """What a client does not take is not read from the upstream, and not held; later it comes whole."""
    size, sent = 48 * MIB, 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for piece in pieces(size):
            await connection.send(piece)
            sent += len(piece)

    origin = await start_origin(script)
    process = await start_process(plain(origin.url))
    before = process.resident()
    reader, writer = await call(process.url, "GET", "/", narrow=True)
    await origin.request()
    assert await at_rest(lambda: sent) < size
    assert process.resident() - before < GROWTH
    answer = await read_answer(reader, writer)
    digest = hashlib.sha256()
    while data := await answer.chunk():
        digest.update(data)
    writer.close()
    assert digest.hexdigest() == digest_of(size)


async def test_an_upstream_that_does_not_read_holds_the_client_back(
    start_origin: StartOrigin, start_process: StartProcess
) -> None:
    """What an upstream does not take is not read from the client, and not held; later it comes whole."""
    size, sent = 48 * MIB, 0
    reading = asyncio.Event()

    async def script(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport too
        await reading.wait()
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        digest = hashlib.sha256()
        for left in range(size, 0, -MIB):
            digest.update(await connection.reader.readexactly(min(left, MIB)))
        body = digest.hexdigest().encode()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    origin = await start_origin(script, whole_bodies=False)
    process = await start_process(plain(origin.url))
    before = process.resident()
    reader, writer = await call(process.url, "POST", "/", [("Content-Length", str(size))])

    async def send() -> None:
        nonlocal sent
        for piece in pieces(size):
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    sending = asyncio.create_task(send())
    await origin.request()
    assert await at_rest(lambda: sent) < size
    assert process.resident() - before < GROWTH
    reading.set()
    await sending
    answer = await read_answer(reader, writer, "POST")
    assert await answer.body() == digest_of(size).encode()
    writer.close()


def plain(upstream: str) -> dict[str, object]:
    """One route to one upstream."""
    return {
        "upstreams": {"origin": {"url": upstream}},
        "routes": [{"name": "all", "path": "/{tail:.*}", "upstream": "origin"}],
    }
