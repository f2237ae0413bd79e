"""Anthropic messages, read by Anthropic's own SDK with its models validated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anthropic
import pydantic
import pytest
from anthropic.types import Message, MessageParam, RawMessageStreamEvent, ToolParam

from proxy.demo import Running, expected_text

from .wire import connect, data_of, post

HI: list[MessageParam] = [{"role": "user", "content": [{"type": "text", "text": "Say something nice"}]}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
async def client(running: Running) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The SDK, pointed at the provider, refusing what does not fit its models."""
    async with anthropic.AsyncAnthropic(
        base_url=running.url,
        api_key="demo",
        max_retries=0,
        default_headers={"X-Misbehave": "interval=0"},
        _strict_response_validation=True,
    ) as sdk:
        yield sdk


async def test_a_stream_arrives_whole(client: anthropic.AsyncAnthropic) -> None:
    """The SDK's accumulator ends with the whole message."""
    async with client.messages.stream(model="demo-1", max_tokens=100, messages=HI) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(pieces) == expected_text()
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 40)


async def test_every_event_fits_the_schema(running: Running) -> None:
    """Name and type agree, the ping is there, and the SDK's union takes each of the others."""
    call = {"model": "demo-1", "max_tokens": 9, "messages": HI, "stream": True}
    async with connect(running) as wire:
        wire.send(post("/v1/messages?beta=true&interval=0&tokens=2", call))
        assert (await wire.head())[0] == 200
        body = b"".join(await wire.chunks())
    names = [line.removeprefix("event: ") for line in body.decode().split("\n") if line.startswith("event: ")]
    documents = [json.loads(data) for data in data_of(body)]
    assert names == [document["type"] for document in documents]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    union: pydantic.TypeAdapter[RawMessageStreamEvent] = pydantic.TypeAdapter(RawMessageStreamEvent)
    for document in documents:
        if document["type"] != "ping":
            union.validate_python(document)


async def test_an_answer_without_a_stream(client: anthropic.AsyncAnthropic) -> None:
    """The same text at once."""
    message = await client.messages.create(model="demo-1", max_tokens=100, messages=HI)
    Message.model_validate(message.model_dump())
    [block] = message.content
    assert block.type == "text"
    assert block.text == expected_text()


async def test_a_tool_call_is_streamed_in_fragments(client: anthropic.AsyncAnthropic) -> None:
    """A forced tool is called with input that fits its schema."""
    async with client.messages.stream(
        model="demo-1", max_tokens=100, messages=HI, tools=[WEATHER], tool_choice={"type": "any"}
    ) as stream:
        message = await stream.get_final_message()
    [block] = message.content
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("get_weather", {"city": "Zürich"})
    assert message.stop_reason == "tool_use"


async def test_a_failure_in_mid_stream_is_raised(client: anthropic.AsyncAnthropic) -> None:
    """The error event reaches the program as an exception."""
    stream = await client.messages.create(
        model="demo-1",
        max_tokens=100,
        messages=HI,
        stream=True,
        extra_headers={"X-Misbehave": "interval=0; error_at=4"},
    )
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        [event async for event in stream]


async def test_a_refusal_is_told_in_anthropics_form(client: anthropic.AsyncAnthropic) -> None:
    """The error types are those of the API."""
    with pytest.raises(anthropic.RateLimitError, match="rate_limit_error") as limited:
        await client.messages.create(
            model="demo-1", max_tokens=100, messages=HI, extra_headers={"X-Misbehave": "status=429"}
        )
    assert limited.value.response.headers["Retry-After"] == "1"
    assert limited.value.request_id == "req_000001"
    with pytest.raises(anthropic.InternalServerError, match="api_error"):
        await client.messages.create(
            model="demo-1", max_tokens=100, messages=HI, extra_headers={"X-Misbehave": "status=500"}
        )
