"""Answers that are no stream: whole ones, and refusals, which raise what the SDK raises without us."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo import expected_text
from tests.sdks.clients import SDKS, Call, Outcome, Sdk, listen
from tests.sdks.conftest import SetStage

EACH = pytest.mark.parametrize("sdk", [pytest.param(sdk, id=name) for name, sdk in SDKS.items()])
EACH_THAT_ASKS = pytest.mark.parametrize(
    "sdk", [pytest.param(sdk, id=name) for name, sdk in SDKS.items() if sdk.ask]
)
EACH_THAT_RETRIES = pytest.mark.parametrize(
    "sdk",
    [
        pytest.param(SDKS[name], id=name)
        for name in ("openai chat", "openai responses", "anthropic", "groq", "langchain-openai")
    ],
)
STATUS = pytest.mark.parametrize("status", [429, 500])


async def question(sdk: Sdk, call: Call) -> Outcome:
    """Ask for a whole answer."""
    assert sdk.ask is not None
    try:
        return Outcome(await asyncio.to_thread(sdk.ask, call), None)
    except Exception as error:
        return Outcome("", error)


@EACH_THAT_ASKS
async def test_a_whole_answer(sdk: Sdk, set_stage: SetStage) -> None:
    """A call that asks for no stream gets the provider's answer, and leaves no stream behind."""
    stage = await set_stage()
    outcome = await question(sdk, stage.call())
    assert outcome.error is None
    assert outcome.text == expected_text()
    assert not len(stage.sidecar.hub.store)


@EACH_THAT_ASKS
@STATUS
async def test_a_refused_question(sdk: Sdk, status: int, set_stage: SetStage) -> None:
    """The provider's error status is the SDK's own exception for it."""
    stage = await set_stage()
    outcome = await question(sdk, stage.call(f"status={status}"))
    assert isinstance(outcome.error, sdk.refused[status])


@EACH
@STATUS
async def test_a_refused_stream(sdk: Sdk, status: int, set_stage: SetStage) -> None:
    """The same where a stream was asked for."""
    stage = await set_stage()
    outcome = await stage.play(sdk, f"status={status}")
    assert isinstance(outcome.error, sdk.refused[status])
    assert outcome.text == ""


@EACH
async def test_an_upstream_that_is_down(sdk: Sdk, set_stage: SetStage) -> None:
    """The sidecar's own 502 comes in the provider's words, so that its SDK raises its own exception."""
    stage = await set_stage()
    await stage.provider.close()
    outcome = await stage.play(sdk)
    assert isinstance(outcome.error, sdk.refused[500])


@EACH_THAT_RETRIES
async def test_an_sdk_does_not_pay_twice(sdk: Sdk, set_stage: SetStage) -> None:
    """An SDK repeats a 504 by itself; one whose request the provider already has must be kept from it."""
    stage = await set_stage(timeouts={"first_byte": "100ms"})
    outcome = await listen(sdk, stage.call("headers_delay=60", retries=2))
    assert outcome.error is not None
    assert len(stage.provider.requests) == 1
