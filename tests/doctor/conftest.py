"""What the doctor is called to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.demo import Running
from proxy.server.app import Sidecar
from tests.conftest import sidecars


@pytest.fixture
async def sidecar(provider: Running) -> AsyncIterator[Sidecar]:
    """A sidecar before the built-in provider, as a newcomer would have it: without a bridge."""
    async with sidecars() as start:
        yield await start(provider.url)
