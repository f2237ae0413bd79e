"""AWS Bedrock, read by AWS's own SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import pytest
from botocore.awsrequest import AWSRequest
from botocore.eventstream import EventStreamBuffer

from proxy.demo import Running, expected_text
from proxy.demo.bedrock_events import SIGNATURE
from proxy.demo.voice import FAILURE, THOUGHT

from .wire import connect, post

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "Say something nice"}]}]
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {
    "tools": [{"toolSpec": {"name": "get_weather", "inputSchema": {"json": SCHEMA}}}],
    "toolChoice": {"any": {}},
}


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    """The SDK's session, whose models of services take a while to load."""
    return boto3.Session(aws_access_key_id="demo", aws_secret_access_key="demo", region_name="us-east-1")


def misbehave(request: AWSRequest, wrong: str) -> None:
    """Add the header that asks for it."""
    request.headers["X-Misbehave"] = wrong


#: Calls one operation in a thread, as the SDK knows no other way, and returns what ``read`` makes of it.
Call = Callable[..., Any]


@pytest.fixture
def call(running: Running, session: boto3.Session) -> Call:
    """The SDK, pointed at the provider."""

    def call_now(operation: str, wrong: str, **request: Any) -> Any:
        config = botocore.config.Config(retries={"total_max_attempts": 1})
        client = session.client("bedrock-runtime", endpoint_url=running.url, config=config)
        client.meta.events.register("before-sign", lambda request, **_: misbehave(request, wrong))
        answer = getattr(client, operation)(modelId=MODEL, messages=MESSAGES, **request)
        return list(answer["stream"]) if "stream" in answer else answer

    async def call(operation: str, wrong: str = "interval=0", **request: Any) -> Any:
        return await asyncio.to_thread(call_now, operation, wrong, **request)

    return call


def named(events: list[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    """What the events of a name say."""
    return (event[name] for event in events if name in event)


def deltas(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pieces of all content blocks."""
    return [event["delta"] for event in named(events, "contentBlockDelta")]


async def test_a_stream_arrives_whole(call: Call) -> None:
    """The pieces join to the text; then come the reason and the usage."""
    events = await call("converse_stream")
    assert "".join(delta["text"] for delta in deltas(events)) == expected_text()
    assert events[0] == {"messageStart": {"role": "assistant"}}
    assert events[-2] == {"messageStop": {"stopReason": "end_turn"}}
    assert events[-1]["metadata"]["usage"] == {"inputTokens": 3, "outputTokens": 40, "totalTokens": 43}


async def test_a_model_thinks_first(call: Call) -> None:
    """In a block of its own, with a signature at its end."""
    events = await call("converse_stream", additionalModelRequestFields=THINKING)
    thought = [delta["reasoningContent"] for delta in deltas(events) if "reasoningContent" in delta]
    assert thought == [*({"text": piece} for piece in THOUGHT), {"signature": SIGNATURE}]
    assert [stop["contentBlockIndex"] for stop in named(events, "contentBlockStop")] == [0, 1]


async def test_a_forced_tool_is_called(call: Call) -> None:
    """Its arguments come in fragments of a JSON text."""
    events = await call("converse_stream", toolConfig=WEATHER)
    [start] = named(events, "contentBlockStart")
    assert start["start"]["toolUse"]["name"] == "get_weather"
    assert "".join(delta["toolUse"]["input"] for delta in deltas(events)) == '{"city": "Zürich"}'
    assert next(named(events, "messageStop")) == {"stopReason": "tool_use"}


async def test_answers_without_a_stream(call: Call) -> None:
    """The same at once."""
    answer = await call("converse", additionalModelRequestFields=THINKING)
    thought, said = answer["output"]["message"]["content"]
    assert thought["reasoningContent"]["reasoningText"]["text"] == "".join(THOUGHT)
    assert said == {"text": expected_text()}
    [use] = (await call("converse", toolConfig=WEATHER))["output"]["message"]["content"]
    assert use["toolUse"]["input"] == {"city": "Zürich"}


async def test_a_failure_in_mid_stream_is_raised(call: Call) -> None:
    """The exception among the messages reaches the program as one."""
    with pytest.raises(botocore.exceptions.EventStreamError, match=FAILURE) as failed:
        await call("converse_stream", "interval=0; error_at=2")
    assert failed.value.response["Error"]["Code"] == "modelStreamErrorException"


async def test_a_refusal_is_told_in_awss_form(call: Call) -> None:
    """The status has its exception."""
    with pytest.raises(botocore.exceptions.ClientError, match=FAILURE) as refused:
        await call("converse", "status=429")
    assert refused.value.response["Error"]["Code"] == "ThrottlingException"


async def test_messages_on_the_wire(running: Running) -> None:
    """A write each, of AWS's content type, padded with white space where the request says so."""
    target = f"/model/{MODEL.replace(':', '%3A')}/converse-stream?interval=0&tokens=2&size=500&comments=1"
    async with connect(running) as wire:
        wire.send(post(target, {"messages": MESSAGES}))
        status, headers = await wire.head()
        chunks = await wire.chunks()
    assert (status, headers["content-type"]) == (200, "application/vnd.amazon.eventstream")
    assert [len(chunk) for chunk in chunks] == [500] * 6
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(chunks))
    names = [message.headers[":event-type"] for message in buffer]
    assert names == [
        "messageStart",
        *["contentBlockDelta"] * 2,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
