"""A provider on a socket of its own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.demo import Running, start_provider


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A provider that listens on a free port until the test is over."""
    provider = await start_provider()
    yield provider
    await provider.close()
