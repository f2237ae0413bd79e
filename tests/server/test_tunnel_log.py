"""What the log of a process tells of WebSockets that passed through."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import StartCommand, StartOrigin
from tests.support.tunnel import Peer, accepts
from tests.support.websocket import CLOSE, TEXT, closing, connect


def configured(directory: Path, upstream: str) -> Path:
    """Write a configuration whose only route passes WebSockets through."""
    config = directory / "sidecar.yaml"
    config.write_text(
        "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\n"
        f"upstreams: {{origin: {{url: '{upstream}'}}}}\n"
        "routes: [{name: all, path: '/{tail:.*}', upstream: origin, websocket: passthrough}]\n"
    )
    return config


async def test_the_log_line(tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand) -> None:
    """One line, without the query, which may hold a key."""
    origin = await start_origin(accepts())
    sidecar = await start_command("serve", configured(tmp_path, origin.url))
    client = await connect(await sidecar.url(), "/ws?key=sk-secret", {"Cookie": "c=sk-secret"})
    await client.send(TEXT, b"hello")
    await origin.request()
    await client.send(CLOSE, closing(1000))
    client.answer.close()
    line = await sidecar.logged("websocket")
    assert (line["level"], line["path"], line["cause"], line["by"], line["code"]) == (
        "info",
        "/ws",
        "closed",
        "client",
        1000,
    )
    assert (line["messages_to_upstream"], line["bytes_to_upstream"], line["messages_to_client"]) == (1, 5, 0)
    assert "sk-secret" not in sidecar.errors


async def test_a_connection_that_is_lost_is_a_warning(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """Who it was that dropped stands in the line."""
    origin = await start_origin(accepts())
    sidecar = await start_command("serve", configured(tmp_path, origin.url))
    await connect(await sidecar.url())
    Peer(await origin.request()).answer.close()
    line = await sidecar.logged("websocket")
    assert (line["level"], line["cause"], line["by"], line["code"]) == ("warning", "lost", "upstream", 1006)
