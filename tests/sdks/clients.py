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
import cohere
import groq
import httpx
import ollama
import openai
from anthropic.types import MessageParam as AnthropicMessage
from cohere.core import ApiError as CohereError
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
COHERE_SAYING: list[cohere.ChatMessageV2] = [cohere.UserChatMessageV2(content=PROMPT)]
OLLAMA_SAYING = [ollama.Message(role="user", content=PROMPT)]


class GivenOut(Exception):
    """An error that an SDK gave out as an event of its stream, as it does with its provider's."""


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
            elif event.type == "error":
                raise GivenOut(event.message)


async def read_responses_helper(call: Call) -> AsyncIterator[str]:
    """The same, awaited, through the helper that builds the response up."""
    async with (
        async_openai_client(call) as client,
        client.responses.stream(model=MODEL, input=PROMPT) as events,
    ):
        async for event in events:
            if event.type == "response.output_text.delta":
                yield event.delta
            elif event.type == "error":
                raise GivenOut(event.message)


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


# Cohere: events with names


def cohere_client(call: Call, http: httpx.Client) -> cohere.ClientV2:
    """Cohere's client, on an HTTP client that the caller closes."""
    return cohere.ClientV2(api_key=KEY, base_url=call.base, max_retries=call.retries, httpx_client=http)


def cohere_text(event: cohere.V2ChatStreamResponse) -> str:
    """What an event says."""
    if event.type == "message-end" and event.delta and event.delta.error:
        raise GivenOut(event.delta.error)
    if event.type != "content-delta":
        return ""
    assert event.delta
    assert event.delta.message
    assert event.delta.message.content
    return event.delta.message.content.text or ""


def read_cohere(call: Call) -> Iterator[str]:
    """The deltas of a chat."""
    with httpx.Client() as http:
        events = cohere_client(call, http).chat_stream(
            model=MODEL, messages=COHERE_SAYING, request_options={"additional_headers": call.headers}
        )
        yield from map(cohere_text, events)


async def read_cohere_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited."""
    async with httpx.AsyncClient() as http:
        client = cohere.AsyncClientV2(
            api_key=KEY, base_url=call.base, max_retries=call.retries, httpx_client=http
        )
        async for event in client.chat_stream(
            model=MODEL, messages=COHERE_SAYING, request_options={"additional_headers": call.headers}
        ):
            yield cohere_text(event)


def ask_cohere(call: Call) -> str:
    """A whole answer's text."""
    with httpx.Client() as http:
        answer = cohere_client(call, http).chat(
            model=MODEL, messages=COHERE_SAYING, request_options={"additional_headers": call.headers}
        )
        return "".join(part.text for part in answer.message.content or [] if part.type == "text")


# Ollama: lines of JSON


def ollama_host(call: Call) -> str:
    """Where the demo's provider has Ollama's API: its paths are an app's own otherwise."""
    return f"{call.base}/ollama"


def ollama_client(call: Call) -> ollama.Client:
    """Ollama's client."""
    return ollama.Client(host=ollama_host(call), headers=call.headers)


def read_ollama(call: Call) -> Iterator[str]:
    """The deltas of a chat."""
    with ollama_client(call) as client:
        for part in client.chat(model=MODEL, messages=OLLAMA_SAYING, stream=True):
            yield part.message.content or ""


async def read_ollama_async(call: Call) -> AsyncIterator[str]:
    """The same, awaited."""
    async with ollama.AsyncClient(host=ollama_host(call), headers=call.headers) as client:
        async for part in await client.chat(model=MODEL, messages=OLLAMA_SAYING, stream=True):
            yield part.message.content or ""


def ask_ollama(call: Call) -> str:
    """A whole answer's text."""
    with ollama_client(call) as client:
        return client.chat(model=MODEL, messages=OLLAMA_SAYING).message.content or ""


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
            elif event.event == "error":
                raise GivenOut(event.json()["error"])


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
            elif event.event == "error":
                raise GivenOut(event.json()["error"])


# The table


@dataclass(frozen=True, slots=True)
class Api:
    """What is streamed: its name, our dialect for it, and the events before the first word.

    ``adds`` is what the sidecar may add under ``dialect: auto``: ``ids``, ``heartbeats``, and an ``early``
    answer.
    """

    name: str
    dialect: str
    preamble: int
    adds: frozenset[str] = frozenset({"ids", "heartbeats", "early"})


CHAT = Api("OpenAI chat", "openai", 1)
RESPONSES = Api("OpenAI Responses", "openai-responses", 4)
MESSAGES = Api("Anthropic messages", "anthropic", 3)
GEMINI = Api("Gemini", "gemini", 0, frozenset({"heartbeats", "early"}))  # its SDKs break on ids
COHERE = Api("Cohere chat", "cohere", 2)
OLLAMA = Api("Ollama chat", "ollama", 0, frozenset())  # lines of JSON pass untouched
APP = Api("an app's own", "generic", 0)


@dataclass(frozen=True, slots=True)
class Sdk:
    """One way to read a stream.

    ``raises`` is what it raises when a stream breaks off, ``refused`` what it raises for the status of
    an answer that is no stream, ``ask`` its way to a whole answer. ``litters``: it leaves the connection of
    a stream that told an error to the garbage collector.
    """

    package: str
    api: Api
    read: Callable[[Call], Iterator[str] | AsyncIterator[str]]
    raises: type[Exception] | tuple[type[Exception], ...]
    refused: Mapping[int, type[Exception]]
    ask: Callable[[Call], str] | None = None
    litters: bool = False

    @property
    def dialect(self) -> str:
        """The dialect that the sidecar goes by."""
        return self.api.dialect

    @property
    def packages(self) -> tuple[str, ...]:
        """What it is made of."""
        return (self.package,)

    def raised(self, error: Exception) -> bool:
        """Whether it is the SDK that raised this, because a stream broke off."""
        return isinstance(error, self.raises)


BY_OPENAI = {429: openai.RateLimitError, 500: openai.InternalServerError}
BY_ANTHROPIC = {429: anthropic.RateLimitError, 500: anthropic.InternalServerError}
BY_GOOGLE = {429: google_errors.ClientError, 500: google_errors.ServerError}
BY_GROQ = {429: groq.RateLimitError, 500: groq.InternalServerError}
BY_MISTRAL = {429: mistral_errors.SDKError, 500: mistral_errors.SDKError}
BY_COHERE = {429: cohere.TooManyRequestsError, 500: CohereError}
BY_OLLAMA = {429: ollama.ResponseError, 500: ollama.ResponseError}
BY_HTTPX_SSE = {429: SSEError, 500: SSEError}

#: A connection that broke, where the SDK lets its HTTP client speak.
BROKEN = httpx.RemoteProtocolError
BY_LINES = (ollama.ResponseError, BROKEN)
INVALID = mistral_errors.ResponseValidationError

SDKS = {
    "openai chat": Sdk("openai", CHAT, read_chat, openai.APIError, BY_OPENAI, ask_chat),
    "openai chat, async": Sdk("openai", CHAT, read_chat_async, openai.APIError, BY_OPENAI),
    "openai chat, async helper": Sdk("openai", CHAT, read_chat_helper, openai.APIError, BY_OPENAI),
    "openai responses": Sdk("openai", RESPONSES, read_responses, openai.APIError, BY_OPENAI, ask_responses),
    "openai responses, async helper": Sdk(
        "openai", RESPONSES, read_responses_helper, openai.APIError, BY_OPENAI
    ),
    "anthropic": Sdk(
        "anthropic", MESSAGES, read_messages, anthropic.APIStatusError, BY_ANTHROPIC, ask_messages
    ),
    "anthropic, async helper": Sdk(
        "anthropic", MESSAGES, read_messages_helper, anthropic.APIStatusError, BY_ANTHROPIC
    ),
    "google-genai": Sdk("google-genai", GEMINI, read_gemini, google_errors.APIError, BY_GOOGLE, ask_gemini),
    "google-genai, async": Sdk(
        "google-genai", GEMINI, read_gemini_async, google_errors.APIError, BY_GOOGLE, litters=True
    ),
    "groq": Sdk("groq", CHAT, read_groq, groq.APIError, BY_GROQ, ask_groq),
    "groq, async": Sdk("groq", CHAT, read_groq_async, groq.APIError, BY_GROQ),
    "mistralai": Sdk("mistralai", CHAT, read_mistral, INVALID, BY_MISTRAL, ask_mistral),
    "mistralai, async": Sdk("mistralai", CHAT, read_mistral_async, INVALID, BY_MISTRAL),
    "langchain-openai": Sdk(
        "langchain-openai", CHAT, read_langchain, openai.APIError, BY_OPENAI, ask_langchain
    ),
    "langchain-openai, async": Sdk(
        "langchain-openai", CHAT, read_langchain_async, openai.APIError, BY_OPENAI
    ),
    "cohere": Sdk("cohere", COHERE, read_cohere, BROKEN, BY_COHERE, ask_cohere),
    "cohere, async": Sdk("cohere", COHERE, read_cohere_async, BROKEN, BY_COHERE),
    "ollama": Sdk("ollama", OLLAMA, read_ollama, BY_LINES, BY_OLLAMA, ask_ollama),
    "ollama, async": Sdk("ollama", OLLAMA, read_ollama_async, BY_LINES, BY_OLLAMA),
    "httpx-sse": Sdk("httpx-sse", APP, read_events, BROKEN, BY_HTTPX_SSE),
    "httpx-sse, async": Sdk("httpx-sse", APP, read_events_async, BROKEN, BY_HTTPX_SSE),
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
