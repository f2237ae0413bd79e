"""OpenAI's realtime client holds its exchanges through the pass-through as it does with the API itself."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Literal

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection, RealtimeConnection
from openai.types.realtime import RealtimeResponse, RealtimeServerEvent
from websockets.exceptions import InvalidStatus

from proxy.demo import Running, State, expected_text
from proxy.demo.tone import expected_audio, word_audio
from tests.conftest import StartSidecar
from tests.sdks.clients import KEY, MODEL, PROMPT

#: Words of a whole answer: many enough for a cancel to find it in its middle.
WORDS = 150

#: Each word is one of these, whether it is written or spoken.
WORD = ("response.output_text.delta", "response.output_audio.delta")

PACE = {"X-Misbehave": f"interval=0.002; tokens={WORDS}"}


@pytest.fixture
async def base(provider: Running, start_sidecar: StartSidecar) -> str:
    """The base URL of a sidecar that passes WebSockets through to the provider."""
    sidecar = await start_sidecar(provider.url, route={"websocket": "passthrough"})
    return f"{sidecar.url}/v1"


@dataclass(slots=True)
class Answer:
    """What a client read of one response."""

    text: str = ""
    audio: bytes = b""
    words: int = 0
    response: RealtimeResponse = field(default_factory=RealtimeResponse)  # as ``response.done`` had it

    def take(self, event: RealtimeServerEvent) -> bool:
        """Take an event in; whether the response goes on."""
        match event.type:
            case "response.output_text.delta" | "response.output_audio_transcript.delta":
                self.text += event.delta
            case "response.output_audio.delta":
                self.audio += base64.b64decode(event.delta)
            case "response.done":
                self.response = event.response
            case "error":
                raise AssertionError(event.error.message)
        self.words += event.type in WORD
        return event.type != "response.done"

    @property
    def reason(self) -> str | None:
        """Why it was cancelled."""
        details = self.response.status_details
        return details.reason if details else None


def check_whole(answer: Answer, *, spoken: bool) -> None:
    """An answer of which nothing is missing."""
    assert answer.response.status == "completed"
    assert answer.text == expected_text(WORDS)
    assert answer.audio == (expected_audio(WORDS) if spoken else b"")


def check_cut(answer: Answer, reason: str) -> None:
    """An answer that was cancelled in its middle: it is the beginning of the whole one."""
    assert (answer.response.status, answer.reason) == ("cancelled", reason)
    assert 3 <= answer.words < WORDS
    assert answer.text == expected_text(answer.words)


def encoded(audio: bytes) -> str:
    """Audio as the API takes it."""
    return base64.b64encode(audio).decode()


# asynchronous


async def read(
    connection: AsyncRealtimeConnection, answer: Answer | None = None, *, words: int | None = None
) -> Answer:
    """Read an answer, or the rest of one: so many words, or to its end."""
    answer = answer or Answer()
    while answer.words != words and answer.take(await connection.recv()):
        pass
    return answer


async def test_a_text_exchange(base: str, provider: Running) -> None:
    """A whole answer, one that is cancelled in the middle, and another whole one, in one session."""
    async with (
        AsyncOpenAI(base_url=base, api_key=KEY) as client,
        client.realtime.connect(model=MODEL, extra_headers=PACE) as connection,
    ):
        assert (await connection.recv()).type == "session.created"
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": PROMPT}]}
        )
        await connection.response.create()
        check_whole(await read(connection), spoken=False)

        await connection.response.create()
        answer = await read(connection, words=3)
        await connection.response.cancel()
        check_cut(await read(connection, answer), "client_cancelled")

        await connection.response.create()
        check_whole(await read(connection), spoken=False)

    (record,) = provider.requests
    assert record.header("Authorization") == f"Bearer {KEY}"
    await provider.ledger.until(lambda: not record.running)
    assert (record.state, record.close_code) == (State.FINISHED, 1000)


async def test_an_audio_exchange(base: str) -> None:
    """A spoken question, a spoken answer, and one that the next question interrupts."""
    async with (
        AsyncOpenAI(base_url=base, api_key=KEY) as client,
        client.realtime.connect(model=MODEL, extra_headers=PACE) as connection,
    ):
        assert (await connection.recv()).type == "session.created"
        for number in range(5):
            await connection.input_audio_buffer.append(audio=encoded(word_audio(number)))
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        check_whole(await read(connection), spoken=True)

        await connection.response.create()
        answer = await read(connection, words=3)
        await connection.input_audio_buffer.append(audio=encoded(word_audio(0)))
        check_cut(await read(connection, answer), "turn_detected")

        await connection.response.create()
        answer = await read(connection, words=3)
        await connection.response.cancel()
        check_cut(await read(connection, answer), "client_cancelled")


async def test_a_refusal_reaches_the_client(base: str) -> None:
    """The status that the provider gave in place of the upgrade."""
    refused = {"X-Misbehave": "status=401"}
    async with AsyncOpenAI(base_url=base, api_key=KEY) as client:
        with pytest.raises(InvalidStatus) as caught:
            await client.realtime.connect(model=MODEL, extra_headers=refused).enter()
    assert caught.value.response.status_code == 401
    assert b"invalid_api_key" in (caught.value.response.body or b"")


# synchronous


def read_blocking(
    connection: RealtimeConnection, answer: Answer | None = None, *, words: int | None = None
) -> Answer:
    """The same, blocking."""
    answer = answer or Answer()
    while answer.words != words and answer.take(connection.recv()):
        pass
    return answer


def converse(base: str, modality: Literal["text", "audio"]) -> tuple[Answer, Answer, Answer]:
    """A whole answer, one cancelled in the middle, and another whole one."""
    with (
        OpenAI(base_url=base, api_key=KEY) as client,
        client.realtime.connect(model=MODEL, extra_headers=PACE) as connection,
    ):
        connection.session.update(session={"type": "realtime", "output_modalities": [modality]})
        connection.response.create()
        first = read_blocking(connection)
        connection.response.create()
        second = read_blocking(connection, words=3)
        connection.response.cancel()
        read_blocking(connection, second)
        connection.response.create()
        return first, second, read_blocking(connection)


# The package asks for a release of websockets before 16; later ones want connect() in a with statement.
@pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context manager:DeprecationWarning")
@pytest.mark.parametrize("modality", ["text", "audio"])
async def test_the_synchronous_client(base: str, modality: Literal["text", "audio"]) -> None:
    """It holds the same exchange."""
    first, second, third = await asyncio.to_thread(converse, base, modality)
    check_whole(first, spoken=modality == "audio")
    check_cut(second, "client_cancelled")
    check_whole(third, spoken=modality == "audio")
