"""A stream that ends before its end is an exception in every SDK, and never a short answer.

The text up to there arrives in order; nothing is made up behind it. The matrix has the ends that the provider
causes; here are those of the sidecar's limits, and those that nobody sees on the connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.demo import State, expected_text
from proxy.stream.log import Reason
from tests.conftest import eventually
from tests.sdks.clients import SDKS, Outcome, Sdk
from tests.sdks.conftest import SetStage
from tests.sdks.stage import MIDDLE, Stage
from tests.support.client import ask

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
    """Run a test for every SDK but those of these dialects. Ollama's lines pass untouched: no stream."""
    chosen = {name: sdk for name, sdk in SDKS.items() if sdk.dialect not in {"ollama", *left_out}}
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
    assert outcome.text == expected_text(MIDDLE - sdk.api.preamble)


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
