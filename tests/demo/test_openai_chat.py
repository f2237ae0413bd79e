"""Chat completions, read by OpenAI's own SDK with its models validated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionToolParam, ChatCompletionUserMessageParam

from proxy.demo import Running, expected_text

from .wire import CHAT, connect, data_of, post

HI: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Say something nice"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["C", "F"]},
                "days": {"type": "integer"},
            },
        },
    },
}


@pytest.fixture
async def client(running: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK, pointed at the provider, refusing what does not fit its models."""
    async with openai.AsyncOpenAI(
        base_url=f"{running.url}/v1",
        api_key="demo",
        max_retries=0,
        default_headers={"X-Misbehave": "interval=0"},
        _strict_response_validation=True,
    ) as sdk:
        yield sdk


async def test_a_stream_arrives_whole(client: openai.AsyncOpenAI) -> None:
    """Role, text, finish reason, and no usage unless it was asked for."""
    stream = await client.chat.completions.create(model="demo-1", messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected_text()
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert {chunk.usage for chunk in chunks} == {None}
    assert len({chunk.id for chunk in chunks}) == 1


async def test_usage_comes_last_when_asked_for(client: openai.AsyncOpenAI) -> None:
    """One chunk more, without choices, with the usage."""
    stream = await client.chat.completions.create(
        model="demo-1", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (3, 40, 43)


async def test_usage_is_null_before_and_absent_otherwise(running: Running) -> None:
    """The difference that clients see: a null when usage was asked for, no field when it was not."""
    async with connect(running) as wire:
        asking = {**CHAT, "stream_options": {"include_usage": True}}
        wire.send(post("/v1/chat/completions?interval=0&tokens=1", asking))
        assert (await wire.head())[0] == 200
        *told, _, done = data_of(b"".join(await wire.chunks()))
        assert [json.loads(data)["usage"] for data in told] == [None, None, None]
        assert done == "[DONE]"
        wire.send(post("/v1/chat/completions?interval=0&tokens=1", CHAT))
        assert (await wire.head())[0] == 200
        *untold, done = data_of(b"".join(await wire.chunks()))
        assert not any("usage" in json.loads(data) for data in untold)
        assert done == "[DONE]"


async def test_an_answer_without_a_stream(client: openai.AsyncOpenAI) -> None:
    """The same text at once."""
    completion = await client.chat.completions.create(model="any", messages=HI)
    assert completion.model == "any"
    assert completion.choices[0].message.content == expected_text()
    assert completion.usage is not None
    assert completion.usage.total_tokens == 43


async def test_a_tool_call_is_streamed_in_fragments(client: openai.AsyncOpenAI) -> None:
    """A required tool is called with arguments that fit its schema."""
    stream = await client.chat.completions.create(
        model="demo-1", messages=HI, stream=True, tools=[WEATHER], tool_choice="required"
    )
    choices = [chunk.choices[0] async for chunk in stream]
    fragments = [call for choice in choices for call in choice.delta.tool_calls or []]
    names = [call.function.name for call in fragments if call.function and call.function.name]
    arguments = "".join(call.function.arguments or "" for call in fragments if call.function)
    assert names == ["get_weather"]
    assert len(fragments) > 3
    assert json.loads(arguments) == {"city": "Zürich", "unit": "C", "days": 7}
    assert choices[-1].finish_reason == "tool_calls"


async def test_a_prompt_can_ask_for_the_tool(client: openai.AsyncOpenAI) -> None:
    """Without a tool choice, it is called when the prompt speaks of it, and only then."""
    asking = await client.chat.completions.create(
        model="demo-1", messages=[{"role": "user", "content": "Use the tool"}], tools=[WEATHER]
    )
    [call] = asking.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    silent = await client.chat.completions.create(model="demo-1", messages=HI, tools=[WEATHER])
    assert silent.choices[0].message.content == expected_text()


async def test_a_failure_in_mid_stream_is_raised(client: openai.AsyncOpenAI) -> None:
    """The error event reaches the program as an exception."""
    stream = await client.chat.completions.create(
        model="demo-1", messages=HI, stream=True, extra_headers={"X-Misbehave": "interval=0; error_at=3"}
    )
    with pytest.raises(openai.APIError, match="asked to fail"):
        [chunk async for chunk in stream]


async def test_a_refusal_is_told_in_openais_form(client: openai.AsyncOpenAI) -> None:
    """429 carries Retry-After, 500 does not; both have the error object."""
    with pytest.raises(openai.RateLimitError, match="asked to fail") as limited:
        await client.chat.completions.create(
            model="demo-1", messages=HI, stream=True, extra_headers={"X-Misbehave": "status=429"}
        )
    assert limited.value.code == "rate_limit_exceeded"
    assert limited.value.response.headers["Retry-After"] == "1"
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(
            model="demo-1", messages=HI, extra_headers={"X-Misbehave": "status=500"}
        )
    assert failed.value.type == "server_error"
    assert "Retry-After" not in failed.value.response.headers


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"model": "m"}', "missing required field `messages`"),
        (b'{"model": "m", "messages": "Hi"}', "Expected `array`"),
    ],
)
async def test_a_bad_request_is_refused_with_the_reason(
    client: openai.AsyncOpenAI, body: bytes, fault: str
) -> None:
    """What is no request of this API is a 400 that says why."""
    with pytest.raises(openai.BadRequestError, match=fault):
        await client.post("/chat/completions", cast_to=object, content=body)


async def test_the_models_are_listed(client: openai.AsyncOpenAI) -> None:
    """GET /v1/models."""
    assert [model.id async for model in client.models.list()] == ["demo-1", "demo-1-mini"]
