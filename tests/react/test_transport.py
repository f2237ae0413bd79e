"""The transport of the page in Node: what it sends, what it does when the network is gone, how it stops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.demo import Running, State, start_provider
from proxy.demo.speech import Speech
from proxy.server.app import Sidecar
from tests.conftest import eventually
from tests.react.conftest import REACT, documented
from tests.web.conftest import run_node

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Running]:
    """The provider that all chats of the module ask."""
    running = await start_provider()
    yield running
    await running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(node: Path, provider: Running) -> AsyncIterator[dict[str, Any]]:
    """What the chats of the script show, while the sidecar still runs."""
    sidecar = Sidecar(documented(provider.url, provider.url))
    await sidecar.start()
    try:
        status, said = await run_node(node, "transport.mjs", sidecar.url, cwd=REACT)
        assert status == 0, said
        yield json.loads(said)
    finally:
        await sidecar.stop()


def asked(provider: Running, how: str) -> list[Any]:
    """The requests that the provider saw of a chat."""
    return [record for record in provider.requests if record.query == how]


async def test_a_message_is_sent_and_answered(shown: dict[str, Any]) -> None:
    """The whole text, once."""
    assert shown["sent"] == {
        "finish": {"isAbort": False, "isDisconnect": False, "isError": False},
        "status": "ready",
        "texts": [["user", "hello"], ["assistant", Speech(20).text()]],
    }


async def test_a_drop_is_told_and_then_mended(shown: dict[str, Any], provider: Running) -> None:
    """A resume gives the whole answer in place of the beginning, without a second request; then nothing."""
    whole = [["user", "hello"], ["assistant", Speech(30).text()]]
    assert shown["dropped"]["status"] == "error"
    assert shown["dropped"]["finish"]["isDisconnect"]
    assert shown["dropped"]["texts"] != whole
    assert (shown["resumed"]["status"], shown["resumed"]["texts"]) == ("ready", whole)
    assert (shown["resumedAgain"]["status"], shown["resumedAgain"]["texts"]) == ("ready", whole)
    assert len(asked(provider, "interval=0.02&tokens=30")) == 1


async def test_a_stop_reaches_the_provider(shown: dict[str, Any], provider: Running) -> None:
    """What was said stays, and there is nothing to resume."""
    assert shown["stopped"]["status"] == "ready"
    assert shown["stopped"]["finish"]["isAbort"]
    assert shown["resumedStopped"]["texts"] == shown["stopped"]["texts"]
    (record,) = asked(provider, "endless=1")
    await eventually(lambda: record.state is State.CLIENT_GONE, "the provider's client leaving")
