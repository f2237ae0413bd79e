"""Tool calls and usage: arguments are JSON in fragments, so that one lost byte breaks the whole.

Usage comes at the very end, where a stream that is cut too early would lose it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import openai
import pytest

from tests.sdks.clients import (
    MODEL,
    Call,
    anthropic_client,
    cohere_client,
    google_client,
    groq_client,
    langchain_model,
    openai_client,
)
from tests.sdks.conftest import SetStage
from tests.sdks.node_clients import NODE_SDKS, Node

PROMPT = "Use your tool."
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}},
    "required": ["city", "days", "metric"],
}

#: Heartbeats fall before the first fragment, and between those that follow.
PACE = "first_delay=0.5; interval=0.04"

#: What the provider makes up for that schema.
ARGUMENTS = {"city": "Zürich", "days": 7, "metric": True}

#: Tokens in and out: the prompt's words, and the fragments of the arguments, which are one with Google.
USAGE, GOOGLES_USAGE = (3, 6), (3, 1)

#: What an SDK made of the stream: the tool's name, its arguments, and tokens in and out.
Called = tuple[str, object, tuple[float | None, float | None] | None]

CHAT_TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
SAYING: list[Any] = [{"role": "user", "content": PROMPT}]


def chat_chunks(chunks: Iterable[Any]) -> Called:
    """The fragments of a chat completion's tool call, joined, and the usage of its last chunk."""
    name, arguments, usage = "", "", None
    for chunk in chunks:
        for choice in chunk.choices:
            for fragment in choice.delta.tool_calls or []:
                name += fragment.function.name or ""
                arguments += fragment.function.arguments or ""
        if chunk.usage:
            usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
    return name, json.loads(arguments), usage


def chat_tool(call: Call) -> Called:
    """OpenAI's chunks."""
    with openai_client(call) as client:
        return chat_chunks(
            client.chat.completions.create(
                model=MODEL,
                messages=SAYING,
                tools=CHAT_TOOLS,
                stream=True,
                stream_options={"include_usage": True},
            )
        )


def chat_helper_tool(call: Call) -> Called:
    """The tool call of the completion that OpenAI's helper builds up."""
    with (
        openai_client(call) as client,
        client.chat.completions.stream(
            model=MODEL, messages=SAYING, tools=CHAT_TOOLS, stream_options={"include_usage": True}
        ) as stream,
    ):
        completion = stream.get_final_completion()
    (tool,) = completion.choices[0].message.tool_calls or []
    assert completion.usage is not None
    usage = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    return tool.function.name, json.loads(tool.function.arguments), usage


def groq_tool(call: Call) -> Called:
    """Groq's chunks, whose usage is asked for by what is no argument of its SDK."""
    with groq_client(call) as client:
        return chat_chunks(
            client.chat.completions.create(
                model=MODEL,
                messages=SAYING,
                tools=CHAT_TOOLS,
                stream=True,
                extra_body={"stream_options": {"include_usage": True}},
            )
        )


def langchain_tool(call: Call) -> Called:
    """The tool call of the chunks that LangChain adds up."""
    with openai.DefaultHttpxClient() as http:
        model = langchain_model(call, http_client=http, stream_usage=True).bind_tools(CHAT_TOOLS)
        chunks: list[Any] = list(model.stream(PROMPT))
    message = functools.reduce(operator.add, chunks)
    (tool,) = message.tool_calls
    usage = (message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"])
    return tool["name"], tool["args"], usage


def cohere_tool(call: Call) -> Called:
    """The fragments of Cohere's events, joined."""
    name, arguments, usage = "", "", None
    with httpx.Client() as http:
        events: Iterable[Any] = cohere_client(call, http).chat_stream(
            model=MODEL,
            messages=SAYING,
            tools=CHAT_TOOLS,
            request_options={"additional_headers": call.headers},
        )
        for event in events:
            if event.type == "tool-call-start":
                name = event.delta.message.tool_calls.function.name
            elif event.type == "tool-call-delta":
                arguments += event.delta.message.tool_calls.function.arguments
            elif event.type == "message-end":
                usage = (event.delta.usage.tokens.input_tokens, event.delta.usage.tokens.output_tokens)
    return name, json.loads(arguments), usage


def responses_tool(call: Call) -> Called:
    """The function call of the response that OpenAI's helper builds up."""
    with (
        openai_client(call) as client,
        client.responses.stream(
            model=MODEL,
            input=PROMPT,
            tools=[{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
        ) as stream,
    ):
        response = stream.get_final_response()
    (item,) = response.output
    assert item.type == "function_call"
    assert response.usage is not None
    return item.name, json.loads(item.arguments), (response.usage.input_tokens, response.usage.output_tokens)


def anthropic_tool(call: Call) -> Called:
    """The fragments of a message's tool use, joined."""
    name, arguments, tokens_in, tokens_out = "", "", 0, 0
    with anthropic_client(call) as client:
        events = client.messages.create(
            model=MODEL,
            max_tokens=99,
            messages=SAYING,
            tools=[{"name": "weather", "input_schema": SCHEMA}],
            stream=True,
        )
        for event in events:
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                name = event.content_block.name
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                arguments += event.delta.partial_json
            elif event.type == "message_start":
                tokens_in = event.message.usage.input_tokens
            elif event.type == "message_delta":
                tokens_out = event.usage.output_tokens
    return name, json.loads(arguments), (tokens_in, tokens_out)


def anthropic_helper_tool(call: Call) -> Called:
    """The tool use of the message that Anthropic's helper builds up."""
    with (
        anthropic_client(call) as client,
        client.messages.stream(
            model=MODEL,
            max_tokens=99,
            messages=SAYING,
            tools=[{"name": "weather", "input_schema": SCHEMA}],
        ) as stream,
    ):
        message = stream.get_final_message()
    (block,) = message.content
    assert block.type == "tool_use"
    return block.name, block.input, (message.usage.input_tokens, message.usage.output_tokens)


def gemini_tool(call: Call) -> Called:
    """Gemini's function call, which comes in one piece."""
    tools: list[Any] = [{"function_declarations": [{"name": "weather", "parameters": SCHEMA}]}]
    config: Any = {"tools": tools, "automatic_function_calling": {"disable": True}}
    with google_client(call) as client:
        chunks = list(client.models.generate_content_stream(model=MODEL, contents=PROMPT, config=config))
    (tool,) = [part for chunk in chunks for part in chunk.function_calls or []]
    usage = chunks[-1].usage_metadata
    assert usage is not None
    return tool.name or "", tool.args, (usage.prompt_token_count, usage.candidates_token_count)


#: Mistral's SDK takes whole calls alone, which need no test of their own: a block passes or does not.
CALLS: dict[str, tuple[Callable[[Call], Called], tuple[int, int]]] = {
    "openai chat": (chat_tool, USAGE),
    "openai chat, helper": (chat_helper_tool, USAGE),
    "openai responses, helper": (responses_tool, USAGE),
    "anthropic": (anthropic_tool, USAGE),
    "anthropic, helper": (anthropic_helper_tool, USAGE),
    "google-genai": (gemini_tool, GOOGLES_USAGE),
    "groq": (groq_tool, USAGE),
    "langchain-openai": (langchain_tool, USAGE),
    "cohere": (cohere_tool, USAGE),
}


@pytest.mark.parametrize(("read", "usage"), [pytest.param(*call, id=name) for name, call in CALLS.items()])
async def test_a_tool_call_is_whole(
    read: Callable[[Call], Called], usage: tuple[int, int], set_stage: SetStage
) -> None:
    """Name, arguments and usage are what the provider sent, with heartbeats between the fragments."""
    stage = await set_stage(heartbeat="10ms")
    called = await asyncio.to_thread(read, stage.call(PACE))
    assert called == ("weather", ARGUMENTS, usage)
    relay = await stage.relay()
    assert relay.tally.heartbeats
    ids = re.findall(r"^id: (.*)$", stage.body().decode(), re.MULTILINE)
    assert len(ids) == (relay.log.last if relay.dialect.ids_safe else 0)


async def test_a_tool_call_is_whole_in_node(set_stage: SetStage) -> None:
    """The same in every way of every SDK for Node, all at once."""
    stage = await set_stage(heartbeat="10ms")
    async with Node() as node:
        await node.start()
        answers = await asyncio.gather(*(node.ask(way, stage.call(PACE), tool=True) for way in NODE_SDKS))
    called = {
        way: (*(answer.tool or ()), answer.usage) for way, answer in zip(NODE_SDKS, answers, strict=True)
    }
    assert called == {
        way: ("weather", ARGUMENTS, GOOGLES_USAGE if sdk.dialect == "gemini" else USAGE)
        for way, sdk in NODE_SDKS.items()
    }
    assert all(relay.tally.heartbeats for relay in stage.sidecar.hub.store)
