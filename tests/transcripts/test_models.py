"""The recorded streams are what providers send: their SDKs' models take them, and their clients read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from anthropic.types.beta import BetaRawMessageStreamEvent
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from proxy.dialects import DIALECTS
from proxy.stream.sse import decode
from tests.transcripts import TRANSCRIPTS, Transcript
from tests.transcripts.translated import blocks_of, framing_of

#: What a provider's SDK takes an event to be. Anthropic's beta has the MCP blocks besides all others.
MODELS: Mapping[str, TypeAdapter[Any]] = {
    "openai": TypeAdapter(ChatCompletionChunk),
    "openai-responses": TypeAdapter(ResponseStreamEvent),
    "anthropic": TypeAdapter(BetaRawMessageStreamEvent),
    "gemini": TypeAdapter(google_types.GenerateContentResponse),
}

#: Events that the SDKs look for by themselves, before any model.
APART = {"ping", "error"}

#: What no model of OpenAI's takes, though its client reads it: such are the servers that send it.
ODD = {"openai/azure", "openai/tool-calls-without-index"}

MODELLED = [row for row in TRANSCRIPTS.values() if row.dialect in MODELS]
STREAMED = [row for row in MODELLED if row.content_type == "text/event-stream"]

#: What the clients raise: for an error that was told, and for half an event.
RAISED = (openai.OpenAIError, anthropic.AnthropicError, google_errors.APIError, ValueError)


def payloads(row: Transcript) -> Iterator[Any]:
    """Yield the JSON of each event of a stream."""
    for blocks in blocks_of(framing_of(row), row.body):
        for block in blocks:
            data = decode(block).data
            if data and data != "[DONE]":
                yield json.loads(data)


@pytest.mark.parametrize("row", [row for row in MODELLED if row.id not in ODD], ids=lambda row: row.id)
def test_every_event_is_one_of_the_sdks_own(row: Transcript) -> None:
    """Strictly: no member is missing, none has another type."""
    told = [each for each in payloads(row) if not (each.get("error") or each.get("type") in APART)]
    assert told or row.error is not None
    for event in told:
        source = json.dumps(event, ensure_ascii=False).encode("utf-8", "replace")  # a model has no half emoji
        MODELS[row.dialect].validate_json(source, strict=True)


class Player:
    """The providers' clients, each of which gets the body of ``row`` whatever it asks for."""

    def __init__(self) -> None:
        self.row: Transcript | None = None
        web = httpx2.Client(transport=httpx2.MockTransport(self.play_2))
        self.openai = openai.OpenAI(api_key="k", max_retries=0, http_client=web)
        self.anthropic = anthropic.Anthropic(api_key="k", max_retries=0, http_client=web)
        options = google_types.HttpOptions(client_args={"transport": httpx.MockTransport(self.play)})
        self.google = genai.Client(api_key="k", http_options=options)

    def play(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        assert self.row is not None
        return httpx.Response(200, headers={"Content-Type": self.row.content_type}, content=self.row.body)

    def play_2(self, request: httpx2.Request) -> httpx2.Response:
        """The same, for the library that two of the SDKs have gone over to."""
        assert self.row is not None
        return httpx2.Response(200, headers={"Content-Type": self.row.content_type}, content=self.row.body)

    def close(self) -> None:
        """Close them all."""
        self.openai.close()
        self.anthropic.close()
        self.google.close()


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """Clients that are made once: that takes longer than to read a stream."""
    player = Player()
    yield player
    player.close()


def read_chat(player: Player) -> Iterator[str]:
    """The text of chunks."""
    messages: Any = [{"role": "user", "content": "hello"}]
    for chunk in player.openai.chat.completions.create(model="m", messages=messages, stream=True):
        for choice in chunk.choices:
            yield (choice.index == 0 and choice.delta.content) or ""


def read_responses(player: Player) -> Iterator[str]:
    """The text of a response's events."""
    for event in player.openai.responses.create(model="m", input="hello", stream=True):
        if event.type == "response.output_text.delta":
            yield event.delta
        if event.type == "response.failed":
            raise openai.OpenAIError(event.response.error)
        if event.type == "error":
            raise openai.OpenAIError(event.message)


def read_messages(player: Player) -> Iterator[str]:
    """The text of a message's events."""
    messages: Any = [{"role": "user", "content": "hello"}]
    for event in player.anthropic.beta.messages.create(
        model="m", max_tokens=9, messages=messages, stream=True
    ):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            yield event.delta.text


def read_gemini(player: Player) -> Iterator[str]:
    """The text of chunks."""
    for chunk in player.google.models.generate_content_stream(model="m", contents="hello"):
        for candidate in chunk.candidates or ():
            parts = (candidate.content and candidate.content.parts) or []
            if not candidate.index:
                yield "".join(part.text or "" for part in parts if not part.thought)
        if chunk.prompt_feedback and chunk.prompt_feedback.block_reason:
            raise google_errors.ClientError(400, {})


READERS: Mapping[str, Callable[[Player], Iterator[str]]] = {
    "openai": read_chat,
    "openai-responses": read_responses,
    "anthropic": read_messages,
    "gemini": read_gemini,
}


@pytest.mark.parametrize("row", STREAMED, ids=lambda row: row.id)
def test_the_providers_client_reads_what_the_table_says(row: Transcript, player: Player) -> None:
    """The text arrives whole, and an error is raised where the provider told one."""
    player.row = row
    said: list[str] = []
    try:
        for piece in READERS[row.dialect](player):
            said.append(piece)  # noqa: PERF402  # what came before an error counts
    except RAISED:
        assert not row.whole
    else:
        assert row.error is None
    assert "".join(said) == row.text


def test_all_of_a_kind_are_here() -> None:
    """Every dialect that has recorded streams of events, and an SDK in Python, is read by it."""
    assert set(MODELS) == set(READERS) <= set(DIALECTS)
    assert len(MODELLED) >= 35
