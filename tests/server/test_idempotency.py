"""``Idempotency-Key``: the same request sent again never starts a second generation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Answer, Truncated, ask, read_answer, send
from tests.support.origin import SSE_HEAD, Connection, Script
from tests.support.script import answers, holds, in_turn, streams

ME = {"Authorization": "Bearer me"}
BODY = b'{"prompt":"hi"}'


async def post(
    sidecar: Sidecar, *, key: str = "k1", headers: Mapping[str, str] = ME, body: bytes = BODY
) -> Answer:
    """Send the request and read its answer's head; ``headers`` bring the caller's credentials."""
    fields = {"Idempotency-Key": key, **headers}
    return await ask(sidecar.url, "/x", method="POST", headers=fields, body=body)


@dataclass(slots=True)
class Waiting:
    """A request whose answer has not been looked for yet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> Answer:
        """Wait for the head of the answer."""
        return await read_answer(self.reader, self.writer, "POST")

    def abort(self) -> None:
        """Leave without it."""
        self.writer.transport.abort()


async def submit(sidecar: Sidecar, key: str = "k1") -> Waiting:
    """Send the request, and do not wait for the answer."""
    head = (
        f"POST /x HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\nAuthorization: {ME['Authorization']}\r\n"
    )
    raw = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    return Waiting(*await send(sidecar.url, raw))


async def being_answered(sidecar: Sidecar, count: int) -> None:
    """Wait until so many requests have come in and are not answered yet."""
    await eventually(lambda: sidecar.gateway.in_flight == count, f"{count} requests are being answered")


def after(event: asyncio.Event, script: Script) -> Script:
    """Take the request, and answer it by ``script`` once ``event`` is set."""

    async def wait(connection: Connection) -> None:
        await event.wait()
        await script(connection)

    return wait


async def silent(connection: Connection) -> None:
    """Take the request and never answer."""
    await connection.gone()


# the same stream again


async def test_a_running_stream_is_joined(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The second gets all blocks from the first on, and is told that they are replayed."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await post(sidecar)
    stream = first.header("stream-id")
    assert first.header("idempotency-replayed") is None
    await first.block()
    second = await post(sidecar)
    assert second.status == 200
    assert second.header("stream-id") == stream
    assert second.header("idempotency-replayed") == "true"
    upstream = await origin.request()
    await upstream.chunk(b"data: b\n\n")
    await upstream.end()
    whole = f"id: {stream}.1\nretry: 3000\ndata: a\n\nid: {stream}.2\ndata: b\n\n".encode()
    assert await second.rest() == whole
    assert len(origin.requests) == 1


async def test_a_kept_stream_is_replayed(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """After its end too: the client that lost the answer gets it, and its cookies are not set again."""

    async def script(connection: Connection) -> None:
        await connection.start_stream(b"Set-Cookie: sid=1\r\n")
        await connection.chunk(b"data: a\n\n")
        await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    first = await post(sidecar)
    assert first.header("set-cookie") == "sid=1"
    whole = await first.rest()
    second = await post(sidecar)
    assert second.header("idempotency-replayed") == "true"
    assert second.header("stream-closed") == "true"
    assert second.header("set-cookie") is None
    assert await second.rest() == whole
    assert len(origin.requests) == 1


async def test_the_key_goes_upstream_as_well(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A provider may know the key itself."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    await (await post(sidecar)).rest()
    request = await origin.request()
    assert (request.header("idempotency-key"), request.body) == ("k1", BODY)


async def test_a_forgotten_stream_releases_its_key(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """When ``keep`` is over the key begins something new."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": {"keep": "0s"}})
    first = await post(sidecar)
    await first.rest()
    await eventually(lambda: sidecar.hub.store.tombstones, "the log was dropped")
    second = await post(sidecar)
    assert second.header("stream-id") != first.header("stream-id")
    assert second.header("idempotency-replayed") is None
    assert len(origin.requests) == 2


async def test_a_stream_that_lost_its_first_blocks_is_refused_not_cut(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The log no longer holds the beginning: 410 ``gap``, and still no second generation."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 2}})
    first = await post(sidecar)
    await first.block()
    await (await origin.request()).chunk(b"data: b\n\ndata: c\n\n")
    await first.blocks(2)
    second = await post(sidecar)
    assert (second.status, second.header("stream-earliest")) == (410, "2")
    assert len(origin.requests) == 1


async def test_a_client_that_comes_back_stops_the_linger(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A phone lost its network and has no id, only its key."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "1h"})
    first = await post(sidecar)
    await first.block()
    first.abort()
    await eventually(lambda: not sidecar.hub.readers, "the first client is gone")
    second = await post(sidecar)
    await second.block()
    state = await (await ask(sidecar.url, f"/_streams/{second.header('stream-id')}/state")).json()
    assert (state["state"], state["readers"]) == ("live", 1)
    assert len(origin.requests) == 1


# waiting for the first one's headers


async def test_the_second_waits_with_the_first_for_the_headers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The model still thinks: one upstream request in all, and both are answered by it."""
    answered = asyncio.Event()
    origin = await start_origin(after(answered, streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url)
    first = await submit(sidecar)
    await being_answered(sidecar, 1)
    second = await submit(sidecar)
    await being_answered(sidecar, 2)
    answered.set()
    one, two = await first.answer(), await second.answer()
    assert one.header("stream-id") == two.header("stream-id")
    assert (one.header("idempotency-replayed"), two.header("idempotency-replayed")) == (None, "true")
    assert await one.rest() == await two.rest()
    assert len(origin.requests) == 1


async def test_the_second_is_answered_though_the_first_has_left(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attempt belongs to everybody who waits for it: even without linger it goes on."""
    answered = asyncio.Event()
    origin = await start_origin(after(answered, holds(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route={"linger": "0s"})
    first = await submit(sidecar)
    await being_answered(sidecar, 1)
    second = await submit(sidecar)
    await being_answered(sidecar, 2)
    first.abort()
    await being_answered(sidecar, 1)
    answered.set()
    assert (await (await second.answer()).block()).endswith(b"data: a\n\n")
    assert len(origin.requests) == 1


async def test_an_answer_that_is_no_stream_is_the_firsts_and_the_second_asks_for_itself(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Such an answer is not held, so it cannot be given twice."""
    answered = asyncio.Event()
    origin = await start_origin(
        in_turn(after(answered, answers(b"200 OK", b"one")), answers(b"200 OK", b"two"))
    )
    sidecar = await start_sidecar(origin.url)
    first = await submit(sidecar)
    await being_answered(sidecar, 1)
    second = await submit(sidecar)
    await being_answered(sidecar, 2)
    answered.set()
    assert [await (await waiting.answer()).body() for waiting in (first, second)] == [b"one", b"two"]
    assert len(origin.requests) == 2


async def test_an_answer_whose_first_client_left_goes_to_the_second(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It was paid for, and somebody waits for it."""
    answered = asyncio.Event()
    origin = await start_origin(after(answered, answers(b"200 OK", b"one")))
    sidecar = await start_sidecar(origin.url)
    first = await submit(sidecar)
    await being_answered(sidecar, 1)
    second = await submit(sidecar)
    await being_answered(sidecar, 2)
    first.abort()
    await being_answered(sidecar, 1)
    answered.set()
    answer = await second.answer()
    assert (answer.status, await answer.body()) == (200, b"one")
    assert len(origin.requests) == 1


async def test_a_failure_is_the_firsts_and_the_second_tries_for_itself(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream broke off before its headers: the first is told, the second gets its own chance."""
    broken = asyncio.Event()
    origin = await start_origin(in_turn(after(broken, Connection.close), streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url)
    first = await submit(sidecar)
    await being_answered(sidecar, 1)
    second = await submit(sidecar)
    await being_answered(sidecar, 2)
    broken.set()
    assert (await first.answer()).status == 502
    answer = await second.answer()
    assert (answer.status, answer.header("idempotency-replayed")) == (200, None)
    assert len(origin.requests) == 2


# what releases the key


@pytest.mark.parametrize(
    "script",
    [answers(b"200 OK", b"{}"), answers(b"500 Oh"), answers(b"429 Slow down"), Connection.close],
    ids=["json", "500", "429", "broken"],
)
async def test_an_answer_that_is_no_stream_and_a_failure_release_the_key(
    start_origin: StartOrigin, start_sidecar: StartSidecar, script: Script
) -> None:
    """A retry is then what it looks like: another attempt, with another body if it likes."""
    origin = await start_origin(in_turn(script, streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url)
    await (await post(sidecar)).body()
    second = await post(sidecar, body=b"{}")
    assert (second.status, second.header("idempotency-replayed")) == (200, None)
    assert len(origin.requests) == 2


# nobody is left


async def test_a_request_whose_client_left_before_the_headers_lingers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream request goes on for ``linger``, is then closed, and the key is free again."""
    origin = await start_origin(in_turn(silent, streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route={"linger": "200ms"})
    waiting = await submit(sidecar)
    upstream = await origin.request()
    left = sidecar.hub.loop.time()
    waiting.abort()
    await eventually(upstream.peer_closed.is_set, "the upstream request was closed")
    assert sidecar.hub.loop.time() - left >= 0.19
    assert (await post(sidecar)).header("idempotency-replayed") is None
    assert len(origin.requests) == 2


async def test_a_client_that_comes_back_within_linger_finds_its_request_still_running(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The phone is back before the model has begun to speak."""
    answered = asyncio.Event()
    origin = await start_origin(after(answered, holds(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route={"linger": "1h"})
    first = await submit(sidecar)
    await origin.request()
    first.abort()
    await being_answered(sidecar, 0)
    again = await submit(sidecar)
    answered.set()
    assert (await again.answer()).header("idempotency-replayed") == "true"
    assert len(origin.requests) == 1


async def test_a_stream_that_begins_for_nobody_lingers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its client left, the headers came: it can be had until ``linger`` is over, then it is cancelled."""
    answered = asyncio.Event()
    origin = await start_origin(after(answered, holds(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route={"linger": "300ms"})
    first = await submit(sidecar)
    await origin.request()
    first.abort()
    await being_answered(sidecar, 0)
    began = sidecar.hub.loop.time()
    answered.set()
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert sidecar.hub.loop.time() - began >= 0.29
    assert sidecar.telemetry.route("all").cancels == {"linger": 1}


async def test_an_answer_that_is_no_stream_and_that_nobody_takes_is_closed(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Neither its connection nor its key is held for ever."""

    async def long_answer(connection: Connection) -> None:
        await answered.wait()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun")
        await connection.gone()

    answered = asyncio.Event()
    origin = await start_origin(in_turn(long_answer, streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route={"linger": "1h"})
    first = await submit(sidecar)
    await origin.request()
    first.abort()
    await being_answered(sidecar, 0)
    answered.set()
    await eventually((await origin.request()).peer_closed.is_set, "the answer was closed")
    assert (await post(sidecar)).status == 200


async def test_a_stream_whose_client_is_refused_lingers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """There is no place for one more reader: 503, and the stream waits for its key, not for ever."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "100ms"}, limits={"readers": 1})
    other = await ask(sidecar.url, "/y", method="POST", body=b"")
    assert (await post(sidecar)).status == 503
    await eventually((await origin.request(2)).peer_closed.is_set, "the upstream request was closed")
    assert sidecar.telemetry.route("all").cancels == {"linger": 1}
    assert len(sidecar.hub.running) == 1
    assert (await other.block()).endswith(b"data: a\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_in_the_moment_of_the_answer_leaves_nothing_behind(
    start_origin: StartOrigin, start_sidecar: StartSidecar, stream: bool
) -> None:
    """Whichever comes first, in whatever order the sidecar hears of it: everything is closed."""
    answer = SSE_HEAD if stream else b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun"
    origin = await start_origin(silent)
    sidecar = await start_sidecar(origin.url, route={"linger": "0s"})
    for turn in range(1, 21):
        waiting = await submit(sidecar, key=f"k{turn}")
        upstream = await origin.request(turn)
        if turn % 2:
            upstream.writer.write(answer)
            waiting.abort()
        else:
            waiting.abort()
            upstream.writer.write(answer)
        await eventually(upstream.peer_closed.is_set, "the upstream request was closed")
        await being_answered(sidecar, 0)
    assert not sidecar.hub.running
    assert not sidecar.hub.readers
    assert sidecar.telemetry.route("all").streams == 0


# whose key it is


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"])
async def test_a_key_is_bound_to_its_callers_credentials(
    start_origin: StartOrigin, start_sidecar: StartSidecar, name: str
) -> None:
    """Guessing a key gives nobody another caller's answer; more credentials are another caller's too."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await post(sidecar, headers={name: "me=1"})
    for headers in ({name: "you=1"}, {name: "me=1", "X-Api-Key": "k", "Cookie": "a=b"}):
        other = await post(sidecar, headers=headers)
        assert other.header("idempotency-replayed") is None
        assert other.header("stream-id") != first.header("stream-id")
    assert (await post(sidecar, headers={name: "me=1"})).header("stream-id") == first.header("stream-id")
    assert len(origin.requests) == 3


async def test_a_key_is_bound_to_its_principal(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Users behind one gateway share its credential: their keys do not reach each other's streams."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"principal": {"header": "X-User"}})
    mine = await post(sidecar, headers=ME | {"X-User": "me"})
    yours = await post(sidecar, headers=ME | {"X-User": "you"})
    assert mine.header("stream-id") != yours.header("stream-id")
    assert (await post(sidecar, headers=ME | {"X-User": "me"})).header("stream-id") == mine.header(
        "stream-id"
    )
    assert len(origin.requests) == 2


async def test_without_a_credential_the_key_is_ignored(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """There is nobody whom the answer could belong to."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    one, two = await post(sidecar, headers={}), await post(sidecar, headers={})
    assert one.header("stream-id") != two.header("stream-id")
    assert two.header("idempotency-replayed") is None
    assert len(origin.requests) == 2


async def test_a_key_belongs_to_one_route(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The same key on another route asks for something else."""
    origin = await start_origin(streams(b"data: a\n\n"))
    routes = [
        {"name": "a", "path": "/x", "upstream": "origin"},
        {"name": "b", "path": "/y", "upstream": "origin"},
    ]
    sidecar = await start_sidecar(origin.url, routes=routes)
    await post(sidecar)
    other = await ask(sidecar.url, "/y", method="POST", headers={"Idempotency-Key": "k1", **ME}, body=BODY)
    assert other.header("idempotency-replayed") is None
    assert len(origin.requests) == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_a_post_has_a_key(
    start_origin: StartOrigin, start_sidecar: StartSidecar, method: str
) -> None:
    """Other methods are idempotent by themselves, or are the app's business."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    for _ in range(2):
        answer = await ask(sidecar.url, "/x", method=method, headers={"Idempotency-Key": "k1", **ME})
        assert answer.header("idempotency-replayed") is None
    assert len(origin.requests) == 2


# what cannot be a repetition


@pytest.mark.parametrize(
    "script", [silent, holds(b"data: a\n\n"), streams(b"data: a\n\n")], ids=["waiting", "running", "kept"]
)
async def test_another_body_under_the_same_key_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, script: Script
) -> None:
    """Waiting, running or kept: 422, and the first is not disturbed."""
    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    first = await submit(sidecar)
    await origin.request()
    other = await post(sidecar, body=b'{"prompt":"bye"}')
    assert other.status == 422
    assert (await other.json())["type"].endswith(":body-differs")
    assert len(origin.requests) == 1
    assert not sidecar.telemetry.route("all").cancels
    first.abort()


@pytest.mark.parametrize("target", ["/y", "/x?model=other"])
async def test_another_target_under_the_same_key_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, target: str
) -> None:
    """On a catch-all route one key could else answer one query with another's stream."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    await post(sidecar)
    fields = {"Idempotency-Key": "k1", **ME}
    other = await ask(sidecar.url, target, method="POST", headers=fields, body=BODY)
    assert other.status == 422
    assert len(origin.requests) == 1


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_is_none_or_too_long_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, key: str
) -> None:
    """Ignoring it would silently pay twice."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    assert (await post(sidecar, key=key)).status == 400
    assert not origin.requests
    assert (await post(sidecar, key="k" * 255)).status == 200


async def test_two_keys_are_refused(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Which one would it be?"""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    headers = [*ME.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (await ask(sidecar.url, "/x", method="POST", headers=headers, body=BODY)).status == 400
    assert not origin.requests


async def test_a_body_that_cannot_be_held_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A body must be known before a key can be matched; what may be held of it is bounded."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, limits={"buffered_body": "10B"})
    assert (await post(sidecar)).status == 413
    assert not origin.requests
    assert (await post(sidecar, body=b"0123456789")).status == 200


# together with other policies


async def test_a_keyed_stream_that_is_not_recorded_loses_no_block(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its blocks arrive with its headers, before anybody reads: they wait for the first reader."""
    blocks = b"".join(b"data: %d\n\n" % number for number in range(20_000))

    async def burst(connection: Connection) -> None:
        await connection.send(SSE_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(blocks), blocks))

    origin = await start_origin(burst)
    sidecar = await start_sidecar(origin.url, route={"replay": "off"})
    answer = await post(sidecar)
    assert await answer.rest() == b"retry: 3000\n" + blocks
    assert (await post(sidecar)).header("idempotency-replayed") is None


async def test_a_keyed_stream_may_be_opened_early(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``open_after``: the second joins a stream whose upstream has not answered yet."""
    answered = asyncio.Event()
    origin = await start_origin(after(answered, streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route={"open_after": "10ms"})
    headers = {**ME, "Accept": "text/event-stream"}
    first, second = await post(sidecar, headers=headers), await post(sidecar, headers=headers)
    assert second.header("idempotency-replayed") == "true"
    answered.set()
    assert await first.rest() == await second.rest()
    assert len(origin.requests) == 1


async def test_an_early_open_that_failed_releases_the_key(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``open_after``: a failure behind the 200 is a failure, and the client's next try is a new one."""
    opened = asyncio.Event()
    failing = after(opened, answers(b"503 No", b"no"))
    origin = await start_origin(in_turn(failing, streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route={"open_after": "10ms"})
    headers = {**ME, "Accept": "text/event-stream"}
    first = await post(sidecar, headers=headers)
    opened.set()
    with contextlib.suppress(Truncated):
        await first.rest()
    second = await post(sidecar, headers=headers)
    assert second.header("idempotency-replayed") is None
    assert b"data: a\n\n" in await second.rest()
    assert len(origin.requests) == 2
