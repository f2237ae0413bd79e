"""A stage for SDKs: the built-in provider, the sidecar in front of it, and a wire that is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from proxy.demo import Running
from proxy.server.app import Sidecar
from proxy.server.relay import Relay
from tests.conftest import StartSidecar, config_for, eventually
from tests.sdks.clients import Call, Outcome, Sdk, listen
from tests.support.forwarder import Forwarder

#: Short enough for several of them to fall into each pause that the provider is asked for.
HEARTBEAT = "20ms"

#: Behind the first words and before the end of any dialect's stream.
MIDDLE = 12

#: Groq's SDK puts a prefix before OpenAI's paths.
ROUTES = [
    {"name": "groq", "path": "/openai/{tail:.*}", "upstream": "origin", "strip_prefix": "/openai"},
    {"name": "all", "path": "/{tail:.*}", "upstream": "origin"},
]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an SDK plays: what it talks to, and what was seen of it."""

    provider: Running
    sidecar: Sidecar
    forwarder: Forwarder

    def call(self, wrong: str = "", *, retries: int = 0) -> Call:
        """Return a call through the recorded wire, for which the provider misbehaves as asked."""
        return Call(self.forwarder.url, wrong, retries)

    async def play(self, sdk: Sdk, wrong: str = "") -> Outcome:
        """Let an SDK read one stream to its end."""
        return await listen(sdk, self.call(wrong))

    async def relay(self) -> Relay:
        """Wait for the only stream there is."""
        await eventually(lambda: len(self.sidecar.hub.store), "a stream")
        (relay,) = self.sidecar.hub.store
        return relay

    def body(self) -> bytes:
        """Return the body that came over the only wire there was."""
        (wire,) = self.forwarder.wires
        return wire.body()


@asynccontextmanager
async def staged(provider: Running, start: StartSidecar, **policies: Any) -> AsyncIterator[Stage]:
    """Set a stage with ids, quick heartbeats, and these policies."""
    defaults = {"heartbeat": HEARTBEAT, **policies}
    sidecar = await start(config_for(provider.url, defaults=defaults, routes=ROUTES))
    async with Forwarder(sidecar.url) as forwarder:
        yield Stage(provider, sidecar, forwarder)
