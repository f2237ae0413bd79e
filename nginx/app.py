"""The app of compose.yaml, to be replaced by yours: a chat and a feed, as plain Server-Sent Events.

python app.py 127.0.0.1:3000
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Seconds between two words of the chat, and between two events of the feed.
PACE, TICK = 0.1, 1.0


class App(BaseHTTPRequestHandler):
    """One connection. It knows nothing of a sidecar."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        """Serve it, until whoever asked is gone."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Say that all is well, or tell the time for ever."""
        if self.path != "/api/events":
            self._answer({"path": self.path})
            return
        self._begin_stream()
        for number in itertools.count():
            self._event({"tick": number})
            time.sleep(TICK)

    def do_POST(self) -> None:
        """Answer with what was said, word by word."""
        said = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8", "replace")
        self._begin_stream()
        for word in f"You said: {said}".split():
            self._event({"text": f"{word} "})
            time.sleep(PACE)

    def log_message(self, *_arguments: object) -> None:
        """Write no line: the sidecar does."""

    def _answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")  # the end of the stream is the end of the connection
        self.end_headers()

    def _event(self, document: object) -> None:
        self.wfile.write(f"data: {json.dumps(document)}\n\n".encode())


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    ThreadingHTTPServer((host, int(port)), App).serve_forever()
