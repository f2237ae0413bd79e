"""Each official SDK's way to a stream of text and to a whole answer: one row of ``SDKS`` a way.

A reader yields text as its SDK gives it out, and lets the SDK's exceptions through. Nobody retries
unless the call says so: what a test sees is what one request led to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import groq
import httpx
import openai
from anthropic.types import MessageParam as AnthropicMessage
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types
from groq.types.chat import ChatCompletionMessageParam as GroqMessage
from httpx_sse import SSEError, aconnect_sse, connect_sse
from langchain_openai import ChatOpenAI
from mistralai.client import Mistral
from mistralai.client import errors as mistral_errors
from openai.types.chat import ChatCompletionMessageParam as OpenAIMessage
from pydantic import SecretStr

KEY = "not-a-key"
MODEL = "demo-1"
PROMPT = "hello"

# The same prompt, in each SDK's types.
OPENAI_SAYING: list[OpenAIMessage] = [{"role": "user", "content": PROMPT}]
GROQ_SAYING: list[GroqMessage] = [{"role": "user", "content": PROMPT}]
ANTHROPIC_SAYING: list[AnthropicMessage] = [{"role": "user", "content": PROMPT}]
MISTRAL_SAYING = [{"role": "user", "content": PROMPT}]


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the sidecar's base URL, and what the provider is asked to do wrong.

    ``retries`` is what the SDK may do by itself when it fails, where it can be told.
    """

    base: str
    wrong: str = ""
    retries: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """The header that asks the provider to misbehave."""
        return {"X-Misbehave": self.wrong}


# OpenAI chat completions


def openai_client(call: Call) -> openai.OpenAI:
    """OpenAI's client."""
    return openai.OpenAI(
        base_url=f"{call.base}/v1", api_key=KEY, max_retries=call.retries, default_headers=call.headers
    )


def async_openai_client(call: Call) -> openai.AsyncOpenAI:
    """OpenAI's asynchronous client."""
    return openai.AsyncOpenAI(
        base_url=f"{call.base}/v1", api_key=KEY, max_retries=call.retries, default_headers=call.headers
    )


def read_chat(call: Call) -> Iterator[str]:
    """The deltas of a chat completion."""
    with openai_client(call) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=OPENAI_SAYING, stream=True)
        for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


async def read_chat_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited."""
    async with async_openai_client(call) as client:
        chunks = await client.chat.completions.create(model=MODEL, messages=OPENAI_SAYING, stream=True)
        async for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


async def read_chat_helper(call: Call) -> AsyncIterator[str]:
    """The same, through the helper that builds the completion up."""
    async with (
        async_openai_client(call) as client,
        client.chat.completions.stream(model=MODEL, messages=OPENAI_SAYING) as events,
    ):
        async for event in events:
            if event.type == "content.delta":
                yield event.delta


def ask_chat(call: Call) -> str:
    """A whole completion's text."""
    with openai_client(call) as client:
        completion = client.chat.completions.create(model=MODEL, messages=OPENAI_SAYING)
        return completion.choices[0].message.content or ""


# OpenAI Responses


def read_responses(call: Call) -> Iterator[str]:
    """The text deltas of a response."""
    with openai_client(call) as client:
        for event in client.responses.create(model=MODEL, input=PROMPT, stream=True):
            if event.type == "response.output_text.delta":
                yield event.delta


async def read_responses_helper(call: Call) -> AsyncIterator[str]:
    """The same, awaited, through the helper that builds the response up."""
    async with (
        async_openai_client(call) as client,
        client.responses.stream(model=MODEL, input=PROMPT) as events,
    ):
        async for event in events:
            if event.type == "response.output_text.delta":
                yield event.delta


def ask_responses(call: Call) -> str:
    """A whole response's text."""
    with openai_client(call) as client:
        return client.responses.create(model=MODEL, input=PROMPT).output_text


# Anthropic messages


def anthropic_client(call: Call) -> anthropic.Anthropic:
    """Anthropic's client."""
    return anthropic.Anthropic(
        base_url=call.base, api_key=KEY, max_retries=call.retries, default_headers=call.headers
    )


def async_anthropic_client(call: Call) -> anthropic.AsyncAnthropic:
    """Anthropic's asynchronous client."""
    return anthropic.AsyncAnthropic(
        base_url=call.base, api_key=KEY, max_retries=call.retries, default_headers=call.headers
    )


def read_messages(call: Call) -> Iterator[str]:
    """The text deltas of a message."""
    with anthropic_client(call) as client:
        events = client.messages.create(model=MODEL, max_tokens=99, messages=ANTHROPIC_SAYING, stream=True)
        for event in events:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text


async def read_messages_helper(call: Call) -> AsyncIterator[str]:
    """The same, awaited, through the helper that builds the message up."""
    async with (
        async_anthropic_client(call) as client,
        client.messages.stream(model=MODEL, max_tokens=99, messages=ANTHROPIC_SAYING) as stream,
    ):
        async for text in stream.text_stream:
            yield text


def ask_messages(call: Call) -> str:
    """A whole message's text."""
    with anthropic_client(call) as client:
        message = client.messages.create(model=MODEL, max_tokens=99, messages=ANTHROPIC_SAYING)
        return "".join(block.text for block in message.content if block.type == "text")


# Gemini


def google_client(call: Call) -> genai.Client:
    """Google's client; it retries only if told to."""
    options = google_types.HttpOptions(base_url=call.base, headers=call.headers)
    return genai.Client(api_key=KEY, http_options=options)


def read_gemini(call: Call) -> Iterator[str]:
    """The text of each chunk."""
    with google_client(call) as client:
        for chunk in client.models.generate_content_stream(model=MODEL, contents=PROMPT):
            yield chunk.text or ""


async def read_gemini_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited: this client is aiohttp's."""
    async with google_client(call).aio as client:
        async for chunk in await client.models.generate_content_stream(model=MODEL, contents=PROMPT):
            yield chunk.text or ""


def ask_gemini(call: Call) -> str:
    """A whole answer's text."""
    with google_client(call) as client:
        return client.models.generate_content(model=MODEL, contents=PROMPT).text or ""


# Groq: OpenAI's protocol below a prefix


def groq_client(call: Call) -> groq.Groq:
    """Groq's client, which adds ``/openai`` to its base URL."""
    return groq.Groq(base_url=call.base, api_key=KEY, max_retries=call.retries, default_headers=call.headers)


def read_groq(call: Call) -> Iterator[str]:
    """The deltas of a chat completion."""
    with groq_client(call) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=GROQ_SAYING, stream=True)
        for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


async def read_groq_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited."""
    async with groq.AsyncGroq(
        base_url=call.base, api_key=KEY, max_retries=call.retries, default_headers=call.headers
    ) as client:
        chunks = await client.chat.completions.create(model=MODEL, messages=GROQ_SAYING, stream=True)
        async for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


def ask_groq(call: Call) -> str:
    """A whole completion's text."""
    with groq_client(call) as client:
        completion = client.chat.completions.create(model=MODEL, messages=GROQ_SAYING)
        return completion.choices[0].message.content or ""


# Mistral: OpenAI's protocol in an SDK of another maker


def read_mistral(call: Call) -> Iterator[str]:
    """The deltas of a chat completion."""
    with (
        Mistral(api_key=KEY, server_url=call.base) as client,
        client.chat.stream(model=MODEL, messages=MISTRAL_SAYING, http_headers=call.headers) as events,
    ):
        for event in events:
            yield str(event.data.choices[0].delta.content or "")


async def read_mistral_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited."""
    async with (
        Mistral(api_key=KEY, server_url=call.base) as client,
        await client.chat.stream_async(
            model=MODEL, messages=MISTRAL_SAYING, http_headers=call.headers
        ) as events,
    ):
        async for event in events:
            yield str(event.data.choices[0].delta.content or "")


def ask_mistral(call: Call) -> str:
    """A whole completion's text."""
    with Mistral(api_key=KEY, server_url=call.base) as client:
        answer = client.chat.complete(model=MODEL, messages=MISTRAL_SAYING, http_headers=call.headers)
        return str(answer.choices[0].message.content)


# LangChain on OpenAI's SDK


def read_langchain(call: Call) -> Iterator[str]:
    """The text of each message chunk."""
    with openai.DefaultHttpxClient() as http:
        for chunk in langchain_model(call, http_client=http).stream(PROMPT):
            yield chunk.text


async def read_langchain_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited."""
    async with openai.DefaultAsyncHttpxClient() as http:
        async for chunk in langchain_model(call, http_async_client=http).astream(PROMPT):
            yield chunk.text


def ask_langchain(call: Call) -> str:
    """A whole message's text."""
    with openai.DefaultHttpxClient() as http:
        return langchain_model(call, http_client=http).invoke(PROMPT).text


def langchain_model(call: Call, **http: Any) -> ChatOpenAI:
    """LangChain's chat model, on an HTTP client that the caller closes."""
    return ChatOpenAI(
        base_url=f"{call.base}/v1",
        api_key=SecretStr(KEY),
        model=MODEL,
        max_retries=call.retries,
        default_headers=call.headers,
        **http,
    )


# httpx-sse on an app's own stream


def read_events(call: Call) -> Iterator[str]:
    """The tokens of the demo's app, of no provider's dialect."""
    with (
        httpx.Client() as client,
        connect_sse(
            client, "POST", f"{call.base}/api/chat", json={"prompt": PROMPT}, headers=call.headers
        ) as source,
    ):
        for event in source.iter_sse():
            if event.event == "token":
                yield event.json()["text"]


async def read_events_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited."""
    async with (
        httpx.AsyncClient() as client,
        aconnect_sse(
            client, "POST", f"{call.base}/api/chat", json={"prompt": PROMPT}, headers=call.headers
        ) as source,
    ):
        async for event in source.aiter_sse():
            if event.event == "token":
                yield event.json()["text"]


# The table


@dataclass(frozen=True, slots=True)
class Sdk:
    """One way to read a stream.

    ``raises`` is what it raises when a stream breaks off, ``refused`` what it raises for the status of
    an answer that is no stream, ``ask`` its way to a whole answer.
    """

    dialect: str
    read: Callable[[Call], Iterator[str] | AsyncIterator[str]]
    raises: type[Exception]
    refused: Mapping[int, type[Exception]]
    ask: Callable[[Call], str] | None = None


OPENAI = {429: openai.RateLimitError, 500: openai.InternalServerError}
ANTHROPIC = {429: anthropic.RateLimitError, 500: anthropic.InternalServerError}
GOOGLE = {429: google_errors.ClientError, 500: google_errors.ServerError}
GROQ = {429: groq.RateLimitError, 500: groq.InternalServerError}
MISTRAL = {429: mistral_errors.SDKError, 500: mistral_errors.SDKError}
EVENTS = {429: SSEError, 500: SSEError}

SDKS = {
    "openai chat": Sdk("openai", read_chat, openai.APIError, OPENAI, ask_chat),
    "openai chat, async": Sdk("openai", read_chat_async, openai.APIError, OPENAI),
    "openai chat, async helper": Sdk("openai", read_chat_helper, openai.APIError, OPENAI),
    "openai responses": Sdk("openai-responses", read_responses, openai.APIError, OPENAI, ask_responses),
    "openai responses, async helper": Sdk("openai-responses", read_responses_helper, openai.APIError, OPENAI),
    "anthropic": Sdk("anthropic", read_messages, anthropic.APIStatusError, ANTHROPIC, ask_messages),
    "anthropic, async helper": Sdk("anthropic", read_messages_helper, anthropic.APIStatusError, ANTHROPIC),
    "google-genai": Sdk("gemini", read_gemini, google_errors.APIError, GOOGLE, ask_gemini),
    "google-genai, async": Sdk("gemini", read_gemini_async, google_errors.APIError, GOOGLE),
    "groq": Sdk("openai", read_groq, groq.APIError, GROQ, ask_groq),
    "groq, async": Sdk("openai", read_groq_async, groq.APIError, GROQ),
    "mistralai": Sdk("openai", read_mistral, mistral_errors.ResponseValidationError, MISTRAL, ask_mistral),
    "mistralai, async": Sdk("openai", read_mistral_async, mistral_errors.ResponseValidationError, MISTRAL),
    "langchain-openai": Sdk("openai", read_langchain, openai.APIError, OPENAI, ask_langchain),
    "langchain-openai, async": Sdk("openai", read_langchain_async, openai.APIError, OPENAI),
    "httpx-sse": Sdk("generic", read_events, httpx.RemoteProtocolError, EVENTS),
    "httpx-sse, async": Sdk("generic", read_events_async, httpx.RemoteProtocolError, EVENTS),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The text that a program got from its SDK, and the exception that it ended with."""

    text: str
    error: Exception | None


async def listen(sdk: Sdk, call: Call) -> Outcome:
    """Read a stream to its end, good or bad. A synchronous SDK reads in a thread of its own."""
    said: list[str] = []

    def collect(words: Iterator[str]) -> None:
        said.extend(words)

    try:
        words = sdk.read(call)
        if isinstance(words, Iterator):
            await asyncio.to_thread(collect, words)
        else:
            async for word in words:
                said.append(word)  # noqa: PERF401  # one by one: what came before a failure counts
    except Exception as error:
        return Outcome("".join(said), error)
    return Outcome("".join(said), None)
