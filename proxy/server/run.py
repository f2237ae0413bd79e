"""Running a sidecar as a process: the event loop, the signals, the order of the end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from proxy.config import Config
from proxy.server.app import Sidecar
from proxy.telemetry import configure_logging

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
    await sidecar.start()
    stopping, hurry = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, sidecar.reload)
    sidecar.telemetry.log.info("listening", address=config.listen, admin=config.admin and config.admin.listen)
    try:
        if ready is not None:
            await ready(sidecar)
        await stopping.wait()
        await _first(sidecar.drain(), hurry.wait())
    finally:
        await sidecar.stop()
        sidecar.telemetry.log.info("stopped")
    return 0


async def _first(*coroutines: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
