"""A stream that ends before its end is an exception in every SDK, and never a short answer.

The text up to there arrives in order; nothing is made up behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse
from mistralai.client import errors as mistral_errors
from openai.types.responses import ResponseErrorEvent, ResponseStreamEvent

from proxy.demo import State, expected_text
from proxy.demo.voice import FAILURE
from proxy.stream.log import Reason
from tests.conftest import eventually
from tests.sdks.clients import MODEL, PROMPT, SDKS, Call, Outcome, Sdk, openai_client
from tests.sdks.conftest import SetStage, Stage
from tests.support.client import ask

#: Behind the first words and before the end of any dialect's stream.
MIDDLE = 12

#: Events that come before the first word.
PREAMBLE = {"openai": 1, "openai-responses": 4, "anthropic": 3, "gemini": 0, "generic": 0}

#: More words than any test here hears.
LONG = expected_text(100_000)


@dataclass(frozen=True, slots=True)
class Break:
    """One way for a stream to end badly: what the provider does, and the sidecar's policies."""

    reason: Reason
    wrong: str
    policies: dict[str, Any] = field(default_factory=dict)


BREAKS = {
    "idle": Break(Reason.IDLE_TIMEOUT, f"hang_at={MIDDLE}; interval=0", {"timeouts": {"idle": "150ms"}}),
    "too long": Break(Reason.TOTAL_TIMEOUT, "endless=1; interval=0.005", {"timeouts": {"total": "200ms"}}),
    "too large": Break(Reason.OVERFLOW, "size=8192", {"max_event_bytes": "4KiB"}),
    "refused behind an early answer": Break(
        Reason.UPSTREAM_ERROR, "headers_delay=0.1; status=500", {"open_after": "10ms"}
    ),
    "unanswered behind an early answer": Break(
        Reason.UPSTREAM_ERROR, "headers_delay=60", {"open_after": "10ms", "timeouts": {"first_byte": "100ms"}}
    ),
}


def each(*left_out: str) -> pytest.MarkDecorator:
    """Run a test for every SDK but those named, and those of a dialect that is named."""
    chosen = {name: sdk for name, sdk in SDKS.items() if not {name, sdk.dialect} & {*left_out}}
    return pytest.mark.parametrize("sdk", [pytest.param(sdk, id=name) for name, sdk in chosen.items()])


async def assert_broken(stage: Stage, sdk: Sdk, outcome: Outcome, reason: Reason) -> None:
    """The stream ended for ``reason``, and the program learned that by an exception."""
    relay = await stage.relay()
    assert relay.log.terminal is not None
    assert relay.log.terminal.reason is reason
    assert isinstance(outcome.error, sdk.raises), f"{outcome.error!r} after {outcome.text!r}"
    assert LONG.startswith(outcome.text)


@each()
@pytest.mark.parametrize("broken", [pytest.param(row, id=name) for name, row in BREAKS.items()])
async def test_a_stream_that_breaks_off_raises(sdk: Sdk, broken: Break, set_stage: SetStage) -> None:
    """Whatever limit or failure of the upstream it was, the SDK raises."""
    stage = await set_stage(**broken.policies)
    outcome = await stage.play(sdk, broken.wrong)
    await assert_broken(stage, sdk, outcome, broken.reason)


@each("generic")  # an app's stream has no marker whose absence could be noticed
async def test_a_clean_end_without_the_terminal_marker_raises(sdk: Sdk, set_stage: SetStage) -> None:
    """The upstream's body ends as HTTP wants it, but the answer does not: every word, then an exception."""
    stage = await set_stage()
    outcome = await stage.play(sdk, f"truncate_at={MIDDLE}; interval=0")
    await assert_broken(stage, sdk, outcome, Reason.TRUNCATED)
    assert outcome.text == expected_text(MIDDLE - PREAMBLE[sdk.dialect])


@each()
async def test_a_connection_that_drops_inside_a_block_raises(sdk: Sdk, set_stage: SetStage) -> None:
    """Half a block is no event: every word before it, then an exception."""
    stage = await set_stage()
    outcome = await stage.play(sdk, f"drop_at={MIDDLE}; interval=0")
    await assert_broken(stage, sdk, outcome, Reason.TRUNCATED)
    assert outcome.text == expected_text(MIDDLE - PREAMBLE[sdk.dialect])


@each()
async def test_a_cancelled_stream_raises(sdk: Sdk, set_stage: SetStage) -> None:
    """Somebody presses stop elsewhere: the upstream is closed, and this reader is told."""
    stage = await set_stage()
    async with asyncio.TaskGroup() as group:
        playing = group.create_task(stage.play(sdk, "endless=1; interval=0.005"), name="the SDK")
        relay = await stage.relay()
        await eventually(lambda: relay.log.last >= MIDDLE, "some words")
        answer = await ask(stage.sidecar.url, f"/_streams/{relay.id}/cancel", method="POST")
        assert answer.status == 202
    await assert_broken(stage, sdk, playing.result(), Reason.CANCELLED)
    (record,) = stage.provider.requests
    await stage.provider.ledger.until(lambda: record.state is State.CLIENT_GONE)


@each("openai-responses", "generic")
async def test_the_providers_own_error_raises(sdk: Sdk, set_stage: SetStage) -> None:
    """An error that the provider tells in mid-stream reaches the program as the provider said it."""
    stage = await set_stage()
    outcome = await stage.play(sdk, f"error_at={MIDDLE}; interval=0")
    await assert_broken(stage, sdk, outcome, Reason.UPSTREAM_ERROR)
    assert outcome.text == expected_text(MIDDLE - PREAMBLE[sdk.dialect])
    assert FAILURE in told_by(outcome.error)
    assert (await stage.relay()).log.last == MIDDLE + 1  # the error is the last word: none of ours follows


def told_by(error: Exception | None) -> str:
    """An exception's words. Mistral's keeps what the provider said aside."""
    return f"{error} {error.body}" if isinstance(error, mistral_errors.MistralError) else f"{error}"


async def test_openai_gives_out_the_providers_error_of_a_response(set_stage: SetStage) -> None:
    """OpenAI's SDK hands a flat ``error`` event to the program by design, as the last one of its stream."""
    stage = await set_stage()
    events = await asyncio.to_thread(response_events, stage.call(f"error_at={MIDDLE}; interval=0"))
    assert len(events) == MIDDLE + 1
    assert isinstance(events[-1], ResponseErrorEvent)
    assert events[-1].message == FAILURE
    relay = await stage.relay()
    assert relay.log.terminal is not None
    assert relay.log.terminal.reason is Reason.UPSTREAM_ERROR


def response_events(call: Call) -> list[ResponseStreamEvent]:
    """Every event of a response."""
    with openai_client(call) as client:
        return list(client.responses.create(model=MODEL, input=PROMPT, stream=True))


async def test_httpx_sse_gives_out_an_apps_own_error(set_stage: SetStage) -> None:
    """What an app's ``error`` event means is the app's matter: it arrives, and the stream ends cleanly."""
    stage = await set_stage()
    events = await asyncio.to_thread(app_events, stage.call(f"error_at={MIDDLE}; interval=0"))
    assert [event.event for event in events] == ["token"] * MIDDLE + ["error"]
    assert events[-1].json() == {"error": FAILURE, "status": 500}
    relay = await stage.relay()
    assert [event.id for event in events] == [f"{relay.id}.{seq}" for seq in range(1, MIDDLE + 2)]


def app_events(call: Call) -> list[ServerSentEvent]:
    """Every event of the demo's app."""
    with (
        httpx.Client() as client,
        connect_sse(
            client, "POST", f"{call.base}/api/chat", json={"prompt": PROMPT}, headers=call.headers
        ) as source,
    ):
        return list(source.iter_sse())
