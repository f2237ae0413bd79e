"""The benchmark's two programs, started and spoken to, and what stands at their other end in tests."""

from __future__ import annotations

import abc
import contextlib
import http.client
import json
import os
import queue
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parents[2] / "bench" / "native"
PATIENCE = 30.0
SECOND = 1_000_000_000
OPENSSL = "#include <openssl/ssl.h>\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MARK = re.compile(r"@(\d{10}):(\d{20})")


def missing() -> str | None:
    """What it takes to build the programs, and is not here."""
    compiler = os.environ.get("CC", "cc")
    if sys.platform != "linux":
        return "Linux (epoll)"
    if not shutil.which("make") or not shutil.which(compiler):
        return "make and a C compiler"
    probe = subprocess.run([compiler, "-E", "-"], input=OPENSSL, capture_output=True, text=True)
    return "OpenSSL's headers" if probe.returncode else None


WITHOUT = missing()

#: For the tests of a module that needs them.
needs_programs = pytest.mark.skipif(
    WITHOUT is not None, reason=f"LEFT OUT: the benchmark's upstream and load generator need {WITHOUT}"
)


class Program:
    """One of the two, spoken to in lines."""

    def __init__(self, *command: str | Path) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def line(self) -> str:
        """The next line that it prints."""
        return self._lines.get(timeout=PATIENCE)

    def told(self) -> dict[str, Any]:
        """The next line, which is JSON."""
        told = json.loads(self.line())
        assert isinstance(told, dict)
        return told

    def ask(self, command: str) -> dict[str, Any]:
        """Give a command, and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.told()

    def end(self) -> int:
        """Close its stdin, which ends it, and return its exit status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join()
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


class Upstream(Program):
    """A running upstream."""

    def __init__(self, binaries: Path, *arguments: str | Path) -> None:
        super().__init__(binaries / "upstream", "--port", "0", *arguments)
        self.ports = list(map(int, self.line().removeprefix("listening ").split()))
        self.port = self.ports[0]

    def stats(self) -> dict[str, int]:
        """Its counters."""
        return self.ask("stats")

    def get(self, target: str) -> str:
        """Return the body that answers a GET."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(client):
            client.request("GET", target)
            return client.getresponse().read().decode("ascii")

    def connect(self) -> socket.socket:
        """Connect to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)


class Listener(abc.ABC):
    """A server on a thread of its own, for one client after the other; what it answers is a subclass's."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    @abc.abstractmethod
    def answer(self, connection: socket.socket) -> None:
        """Answer on a new connection, which is closed behind that."""

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                connection.settimeout(PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with connection, contextlib.suppress(ConnectionError):
                    self.answer(connection)


class Server(Listener):
    """Answers every request with the same pieces, one write each, and then closes.

    It keeps the connection instead while ``kept`` is above 0; None among the pieces is a reset.
    """

    def __init__(self, *pieces: bytes | None, kept: int = 0) -> None:
        self.pieces = pieces
        self.kept = kept
        super().__init__()

    def answer(self, connection: socket.socket) -> None:
        """Answer what comes on it."""
        while request := receive_request(connection):
            self.requests.append(request)
            for piece in self.pieces:
                if piece is None:
                    reset_when_closed(connection)
                    return
                connection.sendall(piece)
            if self.kept == 0:
                return
            self.kept -= 1


def reset_when_closed(connection: socket.socket) -> None:
    """Let the connection end with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def receive_request(connection: socket.socket) -> bytes:
    """A request with its body; b"" at the end of the connection."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (more := connection.recv(65536)):
            return b""
        request += more
    length = re.search(rb"(?i)content-length: (\d+)", request)
    while length and len(request.partition(b"\r\n\r\n")[2]) < int(length[1]):
        request += connection.recv(65536)
    return request


def event(seq: int, *, ago: int = 0) -> bytes:
    """An event as the upstream sends it, stamped so many nanoseconds ago."""
    return b'data: {"content":"@%010d:%020d and so on"}\n\n' % (seq, time.monotonic_ns() - ago)


def stream(*seqs: int, done: bool = True) -> bytes:
    """The body of a stream with these events."""
    return b"".join(map(event, seqs)) + b"data: [DONE]\n\n" * done


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def marks(body: str) -> list[int]:
    """The numbers of a body's events."""
    return [int(seq) for seq, _ in MARK.findall(body)]


def stamps(body: str) -> list[int]:
    """The times of a body's events."""
    return [int(stamp) for _, stamp in MARK.findall(body)]


def eventually(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lone(load: Program) -> dict[str, Any]:
    """The only line of a run that ends by itself."""
    final = load.told()
    assert final["final"]
    assert load.process.wait(PATIENCE) == 0
    return final
