"""The composition root: a configuration becomes listeners, and they end in good order.

``Sidecar`` owns everything that lives as long as the process: the hub, the upstreams' pools, the two
listeners, and the watch over the configuration file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

from aiohttp import web

from proxy.config import Config, load
from proxy.errors import ConfigError
from proxy.server import problem
from proxy.server.admin import admin_app
from proxy.server.gateway import Gateway
from proxy.server.hub import Hub
from proxy.server.upstream import Upstream
from proxy.server.watch import Watch
from proxy.server.wire import Front
from proxy.telemetry import Telemetry, configure_logging

#: How often the configuration file is looked at, in seconds.
WATCH_SECONDS = 1.0

#: A dismissed reader is told to come back after about so long, in milliseconds: by then a balancer
#: knows that this sidecar is leaving.
COME_BACK_MS = 1000

#: How long handlers get to end after their readers were dismissed, in seconds.
LAST_WORDS = 2.0

#: How long they get when everything they could wait for is closed: what then is left are clients that
#: take nothing. With ``LAST_WORDS`` and the default ``drain`` this stays below the 30 seconds that
#: orchestrators grant.
CUT_SECONDS = 0.5

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
        self._began_with = config
        self._source = source
        self._watched = Watch(source) if source is not None else None
        self._upstreams: dict[str, Upstream] = {}
        self._retired: WeakSet[Upstream] = WeakSet()  # whoever still needs one holds it
        self._front: Front | None = None
        self._runner: web.BaseRunner | None = None
        self._admin_runner: web.AppRunner | None = None
        self._site: web.BaseSite | None = None

    async def start(self) -> None:
        """Listen."""
        self.telemetry.configure(self.config)
        self.hub = Hub(self.config, self.telemetry)
        process = self.telemetry.process
        process.started = process.config_loaded_at = self.hub.started.timestamp()
        self._upstreams = self._reconciled(self.config)
        self.gateway = Gateway(self.hub, self.config, self._upstreams)
        self._front = Front(
            self.gateway.handle,
            max_headers=self.config.limits.max_headers,
            keepalive=self.config.keepalive,
        )
        self._runner = web.ServerRunner(self._front, shutdown_timeout=CUT_SECONDS)
        try:
            self._site = await _listen(self._runner, self.config.listen, _tls(self.config))
            if self.config.admin is not None:
                self._admin_runner = web.AppRunner(
                    admin_app(self), access_log=None, shutdown_timeout=CUT_SECONDS
                )
                await _listen(self._admin_runner, self.config.admin.listen, None)
        except BaseException:
            await self.stop()
            raise
        if self._watched is not None:
            self.hub.spawn(self._reload_on_change(self._watched), "watch the configuration")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the data plane listens, with the ports that were taken: host:port or unix:/path."""
        return _addresses(self._runner)

    @property
    def admin_addresses(self) -> tuple[str, ...]:
        """Where the admin listener listens, if there is one."""
        return _addresses(self._admin_runner)

    @property
    def url(self) -> str:
        """Base URL of the data plane."""
        scheme = "https" if self._began_with.tls is not None else "http"
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
        if self._source is None or self._watched is None:
            return False
        self._watched.taken()
        try:
            config = load(self._source)
        except ConfigError as error:
            self.telemetry.process.reloads["refused"] += 1
            self.telemetry.log.error(
                "configuration refused; the old one stays in force",
                source=str(self._source),
                problems=list(map(str, error.problems)),
            )
            return False
        self._apply(config)
        self.telemetry.process.reloads["loaded"] += 1
        self.telemetry.process.config_loaded_at = time.time()
        self.telemetry.log.info("configuration loaded", source=str(self._source), routes=len(config.routes))
        return True

    def _apply(self, config: Config) -> None:
        for name in _needs_restart(self._began_with, config):
            self.telemetry.log.warning("this setting takes effect at the next start", setting=name)
        if config.log != self.config.log:
            configure_logging(config.log)
        self.config = config
        self.telemetry.configure(config)
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
                self._retired.add(upstream)
        report = self.telemetry.upstream_failed
        return {
            name: kept.get(name) or Upstream(name, settings, report)
            for name, settings in config.upstreams.items()
        }

    async def _reload_on_change(self, watch: Watch) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if watch.look():
                self.reload()

    # The end

    async def drain(self) -> None:
        """Take no new connections, give what runs ``drain`` seconds, then dismiss the readers.

        Cancelling it dismisses them at once.
        """
        if self.hub.draining:
            return
        self.hub.draining = True
        self.telemetry.process.draining = True
        self.telemetry.log.info("draining", seconds=self.config.drain, streams=len(self.hub.running))
        if self._site is not None:
            await self._site.stop()
        if self._front is not None:
            self._front.leave()
        for connection in list(self.hub.sockets):
            connection.leave()
        try:
            await self._until_idle(self.config.drain)
        finally:
            self._dismiss_readers()
        await self._until_idle(LAST_WORDS)

    def _dismiss_readers(self) -> None:
        """Close the connections of all streams between two blocks, finished ones' too, and all WebSockets."""
        readers = [reader for relay in {*self.hub.running, *self.hub.store} for reader in relay.readers]
        for reader in readers:
            reader.dismiss(problem.jittered(COME_BACK_MS))
        sockets = list(self.hub.sockets)
        for connection in sockets:
            connection.dismiss()
        if readers or sockets:
            self.telemetry.log.warning(
                "drain is over; readers were closed", readers=len(readers), websockets=len(sockets)
            )

    async def _until_idle(self, seconds: float) -> None:
        """Wait until nothing is being answered, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.gateway.idle()

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
    for name in ("listen", "tls", "keepalive"):
        if getattr(old, name) != getattr(new, name):
            yield name
    if (old.admin and old.admin.listen) != (new.admin and new.admin.listen):
        yield "admin"
    if old.limits.max_headers != new.limits.max_headers:
        yield "limits.max_headers"


async def _listen(runner: web.BaseRunner, address: str, tls: ssl.SSLContext | None) -> web.BaseSite:
    """Listen on an address. Raises OSError that names it."""
    await runner.setup()
    site: web.BaseSite
    if address.startswith("unix:"):
        if _is_answered(address.removeprefix("unix:")):  # asyncio would take the path away from its owner
            raise OSError(errno.EADDRINUSE, f"cannot listen here: {os.strerror(errno.EADDRINUSE)}", address)
        site = web.UnixSite(runner, address.removeprefix("unix:"), ssl_context=tls, backlog=BACKLOG)
    else:
        host, _, port = address.rpartition(":")
        site = web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=tls, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise OSError(error.errno, f"cannot listen here: {_reason(error)}", address) from error
    return site


def _is_answered(path: str) -> bool:
    """Whether somebody listens on a Unix socket; a file that a killed process left behind is not."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _tls(config: Config) -> ssl.SSLContext | None:
    """What TLS is served with. Raises OSError that names the files."""
    if config.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls.cert, config.tls.key)
    except OSError as error:
        files = f"{config.tls.cert}, {config.tls.key}"
        raise OSError(error.errno, f"cannot serve TLS with these: {_reason(error)}", files) from error
    return context


def _reason(error: OSError) -> str:
    """What went wrong, without the address that asyncio puts in front of it."""
    if error.errno is None or isinstance(error, ssl.SSLError | socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _addresses(runner: web.BaseRunner | None) -> tuple[str, ...]:
    return tuple(map(_shown, runner.addresses)) if runner is not None else ()


def _shown(address: Any) -> str:
    """A socket's name as a configuration writes it."""
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(runner: web.BaseRunner | None, scheme: str) -> str:
    address = next(iter(_addresses(runner)), "unix:")
    if address.startswith("unix:"):
        raise RuntimeError("not listening on a TCP port")
    return f"{scheme}://{address}"
