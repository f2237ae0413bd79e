"""Pass-through under Autobahn's test suite: nothing that it sees is the sidecar's doing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.server import serve

from tests.conformance import suite
from tests.conformance.comparison import PLAN, compare
from tests.conformance.echo import echo
from tests.support.forwarder import Forwarder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not suite.installed(),
        reason="LEFT OUT: WebSocket conformance: no suite of Autobahn's; tests/install.sh test-all gets it",
    ),
]


@pytest.mark.parametrize(("library", "count"), [("websockets", 517), ("aiohttp", 301)])
async def test_no_case_behaves_differently_through_the_sidecar(
    tmp_path: Path, library: str, count: int
) -> None:
    """Framing, control frames, UTF-8, closing, messages to 16 MiB; at one of them, compression too."""
    cases = (await suite.about()).matching(*PLAN[library])
    assert len(cases) == count
    comparison = await compare(library, cases, tmp_path)
    differences = [str(difference) for difference in comparison.differences()]
    assert not differences, "\n".join(differences)


async def test_a_wire_changes_nothing_either(tmp_path: Path) -> None:
    """The comparison finds no fault with what is transparent by its nature, a forwarder of bytes."""
    cases = (await suite.about()).matching("1.*", "2.*", "5.*", "6.*", "7.*", "10.*")
    comparison = await compare("websockets", cases, tmp_path, wire)
    assert list(comparison.differences()) == []


async def test_a_proxy_without_compression_is_found_out(tmp_path: Path) -> None:
    """The comparison finds what a proxy does that ends WebSockets and begins new ones, with other options."""
    comparison = await compare("websockets", ["1.1.1", "12.1.1"], tmp_path, uncompressing, repetitions=1)
    assert {difference.case for difference in comparison.differences()} == {"12.1.1"}


@contextlib.asynccontextmanager
async def wire(port: int, _directory: Path) -> AsyncIterator[str]:
    """Stand in for the sidecar: pass on all bytes."""
    async with Forwarder(f"http://127.0.0.1:{port}") as forwarder:
        yield forwarder.url.removeprefix("http://")


@contextlib.asynccontextmanager
async def uncompressing(_port: int, _directory: Path) -> AsyncIterator[str]:
    """Stand in for the sidecar: answer oneself, without permessage-deflate."""
    async with serve(echo, "127.0.0.1", 0, compression=None) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
