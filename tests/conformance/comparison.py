"""Every case at the echo server and at the sidecar in front of it, and what differs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance import suite
from tests.conformance.suite import Outcome
from tests.support.command import PROJECT, Command

#: The outcome of a case without a connection.
UNREACHED = None

#: How often, at most, a case whose outcomes differ is run again at each of the two, and for how many
#: seconds further rounds begin. In cases that send octet by octet, a server's echo may race with its
#: refusal of what comes next, and win once in six times.
REPETITIONS = 30
REPETITION_SECONDS = 300.0

#: How many frames one message may have. The suite's largest number is 65,536, far beyond the default of the
#: websockets library, which would end those cases before the sidecar is put to the test.
MAX_FRAGMENTS = 100_000

#: Which cases are run at which echo server. Those of compression take many minutes: once is enough.
PLAN: Mapping[str, Sequence[str]] = {"websockets": ("*",), "aiohttp": ("?.*", "10.*")}

Seen = dict[str, list[Outcome | None]]

#: Starts what stands in front of the server at this port of loopback, its files in this directory; yields its
#: host and port.
Middle = Callable[[int, Path], contextlib.AbstractAsyncContextManager[str]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A case that behaved through the sidecar as it never did at the echo server alone.

    ``frequency`` is in how many of the runs through the sidecar it did.
    """

    case: str
    outcome: Outcome | None
    alone: Outcome | None
    frequency: tuple[int, int]

    def __str__(self) -> str:
        often = "{} of {} times".format(*self.frequency)
        if self.outcome is None or self.alone is None:
            reached = "the echo server alone" if self.outcome is None else "the sidecar"
            return f"{self.case} ({often}): only {reached} could be reached"
        return f"{self.case} ({often}): {'; '.join(self.outcome.differs_from(self.alone))}"


@dataclass(slots=True)
class Comparison:
    """What was seen in each case, at the echo server alone and through the sidecar, oldest run first.

    ``library`` is what the echo server is made with.
    """

    library: str
    cases: Sequence[str]
    alone: Seen = field(default_factory=dict)
    through: Seen = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, alone: Mapping[str, Outcome], through: Mapping[str, Outcome], cases: Sequence[str]) -> None:
        """Note a run of these cases at both."""
        for seen, outcomes in ((self.alone, alone), (self.through, through)):
            for case in cases:
                seen.setdefault(case, []).append(outcomes.get(case, UNREACHED))

    def differences(self) -> Iterator[Difference]:
        """Yield the outcomes that were only seen through the sidecar."""
        for case in self.cases:
            alone, through = self.alone[case], self.through[case]
            for outcome in dict.fromkeys(through):
                if outcome not in alone:
                    yield Difference(case, outcome, alone[-1], (through.count(outcome), len(through)))

    def unsteady(self) -> list[str]:
        """The cases in which the echo server alone behaved in several ways."""
        return [case for case in self.cases if len({*self.alone[case]}) > 1]


@contextlib.asynccontextmanager
async def echo_server(library: str, directory: Path) -> AsyncIterator[int]:
    """Run the echo server made with this library, and yield its port. Its complaints go to a file."""
    with (directory / "echo").open("wb") as complaints:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.conformance.echo", library),
            cwd=PROJECT,
            env={**os.environ, "WEBSOCKETS_MAX_FRAGMENTS": str(MAX_FRAGMENTS)},
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
        )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


_CONFIG = """\
listen: 127.0.0.1:0
upstreams: {{echo: {{url: "http://127.0.0.1:{}"}}}}
routes:
  - {{name: echo, path: "/{{tail:.*}}", upstream: echo, websocket: passthrough}}
"""


@contextlib.asynccontextmanager
async def sidecar(upstream: int, directory: Path) -> AsyncIterator[str]:
    """Run a sidecar that passes WebSockets on to this port, all else by default."""
    file = directory / "sidecar.yaml"
    file.write_text(_CONFIG.format(upstream))
    command = Command(directory, "serve", file)
    await command.start()
    try:
        yield (await command.url()).removeprefix("http://")
    finally:
        await command.end()


async def compare(
    library: str,
    cases: Sequence[str],
    directory: Path,
    middle: Middle = sidecar,
    repetitions: int = REPETITIONS,
) -> Comparison:
    """Run the cases of these numbers at the echo server and at what is in front of it.

    Both are busy at the same time, but have the machine to themselves when cases that differ are run again,
    until the echo server alone had each outcome too.
    Raises SuiteFailed, in a group.
    """
    started = time.monotonic()
    comparison = Comparison(library, cases)
    async with echo_server(library, directory) as port, middle(port, directory) as address:
        alone, through = f"ws://127.0.0.1:{port}", f"ws://{address}"
        async with asyncio.TaskGroup() as running:
            first = running.create_task(suite.run(alone, cases, directory / "alone"), name="alone")
            second = running.create_task(suite.run(through, cases, directory / "through"), name="through")
        comparison.add(first.result(), second.result(), cases)
        deadline = time.monotonic() + REPETITION_SECONDS
        for turn in range(1, repetitions + 1):
            again = list(dict.fromkeys(difference.case for difference in comparison.differences()))
            if not again or time.monotonic() > deadline:
                break
            comparison.add(
                await suite.run(alone, again, directory / f"alone-{turn}"),
                await suite.run(through, again, directory / f"through-{turn}"),
                again,
            )
    comparison.seconds = time.monotonic() - started
    return comparison
