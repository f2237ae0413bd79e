"""``node``: ids that tell an edge which of several sidecars holds a stream."""

from __future__ import annotations

import re

import pytest

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar
from tests.server.test_admin import scrape
from tests.support.bridge import begin, bridge, event
from tests.support.client import ask
from tests.support.script import holds, streams
from tests.support.websocket import connect

ID = re.compile(r"a-[\w-]{22}", re.ASCII)


async def misrouted(sidecar: Sidecar) -> float:
    """How many requests named another node's stream."""
    return (await scrape(sidecar)).value("sidecar_misrouted_requests_total")


async def test_ids_begin_with_the_node(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The header, the links and every block; the stream can be read, inspected and resumed by them."""
    origin = await start_origin(streams(b"data: a\n\n", b"data: b\n\n"))
    sidecar = await start_sidecar(origin.url, node="a")
    answer = await ask(sidecar.url, "/x", method="POST")
    stream = answer.header("stream-id")
    assert stream is not None
    assert ID.fullmatch(stream)
    assert f"</_streams/{stream}>" in (answer.header("link") or "")
    assert (
        await answer.rest() == f"id: {stream}.1\nretry: 3000\ndata: a\n\nid: {stream}.2\ndata: b\n\n".encode()
    )
    resumed = await ask(sidecar.url, "/x", method="POST", headers={"Last-Event-ID": f"{stream}.1"})
    assert await resumed.rest() == f"id: {stream}.2\nretry: 3000\ndata: b\n\n".encode()
    state = await ask(sidecar.url, f"/_streams/{stream}/state")
    assert (await state.json())["reason"] == "complete"
    assert await misrouted(sidecar) == 0


async def test_a_bridge_names_its_node_too(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A stream that was begun over WebSocket is read over HTTP where its id leads."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, node="a", route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert ID.fullmatch(stream)
    assert await socket.hear() == event(stream, 1, "a")
    answer = await ask(sidecar.url, f"/_streams/{stream}")
    assert await answer.blocks(1) == [f"id: {stream}.1\nretry: 3000\ndata: a\n\n".encode()]


async def test_operators_see_the_node_and_six_characters(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A dash tells them apart; what is shown opens nothing."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, node="web-0")
    stream = (await ask(sidecar.url, "/x")).header("stream-id")
    assert stream is not None
    listed = await ask(sidecar.admin_url or "", "/streams")
    shown = (await listed.json())["streams"][0]["stream"]
    assert shown == stream[: len("web-0-") + 6]
    assert (await ask(sidecar.url, f"/_streams/{shown}")).status == 404


@pytest.mark.parametrize(
    ("stream", "strays"),
    [("b-" + "A" * 22, 1), ("a-" + "A" * 22, 0), ("A" * 22, 0), ("a-b-" + "A" * 22, 1), ("b-" + "A" * 21, 0)],
)
async def test_a_stream_of_another_node_is_unknown_and_counted(
    stream: str, strays: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The answer is the same for all, but operators see that their edge sent it to the wrong sidecar."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, node="a")
    assert (await ask(sidecar.url, f"/_streams/{stream}")).status == 404
    assert await misrouted(sidecar) == strays
    assert not origin.requests


async def test_without_a_node_every_named_one_is_another(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """On a stream's own route as well: it is not the app's id, and nothing is asked of the app."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/x", method="POST", headers={"Last-Event-ID": f"b-{'A' * 22}.3"})
    assert answer.status == 404
    assert await misrouted(sidecar) == 1
    assert not origin.requests
