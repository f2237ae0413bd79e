"""Fixtures for tests against a sidecar that is a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.endurance.process import SidecarProcess

StartProcess = Callable[[dict[str, Any]], Awaitable[SidecarProcess]]
Tell = Callable[[str], None]

#: What a figure is called among the properties of a test's report.
FIGURE = "figure"

NewLoop = Callable[[], asyncio.AbstractEventLoop]
_LOOPS: Mapping[str, NewLoop] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, NewLoop]:
    """Run a module's tests on the event loops that its ``LOOPS`` names; asyncio's own without.

    They differ in what a transport does once its peer has reset the connection.
    """
    module = item.getparent(pytest.Module)
    return {name: _LOOPS[name] for name in getattr(module and module.obj, "LOOPS", ("asyncio",))}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured, whether it passed or not."""
    reports = [each for every in terminalreporter.stats.values() for each in every]
    told = [pair for each in reports for pair in getattr(each, "user_properties", ())]
    if figures := dict.fromkeys(line for name, line in told if name == FIGURE):
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Tell a figure that a test measured: ``tell("…")``; the summary shows it."""
    return lambda line: record_property(FIGURE, line)


@pytest.fixture
async def start_process(tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Start sidecars as processes, from a configuration document each. Each must end with status 0."""
    running: list[SidecarProcess] = []

    async def start(document: dict[str, Any]) -> SidecarProcess:
        directory = tmp_path / f"sidecar{len(running)}"
        directory.mkdir()
        process = SidecarProcess(directory, document)
        running.append(process)
        await process.start()
        return process

    yield start
    assert [await process.stop() for process in running] == [0] * len(running)
