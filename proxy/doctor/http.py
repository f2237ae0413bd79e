"""HTTP/1.1 answers as they stand on the wire (RFC 9112), for looking at, not for trusting.

An HTTP library hides what is asked about here: whether a body ended or was cut, a length beside chunks,
which bytes came in which read. So this reads the answer itself, and refuses nothing that can be read.
"""

from __future__ import annotations

from proxy.doctor.evidence import Ending, Head

#: Longest head, and longest chunk-size line, in bytes. A peer that never ends one must not fill the memory.
MAX_HEAD_BYTES = 256 * 1024
MAX_LINE_BYTES = 4096


class Garbled(ValueError):
    """What came is not HTTP."""


class Answer:
    """Reads one answer. ``feed`` takes the connection's bytes and returns those of the body in them.

    ``head`` is there once it came; interim answers (RFC 9110 §15.2) but a 101 are passed over. ``over`` is
    set when the body is whole. Raises Garbled.
    """

    def __init__(self, method: str = "GET") -> None:
        self.head: Head | None = None
        self.over = False
        self._method = method
        self._buffer = bytearray()
        self._left: int | None = None  # bytes of the body, or of the chunk, that are still to come
        self._chunked = False
        self._in_trailer = False

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the body that ``data`` brings."""
        self._buffer += data
        while self.head is None:
            if not self._take_head():
                return b""
        if self.over:
            return b""
        return self._take_chunks() if self._chunked else self._take_plain()

    def end(self) -> Ending:
        """What it means that the connection has been closed now."""
        if self.over:
            return Ending.WHOLE
        if self.head is None:
            return Ending.CUT
        return Ending.CUT if self._chunked or self._left is not None else Ending.CLOSED

    def _take_head(self) -> bool:
        head, separator, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not separator:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise Garbled(f"a head of more than {MAX_HEAD_BYTES} bytes")
            return False
        self._buffer = bytearray(rest)
        parsed = parse_head(head)
        if parsed.status >= 200 or parsed.status == 101:
            self._begin(parsed)
        return True

    def _begin(self, head: Head) -> None:
        """Find out how the body ends (RFC 9112 §6.3)."""
        self.head = head
        codings = head.get("Transfer-Encoding").lower()
        if self._method == "HEAD" or head.status in (101, 204, 304):
            self.over = True
        elif codings.rpartition(",")[2].strip() == "chunked":
            self._chunked, self._left = True, 0
        elif head.has("Content-Length") and not codings:
            length = head.get("Content-Length").split(",")[0].strip()
            if not (length.isascii() and length.isdigit()):
                raise Garbled("a Content-Length that is no number")
            self._left = int(length)
            self.over = self._left == 0

    def _take_plain(self) -> bytes:
        data = bytes(self._buffer[: self._left])
        self._buffer.clear()
        if self._left is not None:
            self._left -= len(data)
            self.over = self._left == 0
        return data

    def _take_chunks(self) -> bytes:
        body = bytearray()
        while not self.over:
            if self._left:
                piece = self._buffer[: self._left]
                if not piece:
                    break
                body += piece
                del self._buffer[: len(piece)]
                self._left -= len(piece)
                continue
            line = self._take_line()
            if line is None:
                break
            self._read_line(line)
        return bytes(body)

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise Garbled("a chunk without a size")
            return None
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        return line

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.over = not line
        elif line:  # the empty one ends the chunk before
            try:
                self._left = int(line.partition(b";")[0].strip(), 16)
            except ValueError:
                raise Garbled("a chunk whose size is no number") from None
            self._in_trailer = self._left == 0


def parse_head(text: bytes) -> Head:
    """Read a status line and its fields. Raises Garbled."""
    first, *lines = text.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/") or not (status.isascii() and status.isdigit()):
        raise Garbled("the answer does not begin as HTTP does")
    pairs = (line.partition(":") for line in lines)
    return Head(
        version, int(status), reason, tuple((name.strip(), value.strip()) for name, _, value in pairs)
    )
