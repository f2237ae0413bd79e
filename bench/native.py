"""The two programs in C: the upstream and the load generator, spoken to in lines over their pipes."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.process import Process

SOURCES = Path(__file__).parent / "native"
UPSTREAM = SOURCES / "build" / "upstream"
LOAD = SOURCES / "build" / "load"

#: How long an answer over a pipe may take, in seconds. Both programs answer between two socket events.
ANSWER_SECONDS = 20.0


class NotBuilt(Exception):
    """The C compiler did not do it; the message is its output."""


def build() -> None:
    """Compile what is not up to date. Raises NotBuilt."""
    try:
        subprocess.run(
            ["make", "--silent", "-C", str(SOURCES)],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise NotBuilt(str(error)) from None
    except subprocess.CalledProcessError as error:
        raise NotBuilt(error.output) from None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that signs itself, for ``localhost`` and 127.0.0.1, and its key: PEM files."""

    cert: Path
    key: Path


def certificate(directory: Path) -> Certificate:
    """Make one with openssl."""
    made = Certificate(directory / "upstream.crt", directory / "upstream.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2",
         "-keyout", str(made.key), "-out", str(made.cert)],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return made


# ── the upstream ────────────────────────────────────────────────────────────────────────────────────────


class Upstream:
    """A running upstream: ``port`` in plain text, ``tls_port`` the same behind TLS."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self._process = process
        word, port, tls_port = process.read_line(ANSWER_SECONDS).split()
        if word != "listening":
            raise process.failed(f"said {word!r}")
        self.port, self.tls_port = int(port), int(tls_port)

    def behind(self) -> int:
        """How many events it has sent late so far, because it did not get round to it."""
        self._process.write_line("stats")
        return int(json.loads(self._process.read_line(ANSWER_SECONDS))["behind"])


@contextlib.contextmanager
def upstream(*, core: int, directory: Path, certificate: Certificate, query: str) -> Iterator[Upstream]:
    """Run one; ``query`` is what it goes by where a contestant does not pass on the request's own."""
    command = [str(UPSTREAM), "--port", "0", "--tls-port", "0", "--cert", str(certificate.cert)]
    command += ["--key", str(certificate.key), "--default", query]
    with Process(command, core=core, errors=directory / "upstream.log", talks=True) as process:
        yield Upstream(process)


# ── the load generator ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Marked:
    """What the generator saw between two marks.

    duration_ns: From mark to mark.
    events, bytes: Received; the bytes are those of events, not of chunk headers.
    done: Streams that came to their proper end.
    errors: By kind: a number missing or repeated, a stream cut short, a refused connection, ….
    latency_ns: From an event's writing by the upstream to its receipt: ``p50``, ``p99``, ``max``, ….
    ttfb_ns, ttfe_ns: From a request's writing to its response's head, and to its first event.
    """

    duration_ns: int
    events: int
    bytes: int
    done: int
    errors: Mapping[str, int] = field(default_factory=dict)
    latency_ns: Mapping[str, int] = field(default_factory=dict)
    ttfb_ns: Mapping[str, int] = field(default_factory=dict)
    ttfe_ns: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, line: str) -> Marked:
        """Read the generator's line."""
        told: dict[str, Any] = json.loads(line)
        return cls(
            duration_ns=told["t_ns"],
            events=told["events"],
            bytes=told["bytes"],
            done=told["done"],
            errors={kind: count for kind, count in told["error_kinds"].items() if count},
            latency_ns=told.get("latency_ns", {}),
            ttfb_ns=told.get("ttfb_ns", {}),
            ttfe_ns=told.get("ttfe_ns", {}),
        )


#: How clients use a WebSocket: as the bridge's, for binary messages, or not at all once it is open.
Mode = Literal["bridge", "messages", "idle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the generator asks a contestant for.

    streams: Connections that each hold one stream, opened at ``ramp`` a second; they are opened before
        ``ready`` returns.
    requests: Instead, so many short requests in all over ``streams`` connections that stay.
    stamped: Whether the events' time stamps are fresh. A replay's are old.
    websocket: What follows an upgrade; without one, None.
    answer: Bytes of the message that each message is answered with; 0: with none.
    """

    port: int
    target: str
    streams: int
    ramp: int | None = None
    requests: int | None = None
    method: str = "POST"
    body: str = ""
    headers: Sequence[str] = ()
    stamped: bool = True
    websocket: Mode | None = None
    answer: int = 0

    def arguments(self) -> list[str]:
        """As the command line."""
        command = ["--host", "127.0.0.1", "--port", str(self.port), "--method", self.method]
        command += ["--target", self.target]
        if self.requests is None:
            command += ["--streams", str(self.streams)]
        else:
            command += ["--requests", str(self.requests), "--concurrency", str(self.streams)]
        if self.ramp is not None:
            command += ["--ramp", str(self.ramp)]
        for header in self.headers:
            command += ["--header", header]
        if self.body:
            command += ["--body", self.body]
        if not self.stamped:
            command.append("--no-latency")
        if self.websocket is not None:
            command += ["--websocket", self.websocket]
        if self.answer:
            command += ["--answer", str(self.answer)]
        return command


class Generator:
    """A running load generator."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self._process = process

    def ready(self, seconds: float) -> None:
        """Wait until every stream is open. Raises ProcessError if that takes longer."""
        told = json.loads(self._process.read_line(seconds))
        if not told.get("ready"):
            raise self._process.failed(f"could not open all streams: {told}")

    def mark(self) -> Marked:
        """What it saw since the mark before."""
        self._process.write_line("mark")
        return Marked.parse(self._process.read_line(ANSWER_SECONDS))

    def finished(self, seconds: float) -> Marked:
        """Wait until all requests are done; what it saw of them."""
        while '"ready"' in (line := self._process.read_line(seconds)):
            pass
        return Marked.parse(line)


@contextlib.contextmanager
def generator(ask: Ask, *, core: int, directory: Path) -> Iterator[Generator]:
    """Run one."""
    command = [str(LOAD), *ask.arguments()]
    with Process(command, core=core, errors=directory / "load.log", talks=True) as process:
        yield Generator(process)
