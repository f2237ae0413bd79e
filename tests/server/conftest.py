"""Fixtures for tests against a sidecar in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartOrigin, StartSidecar
from tests.support.tunnel import Join, joining


@pytest.fixture
async def join(start_origin: StartOrigin, start_sidecar: StartSidecar) -> AsyncIterator[Join]:
    """Join clients and upstreams, and see in the end that nothing is left of them."""
    async with joining(start_origin, start_sidecar) as start:
        yield start
