"""The failures, told to the providers' own SDKs over a real socket: each must raise, and say why.

A short answer without an error is the worst outcome there is, since nobody notices it. So every
stream here ends as the sidecar ends one: some blocks with ids, a heartbeat, the failure block, and a
clean close.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import anthropic
import groq
import openai
import pytest
from aiohttp import web
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types

from proxy.dialects import DIALECTS, Dialect, Failure, propose

#: What breaks the line splitters that go by more than LF, the JSON writers that do not escape, and
#: the encoders that meet half a character.
MESSAGE = 'the upstream said "bye"\nafter 3 blocks \u2028\x85\x1e and a half \ud83d'
PROMPT = "hello"
KEY = "not-a-key"

# Four streams that say "Hello" and then stop short.
CHAT_BLOCKS = b"""\
data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",\
"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}

data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",\
"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}]}""".split(b"\n\n")

RESPONSES_BLOCKS = b"""\
event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response",\
"created_at":1,"model":"m","output":[],"tools":[],"tool_choice":"auto","parallel_tool_calls":true}}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":1,"output_index":0,\
"item":{"id":"i","type":"message","role":"assistant","status":"in_progress","content":[]}}

event: response.content_part.added
data: {"type":"response.content_part.added","sequence_number":2,"item_id":"i","output_index":0,\
"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":3,"item_id":"i","output_index":0,\
"content_index":0,"logprobs":[],"delta":"Hel"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"i","output_index":0,\
"content_index":0,"logprobs":[],"delta":"lo"}""".split(b"\n\n")

ANTHROPIC_BLOCKS = b"""\
event: message_start
data: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m",\
"content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}""".split(b"\n\n")

GEMINI_BLOCKS = b"""\
data: {"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"},"index":0}]}

data: {"candidates":[{"content":{"parts":[{"text":"lo"}],"role":"model"},"index":0}]}""".split(b"\n\n")


def read_chat(base: str) -> Iterator[str]:
    """The text that openai's client gives out, piece by piece."""
    with openai.OpenAI(base_url=f"{base}/openai", api_key=KEY, max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


async def read_chat_async(base: str) -> AsyncIterator[str]:
    """The same, from its asynchronous client."""
    async with openai.AsyncOpenAI(base_url=f"{base}/openai", api_key=KEY, max_retries=0) as client:
        chunks = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        async for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


def read_groq(base: str) -> Iterator[str]:
    """The text that groq's client gives out."""
    with groq.Groq(base_url=f"{base}/groq", api_key=KEY, max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


def read_responses(base: str) -> Iterator[str]:
    """The text of a response's events."""
    with openai.OpenAI(base_url=f"{base}/openai", api_key=KEY, max_retries=0) as client:
        for event in client.responses.create(model="m", input=PROMPT, stream=True):
            if event.type == "response.output_text.delta":
                yield event.delta


async def read_responses_async(base: str) -> AsyncIterator[str]:
    """The same, through the helper that builds the response up."""
    async with (
        openai.AsyncOpenAI(base_url=f"{base}/openai", api_key=KEY, max_retries=0) as client,
        client.responses.stream(model="m", input=PROMPT) as events,
    ):
        async for event in events:
            if event.type == "response.output_text.delta":
                yield event.delta


def read_messages(base: str) -> Iterator[str]:
    """The text of a message's events."""
    with anthropic.Anthropic(base_url=base, api_key=KEY, max_retries=0) as client:
        events = client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        for event in events:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text


async def read_messages_async(base: str) -> AsyncIterator[str]:
    """The same, through the helper that builds the message up."""
    prompt: anthropic.types.MessageParam = {"role": "user", "content": PROMPT}
    async with (
        anthropic.AsyncAnthropic(base_url=base, api_key=KEY, max_retries=0) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[prompt]) as stream,
    ):
        async for text in stream.text_stream:
            yield text


def google_client(base: str) -> genai.Client:
    """A client for the Gemini API at another address, without retries."""
    return genai.Client(api_key=KEY, http_options=google_types.HttpOptions(base_url=base))


def read_gemini(base: str) -> Iterator[str]:
    """The text that google-genai gives out."""
    with google_client(base) as client:
        for chunk in client.models.generate_content_stream(model="m", contents=PROMPT):
            yield chunk.text or ""


async def read_gemini_async(base: str) -> AsyncIterator[str]:
    """The same, from its asynchronous client, which is aiohttp's."""
    async with google_client(base).aio as client:
        async for chunk in await client.models.generate_content_stream(model="m", contents=PROMPT):
            yield chunk.text or ""


@dataclass(frozen=True, slots=True)
class Provider:
    """One SDK's way to one dialect."""

    dialect: Dialect
    blocks: list[bytes]
    read: Callable[[str], Iterator[str] | AsyncIterator[str]]
    raises: type[Exception]


PROVIDERS = {
    "openai chat": Provider(DIALECTS["openai"], CHAT_BLOCKS, read_chat, openai.APIError),
    "openai chat, async": Provider(DIALECTS["openai"], CHAT_BLOCKS, read_chat_async, openai.APIError),
    "groq": Provider(DIALECTS["openai"], CHAT_BLOCKS, read_groq, groq.APIError),
    "openai responses": Provider(
        DIALECTS["openai-responses"], RESPONSES_BLOCKS, read_responses, openai.APIError
    ),
    "openai responses, async helper": Provider(
        DIALECTS["openai-responses"], RESPONSES_BLOCKS, read_responses_async, openai.APIError
    ),
    "anthropic": Provider(DIALECTS["anthropic"], ANTHROPIC_BLOCKS, read_messages, anthropic.APIStatusError),
    "anthropic, async helper": Provider(
        DIALECTS["anthropic"], ANTHROPIC_BLOCKS, read_messages_async, anthropic.APIStatusError
    ),
    "google-genai": Provider(DIALECTS["gemini"], GEMINI_BLOCKS, read_gemini, google_errors.ServerError),
    "google-genai, async": Provider(
        DIALECTS["gemini"], GEMINI_BLOCKS, read_gemini_async, google_errors.ServerError
    ),
}
EACH = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS.keys())

Serve = Callable[[Provider, web.Response], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server with one response, for requests that propose the provider's dialect by the path
    that its SDK makes and ask for a stream; gives its base URL.
    """
    runners: list[web.AppRunner] = []

    async def serve(provider: Provider, response: web.Response) -> str:
        async def answer(request: web.Request) -> web.Response:
            assert propose(request.rel_url.raw_path) is provider.dialect
            assert provider.dialect.wants_stream(await request.read())
            return response

        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runners.append(runner := web.AppRunner(app))
        await runner.setup()
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        return site.name

    yield serve
    for runner in runners:
        await runner.cleanup()


async def listen(provider: Provider, base: str) -> tuple[str, Exception | None]:
    """Return the text that an SDK gave out, and the exception that it ended with."""
    said: list[str] = []

    def collect(words: Iterator[str]) -> None:
        said.extend(words)

    try:
        words = provider.read(base)
        if isinstance(words, Iterator):
            await asyncio.to_thread(collect, words)
        else:
            async for word in words:
                said.append(word)  # noqa: PERF401  # what came before an error counts
    except Exception as error:
        return "".join(said), error
    return "".join(said), None


def stream(provider: Provider, *blocks: bytes | None) -> web.Response:
    """The blocks as the sidecar would write them, with a heartbeat between each two."""
    dialect = provider.dialect
    wire = b""
    for number, block in enumerate(filter(None, blocks), start=1):
        head = f"id: AAAAAAAAAAAAAAAAAAAAAA.{number}\n".encode() if dialect.ids_safe else b""
        retry = b"retry: 3000\n" if dialect.ids_safe and number == 1 else b""
        wire += dialect.heartbeat + head + retry + block + b"\n\n"
    return web.Response(body=wire, content_type="text/event-stream", charset="utf-8")


@EACH
async def test_an_in_band_failure_raises(provider: Provider, serve: Serve) -> None:
    """The text before the failure arrives whole, then the SDK raises with the message."""
    failure = Failure("idle_timeout", MESSAGE, 504)
    told = provider.dialect.failure_block(failure, provider.blocks)
    base = await serve(provider, stream(provider, *provider.blocks, told))
    text, error = await listen(provider, base)
    assert text == "Hello"
    assert isinstance(error, provider.raises)
    assert MESSAGE in told_by(error)


@EACH
async def test_a_failure_as_the_first_block_raises(provider: Provider, serve: Serve) -> None:
    """A stream opened before the upstream answered, and then refused, is an error for the SDK."""
    told = provider.dialect.failure_block(Failure("upstream_error", MESSAGE, 502))
    text, error = await listen(provider, await serve(provider, stream(provider, told)))
    assert text == ""
    assert isinstance(error, provider.raises)
    assert MESSAGE in told_by(error)


@EACH
async def test_a_cut_without_a_failure_block_is_silent(provider: Provider, serve: Serve) -> None:
    """The same stream without the block ends as a short answer: so it is the block that raises."""
    text, error = await listen(provider, await serve(provider, stream(provider, *provider.blocks)))
    assert text == "Hello"
    assert error is None


@EACH
@pytest.mark.parametrize("status", [404, 413, 429, 502, 503, 504])
async def test_an_error_before_the_stream_raises(provider: Provider, serve: Serve, status: int) -> None:
    """An error answer becomes the SDK's exception for its status, with the message."""
    body = provider.dialect.error_body(status, "capacity", MESSAGE)
    response = web.Response(status=status, body=body, content_type="application/json")
    text, error = await listen(provider, await serve(provider, response))
    assert text == ""
    assert MESSAGE in told_by(error)
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("openai chat", 404, openai.NotFoundError),
        ("openai chat", 429, openai.RateLimitError),
        ("openai responses", 503, openai.InternalServerError),
        ("anthropic", 429, anthropic.RateLimitError),
        ("anthropic", 503, anthropic.InternalServerError),
        ("google-genai", 429, google_errors.ClientError),
        ("google-genai", 503, google_errors.ServerError),
    ],
)
async def test_the_exceptions_class(name: str, status: int, expected: type[Exception], serve: Serve) -> None:
    """Code that catches its SDK's class for a status catches ours."""
    provider = PROVIDERS[name]
    body = provider.dialect.error_body(status, "capacity", "full")
    response = web.Response(status=status, body=body, content_type="application/json")
    _, error = await listen(provider, await serve(provider, response))
    assert isinstance(error, expected)
    assert status_of(error) == status


async def test_what_openais_exception_carries(serve: Serve) -> None:
    """The reason is the exception's code, in-band as before the stream."""
    for name in ("openai chat", "openai responses"):
        provider = PROVIDERS[name]
        told = provider.dialect.failure_block(Failure("truncated", "cut"))
        _, error = await listen(provider, await serve(provider, stream(provider, told)))
        assert isinstance(error, openai.APIError)
        assert (error.code, error.type) == ("truncated", "server_error")


async def test_what_anthropics_exception_carries(serve: Serve) -> None:
    """The type is one that Anthropic's API documents."""
    provider = PROVIDERS["anthropic"]
    told = provider.dialect.failure_block(Failure("total_timeout", "600 s", 504))
    _, error = await listen(provider, await serve(provider, stream(provider, told)))
    assert isinstance(error, anthropic.APIStatusError)
    assert error.type == "timeout_error"


async def test_what_googles_exception_carries(serve: Serve) -> None:
    """Number and word are those of google.rpc.Code, though the HTTP status was 200."""
    provider = PROVIDERS["google-genai"]
    told = provider.dialect.failure_block(Failure("idle_timeout", "300 s", 504))
    _, error = await listen(provider, await serve(provider, stream(provider, told)))
    assert isinstance(error, google_errors.ServerError)
    assert (error.code, error.status) == (504, "DEADLINE_EXCEEDED")


def told_by(error: Exception | None) -> str:
    """Return the message that a program finds in an SDK's exception."""
    if isinstance(error, anthropic.APIStatusError):
        return error.api_message or ""
    if isinstance(error, openai.APIError | groq.APIError):
        body = error.body
        assert isinstance(body, dict)
        return str(body.get("error", body)["message"])
    assert isinstance(error, google_errors.APIError)
    return error.message or ""


def status_of(error: Exception | None) -> int:
    """Return the HTTP status that an SDK's exception names."""
    if isinstance(error, openai.APIStatusError | anthropic.APIStatusError | groq.APIStatusError):
        return error.status_code
    assert isinstance(error, google_errors.APIError)
    return error.code
