"""A program that is not ours, as a child: started, ready when its ports accept, and ended by its id."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import NoReturn, Self

import pytest

from tests.support.origin import PROGRAM_PATIENCE

#: Where Debian keeps daemons, beside the PATH of somebody who is not root.
SYSTEM = "/usr/sbin:/sbin"

#: How long a program may take to end on SIGTERM before it is killed, in seconds.
GRACE = 10.0


def left_out(why: str) -> NoReturn:
    """Leave the test out, or in CI fail it: there, whatever is not tested counts as broken."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"LEFT OUT: {why}")
    pytest.skip(f"LEFT OUT: {why}")


def program(name: str) -> str:
    """Return a program's path. Where there is none, the test is left out."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM}")
    return found or left_out(f"{name} is not installed, and these tests need the real one")


#: Ports that were handed out: the kernel may soon offer the same one again, before anybody listens on it.
_GIVEN: set[int] = set()


def free_port() -> int:
    """Return a loopback port that nobody listens on, another one each time."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


async def run(
    *command: str | Path, cwd: Path | None = None, stderr: int | None = asyncio.subprocess.STDOUT
) -> tuple[int, str]:
    """Run a command to its end; return its exit status and stdout, with stderr in it by default."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode("utf-8", "replace")


class Child:
    """What every process is that a test starts."""

    _process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended yet."""
        return self._process is not None and self._process.returncode is None

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


class Process(Child):
    """One server program, in the foreground. Its stdout and stderr go to the file ``output``.

    It is ready when all ``ports`` accept connections on 127.0.0.1. As a context manager it is started and
    ended.
    """

    def __init__(
        self,
        *command: str | Path,
        ports: Sequence[int],
        output: Path,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(map(str, command))
        self._ports = list(ports)
        self._output = output
        self._cwd = cwd
        self._environ = environ or {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self.stop()

    @property
    def output(self) -> str:
        """What it has written to stdout and stderr, since its first start."""
        return self._output.read_text("utf-8", "replace") if self._output.exists() else ""

    async def start(self) -> None:
        """Start it and wait until it is ready. An end before that fails with its output."""
        with self._output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._cwd,
                env={**os.environ, **self._environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            for port in self._ports:
                await self._accepts(port)
        except BaseException:
            await self.stop(SIGKILL)
            raise

    async def _accepts(self, port: int) -> None:
        deadline = time.monotonic() + PROGRAM_PATIENCE
        while True:
            assert self.running, f"{self._command} ended: {self.output}"
            assert time.monotonic() < deadline, f"{self._command} does not listen on {port}: {self.output}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

    async def stop(self, number: Signals = SIGTERM) -> int | None:
        """End it by this signal, or by force where that is not heard; return its exit status.

        One that does not run, is left as it is.
        """
        if self._process is None:
            return None
        if self.running:
            self.signal(number)
            try:
                async with asyncio.timeout(GRACE):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        return self._process.returncode

    async def restart(self) -> None:
        """End it and start it again, on the same ports."""
        await self.stop()
        await self.start()
