"""Streams in other formats than events, from a provider through the real sidecar to a reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.config
import ollama
import pytest
from botocore.awsrequest import AWSRequest
from botocore.eventstream import EventStreamBuffer

from proxy.demo import Running, expected_text
from proxy.demo.voice import FAILURE
from proxy.server.app import Sidecar
from proxy.stream.sse import decode
from tests.conftest import StartOrigin, StartSidecar
from tests.support.client import Truncated, ask
from tests.support.origin import Connection

ASKED = [{"role": "user", "content": "Say something nice"}]


@dataclass(frozen=True, slots=True)
class Format:
    """A provider's API: where it streams, what it is asked, and how its own body is read."""

    dialect: str
    path: str
    question: dict[str, Any]
    content_type: str
    read: Callable[[bytes], list[dict[str, Any]]]


def read_lines(body: bytes) -> list[dict[str, Any]]:
    """Read lines of JSON."""
    return [json.loads(line) for line in body.splitlines()]


def read_messages(body: bytes) -> list[dict[str, Any]]:
    """Read AWS's messages, as its own SDK does."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [json.loads(message.payload) for message in buffer]


def steady(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same in every answer of the provider."""
    return {key: value for key, value in payload.items() if key not in ("created_at", "responseId")}


OLLAMA = Format(
    "ollama", "/ollama/api/chat", {"model": "demo-1", "messages": ASKED}, "application/x-ndjson", read_lines
)
BEDROCK = Format(
    "bedrock",
    "/model/demo-1/converse-stream",
    {"messages": [{"role": "user", "content": [{"text": "Say something nice"}]}]},
    "application/vnd.amazon.eventstream",
    read_messages,
)
GEMINI = Format(
    "gemini",
    "/v1beta/models/demo-1:streamGenerateContent",
    {"contents": [{"parts": [{"text": "Say something nice"}]}]},
    "application/json; charset=UTF-8",
    json.loads,
)
each = pytest.mark.parametrize("form", [OLLAMA, BEDROCK, GEMINI], ids=lambda form: form.dialect)


async def post(sidecar: Sidecar, form: Format, wrong: str = "interval=0") -> Any:
    """Ask for a stream; the provider misbehaves like this."""
    body = json.dumps(form.question).encode()
    return await ask(sidecar.url, form.path, method="POST", body=body, headers={"X-Misbehave": wrong})


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events of a body in the unified protocol."""
    return [json.loads(decode(block).data or "") for block in body.split(b"\n\n") if b"data: " in block]


@each
@pytest.mark.parametrize("wrong", ["interval=0", "interval=0; split=7"], ids=["whole", "split"])
async def test_a_named_dialect_becomes_events(
    provider: Running, start_sidecar: StartSidecar, form: Format, wrong: str
) -> None:
    """Numbered, and translated: the text, the reason and the figures are the provider's."""
    sidecar = await start_sidecar(provider.url, route={"dialect": form.dialect, "emit": "unified"})
    answer = await post(sidecar, form, wrong)
    body = await answer.body()
    events = events_of(body)
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert "".join(event["content"] for event in events if event["type"] == "text_delta") == expected_text()
    done = events[-1]
    assert (done["type"], done["finish_reason"]) == ("done", "stop")
    assert (done["usage"]["input_tokens"], done["usage"]["output_tokens"]) == (3, 40)
    assert decode(body.split(b"\n\n")[-2]).id is not None


@each
async def test_a_named_dialect_passes_as_the_provider_writes_it(
    provider: Running, start_sidecar: StartSidecar, form: Format
) -> None:
    """The data of each event is a line, an element, or a message's payload, as the provider sent it."""
    named = await start_sidecar(provider.url, route={"dialect": form.dialect})
    plain = await start_sidecar(provider.url)
    events = (await (await post(named, form, "interval=0; tokens=2")).body()).split(b"\n\n")
    theirs = form.read(await (await post(plain, form, "interval=0; tokens=2")).body())
    ours = [json.loads(decode(block).data or "") for block in events if b"data: " in block]
    assert [steady(each) for each in ours] == [steady(each) for each in theirs]


@each
async def test_without_a_word_in_the_configuration_nothing_changes(
    provider: Running, start_sidecar: StartSidecar, form: Format
) -> None:
    """Whoever asks for the provider's format gets it: type and bytes are as the provider sent them."""
    sidecar = await start_sidecar(provider.url)
    answer = await post(sidecar, form, "interval=0; tokens=2")
    assert answer.header("content-type") == form.content_type
    assert answer.header("stream-id") is None
    assert b"data: " not in await answer.body()


@each
async def test_a_providers_error_is_told(
    provider: Running, start_sidecar: StartSidecar, form: Format
) -> None:
    """What the provider says of its failure ends the stream, in the form that the route speaks."""
    sidecar = await start_sidecar(provider.url, route={"dialect": form.dialect, "emit": "unified"})
    events = events_of(await (await post(sidecar, form, "interval=0; error_at=3")).body())
    assert (events[-1]["type"], events[-1]["message"]) == ("error", FAILURE)


@each
@pytest.mark.parametrize("wrong", ["truncate_at=4", "drop_at=4"])
async def test_a_stream_that_stops_short_is_told(
    provider: Running, start_sidecar: StartSidecar, form: Format, wrong: str
) -> None:
    """In the provider's own words where its events pass: never a short answer that looks whole."""
    sidecar = await start_sidecar(provider.url, route={"dialect": form.dialect})
    body = await (await post(sidecar, form, f"interval=0; {wrong}")).body()
    last = decode(body.split(b"\n\n")[-2])
    assert last.event.endswith("Exception") if form is BEDROCK else "error" in json.loads(last.data or "")


async def test_what_answers_at_once_is_no_stream(provider: Running, start_sidecar: StartSidecar) -> None:
    """Gemini's other method has the content type of its array: it stays what it is."""
    sidecar = await start_sidecar(provider.url, route={"dialect": "gemini", "open_after": "0s"})
    body = json.dumps(GEMINI.question).encode()
    answer = await ask(sidecar.url, "/v1beta/models/demo-1:generateContent", method="POST", body=body)
    assert answer.header("content-type").startswith("application/json")
    assert json.loads(await answer.body())["modelVersion"] == "demo-1"


async def test_the_ollama_sdk_reads_lines_through_the_sidecar(
    provider: Running, start_sidecar: StartSidecar
) -> None:
    """It reads no events: a route that names no dialect serves it."""
    sidecar = await start_sidecar(provider.url)
    async with ollama.AsyncClient(host=f"{sidecar.url}/ollama", headers={"X-Misbehave": "interval=0"}) as sdk:
        lines = [line async for line in await sdk.chat(model="demo-1", messages=ASKED, stream=True)]
    assert "".join(line.message.content or "" for line in lines) == expected_text()


def in_a_hurry(request: AWSRequest, **_: Any) -> None:
    """Ask the provider not to pause between events."""
    request.headers["X-Misbehave"] = "interval=0"


async def test_awss_sdk_reads_messages_through_the_sidecar(
    provider: Running, start_sidecar: StartSidecar
) -> None:
    """It reads no events either."""
    sidecar = await start_sidecar(provider.url)

    def converse() -> list[dict[str, Any]]:
        session = boto3.Session(
            aws_access_key_id="demo", aws_secret_access_key="demo", region_name="us-east-1"
        )
        config = botocore.config.Config(retries={"total_max_attempts": 1})
        client = session.client("bedrock-runtime", endpoint_url=sidecar.url, config=config)
        client.meta.events.register("before-sign", in_a_hurry)
        return list(client.converse_stream(modelId="demo-1", **BEDROCK.question)["stream"])

    events = await asyncio.to_thread(converse)
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta["text"] for delta in deltas) == expected_text()
    assert events[-1]["metadata"]["usage"]["totalTokens"] == 43


#: What an app writes, read by read, and what its reader gets.
TEXT = ("Grüße,\n".encode(), b"  tw\xc3", b"\xb6 words")


@pytest.mark.parametrize(
    "content_type", [b"Content-Type: text/plain; charset=utf-8\r\n", b""], ids=["plain", "untyped"]
)
async def test_text_becomes_events(
    start_origin: StartOrigin, start_sidecar: StartSidecar, content_type: bytes
) -> None:
    """An app's text arrives as data lines; an answer, in the unified protocol."""

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + content_type + b"\r\n")
        for piece in TEXT:
            await connection.chunk(piece)
        await connection.end()

    origin = await start_origin(script)
    plain = await start_sidecar(origin.url, route={"dialect": "text"})
    body = await (await ask(plain.url, "/api/write", method="POST")).body()
    assert "".join(decode(block).data or "" for block in body.split(b"\n\n")) == "Grüße,\n  twö words"
    told = await start_sidecar(origin.url, route={"dialect": "text", "emit": "unified"})
    events = events_of(await (await ask(told.url, "/api/write", method="POST")).body())
    assert "".join(event.get("content", "") for event in events) == "Grüße,\n  twö words"
    assert events[-1]["type"] == "done"


async def test_text_that_breaks_off(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Nothing may be put into an app's text: its reader's connection breaks, as the app's did."""

    async def script(connection: Connection) -> None:
        await connection.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"
        )
        await connection.chunk(b"half a wo")
        await connection.close()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"dialect": "text"})
    answer = await ask(sidecar.url, "/api/write", method="POST")
    with pytest.raises(Truncated):
        await answer.body()
