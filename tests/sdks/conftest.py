"""Stages for SDKs, as many as a test wants, and Node's process for those of its module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import trustme

from proxy.demo import Running
from tests.conftest import StartSidecar
from tests.sdks.node_clients import Node
from tests.sdks.stage import Stage, staged

SetStage = Callable[..., Awaitable[Stage]]


@pytest.fixture(scope="session", autouse=True)
def _no_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One authority in place of all: to read those takes each client 25 ms, and nobody speaks TLS here."""
    file = tmp_path_factory.mktemp("authority") / "one.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture
async def set_stage(provider: Running, start_sidecar: StartSidecar) -> AsyncIterator[SetStage]:
    """Make stages with ids, quick heartbeats, and whatever policies a test passes by name."""
    async with AsyncExitStack() as stages:

        async def set_one(**policies: Any) -> Stage:
            return await stages.enter_async_context(staged(provider, start_sidecar, **policies))

        yield set_one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Node]:
    """Node's SDKs, in one process for the module."""
    async with Node() as process:
        yield process
