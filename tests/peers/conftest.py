"""A stage for peers: the provider, a sidecar in front of it, and each library's way to connect to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from proxy.demo import Record, Running
from proxy.server.app import Sidecar
from tests.conftest import StartSidecar, config_for
from tests.peers.peer import PEERS, Join, Peer, lacking_node
from tests.support.origin import PATIENCE
from tests.support.process import left_out


@pytest.fixture(params=PEERS)
def join(request: pytest.FixtureRequest) -> Join:
    """Every test is run with each library."""
    if request.param == "node-ws" and (reason := lacking_node()):
        left_out(f"Node's WebSocket client: {reason}")
    return PEERS[request.param]


class Stage:
    """A sidecar in front of the provider, with a bridge for all but ``/api/socket``, which passes through."""

    def __init__(self, provider: Running, sidecar: Sidecar, join: Join, peers: AsyncExitStack) -> None:
        self.provider = provider
        self.sidecar = sidecar
        self._join = join
        self._peers = peers

    async def connect(
        self,
        target: str = "/api/chat",
        *,
        subprotocols: tuple[str, ...] = (),
        headers: dict[str, str] | None = None,
        deflate: bool = False,
    ) -> Peer:
        """Open a WebSocket. Raises Rejected."""
        url = f"ws{self.sidecar.url.removeprefix('http')}{target}"
        return await self._peers.enter_async_context(self._join(url, subprotocols, headers or {}, deflate))

    async def ended(self) -> Record:
        """Wait for the end of the only request that the provider had, and return what it saw."""
        (record,) = self.provider.requests
        await self.provider.ledger.until(lambda: not record.running, timeout=PATIENCE)
        return record


SetStage = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def set_stage(provider: Running, start_sidecar: StartSidecar, join: Join) -> AsyncIterator[SetStage]:
    """Set a stage; keyword arguments are policies of the bridge, ``top`` keys of the file."""
    async with AsyncExitStack() as peers:

        async def build(*, top: dict[str, Any] | None = None, **policies: Any) -> Stage:
            sidecar = await start_sidecar(
                config_for(
                    provider.url,
                    routes=[
                        {
                            "name": "socket",
                            "path": "/api/socket",
                            "upstream": "origin",
                            "websocket": "passthrough",
                        },
                        {
                            "name": "all",
                            "path": "/{tail:.*}",
                            "upstream": "origin",
                            "websocket": "bridge",
                            **policies,
                        },
                    ],
                    **(top or {}),
                )
            )
            return Stage(provider, sidecar, join, peers)

        yield build


@pytest.fixture
async def stage(set_stage: SetStage) -> Stage:
    """A stage without anything special."""
    return await set_stage()
