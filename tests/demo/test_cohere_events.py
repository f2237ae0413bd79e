"""Cohere's chat, read by Cohere's own SDK, and each event by its models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import cohere
import httpx
import pytest
from cohere.core import ApiError

from proxy.demo import Running, expected_text
from proxy.demo.voice import FAILURE

from .wire import connect, data_of, post

HI: list[cohere.ChatMessageV2] = [cohere.UserChatMessageV2(content="Say something nice")]
WEATHER = cohere.ToolV2.model_validate(
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
)


@pytest.fixture
async def client(running: Running) -> AsyncIterator[cohere.AsyncClientV2]:
    """The SDK, pointed at the provider."""
    async with httpx.AsyncClient(headers={"X-Misbehave": "interval=0"}) as http:
        yield cohere.AsyncClientV2(api_key="demo", base_url=running.url, max_retries=0, httpx_client=http)


async def test_a_stream_arrives_whole(client: cohere.AsyncClientV2) -> None:
    """From its start to its end, with the usage."""
    events: list[Any] = [event async for event in client.chat_stream(model="demo-1", messages=HI)]
    assert [events[0].type, events[1].type, events[-2].type] == [
        "message-start",
        "content-start",
        "content-end",
    ]
    said = [event.delta.message.content.text for event in events if event.type == "content-delta"]
    assert "".join(said) == expected_text()
    assert (events[-1].type, events[-1].delta.finish_reason) == ("message-end", "COMPLETE")
    tokens = events[-1].delta.usage.tokens
    assert (tokens.input_tokens, tokens.output_tokens) == (3, 40)


async def test_every_event_is_named_after_its_type(running: Running) -> None:
    """As the API does it; the SDK goes by the type."""
    call = {"model": "demo-1", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with connect(running) as wire:
        wire.send(post("/v2/chat?interval=0&tokens=2", call))
        assert (await wire.head())[0] == 200
        body = b"".join(await wire.chunks())
    names = [line.removeprefix("event: ") for line in body.decode().split("\n") if line.startswith("event: ")]
    assert names == [json.loads(data)["type"] for data in data_of(body)]
    assert names[0] == "message-start"
    assert names[-1] == "message-end"


async def test_an_answer_without_a_stream(client: cohere.AsyncClientV2) -> None:
    """The same text at once."""
    answer = await client.chat(model="demo-1", messages=HI)
    (content,) = answer.message.content or []
    assert content.type == "text"
    assert content.text == expected_text()
    assert answer.finish_reason == "COMPLETE"


async def test_a_tool_call_is_streamed_in_fragments(client: cohere.AsyncClientV2) -> None:
    """A forced tool is called with arguments that fit its schema; whole answers have it whole."""
    forced: dict[str, Any] = {
        "model": "demo-1",
        "messages": HI,
        "tools": [WEATHER],
        "tool_choice": "REQUIRED",
    }
    events: list[Any] = [event async for event in client.chat_stream(**forced)]
    (start,) = [event for event in events if event.type == "tool-call-start"]
    assert start.delta.message.tool_calls.function.name == "get_weather"
    pieces = [
        event.delta.message.tool_calls.function.arguments
        for event in events
        if event.type == "tool-call-delta"
    ]
    assert len(pieces) > 1
    assert json.loads("".join(pieces)) == {"city": "Zürich"}
    assert events[-1].delta.finish_reason == "TOOL_CALL"
    (call,) = (await client.chat(**forced)).message.tool_calls or []
    assert call.function is not None
    assert json.loads(call.function.arguments or "") == {"city": "Zürich"}


async def test_a_failure_in_mid_stream_is_the_end_of_the_message(running: Running) -> None:
    """The SDK gives it out as the last event."""
    async with httpx.AsyncClient(headers={"X-Misbehave": "interval=0; error_at=4"}) as http:
        client = cohere.AsyncClientV2(api_key="demo", base_url=running.url, httpx_client=http)
        events: list[Any] = [event async for event in client.chat_stream(model="demo-1", messages=HI)]
    assert len(events) == 5
    assert (events[-1].delta.finish_reason, events[-1].delta.error) == ("ERROR", FAILURE)


async def test_a_refusal_is_told_in_coheres_form(running: Running) -> None:
    """Status and message reach the SDK's own exception."""
    async with httpx.AsyncClient(headers={"X-Misbehave": "status=429"}) as http:
        client = cohere.AsyncClientV2(api_key="demo", base_url=running.url, max_retries=0, httpx_client=http)
        with pytest.raises(ApiError) as refused:
            await client.chat(model="demo-1", messages=HI)
    assert (refused.value.status_code, refused.value.body) == (429, {"message": FAILURE})
