"""Where one chain is built: real servers on loopback ports, which end with it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from proxy.server.app import Sidecar
from tests.conftest import config_for
from tests.nginx.edges import HOSTS, Edge, Place, Sidecars
from tests.support.forwarder import Forwarder
from tests.support.nginx import FOLDER, Certificate, Nginx, http, template
from tests.support.origin import Origin, Script
from tests.support.process import Process, free_port, program

#: What the demo serves, in a sidecar whose heartbeat is short enough for a test.
ROUTES: list[dict[str, Any]] = [
    {"name": "events", "path": "/api/events", "upstream": "origin", "methods": ["GET"], "reconnect": True},
    {"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"},
]

HEARTBEAT = "500ms"

#: A location that does all a stream needs, as a team may have written it without our template.
SOUND = {
    "proxy_http_version": "1.1",
    "proxy_set_header Host": "$http_host",
    "proxy_set_header Upgrade": "$http_upgrade",
    "proxy_set_header Connection": "$connection_upgrade",
    "proxy_buffering": "off",
    "proxy_read_timeout": "1h",
}

#: What belongs to it in http{}.
UPGRADE = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"


class Site:
    """Servers of one chain, in front of ``provider``, a base URL."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._running.aclose()

    async def sidecar(self, upstream: str | None = None, *, node: str | None = None, **policies: str) -> str:
        """Start a sidecar in front of ``upstream``, or of the provider; return its base URL."""
        top: dict[str, Any] = {"routes": ROUTES, "defaults": {"heartbeat": HEARTBEAT, **policies}}
        if node is not None:
            top["node"] = node
        sidecar = Sidecar(config_for(upstream or self.provider, **top))
        await sidecar.start()
        self._running.push_async_callback(sidecar.stop)
        return sidecar.url

    async def app(self, script: Script) -> str:
        """Start an app without a sidecar; return its base URL."""
        app = Origin(script)
        await app.start()
        self._running.push_async_callback(app.stop)
        return app.url

    async def line(self, upstream: str, *, rate: float) -> str:
        """Lay a line of ``rate`` bytes per second to a base URL; return the URL of its near end."""
        line = await self._running.enter_async_context(Forwarder(upstream, rate=rate))
        return line.url

    async def edge(self, upstream: str, changes: Mapping[str, str] | None = None, *, more: str = "") -> str:
        """Start an nginx that is sound but for ``changes``; return its base URL.

        ``upstream`` is a base URL, ``more`` are further lines of its server.
        """
        port = free_port()
        await self.nginx(server(port, location("/", upstream, changes), more))
        return f"http://127.0.0.1:{port}"

    async def nginx(self, contents: str) -> None:
        """Start an nginx with these contents of http{}."""
        await self._running.enter_async_context(Nginx(http(f"{UPGRADE}\n{contents}")))

    async def caddy(self, upstream: str, *, proxying: str = "", options: str = "") -> str:
        """Start a Caddy; return its base URL. WebSockets pass it untouched.

        ``proxying`` stands in its reverse_proxy, ``options`` among its global options.
        """
        port, address, directory = free_port(), upstream.removeprefix("http://"), self._directory()
        (directory / "Caddyfile").write_text(
            f"{{\n admin off\n auto_https off\n {options}\n}}\n"
            f"http://127.0.0.1:{port} {{\n"
            f"@socket header Upgrade websocket\n reverse_proxy @socket {address}\n"
            f"reverse_proxy {address} {{\n {proxying}\n }}\n"
            "}\n",
            "utf-8",
        )
        caddy = Process(
            *(program("caddy"), "run", "--config", "Caddyfile", "--adapter", "caddyfile"),
            ports=[port],
            output=directory / "output",
            cwd=directory,
            environ=dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(directory)),
        )
        await self._running.enter_async_context(caddy)
        return f"http://127.0.0.1:{port}"

    async def shipped_template(self) -> tuple[str, str]:
        """Start an nginx with the shipped template and two sidecars; return as ``shipped``."""
        nodes = {node: (await self.sidecar(node=node)).removeprefix("http://") for node in HOSTS}
        certificate, port = self._running.enter_context(Certificate()), free_port()
        contents = template(
            http=free_port(),
            https=port,
            certificate=certificate,
            SIDECARS=servers(*nodes.values()),
            SIDECAR_NODES=" ".join(f"{node} {address};" for node, address in nodes.items()),
        )
        await self._running.enter_async_context(Nginx(http(contents)))
        return f"https://localhost:{port}", str(certificate.ca)

    async def shipped_include(self) -> str:
        """Start an nginx with the shipped include in a server block; return its base URL."""
        port, sidecar = free_port(), (await self.sidecar()).removeprefix("http://")
        everything = "location / { try_files /dev/null @sidecar; }"
        await self.nginx(
            f"include {FOLDER}/sse-sidecar-http.conf;"
            f"upstream sidecars {{ {servers(sidecar)} }}"
            "map $sidecar_node $sidecar_of_node { default sidecars; }"
            + server(port, f"include {FOLDER}/sse-sidecar.conf;", everything)
        )
        return f"http://127.0.0.1:{port}"

    async def shipped(self, name: str) -> tuple[str, str]:
        """Start an edge as it is shipped, with two sidecars; return its base URL and its CA's file."""
        sidecars = Sidecars(self.provider, {"HEARTBEAT": HEARTBEAT})
        for node in HOSTS:
            await sidecars.start(node)
            self._running.push_async_callback(sidecars.stop, node)
        certificate = self._running.enter_context(Certificate())
        place = Place(self._directory(), certificate, sidecars.port, sidecars.admin_port)
        edge = await self._running.enter_async_context(Edge(name, place))
        return edge.url, str(edge.authority)

    def _directory(self) -> Path:
        return Path(self._running.enter_context(tempfile.TemporaryDirectory(prefix="chain-")))


def location(path: str, upstream: str, changes: Mapping[str, str] | None = None) -> str:
    """Return a location of nginx: the sound directives, changed and added to."""
    directives = {"proxy_pass": upstream, **SOUND, **(changes or {})}
    return f"location {path} {{ {' '.join(f'{name} {value};' for name, value in directives.items())} }}"


def server(port: int, *lines: str) -> str:
    """Return a server of nginx."""
    return f"server {{ listen 127.0.0.1:{port}; {' '.join(lines)} }}"


def servers(*addresses: str) -> str:
    """Return the servers of an upstream of nginx."""
    return " ".join(f"server {address};" for address in addresses)
