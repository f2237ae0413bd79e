"""Responses, read by OpenAI's own SDK with its models validated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.responses import FunctionToolParam

from proxy.demo import Running, expected_text

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
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


async def test_a_stream_runs_through_the_whole_lifecycle(client: openai.AsyncOpenAI) -> None:
    """Every event is numbered, the deltas join to the text, and the end repeats the whole."""
    stream = await client.responses.create(model="demo-1", input="Say something", stream=True)
    events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(deltas) == expected_text()
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    completed = events[-1]
    assert completed.type == "response.completed"
    assert completed.response.output_text == expected_text()
    assert completed.response.usage is not None
    assert completed.response.usage.total_tokens == 42


async def test_the_sdks_own_accumulator_accepts_the_stream(client: openai.AsyncOpenAI) -> None:
    """The helper that folds events into a response finds every step where it expects it."""
    async with client.responses.stream(model="demo-1", input="Say something") as stream:
        async for _ in stream:
            pass
        response = await stream.get_final_response()
    assert response.output_text == expected_text()


async def test_an_answer_without_a_stream(client: openai.AsyncOpenAI) -> None:
    """The same text at once, for an input in turns."""
    response = await client.responses.create(model="demo-1", input=[{"role": "user", "content": "Hi"}])
    assert response.output_text == expected_text()
    assert response.status == "completed"


async def test_a_tool_call_is_streamed_in_fragments(client: openai.AsyncOpenAI) -> None:
    """A required tool is called with arguments that fit its schema."""
    stream = await client.responses.create(
        model="demo-1", input="Hi", stream=True, tools=[WEATHER], tool_choice="required"
    )
    events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(deltas) > 1
    assert json.loads("".join(deltas)) == {"city": "Zürich"}
    completed = events[-1]
    assert completed.type == "response.completed"
    [call] = completed.response.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("get_weather", "".join(deltas))


async def test_a_failure_in_mid_stream_is_an_event(client: openai.AsyncOpenAI) -> None:
    """The API's error event is flat, so the SDK hands it on; it is the last one."""
    stream = await client.responses.create(
        model="demo-1", input="Hi", stream=True, extra_headers={"X-Misbehave": "interval=0; error_at=5"}
    )
    events = [event async for event in stream]
    assert len(events) == 6
    assert events[-1].type == "error"
    assert events[-1].sequence_number == 5
    assert events[-1].code == "server_error"
