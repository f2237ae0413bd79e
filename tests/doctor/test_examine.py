"""Whole examinations of real streams: a sidecar before the built-in provider, and origins of all kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from proxy.demo import Running
from proxy.doctor.dial import Request
from proxy.doctor.examine import CHECKS, Doctor, Examination
from proxy.doctor.finding import Finding, Verdict
from proxy.doctor.watch import Patience
from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, config_for, eventually
from tests.support.origin import PATIENCE, Connection, Script, response
from tests.support.script import answers, holds, in_turn, streams

JSON = (("Content-Type", "application/json"), ("Accept-Encoding", "gzip, deflate, br"))
ASK = b'{"model":"demo","stream":true,"messages":[{"role":"user","content":"hello"}]}'

#: A second of watching is enough for what is looked for here.
BRIEFLY = Patience(1.0)


@pytest.fixture
async def sidecar(provider: Running) -> AsyncIterator[Sidecar]:
    """A sidecar before the built-in provider, with a bridge on every route."""
    sidecar = Sidecar(config_for(provider.url, route={"websocket": "bridge", "heartbeat": "200ms"}))
    await sidecar.start()
    yield sidecar
    await sidecar.stop()


class Seen(dict[str, Finding]):
    """Findings by check, in their order; ``doctor`` is who found them."""

    def __init__(self, doctor: Doctor, findings: list[Finding]) -> None:
        super().__init__((finding.check, finding) for finding in findings)
        assert len(self) == len(findings)
        self.doctor = doctor

    def verdict(self, check: str) -> Verdict:
        """How one check came out."""
        return self[check].verdict

    def of(self, verdict: Verdict) -> list[str]:
        """The checks with this verdict."""
        return [check for check, finding in self.items() if finding.verdict is verdict]


async def examine(examination: Examination) -> Seen:
    """Examine, and keep what is found."""
    doctor = Doctor(examination)
    findings = [finding async for finding in doctor.findings()]
    assert [check for check in CHECKS if check in {each.check for each in findings}] == [
        finding.check for finding in findings
    ]
    return Seen(doctor, findings)


def chat(sidecar: Sidecar, query: str) -> Request:
    """A streamed chat completion through the sidecar."""
    return Request(URL(f"{sidecar.url}/v1/chat/completions?{query}"), "POST", JSON, ASK)


def get(url: str, *fields: tuple[str, str]) -> Request:
    """An event stream by GET."""
    return Request(URL(url), fields=(("Accept", "text/event-stream"), *fields))


async def test_a_running_stream_is_watched_dropped_resumed_and_cancelled(
    sidecar: Sidecar, provider: Running
) -> None:
    """All of it with one request to the provider, whose stream does not run on; nothing is wrong."""
    seen = await examine(Examination(chat(sidecar, "endless=1&interval=0.02"), patience=BRIEFLY))
    assert not seen.of(Verdict.FAULT)
    assert not seen.of(Verdict.WARNING)
    good = {"status", "headers", "compression", "timing", "buffering", "ids", "resume", "cancel", "websocket"}
    assert good <= set(seen.of(Verdict.OK))
    assert seen["buffering"].evidence["source"] == "state"
    assert [request.method for request in provider.requests if request.streaming] == ["POST"]
    await eventually(lambda: not any(each.running for each in provider.requests), "the provider's end")
    assert len(seen.doctor.stream_id) == 22


async def test_a_stream_that_ends_is_seen_to_be_whole(sidecar: Sidecar) -> None:
    """It is resumed from the log, and there is nothing to cancel; a longer one would show that."""
    seen = await examine(Examination(chat(sidecar, "interval=0.01&tokens=30")))
    assert not seen.of(Verdict.FAULT)
    assert seen.verdict("end") is Verdict.OK
    assert seen["end"].evidence["done"] is True
    assert seen.verdict("resume") is Verdict.OK
    assert seen.verdict("cancel") is Verdict.UNSEEN
    assert "a longer one shows it" in seen["cancel"].message


async def test_a_silence_is_awaited_and_its_heartbeats_are_seen(sidecar: Sidecar) -> None:
    """``idle``: the stream pauses for longer than that."""
    request = chat(sidecar, "interval=0.01&pause_at=5&pause=1.5&tokens=20")
    seen = await examine(Examination(request, patience=Patience(1.0, idle=1.0)))
    assert seen.verdict("idle") is Verdict.OK
    assert seen.verdict("heartbeats") is Verdict.OK
    assert not seen.of(Verdict.FAULT)


async def test_a_provider_that_hangs_up_is_not_blamed_on_the_way(sidecar: Sidecar) -> None:
    """The sidecar tells the SDK of it; that is a fault of the stream's end, and of nothing else."""
    seen = await examine(Examination(chat(sidecar, "interval=0.01&drop_at=7")))
    assert seen.of(Verdict.FAULT) == ["end"]
    assert "truncated" in seen["end"].message


async def test_an_apps_feed_is_resumed_by_its_own_ids(provider: Running) -> None:
    """No sidecar: a GET is all that is tried, and counted."""
    seen = await examine(Examination(get(f"{provider.url}/api/events?interval=0.05"), patience=BRIEFLY))
    assert not seen.of(Verdict.FAULT)
    assert seen.verdict("resume") is Verdict.OK
    assert seen.verdict("cancel") is Verdict.UNSEEN
    assert (seen.doctor.asker.requests, seen.doctor.asker.upstream) == (2, 2)


async def test_a_post_of_somebody_else_is_never_repeated(start_origin: StartOrigin) -> None:
    """A second generation might be paid for. The handshake is a GET."""
    origin = await start_origin(in_turn(streams(b"id: 1\ndata: 1\n\n"), answers(b"405 Method Not Allowed")))
    seen = await examine(Examination(Request(URL(origin.url), "POST", JSON, ASK)))
    assert seen.verdict("resume") is Verdict.UNSEEN
    assert [request.method for request in origin.requests] == ["POST", "GET"]


@pytest.mark.parametrize(
    ("script", "check", "word"),
    [
        (answers(b"504 Gateway Timeout"), "status", "504"),
        (answers(b"200 OK\r\nContent-Type: text/html", b"<p>hello"), "status", "text/html"),
        (answers(b"302 Found\r\nLocation: /x"), "status", "redirect"),
        (answers(b"404 Not Found", b'{"type":"urn:sse-sidecar:problem:no-route"}'), "status", "no-route"),
    ],
    ids=["gateway", "page", "redirect", "problem"],
)
async def test_what_is_no_stream_is_not_judged(
    start_origin: StartOrigin, script: Script, check: str, word: str
) -> None:
    """One fault says why, and that is all."""
    seen = await examine(Examination(get((await start_origin(script)).url)))
    assert seen.of(Verdict.FAULT) == [check]
    assert word in seen[check].message
    assert not seen.doctor.judged


async def test_an_event_source_that_is_told_to_come_again_has_no_stream(start_origin: StartOrigin) -> None:
    """A 200, as it would give up on a 502: one finding, and nothing of an app's faults."""
    script = answers(b"200 OK\r\nContent-Type: text/event-stream", b"retry: 3000\n\n")
    seen = await examine(Examination(get((await start_origin(script)).url)))
    assert seen.of(Verdict.FAULT) == ["status"]
    assert list(seen) == ["connection", "http2", "status"]
    assert not seen.doctor.judged


async def test_events_under_another_type_are_judged_all_the_same(start_origin: StartOrigin) -> None:
    """The type is what is wrong with them."""
    origin = await start_origin(answers(b"200 OK\r\nContent-Type: text/plain", b"data: 1\n\n"))
    seen = await examine(Examination(get(origin.url)))
    assert seen.doctor.judged
    assert "text/plain" in seen["headers"].message
    assert "whole answer" in seen["headers"].message


async def test_a_connection_that_nobody_accepts_is_one_fault() -> None:
    """No stream, no judgement, no request."""
    seen = await examine(Examination(get("http://127.0.0.1:1/")))
    assert list(seen) == ["connection"]
    assert seen.doctor.asker.upstream == 0


async def test_the_origin_convicts_an_edge_that_sends_no_head(
    start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for as long as a gateway would."""
    monkeypatch.setattr("proxy.doctor.examine.LATER_THAN_ORIGIN", 0.1)

    async def silent(connection: Connection) -> None:
        await connection.gone()

    edge = await start_origin(silent)
    origin = await start_origin(streams(*(b"data: %d\n\n" % number for number in range(5))))
    seen = await examine(Examination(get(f"{edge.url}/x?y=1"), direct=URL(origin.url)))
    assert seen.of(Verdict.FAULT) == ["buffering"]
    assert seen["buffering"].evidence["source"] == "direct"
    assert seen.doctor.judged
    assert origin.requests[0].target == "/x?y=1"


async def test_an_origin_that_brings_nothing_is_told(start_origin: StartOrigin) -> None:
    """With what came in its place; the judgement goes by the next best source."""
    edge = await start_origin(streams(b"data: 1\n\n"))
    seen = await examine(Examination(get(edge.url), direct=URL("http://127.0.0.1:1/")))
    nothing = "--direct brought no stream to compare with"
    assert f"{nothing} (127.0.0.1:1: Connection refused)" in seen["buffering"].message
    assert seen["buffering"].evidence["source"] == "pattern"
    refuses = await start_origin(answers(b"405 Method Not Allowed"))
    seen = await examine(Examination(get(edge.url), direct=URL(refuses.url)))
    assert f"{nothing} (405)" in seen["buffering"].message
    silent = await start_origin(streams())
    seen = await examine(Examination(get(edge.url), direct=URL(silent.url)))
    assert f"{nothing} (200, no event)" in seen["buffering"].message


async def test_an_origin_without_the_stream_convicts_nobody_by_its_websocket(
    start_origin: StartOrigin,
) -> None:
    """Another route there may take an Upgrade."""
    edge = await start_origin(in_turn(streams(b"data: 1\n\n"), answers(b"405 Method Not Allowed")))
    origin = await start_origin(answers(b"405 Method Not Allowed"))
    request = Request(URL(edge.url), "POST", JSON, ASK)
    seen = await examine(Examination(request, direct=URL(origin.url)))
    assert seen.verdict("websocket") is Verdict.UNSEEN
    assert [each.method for each in origin.requests] == ["POST"]


async def test_the_second_stream_of_direct_is_cancelled(sidecar: Sidecar, provider: Running) -> None:
    """It has served its purpose, and somebody pays for it."""
    request = chat(sidecar, "endless=1&interval=0.02")
    seen = await examine(Examination(request, patience=BRIEFLY, direct=URL(sidecar.url)))
    assert seen.verdict("buffering") is Verdict.OK
    assert seen["buffering"].evidence["source"] == "direct"
    assert len([each for each in provider.requests if each.streaming]) == 2
    await eventually(lambda: not any(each.running for each in provider.requests), "the provider's end")


async def test_a_websocket_where_there_must_be_one(start_origin: StartOrigin) -> None:
    """An answer that wants what we sent shows that it was lost."""
    origin = await start_origin(
        in_turn(streams(b"data: 1\n\n"), answers(b"426 Upgrade Required", b"WebSocket expected"))
    )
    seen = await examine(Examination(get(origin.url), websocket=True))
    assert seen.verdict("websocket") is Verdict.FAULT
    assert "lost on the way" in seen["websocket"].message
    assert origin.requests[1].header("sec-websocket-version") == "13"


async def test_a_stickiness_cookie_is_sent_with_all_that_follows(start_origin: StartOrigin) -> None:
    """As a browser does, or the balancer would send the resume to another sidecar."""
    body = b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in range(1, 6))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: LB=a; Path=/\r\n\r\n"
    origin = await start_origin(lambda connection: _sends(connection, head + body))
    await examine(Examination(get(origin.url)))
    assert [request.header("cookie") for request in origin.requests] == [None, "LB=a"]
    assert origin.requests[1].header("last-event-id") == "2"


async def _sends(connection: Connection, data: bytes) -> None:
    await connection.send(data)
    await connection.close()


async def test_an_examination_that_is_given_up_leaves_nothing_running(start_origin: StartOrigin) -> None:
    """Ctrl-C: the connections are closed."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    doctor = Doctor(Examination(get(origin.url), direct=URL(origin.url)))

    async def listen() -> None:
        async for _ in doctor.findings():
            pass

    task = asyncio.create_task(listen())
    await origin.request(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(PATIENCE):
        for request in origin.requests:
            await request.peer_closed.wait()


async def test_a_response_that_is_not_http_is_told(start_origin: StartOrigin) -> None:
    """A TLS port asked in plain text, for instance."""
    origin = await start_origin(
        lambda connection: _sends(connection, b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n")
    )
    seen = await examine(Examination(get(origin.url)))
    assert "not HTTP" in seen["status"].message


async def test_a_length_beside_chunks_is_a_fault(start_origin: StartOrigin) -> None:
    """Servers and proxies disagree where such an answer ends."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n"
    raw += b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n"
    seen = await examine(Examination(get((await start_origin(lambda c: _sends(c, raw))).url)))
    assert seen.of(Verdict.FAULT) == ["headers"]
    assert response() not in raw
