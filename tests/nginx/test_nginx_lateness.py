"""How late an event is that came through nginx and the sidecar, beside one straight from its sender."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.bench.conftest import StartUpstream, binaries, start_upstream
from tests.bench.program import needs_programs
from tests.nginx.conftest import StartEdge, StartProcess
from tests.support.process import program, run

__all__ = ["binaries", "start_upstream"]  # fixtures

STREAMS, RATE, SECONDS, ROUNDS = 20, 20, 3, 5
TARGET = f"/v1/chat/completions?n=1000000&rate={RATE}"
CLIENT = Path(__file__).with_name("lateness.mjs")


async def lateness(url: str) -> list[float]:
    """Read streams at ``url``; return how late their events were, in microseconds, the least first."""
    status, output = await run(program("node"), CLIENT, url + TARGET, str(STREAMS), str(SECONDS))
    assert status == 0, output
    late: list[float] = json.loads(output)
    return late


def percentile(late: list[float], part: float) -> float:
    """Return the value below which this part of them lies."""
    return late[int(len(late) * part)]


@needs_programs
@pytest.mark.long
async def test_how_late_an_event_is(
    start_upstream: StartUpstream,
    start_process: StartProcess,
    start_edge: StartEdge,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tells it: straight from the upstream, over the sidecar, and over nginx, in turn, round by round.

    What a shared machine does to such figures is no fault of the code, so they are not judged; a stream that
    does not flow is.
    """
    upstream = f"http://127.0.0.1:{start_upstream().port}"
    sidecar = await (await start_process(upstream)).url()
    ways = {"direct": upstream, "sidecar": sidecar, "nginx + sidecar": (await start_edge(sidecar)).url}
    rounds = [{way: await lateness(url) for way, url in ways.items()} for _ in range(ROUNDS)]
    with capsys.disabled():
        sys.stdout.write("\n" + table(rounds))
    for late in (late for one in rounds for late in one.values()):
        assert len(late) > STREAMS * RATE * SECONDS * 0.9


def table(rounds: list[dict[str, list[float]]]) -> str:
    """Return lines: each way's lateness, and how often that is the direct one of the same round."""
    lines = [
        f"lateness of an event in µs, median of {len(rounds)} rounds; × is over direct in the same round\n"
    ]
    for way in rounds[0]:
        line = f"  {way:<16}"
        for part in (0.5, 0.99):
            values = [percentile(one[way], part) for one in rounds]
            ratios = sorted(percentile(one[way], part) / percentile(one["direct"], part) for one in rounds)
            line += f"  p{part * 100:.0f} {median(values):7.0f}"
            line += f" ({median(ratios):.2f} ×, {ratios[0]:.2f} to {ratios[-1]:.2f})"
        lines.append(line + "\n")
    return "".join(lines)
