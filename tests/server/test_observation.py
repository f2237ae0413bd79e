"""What streams tell of themselves is counted and logged, and costs an event in their middle nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.base import Decoder
from proxy.dialects.part import Part, Raw, Text
from proxy.server.app import Sidecar
from proxy.server.observation import MOST_BLOCKS, Observer
from proxy.server.relay import VERDICT_BLOCKS
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.bridge import begin, bridge
from tests.support.client import Answer, Truncated, ask
from tests.support.origin import Connection
from tests.support.script import answers, holds, streams
from tests.support.websocket import connect
from tests.transcripts import TRANSCRIPTS, Transcript
from tests.transcripts.scripts.openai import ROLE, STOP, USAGE, body, said

CHAT = "/v1/chat/completions"
MODEL = "gpt-4.1-2025-04-14"
WHOLE = body(ROLE, *said("Hello", "!"), STOP, USAGE)
BEGUN = body(ROLE, *said("Hello"), end=b"")

#: OpenRouter's way to fail in the middle.
ERROR = b'data: {"error":{"message":"no GPU is free","code":"overloaded_error"}}\n\n'

LABELS = {
    "route": "all",
    "gen_ai_provider_name": "openai",
    "gen_ai_operation_name": "chat",
    "gen_ai_response_model": MODEL,
}

#: What nobody has told is told as this.
NOTHING = {
    "model": None,
    "input_tokens": None,
    "output_tokens": None,
    "finish_reason": None,
    "first_token": None,
}


async def post(sidecar: Sidecar, path: str = CHAT) -> Answer:
    """Ask as an SDK does."""
    return await ask(sidecar.url, path, method="POST", body=b'{"stream":true}')


async def run(sidecar: Sidecar, path: str = CHAT) -> None:
    """Have one stream run to its end, however it ends."""
    answer = await post(sidecar, path)
    with contextlib.suppress(Truncated):
        await answer.rest()
    await eventually(lambda: not sidecar.hub.running, "the stream's end")


def shown(sidecar: Sidecar, name: str, **labels: str) -> float | None:
    """Return the value that a scrape shows for a sample of GPT's, or None where it shows none."""
    value: float | None = sidecar.telemetry.registry.get_sample_value(name, {**LABELS, **labels})
    return value


def durations(sidecar: Sidecar, error: str = "", **labels: str) -> float | None:
    """Return how many answers ended with this class of error."""
    name = "gen_ai_server_request_duration_seconds_count"
    return shown(sidecar, name, error_type=error, **labels)


def tokens(sidecar: Sidecar, kind: str) -> float | None:
    """Return how many tokens of this kind all answers had."""
    return shown(sidecar, "gen_ai_client_token_usage_sum", gen_ai_token_type=kind)


async def row(sidecar: Sidecar) -> dict[str, Any]:
    """Return what ``/streams`` says of the one stream's answer."""
    listing = await (await ask(sidecar.admin_url, "/streams", headers={"Connection": "close"})).json()
    (only,) = listing["streams"]
    return {name: only[name] for name in NOTHING}


@pytest.mark.parametrize("emit", ["passthrough", "unified"])
async def test_a_stream_is_counted(start_sidecar: StartSidecar, start_origin: StartOrigin, emit: str) -> None:
    """Its tokens, its times and its end, under its model; in ``/streams`` too. As it came, or translated."""
    origin = await start_origin(streams(WHOLE[:900], WHOLE[900:]))
    sidecar = await start_sidecar(origin.url, route={"emit": emit})
    await run(sidecar)
    assert (tokens(sidecar, "input"), tokens(sidecar, "output")) == (19, 10)
    assert durations(sidecar) == 1
    assert shown(sidecar, "gen_ai_server_time_to_first_token_seconds_count") == 1
    assert shown(sidecar, "gen_ai_server_time_per_output_token_seconds_count") == 1
    assert shown(sidecar, "sidecar_finish_reasons_total", reason="stop") == 1
    told = await row(sidecar)
    assert 0 < told.pop("first_token") < 60
    assert told == {"model": MODEL, "input_tokens": 19, "output_tokens": 10, "finish_reason": "stop"}


async def test_a_running_stream_has_told_its_model(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """``/streams`` says so as soon as the first token has come."""
    sidecar = await start_sidecar((await start_origin(holds(BEGUN))).url)
    await (await post(sidecar)).blocks(2)
    told = await row(sidecar)
    assert 0 < told["first_token"] < 60
    assert {**told, "first_token": None} == {**NOTHING, "model": MODEL}


async def test_the_bridge_is_counted(start_sidecar: StartSidecar, start_origin: StartOrigin) -> None:
    """A stream over a WebSocket is a stream."""
    sidecar = await start_sidecar((await start_origin(streams(WHOLE))).url, route=bridge())
    socket = await connect(sidecar.url, CHAT)
    await begin(socket, {"stream": True})
    await eventually(lambda: durations(sidecar) == 1, "the answer is counted")
    assert tokens(sidecar, "output") == 10


async def test_a_model_that_only_the_path_names(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """Bedrock's streams do not tell it."""
    transcript = TRANSCRIPTS["bedrock/text"]
    script = answers(b"200 OK\r\nContent-Type: " + transcript.content_type.encode(), transcript.body)
    sidecar = await start_sidecar((await start_origin(script)).url, route={"dialect": "bedrock"})
    await run(sidecar, "/model/eu.amazon.nova%2Dlite-v1:0/converse-stream")
    told = await row(sidecar)
    assert (told["model"], told["finish_reason"]) == ("eu.amazon.nova-lite-v1:0", "stop")


# Ends that are not good


async def test_an_error_inside_of_a_200_has_the_providers_word(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """Nothing but the stream tells of it."""
    sidecar = await start_sidecar((await start_origin(streams(BEGUN, ERROR))).url)
    await run(sidecar)
    assert durations(sidecar, "overloaded_error") == 1
    assert durations(sidecar) is None
    assert tokens(sidecar, "output") is None


@pytest.mark.parametrize("emit", ["passthrough", "unified"])
async def test_a_broken_stream_counts_as_far_as_it_is_known(
    start_sidecar: StartSidecar, start_origin: StartOrigin, emit: str
) -> None:
    """It has a first token and no usage. The error that the client is told of is ours, not the provider's."""

    async def breaks(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(BEGUN)
        await connection.close()

    sidecar = await start_sidecar((await start_origin(breaks)).url, route={"emit": emit})
    await run(sidecar)
    assert durations(sidecar, "truncated") == 1
    assert shown(sidecar, "gen_ai_server_time_to_first_token_seconds_count") == 1
    assert tokens(sidecar, "output") is None
    assert {**await row(sidecar), "first_token": None} == {**NOTHING, "model": MODEL}


async def test_a_stream_that_said_nothing_counts(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """An alert on errors sees it, though no model is known."""
    sidecar = await start_sidecar((await start_origin(streams())).url)
    await run(sidecar)
    assert durations(sidecar, "truncated", gen_ai_response_model="") == 1


async def test_pressing_stop_is_no_error(start_sidecar: StartSidecar, start_origin: StartOrigin) -> None:
    """Who alerts on errors does not want to hear of users that had enough."""
    sidecar = await start_sidecar((await start_origin(holds(BEGUN))).url)
    answer = await post(sidecar)
    await answer.blocks(2)
    await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}", method="DELETE")
    assert durations(sidecar) == 1


# What is not looked at


@pytest.mark.parametrize("emit", ["passthrough", "unified"])
async def test_it_can_be_switched_off(
    start_sidecar: StartSidecar, start_origin: StartOrigin, emit: str
) -> None:
    """``observe: off`` looks at nothing and counts nothing, even where a translation knows."""
    origin = await start_origin(streams(WHOLE))
    sidecar = await start_sidecar(origin.url, route={"emit": emit, "observe": False})
    await run(sidecar)
    assert not sidecar.telemetry.answers
    assert await row(sidecar) == NOTHING


@pytest.mark.parametrize("path", ["/api/events", CHAT])
async def test_an_apps_events_are_no_models(
    start_sidecar: StartSidecar, start_origin: StartOrigin, path: str
) -> None:
    """Whatever they hold, and wherever they are: it is the first block that tells."""
    sidecar = await start_sidecar((await start_origin(streams(b'data: {"model":"m"}\n\n'))).url)
    await run(sidecar, path)
    assert not sidecar.telemetry.answers
    assert await row(sidecar) == NOTHING


class Counting(Decoder):
    """Remembers what it was asked to decode, and finds a token in every block that says so."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def decode(self, block: bytes) -> list[Part]:
        """Return the block's word."""
        self.seen.append(block)
        return [Text("token") if b"token" in block else Raw("message", "")]


def blocks(count: int, word: bytes = b"token") -> list[bytes]:
    """Return numbered blocks."""
    return [b"data: %b %d" % (word, number) for number in range(1, count + 1)]


def test_no_event_in_the_middle_is_decoded() -> None:
    """Only those up to the first token, and those that the end is judged by; none twice."""
    decoder = Counting()
    observer = Observer(decoder, began=0.0)
    observer.read_first(blocks(2, b"silence"), 1.0)
    observer.read_first(blocks(1000)[2:], 2.0)
    assert decoder.seen == [*blocks(2, b"silence"), b"data: token 3"]
    observer.read_last(blocks(1000)[-VERDICT_BLOCKS:], 1000, 9.0, whole=True)
    assert decoder.seen[3:] == blocks(1000)[-VERDICT_BLOCKS:]
    assert (observer.summary.first, observer.summary.last) == (2.0, 9.0)


@pytest.mark.parametrize("count", [1, 2, VERDICT_BLOCKS, VERDICT_BLOCKS + 1])
def test_no_event_of_a_short_stream_is_decoded_twice(count: int) -> None:
    """Its end is its beginning, or begins right behind."""
    decoder = Counting()
    observer = Observer(decoder, began=0.0)
    observer.read_first(blocks(count), 1.0)
    observer.read_last(blocks(count)[-VERDICT_BLOCKS:], count, 9.0, whole=True)
    assert decoder.seen == blocks(count)


def test_a_stream_without_a_token_is_not_decoded_to_its_end() -> None:
    """Where the search was given up, the first token's time is not known, and not that of the last blocks."""
    decoder = Counting()
    observer = Observer(decoder, began=0.0)
    observer.read_first(blocks(2 * MOST_BLOCKS, b"silence"), 1.0)
    assert (observer.searching, len(decoder.seen)) == (False, MOST_BLOCKS)
    observer.read_last(blocks(1)[:1], 2 * MOST_BLOCKS + 1, 9.0, whole=True)
    assert observer.summary.first is None


def test_blocks_without_data_do_not_count() -> None:
    """The log numbers those with data; comments and bare ``retry`` lines come between them."""
    decoder = Counting()
    observer = Observer(decoder, began=0.0)
    observer.read_first([b": hello", b"retry: 5", b"data: token 1"], 1.0)
    observer.read_last(blocks(2), 2, 9.0, whole=True)
    assert decoder.seen[-1] == b"data: token 2"
    assert len(decoder.seen) == 4


@pytest.mark.parametrize(
    "transcript",
    [each for each in TRANSCRIPTS.values() if DIALECTS[each.dialect].provider],
    ids=lambda t: t.id,
)
def test_beginning_and_end_tell_what_the_whole_tells(transcript: Transcript) -> None:
    """Every recorded stream: model, tokens, reason and error, though the middle was not read."""
    dialect = DIALECTS[transcript.dialect]
    framing = dialect.framings[transcript.content_type](1 << 24)
    whole = [block for block in (*framing.feed(transcript.body), *framing.finish()) if b"data" in block]
    decoder = dialect.decoder("salt")
    assert decoder is not None
    observer = Observer(decoder, began=0.0)
    observer.read_first(whole, 1.0)
    observer.read_last(whole[-VERDICT_BLOCKS:], len(whole), 2.0, whole=transcript.whole)
    summary = observer.summary
    finish = summary.finish.reason if summary.finish is not None else None
    assert (summary.model, summary.usage) == (transcript.model, transcript.usage)
    assert summary.error == transcript.error
    if transcript.whole:
        assert finish == transcript.finish
