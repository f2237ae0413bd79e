"""The provider's plain HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from proxy.demo import Running, State
from proxy.demo.plain import CHUNK_BYTES, download_chunks

from .wire import connect, get


@pytest.fixture
async def client(running: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that neither follows redirects nor keeps cookies, based at the provider."""
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(running.url, cookie_jar=jar, auto_decompress=False) as session:
        yield session


def _content(start: int, stop: int) -> bytes:
    return b"".join(download_chunks(start, stop))


async def test_an_echo_tells_what_came(running: Running) -> None:
    """The target undecoded, header fields in order and repeated, the body by length and hash."""
    async with connect(running) as wire:
        wire.send(
            b"PATCH /api/echo?q=%7Ea+b HTTP/1.1\r\nHost: demo\r\nX-A: 1\r\nx-a: 2\r\n"
            b"Content-Encoding: gzip\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n"
        )
        assert (await wire.head())[0] == 200
        echo: dict[str, Any] = json.loads(await wire.rest())
    assert (echo["method"], echo["path"], echo["query"]) == ("PATCH", "/api/echo", "q=%7Ea+b")
    assert [pair for pair in echo["headers"] if pair[0].lower() == "x-a"] == [["X-A", "1"], ["x-a", "2"]]
    assert (echo["body_bytes"], echo["body_sha256"]) == (3, hashlib.sha256(b"abc").hexdigest())


async def test_an_upload_is_counted_and_hashed(client: aiohttp.ClientSession) -> None:
    """A body of any size is taken in pieces."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(CHUNK_BYTES)

    async with client.post("/api/upload", data=body()) as response:
        answer = await response.json()
    assert answer == {
        "bytes": 40 * CHUNK_BYTES,
        "sha256": hashlib.sha256(bytes(40 * CHUNK_BYTES)).hexdigest(),
    }


async def test_a_download_has_known_content(client: aiohttp.ClientSession) -> None:
    """Each byte depends on its place alone."""
    async with client.get("/api/download", params={"bytes": 200_000}) as response:
        body = await response.read()
    assert (response.status, len(body)) == (200, 200_000)
    assert body == _content(0, 200_000)
    assert body[100_000:100_007] == bytes(offset % 251 for offset in range(100_000, 100_007))


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=990-", 990, 1000), ("bytes=-5", 995, 1000), ("bytes=990-5000", 990, 1000)],
)
async def test_a_range_of_a_download(
    client: aiohttp.ClientSession, asked: str, start: int, stop: int
) -> None:
    """206 with exactly the range."""
    async with client.get("/api/download?bytes=1000", headers={"Range": asked}) as response:
        body = await response.read()
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1000"
    assert body == _content(start, stop)


async def test_a_range_outside_cannot_be_satisfied(client: aiohttp.ClientSession) -> None:
    """416 names the length."""
    async with client.get("/api/download?bytes=1000", headers={"Range": "bytes=1000-"}) as response:
        assert (response.status, response.headers["Content-Range"]) == (416, "bytes */1000")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-0"])
async def test_a_range_that_cannot_be_read_is_ignored(client: aiohttp.ClientSession, asked: str) -> None:
    """The answer is the whole."""
    async with client.get("/api/download?bytes=1000", headers={"Range": asked}) as response:
        assert (response.status, len(await response.read())) == (200, 1000)


async def test_a_head_has_the_headers_of_the_get(client: aiohttp.ClientSession) -> None:
    """The length of a body that does not come."""
    async with client.head("/api/download?bytes=5000") as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "5000")
        assert await response.read() == b""


@pytest.mark.parametrize("size", ["many", "-1", str(1 << 41)])
async def test_a_download_of_no_size_is_refused(client: aiohttp.ClientSession, size: str) -> None:
    """The message holds what came."""
    async with client.get("/api/download", params={"bytes": size}) as response:
        assert response.status == 400
        assert size in await response.text()


async def test_a_download_can_be_cut(running: Running) -> None:
    """Fewer bytes than were promised, then the end of the connection."""
    async with connect(running) as wire:
        wire.send(get("/api/download?bytes=1000&drop_at=300"))
        _, headers = await wire.head()
        assert headers["content-length"] == "1000"
        assert await wire.rest() == _content(0, 300)
    assert running.requests[0].state is State.MISBEHAVED


@pytest.mark.parametrize("code", [200, 204, 304, 404, 503])
async def test_any_status_can_be_had(client: aiohttp.ClientSession, code: int) -> None:
    """The path names it; 204 and 304 have no body."""
    async with client.get(f"/api/status/{code}") as response:
        assert response.status == code
        assert bool(await response.read()) == (code not in (204, 304))


async def test_a_redirect_points_somewhere(client: aiohttp.ClientSession) -> None:
    """A client that follows it finds something."""
    async with client.get("/api/status/307", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "/api/hello")
    async with client.get("/api/status/307") as followed:
        assert (await followed.json())["message"] == "hello"


async def test_a_status_that_is_none_is_refused(client: aiohttp.ClientSession) -> None:
    """A final answer cannot be a 100."""
    async with client.get("/api/status/100") as response:
        assert response.status == 400


async def test_cookies_are_two_header_fields(client: aiohttp.ClientSession) -> None:
    """They cannot be joined into one; those that came are told."""
    async with client.get("/api/cookies", headers={"Cookie": "session=mine"}) as response:
        assert response.headers.getall("Set-Cookie") == [
            "session=demo; Path=/; HttpOnly",
            "theme=dark; Path=/; SameSite=Lax",
        ]
        assert await response.json() == {"received": {"session": "mine"}}


async def test_early_hints_come_before_the_answer(running: Running) -> None:
    """A 103 with a link, then the 200, on one connection."""
    async with connect(running) as wire:
        wire.send(get("/api/early-hints"))
        hints, hint_headers = await wire.head()
        status, _ = await wire.head()
    assert (hints, status) == (103, 200)
    assert hint_headers == {"link": "</demo.css>; rel=preload; as=style"}


async def test_plain_answers_can_be_held_back_or_refused_by_header(client: aiohttp.ClientSession) -> None:
    """Their queries are their own, so the header asks."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with client.get("/api/hello", headers={"X-Misbehave": "headers_delay=0.05"}) as response:
        assert response.status == 200
    assert clock() - began >= 0.05
    async with client.get("/api/hello", headers={"X-Misbehave": "status=502"}) as response:
        assert response.status == 502
    async with client.get("/api/hello", headers={"X-Misbehave": "statue=502"}) as response:
        assert response.status == 400
        assert "unknown key 'statue'" in await response.text()
