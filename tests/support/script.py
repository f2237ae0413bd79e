"""What most origins of the tests do: an event stream that ends, or one that waits for the test."""

from __future__ import annotations

from tests.support.origin import Connection, Script


def streams(*chunks: bytes) -> Script:
    """Answer every request with an event stream of these chunks, ended as it should be."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        for data in chunks:
            await connection.chunk(data)
        await connection.end()

    return script


def holds(*chunks: bytes) -> Script:
    """Answer every request with these chunks and no end; the test goes on from ``origin.request()``.

    The connection serves this one request, so that nothing but its end is waited for on it.
    """

    async def script(connection: Connection) -> None:
        await connection.start_stream(b"Connection: close\r\n")
        for data in chunks:
            await connection.chunk(data)
        await connection.gone()

    return script


def in_turn(*scripts: Script) -> Script:
    """Answer the first request by the first script, and so on; the last one serves all that follow."""
    waiting = list(scripts)

    async def script(connection: Connection) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(connection)

    return script


def answers(head: bytes, body: bytes = b"") -> Script:
    """Answer every request with this head (status line and fields, without the empty line) and body."""

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))

    return script
