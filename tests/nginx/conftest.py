"""The shipped nginx configuration, run by the real program, in front of real sidecars."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartCommand, StartSidecar, sidecars
from tests.nginx.curl import Curl
from tests.support.client import Answer, ask
from tests.support.command import Command, write_config
from tests.support.nginx import Certificate, Nginx, free_port, http, template
from tests.support.process import left_out, program
from tests.support.websocket import Socket, connect

#: Where tests/install.sh puts a newer nginx than the machine's.
CURRENT = Path(__file__).parent / ".current"


@pytest.fixture(scope="session")
def certificate() -> Iterator[Certificate]:
    """A certificate for 127.0.0.1."""
    with Certificate() as certificate:
        yield certificate


@pytest.fixture
async def start_sidecar() -> AsyncIterator[StartSidecar]:
    """Start sidecars as everywhere, but on the fast path only: what nginx does is the same on both."""
    async with sidecars(trusted_peers=["127.0.0.1"]) as start:
        yield start


@dataclass(frozen=True, slots=True)
class Edge:
    """An nginx with the shipped template. It speaks TLS at ``url``, and redirects to it at ``plain_url``."""

    nginx: Nginx
    certificate: Certificate
    url: str
    plain_url: str

    @property
    def tls(self) -> ssl.SSLContext:
        """What its certificate is trusted by."""
        return self.certificate.client()

    async def ask(self, target: str = "/", **options: Any) -> Answer:
        """Send one request over HTTP/1.1, with options as for ``client.ask``."""
        return await ask(self.url, target, tls=self.tls, **options)

    def curl(self, target: str, *options: str | Path) -> Curl:
        """Send one request over HTTP/2."""
        return Curl(self.certificate, self.url + target, *options)

    async def connect(self, target: str = "/") -> Socket:
        """Open a WebSocket."""
        return await connect(self.url, target, tls=self.tls)


#: Starts a sidecar as a process of its own, in front of an upstream; more keys are its configuration's.
StartProcess = Callable[..., Awaitable[Command]]


@pytest.fixture
async def start_process(start_command: StartCommand, tmp_path: Path) -> StartProcess:
    """Start sidecars that can be signalled, with a route for everything."""
    numbers = itertools.count()

    async def start(upstream: str, **top: Any) -> Command:
        directory = tmp_path / f"sidecar{next(numbers)}"
        directory.mkdir()
        return await start_command("serve", write_config(directory, upstream, **top))

    return start


#: Starts an nginx in front of sidecars, given by URL, with the nodes of a dict from tags to URLs.
StartEdge = Callable[..., Awaitable[Edge]]


def servers(urls: Sequence[str]) -> str:
    """Return SIDECARS for these."""
    return " ".join(f"server {urlsplit(url).netloc};" for url in urls)


def shipped(
    certificate: Certificate, http_port: int, https_port: int, *urls: str, nodes: dict[str, str] | None = None
) -> str:
    """Return an nginx.conf around the template, filled in for the sidecars at ``urls``.

    Around it, nginx is told to compress whatever there is.
    """
    variables = {"SIDECARS": servers(urls)}
    if nodes is not None:
        variables["SIDECAR_NODES"] = "".join(f"{tag} {urlsplit(url).netloc};" for tag, url in nodes.items())
    conf = template(http=http_port, https=https_port, certificate=certificate, **variables)
    return http(f"gzip_types *; gzip_proxied any; gzip_min_length 0;\n{conf}")


@pytest.fixture(params=["installed", pytest.param("current", marks=pytest.mark.long)])
def nginx_command(request: pytest.FixtureRequest) -> list[str | Path]:
    """The machine's nginx, and the newest one that tests/install.sh could get, run by its own loader."""
    if request.param == "installed":
        return [program("nginx")]
    if not (CURRENT / ".installed").exists():
        left_out("there is no current nginx; tests/install.sh test-all would install one")
    (libraries,) = CURRENT.glob("usr/lib/*-linux-gnu*")
    (loader,) = libraries.glob("ld-linux*.so.*")
    return [loader, "--library-path", libraries, CURRENT / "usr/sbin/nginx"]


@asynccontextmanager
async def edges(certificate: Certificate, command: list[str | Path]) -> AsyncIterator[StartEdge]:
    """Start nginx with the shipped template."""
    async with AsyncExitStack() as started:

        async def start(*urls: str, nodes: dict[str, str] | None = None) -> Edge:
            plain, secure = free_port(), free_port()
            conf = shipped(certificate, plain, secure, *urls, nodes=nodes)
            nginx = await started.enter_async_context(Nginx(conf, command=command))
            return Edge(nginx, certificate, f"https://127.0.0.1:{secure}", f"http://127.0.0.1:{plain}")

        yield start


@pytest.fixture
async def start_edge(certificate: Certificate, nginx_command: list[str | Path]) -> AsyncIterator[StartEdge]:
    """Start nginx with the shipped template."""
    async with edges(certificate, nginx_command) as start:
        yield start
