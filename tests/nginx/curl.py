"""curl, heard as it prints: the client of these tests that speaks HTTP/2."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from tests.support.nginx import Certificate
from tests.support.origin import PROGRAM_PATIENCE
from tests.support.process import program


class Curl:
    """One request over HTTP/2, whose body is read as the test likes. As a context manager it is ended."""

    def __init__(self, certificate: Certificate, url: str, *options: str | Path) -> None:
        self._command = [
            *(program("curl"), "--silent", "--show-error", "--no-buffer", "--http2", "--noproxy", "*"),
            *("--cacert", certificate.ca, *options, url),
        ]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *map(str, self._command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self.leave()

    async def until(self, marker: bytes) -> bytes:
        """Return what it prints up to and including ``marker``."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(PROGRAM_PATIENCE):
            return await self._process.stdout.readuntil(marker)

    async def rest(self) -> tuple[int, bytes]:
        """Wait for its end; return its exit status and what was not read yet."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(PROGRAM_PATIENCE):
            output = await self._process.stdout.read()
            return await self._process.wait(), output

    async def leave(self) -> None:
        """End it at once, as a client that goes away."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()
