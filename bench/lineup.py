"""The contestants: how each one is started in front of an upstream, and which version it is.

A contestant's configuration is a file in ``contestants/``, in which ``@NAME@`` stands for what is only
known at run time: ``PORT`` to listen on, ``UPSTREAM_PORT``, ``SCHEME`` of the upstream (http or https),
``CA`` (the PEM file that vouches for it), ``TLS`` (what the file has to say besides if it is https),
``SECOND_PORT`` (for what a contestant brings along), ``DIR`` for its files.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.process import Process

PROJECT = Path(__file__).parents[1]
CONFIGURATIONS = Path(__file__).parent / "contestants"

#: Where tests/install.sh puts the contestants that need more than a program.
NODE = CONFIGURATIONS / "resumable-stream"
LITELLM = Path(__file__).parent / ".venv-litellm" / "bin"

#: The package's version, without the seconds that its own ``--version`` takes.
LITELLM_VERSION = "from importlib.metadata import version; print('litellm', version('litellm'))"

#: It does not start without a key that clients must bring; this one is good for one run.
LITELLM_KEY = f"sk-{secrets.token_hex(32)}"

LITELLM_ENVIRON = {
    "LITELLM_MASTER_KEY": LITELLM_KEY,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it looks up prices on the network
    "LITELLM_LOG": "ERROR",  # or it writes a line for each request
    "DISABLE_ADMIN_UI": "True",
}

#: A Python contestant imports for about half a second on a busy machine; LiteLLM for ten.
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a contestant stands: its own port, the upstream behind it, and a directory for its files.

    second_port: For what it brings along.
    """

    port: int
    second_port: int
    upstream_port: int
    tls: bool
    ca: Path
    directory: Path

    @property
    def scheme(self) -> str:
        """Of the upstream."""
        return "https" if self.tls else "http"

    @property
    def upstream(self) -> str:
        """The upstream's URL; by number, so that nobody pays for resolving a name."""
        return f"{self.scheme}://127.0.0.1:{self.upstream_port}"

    def placed(self, name: str, tls: str = "") -> str:
        """Write the configuration of this name, filled in, into the directory; return its path.

        ``tls`` stands in it for ``@TLS@`` where the upstream speaks TLS.
        """
        path = self.directory / Path(name).name
        text = (CONFIGURATIONS / name).read_text("utf-8").replace("@TLS@", tls if self.tls else "")
        path.write_text(self.filled_in(text), "utf-8")
        return str(path)

    def filled_in(self, text: str) -> str:
        """The text with every ``@NAME@`` replaced. Raises KeyError where there is no such name."""
        values = {
            "PORT": self.port,
            "SECOND_PORT": self.second_port,
            "UPSTREAM_PORT": self.upstream_port,
            "SCHEME": self.scheme,
            "CA": self.ca,
            "DIR": self.directory,
        }
        return re.sub(r"@([A-Z_]+)@", lambda found: str(values[found[1]]), text)


OURS_TLS = ', tls_ca: "@CA@"'
HAPROXY_TLS = "ssl verify required ca-file @CA@ verifyhost localhost sni str(localhost)"

Commands = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One of those compared.

    commands: What has to run for it, all on its core; none for a client that asks the upstream directly.
    versions: Of the program and what it stands on; it may raise what a program that is missing raises.
    headers: What a request to it must bring.
    path: Where it is asked, if not where an OpenAI SDK would ask.
    bridges: Whether it is asked for streams of events over the bridge.
    """

    name: str
    commands: Callable[[Place], Commands]
    versions: Callable[[], str]
    environ: Mapping[str, str] = field(default_factory=dict)
    headers: Sequence[str] = ()
    path: str = ""
    bridges: bool = False

    def missing(self) -> str | None:
        """What this machine lacks for it, or None."""
        try:
            self.versions()
        except (OSError, PackageNotFoundError, subprocess.SubprocessError) as error:
            return str(error)
        return None


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant that accepts connections: its port, the leaders of its processes, and how to ask it."""

    port: int
    pids: Sequence[int] = ()
    headers: Sequence[str] = ()
    path: str = ""
    bridges: bool = False


@contextlib.contextmanager
def running(contestant: Contestant, place: Place, *, core: int) -> Iterator[Running]:
    """Run a contestant on that core until the block ends.

    Raises ProcessError if it does not start, or has ended before the block does. To what is raised in
    the block, a note is added: the contestant's last words.
    """
    with contextlib.ExitStack() as stack:
        processes = []
        for number, command in enumerate(contestant.commands(place)):
            log = place.directory / f"{contestant.name}-{number}.log"
            process = Process(command, core=core, errors=log, environ=contestant.environ)
            processes.append(stack.enter_context(process))
        if not processes:
            yield Running(place.upstream_port)
            return
        _await_listening(place.port, processes)
        try:
            pids = [process.pid for process in processes]
            yield Running(place.port, pids, contestant.headers, contestant.path, contestant.bridges)
        except Exception as error:
            for words in filter(None, (process.last_words() for process in processes)):
                error.add_note(f"{contestant.name}: {words}")
            raise
        _assert_running(processes)


def _assert_running(processes: Sequence[Process]) -> None:
    for process in processes:
        if not process.running:
            raise process.failed("ended")


def _await_listening(port: int, processes: Sequence[Process]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        _assert_running(processes)
        if time.monotonic() > deadline:
            raise processes[-1].failed("does not listen")
        time.sleep(0.02)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────


def _said(*command: str) -> str:
    """The first line of what a command prints."""
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.partition("\n")[0].strip()


def _python(*packages: str) -> str:
    parts = [f"Python {sys.version.split()[0]}", *(f"{package} {version(package)}" for package in packages)]
    return ", ".join(parts)


def _sidecar() -> str:
    from proxy import __version__

    try:
        commit = _said("git", "-C", str(PROJECT), "describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):  # unpacked from an archive
        commit = "no commit"
    return f"{__version__} ({commit}), {_python('aiohttp', 'uvloop')}"


def _ours(name: str, *, bridges: bool = False) -> Contestant:
    return Contestant(
        name=name,
        commands=lambda place: [
            [sys.executable, "-m", "proxy", "serve", place.placed(f"{name}.yaml", OURS_TLS)]
        ],
        versions=_sidecar,
        environ={"PYTHONPATH": str(PROJECT)},
        bridges=bridges,
    )


def _resumable_stream(place: Place) -> Commands:
    redis = ["redis-server", place.placed("resumable-stream/redis.conf")]
    url = f"redis://127.0.0.1:{place.second_port}"
    return [redis, ["node", str(NODE / "server.mjs"), str(place.port), place.upstream, url]]


def _node() -> str:
    packages = (NODE / "node_modules" / package / "package.json" for package in ("resumable-stream", "redis"))
    parts = [json.loads(package.read_text()) for package in packages]
    packages_told = ", ".join(f"{part['name']} {part['version']}" for part in parts)
    return f"{packages_told}, Node {_said('node', '--version')}, {_said('redis-server', '--version')[:23]}"


def _litellm(name: str, path: str = "") -> Contestant:
    def commands(place: Place) -> Commands:
        config, port = place.placed("litellm.yaml"), str(place.port)
        return [[str(LITELLM / "litellm"), "--config", config, "--host", "127.0.0.1", "--port", port]]

    return Contestant(
        name=name,
        commands=commands,
        versions=lambda: _said(str(LITELLM / "python"), "-c", LITELLM_VERSION),
        environ=LITELLM_ENVIRON,
        headers=[f"Authorization: Bearer {LITELLM_KEY}"],
        path=path,
    )


def _program(name: str) -> str:
    """Debian keeps daemons where only root's PATH leads."""
    return shutil.which(name) or f"/usr/sbin/{name}"


NGINX, HAPROXY = _program("nginx"), _program("haproxy")

LINEUP: Mapping[str, Contestant] = {
    contestant.name: contestant
    for contestant in (
        Contestant(name="direct", commands=lambda place: [], versions=lambda: "no proxy"),
        Contestant(
            name="nginx",
            commands=lambda place: [[NGINX, "-c", place.placed("nginx.conf"), "-p", str(place.directory)]],
            versions=lambda: _said(NGINX, "-v").removeprefix("nginx version: "),
        ),
        Contestant(
            name="haproxy",
            commands=lambda place: [[HAPROXY, "-db", "-f", place.placed("haproxy.cfg", HAPROXY_TLS)]],
            versions=lambda: _said(HAPROXY, "-v").partition(" 20")[0],
        ),
        Contestant(
            name="textbook",
            commands=lambda place: [
                [
                    sys.executable,
                    str(CONFIGURATIONS / "textbook.py"),
                    str(place.port),
                    place.upstream,
                    str(place.ca),
                ]
            ],
            versions=lambda: _python("aiohttp", "uvloop"),
        ),
        _ours("ours-bare"),
        _ours("ours-full"),
        _ours("ours-unified"),
        _ours("ours-bridge", bridges=True),
        _ours("ours-passthrough"),
        _litellm("litellm"),
        _litellm("litellm-messages", path="/v1/messages"),
        Contestant(
            name="resumable-stream",
            commands=_resumable_stream,
            versions=_node,
        ),
    )
}
