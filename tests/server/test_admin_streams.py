"""``/streams`` when there are many: chosen, sorted, bounded, with totals that hold for all of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy import __version__
from proxy.server.app import Sidecar
from proxy.server.listing import ORDERS, SLICE, View, listing
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Answer, ask
from tests.support.origin import Connection

#: How streams are read from the upstream is nothing to a listing.
pytestmark = pytest.mark.parametrize("start_sidecar", [True], indirect=True, ids=["listing"])


async def script(connection: Connection) -> None:
    """``/running/3`` sends three events and stays, ``/finished/3`` ends, ``/broken/3`` breaks off."""
    _, kind, number = connection.target.split("/")
    await connection.start_stream()
    for event in range(int(number)):
        await connection.chunk(b"data: %d\n\n" % event)
    if kind == "finished":
        await connection.end()
    elif kind == "broken":
        await connection.close()
    else:
        await connection.gone()


@pytest.fixture
async def sidecar(start_sidecar: StartSidecar, start_origin: StartOrigin) -> Sidecar:
    """A sidecar with two routes to the script."""
    return await start_sidecar(
        "",
        upstreams={"origin": {"url": (await start_origin(script)).url}},
        routes=[
            {"name": "broken", "path": "/broken/{tail:.*}", "upstream": "origin"},
            {"name": "rest", "path": "/{tail:.*}", "upstream": "origin"},
        ],
    )


async def run(sidecar: Sidecar, *targets: str) -> list[Answer]:
    """Begin streams one after the other, and read what they send."""
    answers = []
    for target in targets:
        answer = await ask(sidecar.url, target)
        await answer.blocks(int(target.rpartition("/")[2]))
        answers.append(answer)
    ending = sum(not target.startswith("/running") for target in targets)
    await eventually(lambda: sum(relay.finished for relay in sidecar.hub.store) == ending, "the ends")
    return answers


async def listed(sidecar: Sidecar, query: str = "") -> Any:
    """What ``/streams`` says."""
    answer = await ask(sidecar.admin_url, f"/streams?{query}", headers={"Connection": "close"})
    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    return await answer.json()


async def events(sidecar: Sidecar, query: str = "") -> list[int]:
    """The numbers of events of the rows, in their order: by these the test knows them."""
    return [row["last"] for row in (await listed(sidecar, query))["streams"]]


async def test_running_streams_come_first(sidecar: Sidecar) -> None:
    """Of each kind the newest, unless something else is wanted."""
    await run(sidecar, "/running/3", "/finished/9", "/running/7", "/broken/5", "/running/1")
    assert await events(sidecar) == [1, 7, 3, 5, 9]
    assert await events(sidecar, "sort=oldest") == [3, 7, 1, 9, 5]
    assert await events(sidecar, "sort=events") == [7, 3, 1, 9, 5]
    assert await events(sidecar, "sort=bytes") == [7, 3, 1, 9, 5]
    assert await events(sidecar, "sort=silent") == [3, 7, 1, 9, 5]


async def test_a_listing_is_bounded(sidecar: Sidecar) -> None:
    """As many rows as were asked for, the first of all; the totals know of the others."""
    await run(sidecar, "/running/3", "/finished/9", "/running/7")
    assert await events(sidecar, "limit=2&sort=events") == [7, 3]
    assert await events(sidecar, "limit=0") == []
    told = await listed(sidecar, "limit=1&state=running")
    assert (len(told["streams"]), told["totals"]["matched"], told["totals"]["finished"]) == (1, 2, 1)


async def test_streams_are_chosen(sidecar: Sidecar) -> None:
    """By state, by how they ended, by route, by the beginning of an id that a log would show."""
    running, _, _ = await run(sidecar, "/running/3", "/finished/9", "/broken/5")
    assert await events(sidecar, "state=running") == [3]
    assert await events(sidecar, "state=live&route=rest") == [3]
    assert await events(sidecar, "state=finished") == [5, 9]
    assert await events(sidecar, "state=complete") == [9]
    assert await events(sidecar, "state=truncated") == [5]
    assert await events(sidecar, "state=broken") == [5]
    assert await events(sidecar, "route=broken") == [5]
    assert await events(sidecar, "route=else") == []
    stream = running.header("stream-id") or ""
    assert await events(sidecar, f"stream={stream[:6]}") == [3]
    assert await events(sidecar, f"stream={stream}") == [], (
        "a whole id is not looked up: it would be confirmed"
    )


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=-1", "limit=1e9", "limit=1234567", "state=odd", "sort=odd"]
)
async def test_what_makes_no_sense_is_refused(sidecar: Sidecar, query: str) -> None:
    """With what would have made some; a filter that is silently ignored would mislead."""
    answer = await ask(sidecar.admin_url, f"/streams?{query}")
    assert answer.status == 400
    told = (await answer.body()).decode()
    assert told.startswith(query)
    assert "must be" in told


async def test_a_row_tells_what_the_log_will(sidecar: Sidecar) -> None:
    """And, while it runs, for how long it has been silent."""
    await run(sidecar, "/running/3", "/finished/2")
    running, finished = (await listed(sidecar))["streams"]
    assert (running["upstream"], running["method"], running["path"]) == ("origin", "GET", "/running/3")
    assert (running["ended"], running["max_bytes"], running["readers_ever"]) == (None, 4 * 2**20, 1)
    assert 0 <= running["silent"] <= running["age"]
    assert (finished["silent"], finished["readers"]) == (None, 0)
    assert 0 <= finished["ended"] <= finished["age"]


async def test_totals_and_the_process(sidecar: Sidecar) -> None:
    """They hold for all streams, whatever was asked for; the start tells a restarted process."""
    (running,) = await run(sidecar, "/running/3")
    told = await listed(sidecar, "state=paused")
    assert told["streams"] == []
    expected = {"matched": 0, "running": 1, "lingering": 0, "paused": 0, "unrecorded": 0, "finished": 0}
    assert expected.items() <= told["totals"].items()
    assert (told["totals"]["readers"], told["totals"]["websockets"]) == (1, 0)
    assert told["totals"]["routes"] == {"broken": 0, "rest": 1}
    assert told["totals"]["bytes"] == sidecar.hub.store.bytes > 0
    assert told["sidecar"]["version"] == __version__
    assert told["sidecar"]["started"] <= (await listed(sidecar))["streams"][0]["started"]

    running.close()
    await eventually(lambda: not sidecar.hub.readers, "the reader's end")
    assert (await listed(sidecar))["totals"]["lingering"] == 1
    drain = asyncio.create_task(sidecar.drain())
    await eventually(lambda: sidecar.hub.draining, "the drain")
    assert (await listed(sidecar))["sidecar"]["draining"] is True
    drain.cancel()
    await asyncio.gather(drain, return_exceptions=True)


async def test_a_long_listing_lets_streams_go_on(sidecar: Sidecar) -> None:
    """The loop is never held for as long as all rows take: they are put together in slices."""
    await run(sidecar, "/running/3", *["/finished/1"] * 600)
    making = asyncio.create_task(listing(sidecar.hub, View()))
    turns = 0
    while not making.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(json.loads(await making)["streams"]) == 601
    assert turns > 600 // SLICE


async def test_every_order_is_one(sidecar: Sidecar) -> None:
    """Each can be asked for, and shows every stream."""
    await run(sidecar, "/running/3", "/finished/2")
    for order in ORDERS:
        assert sorted(await events(sidecar, f"sort={order}")) == [2, 3]


# The page's side of it


async def test_a_browser_gets_the_page_and_curl_the_list(sidecar: Sidecar) -> None:
    """One address, by what is accepted; caches are told."""
    page = await ask(sidecar.admin_url, "/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.header("content-type") == "text/html; charset=utf-8"
    assert b"_assets/streams.js" in await page.body()
    plain = await ask(sidecar.admin_url, "/", headers={"Accept": "*/*"})
    assert await plain.body() == b"/metrics\n/healthz\n/readyz\n/streams\n"
    assert page.header("vary") == plain.header("vary") == "Accept"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("localhost:9090", 200),
        ("sidecar", 200),
        ("sidecar.team.svc.cluster.local", 200),
        ("ops.example.com", 200),
        ("Admin.example.com:9090", 200),
        ("rebound.example.net", 403),
        ("127.0.0.1.example.net:9090", 403),
    ],
)
async def test_no_page_reads_it_under_a_name_of_its_own(
    host: str, status: int, start_sidecar: StartSidecar
) -> None:
    """The attack: a page's name resolves to 127.0.0.1 a moment later, and what is there is its own origin."""
    admin = {"listen": "127.0.0.1:0", "hosts": ["admin.example.com"]}
    sidecar = await start_sidecar("http://127.0.0.1:9", hosts=["ops.example.com"], admin=admin)
    answer = await ask(sidecar.admin_url, "/streams", headers={"Host": host})
    assert answer.status == status
    assert (b"'admin.hosts'" in await answer.body()) is (status == 403)


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/streams", "/streams?sort=odd", "/none"])
async def test_nothing_is_for_pages_of_others(sidecar: Sidecar, path: str) -> None:
    """Not as a script or an image either, and whatever the status."""
    answer = await ask(sidecar.admin_url, path)
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("cross-origin-resource-policy") == "same-origin"
    assert answer.header("access-control-allow-origin") is None


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("streams.js", "text/javascript; charset=utf-8"),
        ("streams.css", "text/css; charset=utf-8"),
        ("mark.svg", "image/svg+xml"),
    ],
)
async def test_assets_have_types_and_validators(sidecar: Sidecar, name: str, content_type: str) -> None:
    """So that nothing is taken for what it is not, and nothing is sent twice."""
    path = f"/_assets/{name}"
    whole = await ask(sidecar.admin_url, path)
    assert (whole.status, whole.header("content-type")) == (200, content_type)
    assert whole.header("x-content-type-options") == "nosniff"
    assert whole.header(
        "content-security-policy",
    ) == (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    )
    assert await whole.body()
    etag = whole.header("etag") or ""
    for validators in (etag, f'"other", W/{etag}', "*"):
        again = await ask(sidecar.admin_url, path, headers={"If-None-Match": validators})
        assert (again.status, await again.body()) == (304, b"")
    assert (await ask(sidecar.admin_url, path, headers={"If-None-Match": '"other"'})).status == 200
    assert (await ask(sidecar.admin_url, path, method="HEAD")).status == 200


@pytest.mark.parametrize(
    "name", ["", "none.js", "__init__.py", "serving.py", "..%2fcli.py", "%2e%2e/app.py", "streams"]
)
async def test_nothing_else_is_handed_out(sidecar: Sidecar, name: str) -> None:
    """No path leads out of the directory, and no Python is shown."""
    assert (await ask(sidecar.admin_url, f"/_assets/{name}")).status == 404
