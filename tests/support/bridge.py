"""What the bridge says, as its tests write it down."""

from __future__ import annotations

from typing import Any

from tests.support.websocket import Socket


def bridge(**policies: Any) -> dict[str, Any]:
    """Return a route's policies: a bridge, and these."""
    return {"websocket": "bridge", **policies}


def opened(stream: str | None, **more: Any) -> dict[str, Any]:
    """Return the frame that opens a stream."""
    return {"type": "open", "stream": stream, "status": 200, **more}


def event(stream: str | None, seq: int, data: Any, kind: str = "message", **more: Any) -> dict[str, Any]:
    """Return the frame of one block."""
    return {"type": "event", "id": f"{stream}.{seq}", "event": kind, "data": data, **more}


def ended(stream: str | None, reason: str = "complete", **more: Any) -> dict[str, Any]:
    """Return the frame that ends a stream."""
    return {"type": "end", "stream": stream, "reason": reason, **more}


async def begin(socket: Socket, body: object = None) -> str:
    """Start a stream and return its id, which its first frame tells."""
    await socket.say({"type": "start"} if body is None else {"type": "start", "body": body})
    heard = await socket.hear()
    assert heard == opened(heard.get("stream")), heard
    return str(heard["stream"])


async def refused(socket: Socket, code: str, **more: Any) -> dict[str, Any]:
    """Hear an error of this code, and return it; ``more`` is what else it says."""
    heard: dict[str, Any] = await socket.hear()
    assert (heard["type"], heard.get("code")) == ("error", code), heard
    assert heard["message"]
    assert {name: heard[name] for name in more} == more
    return heard


def data_of(heard: list[dict[str, Any]]) -> list[Any]:
    """Return what the events among these frames carry."""
    return [frame["data"] for frame in heard if frame["type"] == "event"]


async def still_lives(socket: Socket) -> None:
    """Check that the connection answers."""
    await socket.say({"type": "ping"})
    assert await socket.hear() == {"type": "pong"}
