"""Fixtures that start real servers on loopback ports, and end what they started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
import yaml

from proxy.config import Config, parse
from proxy.demo import Running, start_provider
from proxy.server import sse
from proxy.server.app import Sidecar
from tests.support import client
from tests.support.command import Command
from tests.support.origin import PATIENCE, Origin, Script

pytest_plugins = ["tests.left_out", "tests.support.browser", "tests.support.pages"]

# How long an example takes says more about a shared machine than about the code.
hypothesis.settings.register_profile(
    "sidecar", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sidecar")

StartSidecar = Callable[..., Awaitable[Sidecar]]
StartOrigin = Callable[..., Awaitable[Origin]]
StartCommand = Callable[..., Awaitable[Command]]


def config_for(upstream: str, *, route: dict[str, Any] | None = None, **top: Any) -> Config:
    """Return a configuration with one upstream and one route for everything.

    ``route`` are policies of that route, ``top`` keys of the file; an ``upstreams`` or ``routes``
    among them replaces the built ones.
    """
    document: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "upstreams": {"origin": {"url": upstream}},
        "routes": [{"name": "all", "path": "/{tail:.*}", "upstream": "origin", **(route or {})}],
        **top,
    }
    return parse(yaml.safe_dump(document, sort_keys=False))


async def eventually(
    condition: Callable[[], object], what: str = "the condition", within: float = PATIENCE
) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {within} s"
        await asyncio.sleep(0.005)


async def at_rest(figure: Callable[[], int]) -> int:
    """Wait until ``figure()`` changes no more, and return it.

    Ten turns of the loop without a change: on a busy machine mere time may pass, and nobody had a turn.
    """
    now, unchanged = figure(), 0
    while unchanged < 10:
        await asyncio.sleep(0.01)
        before, now = now, figure()
        unchanged = unchanged + 1 if now == before else 0
    return now


def transports(sidecar: Sidecar) -> list[asyncio.Transport]:
    """The connections that clients have with the data plane."""
    assert sidecar._front is not None
    return [each.transport for each in sidecar._front.connections if each.transport is not None]


def unsent(sidecar: Sidecar) -> int:
    """How many bytes wait in this process for its slowest client."""
    return max(each.get_write_buffer_size() for each in transports(sidecar))


@pytest.fixture(autouse=True)
def _brief_partings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let broken ends follow the last bytes at once: hundreds of tests would wait, for a browser's sake."""
    monkeypatch.setattr(sse, "PARTING_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def _closed_clients(request: pytest.FixtureRequest) -> None:
    """Close the connections that a test left open; thousands of tests have no loop, and can have none."""
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("_leaving")


@pytest.fixture
async def _leaving() -> AsyncIterator[None]:
    yield
    client.leave()


@asynccontextmanager
async def sidecars(*, fast_path: bool = True, **usual: Any) -> AsyncIterator[StartSidecar]:
    """Start sidecars, each for an upstream's URL, ``route={…}`` and more top-level keys, or for a Config.

    ``usual`` are keys of those that are told no others.
    """
    running: list[Sidecar] = []

    async def start(upstream: str | Config, **settings: Any) -> Sidecar:
        config = upstream if isinstance(upstream, Config) else config_for(upstream, **{**usual, **settings})
        sidecar = Sidecar(msgspec.structs.replace(config, fast_path=fast_path))
        await sidecar.start()
        running.append(sidecar)
        return sidecar

    try:
        yield start
    finally:
        client.leave()
        for sidecar in running:
            await sidecar.stop()


@pytest.fixture(params=[True, False], ids=["fast-path", "task"])
async def start_sidecar(request: pytest.FixtureRequest) -> AsyncIterator[StartSidecar]:
    """Start sidecars. Every test is run on the fast path, and once more on the ordinary one."""
    async with sidecars(fast_path=request.param) as start:
        yield start


@asynccontextmanager
async def origins() -> AsyncIterator[StartOrigin]:
    """Start origins, each with a script and an Origin's options. A script that fails, fails the test."""
    running: list[Origin] = []

    async def start(script: Script, **options: Any) -> Origin:
        origin = Origin(script, **options)
        await origin.start()
        running.append(origin)
        return origin

    yield start
    for origin in running:
        await origin.stop()
        assert not origin.errors, origin.errors


@pytest.fixture
async def start_origin() -> AsyncIterator[StartOrigin]:
    """Start origins."""
    async with origins() as start:
        yield start


@pytest.fixture
async def start_command(tmp_path: Path) -> AsyncIterator[StartCommand]:
    """Start processes: ``sse-sidecar`` with these arguments, and the environment with these additions."""
    started: list[Command] = []

    async def start(*arguments: str | Path, **environ: str) -> Command:
        directory = tmp_path / f"command{len(started)}"
        directory.mkdir()
        command = Command(directory, *arguments, **environ)
        started.append(command)
        await command.start()
        return command

    yield start
    for command in started:
        await command.end()


@asynccontextmanager
async def providing() -> AsyncIterator[Running]:
    """The built-in provider on a socket of its own."""
    running = await start_provider()
    yield running
    await running.close()


@pytest.fixture
async def provider() -> AsyncIterator[Running]:
    """The built-in provider on a socket of its own."""
    async with providing() as running:
        yield running
