"""The benchmark's two programs, built once, and started as often as a test likes."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.program import SOURCES, Program, Server, Upstream


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both programs, built apart from those that a benchmark may be running."""
    build = tmp_path_factory.mktemp("native")
    made = subprocess.run(
        ["make", "-C", str(SOURCES), f"BUILD={build}"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "warning" not in made.stderr, made.stderr
    return build


StartUpstream = Callable[..., Upstream]
StartLoad = Callable[..., Program]
StartServer = Callable[..., Server]


@pytest.fixture
def start_upstream(binaries: Path) -> Iterator[StartUpstream]:
    """Start upstreams with more arguments."""
    with contextlib.ExitStack() as running:

        def start(*arguments: str | Path) -> Upstream:
            upstream = Upstream(binaries, *arguments)
            running.callback(upstream.end)
            return upstream

        yield start


@pytest.fixture
def upstream(start_upstream: StartUpstream) -> Upstream:
    """An upstream."""
    return start_upstream()


@pytest.fixture
def start_load(binaries: Path) -> Iterator[StartLoad]:
    """Start load generators: for a port and a target, with more arguments."""
    with contextlib.ExitStack() as running:

        def start(port: int, target: str, *arguments: str | int, wrapper: tuple[str, ...] = ()) -> Program:
            command = (binaries / "load", "--port", port, "--target", target, *arguments)
            load = Program(*wrapper, *map(str, command))
            running.callback(load.end)
            return load

        yield start


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start servers that answer with these pieces."""
    with contextlib.ExitStack() as running:

        def start(*pieces: bytes | None, kept: int = 0) -> Server:
            server = Server(*pieces, kept=kept)
            running.callback(server.close)
            return server

        yield start
