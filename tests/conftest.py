"""Fixtures that start real servers on loopback ports, and end what they started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import yaml

from proxy.config import Config, parse
from proxy.demo import Running, start_provider
from proxy.server.app import Sidecar
from tests.support import client
from tests.support.origin import PATIENCE, Origin, Script

StartSidecar = Callable[..., Awaitable[Sidecar]]
StartOrigin = Callable[[Script], Awaitable[Origin]]


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


async def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {PATIENCE} s"
        await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
async def _closed_clients() -> AsyncIterator[None]:
    """Close the connections that a test left open."""
    yield
    while client.OPENED:
        client.OPENED.pop().close()


@pytest.fixture
async def start_sidecar() -> AsyncIterator[StartSidecar]:
    """Start sidecars: ``await start_sidecar(upstream_url, route={…}, **top)`` or with a Config."""
    running: list[Sidecar] = []

    async def start(upstream: str | Config, **settings: Any) -> Sidecar:
        config = upstream if isinstance(upstream, Config) else config_for(upstream, **settings)
        sidecar = Sidecar(config)
        await sidecar.start()
        running.append(sidecar)
        return sidecar

    yield start
    for sidecar in running:
        await sidecar.stop()


@pytest.fixture
async def start_origin() -> AsyncIterator[StartOrigin]:
    """Start scripted origins: ``await start_origin(script)``. A script that fails, fails the test."""
    running: list[Origin] = []

    async def start(script: Script) -> Origin:
        origin = Origin(script)
        await origin.start()
        running.append(origin)
        return origin

    yield start
    for origin in running:
        await origin.stop()
        assert not origin.errors, origin.errors


@pytest.fixture
async def provider() -> AsyncIterator[Running]:
    """The built-in provider on a socket of its own."""
    running = await start_provider()
    yield running
    await running.close()
