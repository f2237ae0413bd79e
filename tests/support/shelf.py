"""Recorded answers on a real socket, for client libraries that can only read from one."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote

from proxy.stream import sse

STREAM_ID = "AAAAAAAAAAAAAAAAAAAAAA"


class Shelf:
    """Serves each body as an event stream, whatever is asked below the path of its name.

    It runs in a thread of its own, so that one process can read all of them while a test waits for it.
    """

    def __init__(self, bodies: Mapping[str, bytes]) -> None:
        self.names = list(bodies)
        self._server = _Server(("127.0.0.1", 0), _answering(bodies))
        self._thread = threading.Thread(target=self._server.serve_forever, name="shelf", daemon=True)

    def __enter__(self) -> Shelf:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, name: str) -> str:
        """Return the base URL of a body. A client may add segments."""
        return f"http://127.0.0.1:{self._server.server_port}/{quote(name, safe='')}"


def as_sent(stream: bytes, *, heartbeat: bytes = b": ping\n") -> bytes:
    """Return a stream as the sidecar writes it: with ids, a retry, and a heartbeat before each block."""
    wire = bytearray()
    for number, block in enumerate(sse.Parser().feed(stream), start=1):
        retry = b"retry: 3000\n" if number == 1 else b""
        wire += heartbeat + f"id: {STREAM_ID}.{number}\n".encode() + retry + block + b"\n\n"
    return bytes(wire)


class _Server(ThreadingHTTPServer):
    """One that as many clients may call at once as there are bodies."""

    request_queue_size = 1024


def _answering(bodies: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            body = bodies[unquote(self.path.split("/")[1])]
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    return Handler
