"""The page, built; and what docs/ai-sdk.md says to put behind it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from proxy.config import Config, parse
from proxy.demo import Running, start_provider
from proxy.server.app import Sidecar
from tests.support.command import PROJECT
from tests.support.node import node_22
from tests.support.origin import PROGRAM_PATIENCE

#: The page's sources, and the scripts that run in Node.
REACT = Path(__file__).parent

DOCS = PROJECT / "docs" / "ai-sdk.md"


@pytest.fixture(scope="session")
def node() -> Path:
    """Node 22, with the packages of the page."""
    return node_22(REACT)


@pytest.fixture(scope="session")
def built(node: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the page as Vite builds it."""
    directory = tmp_path_factory.mktemp("page")
    vite = REACT / "node_modules" / "vite" / "bin" / "vite.js"
    arguments = ["build", "--logLevel", "error", "--emptyOutDir", "--outDir", directory]
    done = subprocess.run([node, vite, *arguments], cwd=REACT, capture_output=True, timeout=PROGRAM_PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def documented(provider: str, app: str) -> Config:
    """Return the configuration that the documentation shows, in front of these."""
    shown = re.search(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    text = re.sub(r"https://api\.\w+\.com", provider, shown[1]).replace("http://127.0.0.1:3000", app)
    keys = {"OPENAI_API_KEY": "sk-test", "ANTHROPIC_API_KEY": "sk-test"}
    return parse(f"listen: 127.0.0.1:0\n{text}", "docs/ai-sdk.md", keys)


@dataclass(frozen=True, slots=True)
class Stage:
    """The provider, and a sidecar in front of it and of the page."""

    provider: Running
    sidecar: Sidecar


@pytest_asyncio.fixture(loop_scope="module")
async def stage(built: Path) -> AsyncIterator[Stage]:
    """A stage of the test's own."""

    async def show(_request: web.Request) -> web.FileResponse:
        page = web.FileResponse(built / "index.html")
        page.set_cookie("session", "anna", httponly=True, samesite="Strict")
        return page

    app = web.Application()
    app.router.add_get("/", show)
    app.router.add_static("/assets", built / "assets")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider = await start_provider()
    sidecar = Sidecar(documented(provider.url, f"http://127.0.0.1:{runner.addresses[0][1]}"))
    await sidecar.start()
    yield Stage(provider, sidecar)
    await sidecar.stop()
    await provider.close()
    await runner.cleanup()
