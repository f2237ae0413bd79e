"""The composition root: a configuration becomes listeners, and they end in good order.

``Sidecar`` owns everything that lives as long as the process: the hub, the upstreams' pools, the two
listeners, and the watch over the configuration file.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from proxy.config import Config, load
from proxy.errors import ConfigError
from proxy.server import problem
from proxy.server.admin import admin_app
from proxy.server.gateway import Gateway
from proxy.server.hub import Hub
from proxy.server.upstream import Upstream
from proxy.server.wire import Front
from proxy.telemetry import Telemetry

#: How often the configuration file is looked at, in seconds.
WATCH_SECONDS = 1.0

#: How often a drain looks whether it is over, in seconds.
DRAIN_STEP = 0.05

#: A dismissed reader is told to come back after about so long, in milliseconds: by then a balancer
#: knows that this sidecar is leaving.
COME_BACK_MS = 1000

#: How long handlers get to end after their readers were dismissed, in seconds.
LAST_WORDS = 2.0

#: Connections that may wait to be accepted: streams come in waves when a balancer fails over.
BACKLOG = 1024


class Sidecar:
    """One running sidecar.

    ``source`` is the configuration's file, watched and reloaded; without one the configuration given
    stays. ``start`` raises OSError where an address cannot be listened on.
    """

    def __init__(self, config: Config, *, source: Path | None = None) -> None:
        self.config = config
        self.telemetry = Telemetry()
        self._source = source
        self._seen = _identity(source)
        self._upstreams: dict[str, Upstream] = {}
        self._retired: list[Upstream] = []
        self._runner: web.BaseRunner | None = None
        self._admin_runner: web.AppRunner | None = None
        self._site: web.BaseSite | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen."""
        self.hub = Hub(self.config, self.telemetry)
        self._upstreams = self._reconciled(self.config)
        self.gateway = Gateway(self.hub, self.config, self._upstreams)
        self.telemetry.config_loaded_at = time.time()
        front = Front(self.gateway.handle, max_headers=self.config.limits.max_headers)
        self._runner = web.ServerRunner(front, shutdown_timeout=LAST_WORDS)
        try:
            self._site = await _listen(self._runner, self.config.listen, _tls(self.config))
            if self.config.admin is not None:
                self._admin_runner = web.AppRunner(
                    admin_app(self), access_log=None, shutdown_timeout=LAST_WORDS
                )
                await _listen(self._admin_runner, self.config.admin.listen, None)
        except BaseException:
            await self.stop()
            raise
        if self._source is not None:
            self._watch = self.hub.spawn(self._watch_file(), "watch the configuration")

    @property
    def url(self) -> str:
        """Base URL of the data plane."""
        scheme = "https" if self.config.tls is not None else "http"
        return _url(self._runner, scheme)

    @property
    def admin_url(self) -> str:
        """Base URL of the admin listener."""
        return _url(self._admin_runner, "http")

    @property
    def ready(self) -> bool:
        """Whether new clients should be sent here."""
        return not self.hub.draining

    # Reload

    def reload(self) -> bool:
        """Read the configuration file again and answer by it; return whether it was good.

        A bad file changes nothing. What runs keeps what it began with.
        """
        if self._source is None:
            return False
        self._seen = _identity(self._source)
        try:
            config = load(self._source)
        except ConfigError as error:
            self.telemetry.reloads["refused"] += 1
            self.telemetry.log.error("configuration refused; the old one stays in force", problems=str(error))
            return False
        self._apply(config)
        self.telemetry.reloads["loaded"] += 1
        self.telemetry.config_loaded_at = time.time()
        self.telemetry.log.info("configuration loaded", source=str(self._source), routes=len(config.routes))
        return True

    def _apply(self, config: Config) -> None:
        for name in _needs_restart(self.config, config):
            self.telemetry.log.warning("this setting takes effect at the next start", setting=name)
        self.config = config
        self._upstreams = self._reconciled(config)
        self.hub.configure(config)
        self.gateway.configure(config, self._upstreams)

    def _reconciled(self, config: Config) -> dict[str, Upstream]:
        """Keep the pools of upstreams that did not change; retire the others."""
        kept = {
            name: upstream
            for name, upstream in self._upstreams.items()
            if config.upstreams.get(name) == upstream.settings
        }
        for name, upstream in self._upstreams.items():
            if name not in kept:
                upstream.retire()
                self._retired.append(upstream)
        errors = self.telemetry.upstream_errors
        return {
            name: kept.get(name) or Upstream(name, settings, errors)
            for name, settings in config.upstreams.items()
        }

    async def _watch_file(self) -> None:
        """Reload when the file changes, also by the symlink swap of a Kubernetes ConfigMap."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if _identity(self._source) != self._seen:
                self.reload()

    # The end

    async def drain(self) -> None:
        """Take no new connections, give what runs ``drain`` seconds, then dismiss the readers."""
        if self.hub.draining:
            return
        self.hub.draining = True
        self.telemetry.draining = True
        self.telemetry.log.info("draining", seconds=self.config.drain, streams=len(self.hub.running))
        if self._site is not None:
            await self._site.stop()
        await self._until_idle(self.config.drain)
        for relay in list(self.hub.running):
            for reader in list(relay.readers):
                reader.dismiss(problem.jittered(COME_BACK_MS))
        await self._until_idle(LAST_WORDS)

    async def _until_idle(self, seconds: float) -> None:
        """Wait until nothing is being answered, or so long."""
        until = self.hub.loop.time() + seconds
        while self.gateway.in_flight and self.hub.loop.time() < until:
            await asyncio.sleep(DRAIN_STEP)

    async def stop(self) -> None:
        """Close everything that is open: the door, the streams, the upstreams, what is left of clients."""
        if self._runner is not None:
            for site in self._runner.sites:
                await site.stop()
        await self.hub.close()
        for upstream in (*self._upstreams.values(), *self._retired):
            await upstream.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._admin_runner is not None:
            await self._admin_runner.cleanup()


def _needs_restart(old: Config, new: Config) -> Iterator[str]:
    for name in ("listen", "tls", "admin"):
        if getattr(old, name) != getattr(new, name):
            yield name
    if old.limits.max_headers != new.limits.max_headers:
        yield "limits.max_headers"


def _identity(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file, or the symlink that leads to it, changes."""
    if path is None:
        return None
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


async def _listen(runner: web.BaseRunner, address: str, tls: ssl.SSLContext | None) -> web.BaseSite:
    await runner.setup()
    site: web.BaseSite
    if address.startswith("unix:"):
        site = web.UnixSite(runner, address.removeprefix("unix:"), ssl_context=tls, backlog=BACKLOG)
    else:
        host, _, port = address.rpartition(":")
        site = web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=tls, backlog=BACKLOG)
    await site.start()
    return site


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.tls.cert, config.tls.key)
    return context


def _url(runner: web.BaseRunner | None, scheme: str) -> str:
    addresses = runner.addresses if runner is not None else []
    if not addresses or isinstance(addresses[0], str):
        raise RuntimeError("not listening on a TCP port")
    host, port = addresses[0][:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
