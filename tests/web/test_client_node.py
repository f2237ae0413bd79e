"""``client.js`` in Node: each file of tests against a real sidecar, and an origin of the file's own."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.web.conftest import NODE, Stage, run_node

FILES = sorted(path.name for path in NODE.glob("*.test.mjs"))

#: Streams that ``fuzz.mjs`` reads, and the bytes that each of their connections carries before it breaks.
STREAMS = 100
ALLOWANCE = range(1500, 6000)


@pytest.mark.parametrize("file", FILES)
async def test_file(node: Path, stage: Stage, file: str) -> None:
    """Every test of the file passes; what it says of one that does not is this test's message."""
    status, said = await run_node(node, "--test", "--test-reporter=spec", file, **stage.environ)
    assert status == 0, said


async def test_every_event_comes_once_whatever_breaks(node: Path, stage: Stage) -> None:
    """A hundred streams of all kinds; wires break anywhere, readers drop, and each is asked for once."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)

    async def meddle() -> None:
        while True:
            stage.wire.allowance = chance.choice(ALLOWANCE)
            await asyncio.sleep(0.01)

    meddling = asyncio.create_task(meddle(), name="meddling with the wire")
    try:
        status, said = await run_node(node, "fuzz.mjs", str(STREAMS), str(seed), **stage.environ)
    finally:
        meddling.cancel()
    assert status == 0, f"seed {seed}: {said}"
    assert len(stage.provider.requests) == STREAMS
    stats = (stage.sidecar.telemetry.route(name) for name in ("v1", "v1beta", "chat"))
    assert sum(sum(each.resumes.values()) for each in stats) > 3 * STREAMS, "nothing much broke"
