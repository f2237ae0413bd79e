"""The chat of an app of one's own."""

from __future__ import annotations

import json

import pytest

from proxy.demo import Running, expected_text

from .wire import connect, data_of, get, post


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/api/chat?interval=0", {"prompt": "Hi"}),
        get("/api/chat?prompt=Hi&interval=0"),
    ],
)
async def test_tokens_come_as_events_and_then_done(running: Running, request_bytes: bytes) -> None:
    """The same stream for fetch and for EventSource, without ids."""
    async with connect(running) as wire:
        wire.send(request_bytes)
        assert (await wire.head())[0] == 200
        chunks = await wire.chunks()
    *tokens, done = [json.loads(data) for data in data_of(b"".join(chunks))]
    assert "".join(token["text"] for token in tokens) == expected_text()
    assert done == {"tokens": 40}
    assert chunks[0] == b'event: token\ndata: {"text": "A"}\n\n'
    assert chunks[-1].startswith(b"event: done\n")


async def test_an_answer_without_a_stream(running: Running) -> None:
    """``stream: false`` is JSON."""
    async with connect(running) as wire:
        wire.send(post("/api/chat?tokens=3", {"prompt": "Hi", "stream": False}, "Connection: close"))
        assert (await wire.head())[0] == 200
        assert json.loads(await wire.rest()) == {"text": "A stream is", "tokens": 3}


@pytest.mark.parametrize(
    ("request_bytes", "status", "fault"),
    [
        (get("/api/chat", "Connection: close"), 400, "missing required field `prompt`"),
        (get("/api/chat?prompt=Hi&talk=1", "Connection: close"), 400, "unknown key 'talk'"),
        (get("/api/chat?prompt=Hi&status=503", "Connection: close"), 503, "asked to fail"),
        (
            post("/api/chat?endless=1", {"prompt": "Hi", "stream": False}, "Connection: close"),
            400,
            "needs a stream",
        ),
    ],
)
async def test_a_refusal_says_why(running: Running, request_bytes: bytes, status: int, fault: str) -> None:
    """The app's errors are a message and a status."""
    async with connect(running) as wire:
        wire.send(request_bytes)
        assert (await wire.head())[0] == status
        answer = json.loads(await wire.rest())
    assert answer["status"] == status
    assert fault in answer["error"]
