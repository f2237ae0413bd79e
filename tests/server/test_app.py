"""One sidecar through its life: what a reload changes, what it leaves alone, and what it lets go of."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from proxy.config import load
from proxy.server import app
from proxy.server.app import Sidecar
from proxy.server.upstream import Upstream
from proxy.server.watch import Watch
from tests.conftest import StartOrigin, eventually
from tests.support.client import ask
from tests.support.origin import Connection, Origin, Script, response
from tests.support.script import holds, in_turn

REFUSED = "configuration refused; the old one stays in force"
NEXT_START = "this setting takes effect at the next start"


class File:
    """A configuration on disk, as an operator edits it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, upstream: str, **top: Any) -> None:
        """Write a configuration with one upstream for everything; ``top`` are more of its keys."""
        document = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "upstreams": {"origin": {"url": upstream}},
            "routes": [{"name": "all", "path": "/{tail:.*}", "upstream": "origin"}],
            **top,
        }
        self.path.write_text(yaml.safe_dump(document, sort_keys=False))


StartFrom = Callable[[File], Awaitable[Sidecar]]


@pytest.fixture
def file(tmp_path: Path) -> File:
    """The file of the sidecar under test."""
    return File(tmp_path / "sidecar.yaml")


@pytest.fixture
async def start() -> AsyncIterator[StartFrom]:
    """Start sidecars that watch their file."""
    running: list[Sidecar] = []

    async def start_from(file: File) -> Sidecar:
        sidecar = Sidecar(load(file.path), source=file.path)
        await sidecar.start()
        running.append(sidecar)
        return sidecar

    yield start_from
    for sidecar in running:
        await sidecar.stop()


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """The log lines, as dictionaries."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def named(name: bytes) -> Script:
    """Answer every request with a name."""

    async def script(connection: Connection) -> None:
        await connection.send(response(body=name))

    return script


async def body_of(sidecar: Sidecar, path: str = "/") -> bytes:
    """Ask on a connection of its own."""
    answer = await ask(sidecar.url, path, headers={"Connection": "close"})
    return await answer.body()


# What a reload changes


async def test_requests_are_answered_by_the_file_read_last(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """A good file counts from the next request on."""
    first, second = await start_origin(named(b"first")), await start_origin(named(b"second"))
    file.write(first.url)
    sidecar = await start(file)
    assert await body_of(sidecar) == b"first"
    file.write(second.url)
    assert sidecar.reload()
    assert await body_of(sidecar) == b"second"
    assert sidecar.telemetry.process.reloads == {"loaded": 1}


async def test_a_stream_that_runs_keeps_its_id(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """A new node names new streams; clients find the others under the ids that they know."""
    origin = await start_origin(holds(b"data: a\n\n"))
    file.write(origin.url)
    sidecar = await start(file)
    old = (await ask(sidecar.url)).header("stream-id")
    file.write(origin.url, node="web-0")
    assert sidecar.reload()
    new = (await ask(sidecar.url)).header("stream-id")
    assert str(new).startswith("web-0-")
    for stream in (old, new):
        assert (await ask(sidecar.url, f"/_streams/{stream}")).status == 200


async def test_a_replaced_upstream_leaves_no_timer(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """A time limit that nobody waits for any more would hold on to its wheel until it is over."""
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)
    assert await body_of(sidecar) == b"first"
    wheel = weakref.ref(sidecar.gateway._upstreams["origin"]._wheel)
    file.write(origin.url, upstreams={"origin": {"url": origin.url, "keepalive": "1s"}})
    assert sidecar.reload()

    def is_gone() -> bool:
        gc.collect()
        return wheel() is None

    await eventually(is_gone, "the wheel is gone")


async def test_a_bad_file_changes_nothing(
    file: File, start: StartFrom, start_origin: StartOrigin, log: list[Any]
) -> None:
    """All that is wrong with it is logged; the old configuration answers on."""
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)
    before = sidecar.telemetry.process.config_loaded_at
    file.write(origin.url, routes=[{"name": "all", "path": "no-slash", "upstream": "nobody", "lingr": "1s"}])
    assert not sidecar.reload()
    assert await body_of(sidecar) == b"first"
    assert sidecar.telemetry.process.reloads == {"refused": 1}
    assert sidecar.telemetry.process.config_loaded_at == before
    (line,) = [line for line in log if line["event"] == REFUSED]
    assert line["log_level"] == "error"
    assert line["source"] == str(file.path)
    assert all(problem.startswith("line ") for problem in line["problems"])
    for word in ("no-slash", "nobody", "lingr"):
        assert word in " ".join(line["problems"])


async def test_a_file_that_is_gone_changes_nothing(
    file: File, start: StartFrom, start_origin: StartOrigin, log: list[Any]
) -> None:
    """So does none at all."""
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)
    file.path.unlink()
    assert not sidecar.reload()
    assert await body_of(sidecar) == b"first"
    (line,) = [line for line in log if line["event"] == REFUSED]
    assert "No such file" in line["problems"][0]


async def test_bounds_count_at_once(file: File, start: StartFrom, start_origin: StartOrigin) -> None:
    """Limits and the store's size are those of the file read last."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    file.write(origin.url)
    sidecar = await start(file)
    await (await ask(sidecar.url, "/")).block()
    file.write(origin.url, limits={"streams": 1}, store={"memory": {"max_bytes": "1KiB"}})
    assert sidecar.reload()
    refused = await ask(sidecar.url, "/")
    assert refused.status == 503
    assert sidecar.hub.store.max_bytes == 1024


async def test_the_log_changes_at_once(file: File, start: StartFrom, start_origin: StartOrigin) -> None:
    """Its level does not wait for a restart; neither do the lines of plain requests."""
    root = logging.getLogger()
    ours, handlers, level = logging.getLogger("sse-sidecar"), root.handlers[:], root.level
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)
    try:
        file.write(origin.url, log={"level": "error", "requests": True})
        assert sidecar.reload()
        assert ours.level == logging.ERROR
        assert sidecar.telemetry.tells_requests
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(False)
        ours.setLevel(logging.NOTSET)
        root.setLevel(level)
        root.handlers[:] = handlers


async def test_what_needs_a_restart_is_said(
    file: File, start: StartFrom, start_origin: StartOrigin, log: list[Any]
) -> None:
    """New listeners are not opened, and the old ones not closed; the log says so until the file agrees."""
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)

    def warned() -> set[str]:
        found = {line["setting"] for line in log if line["event"] == NEXT_START}
        log.clear()
        return found

    changed: dict[str, Any] = {"listen": "127.0.0.1:1", "admin": {"listen": "127.0.0.1:2"}, "keepalive": 9}
    file.write(origin.url, **changed, limits={"max_headers": "8KiB"})
    assert sidecar.reload()
    assert warned() == {"listen", "keepalive", "admin", "limits.max_headers"}
    assert await body_of(sidecar) == b"first"
    file.write(origin.url, **changed)
    assert sidecar.reload()
    assert warned() == {"listen", "keepalive", "admin"}
    file.write(origin.url)
    assert sidecar.reload()
    assert warned() == set()


async def test_a_changed_file_is_noticed(
    file: File, start: StartFrom, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes swaps a link two levels up; that is enough."""
    monkeypatch.setattr(app, "WATCH_SECONDS", 0.02)
    first, second = await start_origin(named(b"first")), await start_origin(named(b"second"))
    mount = file.path.parent
    for version, origin in (("..1", first), ("..2", second)):
        (mount / version).mkdir()
        File(mount / version / "sidecar.yaml").write(origin.url)
    (mount / "..data").symlink_to("..1")
    file.path.symlink_to("..data/sidecar.yaml")
    sidecar = await start(file)
    assert await body_of(sidecar) == b"first"
    (mount / "..data_tmp").symlink_to("..2")
    (mount / "..data_tmp").replace(mount / "..data")
    await eventually(lambda: sidecar.telemetry.process.reloads["loaded"], "a reload")
    assert await body_of(sidecar) == b"second"


async def test_a_bad_file_is_told_once(
    file: File, start: StartFrom, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that stays bad is not read again every second."""
    monkeypatch.setattr(app, "WATCH_SECONDS", 0.01)
    looks: list[bool] = []
    look = Watch.look

    def counted(watch: Watch) -> bool:
        looks.append(look(watch))
        return looks[-1]

    monkeypatch.setattr(Watch, "look", counted)
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)
    file.path.write_text("nonsense")
    await eventually(lambda: sidecar.telemetry.process.reloads["refused"], "a refusal")
    looks.clear()
    await eventually(lambda: len(looks) >= 5, "more looks")
    assert sidecar.telemetry.process.reloads == {"refused": 1}


# What it leaves alone


async def test_running_streams_keep_their_route(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """A stream goes on by the policies and from the upstream with which it began."""
    first, second = await start_origin(holds(b"data: 1\n\n")), await start_origin(named(b"second"))
    file.write(first.url, defaults={"heartbeat": "30ms"})
    sidecar = await start(file)
    stream = await ask(sidecar.url, "/")
    await stream.block()
    file.write(second.url, defaults={"heartbeat": "1h"})
    assert sidecar.reload()
    assert await body_of(sidecar) == b"second"
    assert b": ping\n" in await stream.until(b": ping\n")
    connection = await first.request()
    await connection.chunk(b"data: 2\n\n")
    assert b"data: 2" in await stream.block()
    resumed = await ask(sidecar.url, f"/_streams/{stream.header('stream-id')}?after=0")
    assert len(await resumed.blocks(2)) == 2


async def test_an_unchanged_upstream_keeps_its_connections(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """A reload that concerns something else costs no new connection."""
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)
    await body_of(sidecar)
    file.write(origin.url, drain="1s")
    assert sidecar.reload()
    await body_of(sidecar)
    assert origin.requests[0].writer is origin.requests[1].writer


# What it lets go of


async def test_a_replaced_upstream_closes_after_its_last_stream(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """Idle connections to it close with its last stream, and nothing remembers it."""

    async def script(connection: Connection) -> None:
        if connection.target != "/stream":
            await connection.send(response(body=b"first"))
            return
        await connection.start_stream()
        await connection.chunk(b"data: 1\n\n")
        await release.wait()
        await connection.end()

    release = asyncio.Event()
    first, second = await start_origin(script), await start_origin(named(b"second"))
    file.write(first.url)
    sidecar = await start(file)
    stream = await ask(sidecar.url, "/stream")
    await stream.block()
    assert await body_of(sidecar, "/plain") == b"first"
    idle = await first.request(2)
    file.write(second.url)
    assert sidecar.reload()
    assert await body_of(sidecar) == b"second"
    assert not idle.reader.at_eof()
    release.set()
    assert await stream.rest() == b""
    await eventually(idle.reader.at_eof, "the idle connection's end")


async def test_reloads_leave_nothing_behind(file: File, start: StartFrom, start_origin: StartOrigin) -> None:
    """However often an upstream is replaced, there is one of it."""
    origin = await start_origin(named(b"first"))
    file.write(origin.url)
    sidecar = await start(file)
    for keepalive in range(1, 30):
        assert await body_of(sidecar) == b"first"
        file.write(origin.url, upstreams={"origin": {"url": origin.url, "keepalive": f"{keepalive}s"}})
        assert sidecar.reload()

    def upstreams() -> int:
        gc.collect()
        return sum(
            isinstance(thing, Upstream) and thing.settings.urls == (origin.url,) for thing in gc.get_objects()
        )

    await eventually(lambda: upstreams() == 1, "the end of all replaced upstreams")


async def test_a_feed_reconnects_to_the_upstream_it_began_with(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """Also when that one was replaced while the feed waited, and its pool had closed meanwhile."""

    async def break_off(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"retry: 50\ndata: 1\n\n")
        await proceed.wait()
        await connection.close()

    proceed = asyncio.Event()
    origin = await start_origin(in_turn(break_off, holds(b"data: 2\n\n")))
    other: Origin = await start_origin(named(b"other"))
    routes = [{"name": "feed", "path": "/{tail:.*}", "upstream": "origin", "reconnect": True}]
    file.write(origin.url, routes=routes)
    sidecar = await start(file)
    feed = await ask(sidecar.url, "/events", headers={"Accept": "text/event-stream"})
    await feed.block()
    file.write(other.url, routes=routes)
    assert sidecar.reload()
    proceed.set()
    assert b"data: 2" in await feed.block()
    assert not other.requests


# The end


async def test_nothing_outlives_the_end(file: File, start: StartFrom, start_origin: StartOrigin) -> None:
    """Every task ends, every upstream connection closes."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    file.write(origin.url)
    before = asyncio.all_tasks()
    sidecar = await start(file)
    for _ in range(3):
        await (await ask(sidecar.url, "/")).block()
    await sidecar.stop()
    for connection in origin.requests:
        await connection.peer_closed.wait()
    await eventually(
        lambda: not {task for task in asyncio.all_tasks() - before if "Origin" not in repr(task.get_coro())},
        "the end of all tasks",
    )


async def test_a_drain_without_requests_is_over_at_once(
    file: File, start: StartFrom, start_origin: StartOrigin
) -> None:
    """Nobody waits for nothing."""
    origin = await start_origin(named(b"first"))
    file.write(origin.url, drain="1h")
    sidecar = await start(file)
    readiness = [sidecar.ready]
    await sidecar.drain()
    readiness.append(sidecar.ready)
    assert readiness == [True, False]
    assert sidecar.addresses == ()
