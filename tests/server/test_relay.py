"""A stream from upstream to one reader, over real sockets."""

from __future__ import annotations

from tests.conftest import StartOrigin, StartSidecar
from tests.support.client import ask
from tests.support.origin import Connection


async def test_blocks_are_numbered_and_the_first_carries_the_retry(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Blocks leave with an id each; the first one of a connection also says when to come back."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: a\n\ndata: b\n\n")
        await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/events")
    stream = answer.header("stream-id")
    assert answer.status == 200
    assert await answer.rest() == (
        f"id: {stream}.1\nretry: 3000\ndata: a\n\nid: {stream}.2\ndata: b\n\n".encode()
    )
