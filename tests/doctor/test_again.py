"""Resume and cancel through edges that do not pass all of it on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from proxy.demo import Running
from proxy.doctor.dial import Request
from proxy.doctor.evidence import Ending
from proxy.doctor.examine import Examination
from proxy.doctor.finding import Verdict
from proxy.doctor.watch import Patience
from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, config_for, eventually
from tests.doctor.seen import ID, OURS, event
from tests.doctor.test_examine import ASK, JSON, examine
from tests.support.origin import Connection, Script, response
from tests.support.script import answers, streams

UNKNOWN = b'{"type":"urn:sse-sidecar:problem:unknown-stream"}'
FIELDS = b"".join(f"{name}: {value}\r\n".encode() for name, value in OURS if name != "Transfer-Encoding")


def state(word: str, reason: str | None = None) -> bytes:
    """The state of the stream, as a sidecar tells it."""
    return json.dumps({"state": word, "reason": reason, "last": 3, "age": 0.1}).encode()


def by_path(stream: Script, **others: Script) -> Script:
    """An edge: the stream at its route, and below ``/_streams/ID`` what the last segment names."""

    async def script(connection: Connection) -> None:
        path, _, _ = connection.target.partition("?")
        named = path.rpartition("/")[2] if path.startswith("/_streams/") else ""
        script = others.get("resume" if named == ID else named) if named else stream
        await (script or answers(b"404 Not Found", b"<html>"))(connection)

    return script


async def held_open(connection: Connection) -> None:
    """Three events of a sidecar's stream, which goes on."""
    await connection.send(b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n")
    for number in (1, 2, 3):
        await connection.chunk(event(number))
    await connection.gone()


async def test_an_edge_without_streams_is_known_by_three_404s(start_origin: StartOrigin) -> None:
    """Neither resume nor cancel: stop does not stop."""
    origin = await start_origin(by_path(held_open))
    seen = await examine(Examination(Request(URL(origin.url), "POST", JSON, ASK), patience=Patience(0.3)))
    assert seen.of(Verdict.FAULT) == ["resume", "cancel"]
    assert "does not route /_streams/" in seen["resume"].message
    assert len(origin.requests) >= 6


async def test_another_sidecar_is_known_by_its_word(start_origin: StartOrigin) -> None:
    """The cancel came to the right one, by luck; its end is heard of from the state."""
    stopped: list[str] = []

    async def stop(connection: Connection) -> None:
        stopped.append(connection.method)
        await connection.send(response(status="202 Accepted", body=state("finished", "cancelled")))

    async def tell(connection: Connection) -> None:
        told = state("finished", "cancelled") if stopped else state("live")
        await connection.send(response(body=told))

    edge = by_path(held_open, resume=answers(b"404 Not Found", UNKNOWN), cancel=stop, state=tell)
    request = Request(URL((await start_origin(edge)).url), "POST", JSON, ASK)
    seen = await examine(Examination(request, patience=Patience(0.3)))
    assert seen.of(Verdict.FAULT) == ["resume"]
    assert "another sidecar" in seen["resume"].message
    assert seen.verdict("cancel") is Verdict.OK
    assert stopped == ["POST"]


async def test_a_reader_whose_stream_goes_on_after_a_cancel_is_told(
    start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """202, and nothing happens: the edge keeps the connection."""
    monkeypatch.setattr("proxy.doctor.again.CANCEL_TIMEOUT", 0.1)
    monkeypatch.setattr("proxy.doctor.again.FRESH_TIMEOUT", 0.1)
    stop = answers(b"202 Accepted", state("finished", "cancelled"))
    edge = by_path(held_open, resume=held_open, cancel=stop, state=answers(b"200 OK", state("live")))
    request = Request(URL((await start_origin(edge)).url), "POST", JSON, ASK)
    seen = await examine(Examination(request, patience=Patience(0.3)))
    assert seen.of(Verdict.FAULT) == ["cancel"]
    assert "did not end within" in seen["cancel"].message


async def test_a_line_that_is_still_at_it_is_not_accused(
    start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor leaves in the midst of an event that was coming in: it cannot tell what would have come."""
    monkeypatch.setattr("proxy.doctor.again.RESUME_TOTAL", 0.1)

    async def slow(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n")
        await connection.chunk(event(1) + event(2)[:5])
        await connection.gone()

    stopped = answers(b"202 Accepted", state("finished", "cancelled"))
    edge = by_path(held_open, resume=slow, cancel=stopped, state=answers(b"200 OK", state("live")))
    request = Request(URL((await start_origin(edge)).url), "POST", JSON, ASK)
    monkeypatch.setattr("proxy.doctor.again.CANCEL_TIMEOUT", 0.1)
    seen = await examine(Examination(request, patience=Patience(0.3)))
    assert seen.verdict("resume") is Verdict.UNSEEN
    assert "1 of 3 events came again" in seen["resume"].message


async def test_a_stripped_header_does_not_hide_the_stream(start_origin: StartOrigin) -> None:
    """The ids of the events say where it can be resumed."""
    bare = streams(b"".join(map(event, (1, 2, 3))))
    edge = by_path(bare, resume=bare, state=answers(b"200 OK", state("finished", "complete")))
    seen = await examine(Examination(Request(URL((await start_origin(edge)).url), "POST", JSON, ASK)))
    assert seen.of(Verdict.FAULT) == ["headers"]
    assert "Stream-Id was stripped" in seen["headers"].message
    assert seen.verdict("resume") is Verdict.OK


async def test_an_edge_that_hangs_up_on_a_resume_is_told(start_origin: StartOrigin) -> None:
    """No answer at all."""

    async def hang_up(connection: Connection) -> None:
        await connection.close()

    edge = by_path(held_open, resume=hang_up, state=hang_up, cancel=hang_up)
    request = Request(URL((await start_origin(edge)).url), "POST", JSON, ASK)
    seen = await examine(Examination(request, patience=Patience(0.3)))
    assert seen.of(Verdict.FAULT) == ["resume", "cancel"]
    assert Ending.CUT.value in seen["resume"].message or Ending.RESET.value in seen["resume"].message


@pytest.fixture
async def unnumbered(provider: Running) -> AsyncIterator[Sidecar]:
    """A sidecar that writes no ids."""
    sidecar = Sidecar(config_for(provider.url, route={"ids": "never"}))
    await sidecar.start()
    yield sidecar
    await sidecar.stop()


async def test_a_stream_without_ids_is_resumed_by_counting(unnumbered: Sidecar, provider: Running) -> None:
    """``?after=``, as Gemini's readers have to."""
    url = URL(f"{unnumbered.url}/v1/chat/completions?endless=1&interval=0.02")
    seen = await examine(Examination(Request(url, "POST", JSON, ASK), patience=Patience(0.5)))
    assert not seen.of(Verdict.FAULT)
    assert seen.verdict("resume") is Verdict.OK
    assert seen.verdict("ids") is Verdict.WARNING
    await eventually(lambda: not any(each.running for each in provider.requests), "the provider's end")
