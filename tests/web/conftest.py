"""What ``client.js`` is tried against: sidecars with every policy that matters to it, Node, and a page."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page

from proxy.demo import Running, start_provider
from proxy.server.app import Sidecar
from proxy.web.serving import serve
from tests.conftest import config_for
from tests.support.forwarder import Forwarder
from tests.support.origin import PROGRAM_PATIENCE
from tests.support.process import free_port

#: The tests that run in Node, and their packages.
NODE = Path(__file__).parent / "node"

#: Seconds that anything in Node may take on a slow machine.
PATIENCE = 120.0

#: A page with the module as an app would have it, what its observer is told, and what its examples write to.
PAGE = """\
<!doctype html>
<title>A page</title>
<link rel="icon" href="data:,">
<p id="output"></p>
<ul id="list"></ul>
<button id="stop">Stop</button>
<script type="module">
  import * as client from "/client.js";
  Object.assign(window, client, { told: [], observe: (record) => told.push(record) });
  window.collect = async (answer) => {
    window.events = [];
    window.answer = answer;
    try {
      for await (const { event, data, id, seq } of answer) events.push([event, data, id, seq]);
    } catch (error) {
      window.failure = error;
    }
    return answer.end.reason;
  };
  window.ready = true;
</script>
"""

#: Every route's policies: nobody wants to wait for a heartbeat or a reconnect.
QUICK = {"websocket": "bridge", "retry": "20ms", "heartbeat": "100ms"}

#: Policies under which the origin of a test in Node is reached, by the path behind ``/o/``.
POLICIES = {
    "upstream-ids": {"ids": "upstream"},
    "principal": {"principal": {"header": "X-User"}},
    "off": {"replay": "off"},
    "gap": {"replay": {"max_events": 4}, "gap": "fail"},
    "signal": {"replay": {"max_events": 4}, "gap": "signal"},
    "{tail:.*}": {},
}


@pytest.fixture(scope="session")
def node() -> Path:
    """Path of Node, with its packages installed. Without it these tests are left out, but not in CI."""
    found = shutil.which("node")
    if found is not None and all((NODE / "node_modules" / each).is_dir() for each in ("typescript", "ws")):
        return Path(found)
    lacking = "no node on PATH" if found is None else f"no packages in {NODE.relative_to(NODE.parents[2])}"
    reason = f"LEFT OUT: client.js in Node: there is {lacking}; tests/install.sh test mends that"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


async def run_node(node: Path, *arguments: str | Path, cwd: Path = NODE, **environ: str) -> tuple[int, str]:
    """Run Node to its end; return its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        node, *arguments, cwd=cwd, env=os.environ | {"NO_COLOR": "1"} | environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, SIGKILL)  # its test runner has children of its own
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Stage:
    """The provider, a sidecar in front of it and of an origin in Node, and a wire to the sidecar."""

    provider: Running
    sidecar: Sidecar
    wire: Forwarder
    origin_port: int

    @property
    def environ(self) -> dict[str, str]:
        """Where a test in Node finds all of it."""
        return {
            "SIDECAR": self.sidecar.url,
            "PROVIDER": self.provider.url,
            "WIRE": self.wire.url,
            "ORIGIN_PORT": str(self.origin_port),
        }


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A stage of the test's own."""
    provider, port = await start_provider(), free_port()
    scripted = [
        {"name": f"o{number}", "path": f"/o/{path}", "upstream": "origin", **QUICK, **policy}
        for number, (path, policy) in enumerate(POLICIES.items())
    ]
    provided = [
        {"name": name, "path": path, "upstream": "provider", **QUICK}
        for name, path in {"v1": "/v1/{tail:.*}", "v1beta": "/v1beta/{tail:.*}", "chat": "/api/chat"}.items()
    ]
    feed = {"name": "feed", "path": "/api/events", "upstream": "provider", "methods": ["GET"], **QUICK}
    upstreams = {"provider": {"url": provider.url}, "origin": {"url": f"http://127.0.0.1:{port}"}}
    routes = [*scripted, *provided, feed]
    sidecar = Sidecar(config_for("", node="node-1", upstreams=upstreams, routes=routes))
    await sidecar.start()
    async with Forwarder(sidecar.url) as wire:
        yield Stage(provider, sidecar, wire, port)
    await sidecar.stop()
    await provider.close()


@dataclass(frozen=True, slots=True)
class Site:
    """A sidecar behind a wire, with the provider and the page."""

    provider: Running
    sidecar: Sidecar
    wire: Forwarder
    pages: str

    async def open(self, browser: Browser, url: str | None = None) -> Page:
        """Open the page in a new tab."""
        page = await (await browser.new_context()).new_page()
        page.set_default_timeout(PROGRAM_PATIENCE * 1000)
        await page.goto(f"{url or self.wire.url}/page")
        await page.wait_for_function("window.ready")
        return page


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    """A site of the test's own; pages of ``app.example`` may read its streams."""
    app = web.Application()
    app.router.add_get("/page", _page)
    app.router.add_get("/{name}", _asset)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    provider = await start_provider()
    policy = {"upstream": "provider", **QUICK}
    sidecar = Sidecar(
        config_for(
            "",
            upstreams={"pages": {"url": f"http://127.0.0.1:{port}"}, "provider": {"url": provider.url}},
            routes=[
                {"name": "page", "path": "/page", "upstream": "pages"},
                {"name": "module", "path": "/client.js", "upstream": "pages"},
                {"name": "feed", "path": "/api/events", "methods": ["GET"], **policy},
                {"name": "all", "path": "/{tail:.*}", **policy},
            ],
            origins=[f"http://app.example:{port}"],
        )
    )
    await sidecar.start()
    async with Forwarder(sidecar.url) as wire:
        yield Site(provider, sidecar, wire, f"http://app.example:{port}")
    await sidecar.stop()
    await provider.close()
    await runner.cleanup()


async def _page(_request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def _asset(request: web.Request) -> web.Response:
    return serve(request, request.match_info["name"])
