"""What the sidecar adds to a stream, ids, a retry hint and heartbeats, harms no SDK.

The wire between each SDK and the sidecar is recorded, so that every test also proves that the
additions were there.
"""

from __future__ import annotations

import re

import pytest

from proxy.demo import expected_text
from proxy.server.relay import Relay
from tests.sdks.clients import SDKS, Sdk
from tests.sdks.conftest import SetStage

#: Two silences of several heartbeats each: before the first event, and in the middle of the text.
PAUSE_AT = 12
SILENCES = f"first_delay=0.25; pause_at={PAUSE_AT}; pause=0.25; interval=0.002"

#: Heartbeats that must fall into each of them at least; five would fit.
SEVERAL = 2

EACH = pytest.mark.parametrize("sdk", [pytest.param(sdk, id=name) for name, sdk in SDKS.items()])
WITH_IDS = pytest.mark.parametrize(
    "sdk", [pytest.param(sdk, id=name) for name, sdk in SDKS.items() if sdk.dialect != "gemini"]
)
WITHOUT_IDS = pytest.mark.parametrize(
    "sdk", [pytest.param(sdk, id=name) for name, sdk in SDKS.items() if sdk.dialect == "gemini"]
)


def logged(relay: Relay) -> bytes:
    """Return the blocks that a stream's log holds."""
    return b"".join(relay.log.after(0, relay.log.max_bytes))


def without_comments(body: bytes) -> tuple[bytes, int]:
    """Return the body without its heartbeats, and their number."""
    return re.subn(rb"^: ping\n", b"", body, flags=re.MULTILINE)


@WITH_IDS
async def test_the_text_is_whole_among_ids_and_heartbeats(sdk: Sdk, set_stage: SetStage) -> None:
    """Every block has an id, every silence heartbeats, and the text is the provider's to its last word."""
    stage = await set_stage()
    outcome = await stage.play(sdk, SILENCES)
    assert outcome.error is None
    assert outcome.text == expected_text()

    relay, body = await stage.relay(), stage.body()
    assert relay.dialect.name == sdk.dialect
    ids = re.findall(r"^id: (.*)$", body.decode(), re.MULTILINE)
    assert ids == [f"{relay.id}.{seq}" for seq in range(1, relay.log.last + 1)]

    blocks, heartbeats = without_comments(body)
    assert heartbeats == relay.tally.heartbeats
    assert blocks.replace(b"retry: 3000\n", b"", 1) == logged(relay)

    between = re.split(rb"^id: .*\n", body, flags=re.MULTILINE)
    assert without_comments(between[0])[1] >= SEVERAL
    assert without_comments(between[PAUSE_AT])[1] >= SEVERAL


@WITHOUT_IDS
async def test_google_gets_nothing_but_line_feeds(sdk: Sdk, set_stage: SetStage) -> None:
    """Google's SDKs break on ids, retry hints and comments, so their heartbeat is an empty line."""
    stage = await set_stage()
    outcome = await stage.play(sdk, SILENCES)
    assert outcome.error is None
    assert outcome.text == expected_text()

    relay, body = await stage.relay(), stage.body()
    assert relay.dialect.name == sdk.dialect
    assert {line[:6] for line in body.split(b"\n")} == {b"data: ", b""}
    assert re.sub(rb"\n{2,}", b"\n\n", body.lstrip(b"\n")) == logged(relay)
    assert len(body) - len(logged(relay)) == relay.tally.heartbeats

    between = [len(run) for run in re.split(rb"data: .*", body)]
    assert between[0] >= SEVERAL
    assert between[PAUSE_AT] >= len(b"\n\n") + SEVERAL


@EACH
async def test_the_text_is_whole_behind_an_early_answer(sdk: Sdk, set_stage: SetStage) -> None:
    """Under ``open_after`` answer and heartbeats begin before the upstream has said anything."""
    stage = await set_stage(open_after="20ms")
    outcome = await stage.play(sdk, "headers_delay=0.25; interval=0.002")
    assert outcome.error is None
    assert outcome.text == expected_text()
    relay = await stage.relay()
    assert relay.tally.heartbeats >= SEVERAL
    assert stage.body().startswith(relay.dialect.heartbeat * SEVERAL)
