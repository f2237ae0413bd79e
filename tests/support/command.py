"""``sse-sidecar`` as a process of its own: started, signalled, listened to, and ended by its id."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.support.origin import PROGRAM_PATIENCE
from tests.support.process import Child

PROJECT = Path(__file__).parents[2]


def write_config(directory: Path, upstream: str, **top: Any) -> Path:
    """Write a configuration with one upstream for everything, on free ports."""
    document = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "drain": "0s",
        "upstreams": {"origin": {"url": upstream}},
        "routes": [{"name": "all", "path": "/{tail:.*}", "upstream": "origin"}],
        **top,
    }
    file = directory / "sidecar.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


class Command(Child):
    """One ``sse-sidecar ARGUMENTS``, its output in files below ``directory``."""

    def __init__(self, directory: Path, *arguments: str | Path, **environ: str) -> None:
        self._arguments = list(map(str, arguments))
        self._environ = environ
        self._out = directory / "stdout"
        self._err = directory / "stderr"

    async def start(self) -> None:
        """Start it, without a terminal and without input."""
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "proxy", *self._arguments),
                cwd=PROJECT,
                env={**os.environ, **self._environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def output(self) -> str:
        """What it has written to stdout."""
        return self._out.read_text("utf-8")

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        return self._err.read_text("utf-8")

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return its log lines, each of which must be JSON: all of them, or those of one event."""
        text = self.errors
        try:
            # What follows the last line end is a line that is still being written.
            lines = [json.loads(line) for line in text.split("\n")[:-1]]
        except ValueError as error:
            raise AssertionError(f"not all lines are JSON: {text}") from error
        return [line for line in lines if event in (None, line["event"])]

    async def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for the line of this event and number (from 1)."""
        deadline = time.monotonic() + PROGRAM_PATIENCE
        while len(lines := self.log(event)) < count:
            assert self.running, f"it ended with {self._process}: {self.errors}"
            assert time.monotonic() < deadline, f"no {event!r} was logged {count} times: {self.errors}"
            await asyncio.sleep(0.01)
        return lines[count - 1]

    async def url(self) -> str:
        """Wait until it listens; return the data plane's base URL."""
        return f"http://{(await self.logged('listening'))['on'][0]}"

    async def admin_url(self) -> str:
        """Wait until it listens; return the admin listener's base URL."""
        return f"http://{(await self.logged('listening'))['admin'][0]}"

    async def ended(self) -> int:
        """Wait for its end and return its exit status."""
        assert self._process is not None
        async with asyncio.timeout(PROGRAM_PATIENCE):
            return await self._process.wait()

    async def end(self) -> None:
        """End it at once, if it still runs."""
        if self._process is not None and self.running:
            self._process.kill()
            await self._process.wait()
