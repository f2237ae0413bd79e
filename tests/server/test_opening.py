"""An early open: what a client that has its 200 already is told when the upstream then gives no stream."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from proxy.server import opening
from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Answer, ask
from tests.support.origin import Connection, Origin

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","stream":true,"messages":[]}'

#: The head of an error whose body never comes.
HEAD = b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


async def opened_early(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> tuple[Origin, Sidecar, Answer]:
    """A client that has its 200, and an upstream that has sent ``HEAD``."""
    opened = asyncio.Event()

    async def script(connection: Connection) -> None:
        await opened.wait()
        await connection.send(HEAD)
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"open_after": "10ms"})
    answer = await ask(sidecar.url, CHAT, method="POST", body=BODY)
    assert answer.status == 200
    opened.set()
    return origin, sidecar, answer


def opening_tasks() -> list[asyncio.Task[object]]:
    """The tasks that wait for an upstream behind a client that was answered."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("opening ")]


def is_quoting() -> bool:
    """Whether the body of an upstream's error is waited for."""
    waits = [getattr(task.get_coro(), "cr_await", None) for task in opening_tasks()]
    return any(getattr(wait, "__name__", "") == "_quoted" for wait in waits)


async def test_an_error_whose_body_never_comes_is_told(
    start_origin: StartOrigin, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is quoted for a bounded time: no client hangs on the heartbeats of a stream that failed."""
    monkeypatch.setattr(opening, "QUOTE_SECONDS", 0.05)
    origin, sidecar, answer = await opened_early(start_origin, start_sidecar)
    told = await answer.rest()
    assert b"the upstream answered 500 application/json" in told
    assert told.count(b"data: ") == 1
    await origin.requests[0].peer_closed.wait()
    assert not sidecar.hub.running


async def test_a_cancel_while_an_error_is_read_ends_the_stream_once(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The cancel tells its reader; the answer that then breaks off has nothing to add."""
    with structlog.testing.capture_logs() as lines:
        _, sidecar, answer = await opened_early(start_origin, start_sidecar)
        await eventually(is_quoting, "the error's body is waited for")
        address = f"/_streams/{answer.header('stream-id')}"
        await ask(sidecar.url, f"{address}/cancel", method="POST")
        assert (await answer.rest()).count(b"data: ") == 1
        await eventually(lambda: not opening_tasks(), "the opening is over")
        state = await (await ask(sidecar.url, f"{address}/state")).json()
    assert (state["reason"], state["last"]) == ("cancelled", 1)
    assert [line["event"] for line in lines].count("stream") == 1
    assert not [line for line in lines if line["log_level"] in ("error", "critical")]
