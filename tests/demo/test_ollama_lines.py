"""Ollama's API, read by its own SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import ollama
import pytest

from proxy.demo import Running, expected_text
from proxy.demo.voice import FAILURE, THOUGHT

from .wire import connect, post

TALK = {"model": "demo-1", "messages": [{"role": "user", "content": "Say something nice"}]}
TOOL = {"model": "demo-1", "messages": [{"role": "user", "content": "Use a tool"}]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def client_of(running: Running, wrong: str = "interval=0") -> ollama.AsyncClient:
    """The SDK, pointed at the provider, which misbehaves like this."""
    return ollama.AsyncClient(host=f"{running.url}/ollama", headers={"X-Misbehave": wrong})


@pytest.fixture
async def client(running: Running) -> AsyncIterator[ollama.AsyncClient]:
    """The SDK, pointed at a provider in a hurry."""
    async with client_of(running) as sdk:
        yield sdk


async def read(stream: Any) -> list[Any]:
    """Every line of a stream that a call returns."""
    return [line async for line in await stream]


async def test_a_chat_arrives_whole(client: ollama.AsyncClient) -> None:
    """The pieces join to the text; the last line has the reason and the counts."""
    lines = await read(client.chat(**TALK, stream=True))
    assert "".join(line.message.content for line in lines) == expected_text()
    assert [line.done for line in lines] == [False] * 40 + [True]
    assert (lines[-1].done_reason, lines[-1].prompt_eval_count, lines[-1].eval_count) == ("stop", 3, 40)
    assert lines[-1].total_duration == 43_000_000


async def test_a_generated_text_arrives_whole(client: ollama.AsyncClient) -> None:
    """The other endpoint, where the text stands beside the line's other fields."""
    lines = await read(client.generate(model="demo-1", prompt="Say something nice", stream=True))
    assert "".join(line.response for line in lines) == expected_text()
    assert (lines[-1].done, lines[-1].prompt_eval_count) == (True, 3)


async def test_a_model_thinks_first(client: ollama.AsyncClient) -> None:
    """Where the request asks for it, in the chat and in the other endpoint."""
    said = await read(client.chat(**TALK, think=True, stream=True))
    written = await read(client.generate(model="demo-1", prompt="Hi", think=True, stream=True))
    thought = [line.message.thinking for line in said[: len(THOUGHT)]]
    assert thought == [line.thinking for line in written[: len(THOUGHT)]] == list(THOUGHT)
    assert said[-1].eval_count == 40 + len(THOUGHT)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_tool_is_called(client: ollama.AsyncClient, streaming: bool) -> None:
    """A prompt that speaks of a tool makes a call, in one piece, with arguments that fit the schema."""
    if streaming:
        lines = await read(client.chat(**TOOL, tools=[WEATHER], stream=True))
    else:
        lines = [await client.chat(**TOOL, tools=[WEATHER])]
    [call] = [call for line in lines for call in line.message.tool_calls or ()]
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Zürich"})
    assert "".join(line.message.content for line in lines) == ""


async def test_answers_without_a_stream(client: ollama.AsyncClient) -> None:
    """The same texts at once."""
    chat = await client.chat(**TALK)
    assert (chat.message.content, chat.done) == (expected_text(), True)
    assert (await client.generate(model="demo-1", prompt="Hi")).response == expected_text()


async def test_a_failure_in_mid_stream_is_raised(running: Running) -> None:
    """The line with an error reaches the program as an exception."""
    async with client_of(running, "interval=0; error_at=2") as client:
        with pytest.raises(ollama.ResponseError, match=FAILURE):
            await read(client.chat(**TALK, stream=True))


async def test_a_dropped_connection_is_raised(running: Running) -> None:
    """Half a line, and no more."""
    async with client_of(running, "interval=0; drop_at=2") as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client.chat(**TALK, stream=True))


async def test_a_refusal_is_told_in_ollamas_form(running: Running) -> None:
    """The status and the message."""
    async with client_of(running, "status=503") as client:
        with pytest.raises(ollama.ResponseError, match=FAILURE) as refused:
            await client.chat(**TALK)
    assert refused.value.status_code == 503


async def test_lines_on_the_wire(running: Running) -> None:
    """A write each, of the API's content type, padded with white space where the request says so."""
    async with connect(running) as wire:
        wire.send(post("/ollama/api/chat?interval=0&tokens=2&size=500&newline=crlf&comments=1", TALK))
        status, headers = await wire.head()
        lines = await wire.chunks()
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert [len(line) for line in lines] == [500, 500, 500]
    assert all(line.endswith(b"\r\n") and json.loads(line)["model"] == "demo-1" for line in lines)


async def test_a_request_that_is_none_is_refused(running: Running) -> None:
    """With what is wrong with it."""
    async with connect(running) as wire:
        wire.send(post("/ollama/api/chat", {"messages": []}, "Connection: close"))
        status, _ = await wire.head()
        assert (status, json.loads(await wire.rest())) == (
            400,
            {"error": "Object missing required field `model`"},
        )
