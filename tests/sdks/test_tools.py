"""Tool calls: their arguments are JSON in fragments, so that one lost byte breaks the whole."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.sdks.clients import MODEL, Call, anthropic_client, google_client, openai_client
from tests.sdks.conftest import SetStage

PROMPT = "Use your tool."
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}},
    "required": ["city", "days", "metric"],
}

#: What the provider makes up for that schema.
ARGUMENTS = {"city": "Zürich", "days": 7, "metric": True}

ToolCall = tuple[str, object]


def chat_tool(call: Call) -> ToolCall:
    """The fragments of a chat completion's tool call, joined."""
    name, arguments = "", ""
    with openai_client(call) as client:
        chunks = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": PROMPT}],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
            stream=True,
        )
        for chunk in chunks:
            for fragment in chunk.choices[0].delta.tool_calls or []:
                assert fragment.function is not None
                name += fragment.function.name or ""
                arguments += fragment.function.arguments or ""
    return name, json.loads(arguments)


def chat_helper_tool(call: Call) -> ToolCall:
    """The tool call of the completion that OpenAI's helper builds up."""
    with (
        openai_client(call) as client,
        client.chat.completions.stream(
            model=MODEL,
            messages=[{"role": "user", "content": PROMPT}],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        ) as stream,
    ):
        (tool,) = stream.get_final_completion().choices[0].message.tool_calls or []
    return tool.function.name, json.loads(tool.function.arguments)


def responses_tool(call: Call) -> ToolCall:
    """The function call of the response that OpenAI's helper builds up."""
    with (
        openai_client(call) as client,
        client.responses.stream(
            model=MODEL,
            input=PROMPT,
            tools=[{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
        ) as stream,
    ):
        (item,) = stream.get_final_response().output
    assert item.type == "function_call"
    return item.name, json.loads(item.arguments)


def anthropic_tool(call: Call) -> ToolCall:
    """The fragments of a message's tool use, joined."""
    name, arguments = "", ""
    with anthropic_client(call) as client:
        events = client.messages.create(
            model=MODEL,
            max_tokens=99,
            messages=[{"role": "user", "content": PROMPT}],
            tools=[{"name": "weather", "input_schema": SCHEMA}],
            stream=True,
        )
        for event in events:
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                name = event.content_block.name
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                arguments += event.delta.partial_json
    return name, json.loads(arguments)


def anthropic_helper_tool(call: Call) -> ToolCall:
    """The tool use of the message that Anthropic's helper builds up."""
    with (
        anthropic_client(call) as client,
        client.messages.stream(
            model=MODEL,
            max_tokens=99,
            messages=[{"role": "user", "content": PROMPT}],
            tools=[{"name": "weather", "input_schema": SCHEMA}],
        ) as stream,
    ):
        (block,) = stream.get_final_message().content
    assert block.type == "tool_use"
    return block.name, block.input


def gemini_tool(call: Call) -> ToolCall:
    """Gemini's function call, which comes in one piece."""
    tools: list[Any] = [{"function_declarations": [{"name": "weather", "parameters": SCHEMA}]}]
    config: Any = {"tools": tools, "automatic_function_calling": {"disable": True}}
    with google_client(call) as client:
        chunks = client.models.generate_content_stream(model=MODEL, contents=PROMPT, config=config)
        (tool,) = [part for chunk in chunks for part in chunk.function_calls or []]
    return tool.name or "", tool.args


CALLS: dict[str, Callable[[Call], ToolCall]] = {
    "openai chat": chat_tool,
    "openai chat, helper": chat_helper_tool,
    "openai responses, helper": responses_tool,
    "anthropic": anthropic_tool,
    "anthropic, helper": anthropic_helper_tool,
    "google-genai": gemini_tool,
}


@pytest.mark.parametrize("read", [pytest.param(read, id=name) for name, read in CALLS.items()])
async def test_a_tool_call_is_whole(read: Callable[[Call], ToolCall], set_stage: SetStage) -> None:
    """Its name and its arguments are what the provider sent, with heartbeats between the fragments."""
    stage = await set_stage(heartbeat="10ms")
    assert await asyncio.to_thread(read, stage.call("interval=0.04")) == ("weather", ARGUMENTS)
    relay = await stage.relay()
    assert relay.tally.heartbeats
    ids = re.findall(r"^id: (.*)$", stage.body().decode(), re.MULTILINE)
    assert len(ids) == (relay.log.last if relay.dialect.ids_safe else 0)
