"""Running a sidecar as a process: the event loop, the signals, the order of the end."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from proxy.config import Config
from proxy.server.app import Sidecar
from proxy.telemetry import configure_logging

#: New objects before the youngest are looked at, and how often before the next older ones are.
COLLECT_AFTER = (10_000, 20, 50)

Ready = Callable[[Sidecar], Awaitable[None]]


def run(coroutine: Coroutine[Any, Any, int]) -> int:
    """Run ``coroutine`` on uvloop where it exists."""
    try:
        import uvloop
    except ImportError:  # not on Windows, not on PyPy
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def serve(config: Config, *, source: Path | None = None, ready: Ready | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once. SIGHUP reloads."""
    configure_logging(config.log)
    loop = asyncio.get_running_loop()
    sidecar = Sidecar(config, source=source)
    stopping, hurry = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    # Before anything else: the first process of a container has no default action for signals.
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    await sidecar.start()
    spare_the_collector()
    loop.add_signal_handler(signal.SIGHUP, sidecar.reload)
    sidecar.telemetry.log.info("listening", on=sidecar.addresses, admin=sidecar.admin_addresses)
    try:
        if ready is not None:
            await ready(sidecar)
        await stopping.wait()
        await _first(sidecar.drain(), hurry.wait())
    finally:
        await sidecar.stop()
        sidecar.telemetry.log.info("stopped")
    return 0


def spare_the_collector() -> None:
    """Let Python's garbage collector look less often, and never again at what lives as long as the process.

    It looks after every 700 new objects, which is every few streams; that is a twentieth of a short
    stream's cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Wait for the first to end, and end the others."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()
