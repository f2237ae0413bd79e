"""One measurement: an upstream, one contestant in front of it, one load, one sample.

The processes are new each time. What luck there is in a process (its hash seed, the layout of its
memory) so becomes part of the spread; a process that was kept for all rounds would be lucky in all of
them. The price is the start, which nobody measures, and a warm-up before each window.
"""

from __future__ import annotations

import http.client
import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import lineup, machine, native
from bench.lineup import Contestant, Place, Running
from bench.loads import BODY, RAMP_PER_SECOND, Idle, Load, Replay, Requests, Steady
from bench.machine import Cores, Scheduled
from bench.native import Ask, Generator, Marked, Mode, Upstream
from bench.sample import Sample

#: How long a load's streams may take to be opened, in seconds: 9,000 take 9.
OPEN_SECONDS = 40.0

#: How long a load with an end may take, in seconds.
DONE_SECONDS = 120.0

#: What is left to do after the last response's end (the contestant's own bookkeeping), in seconds.
AFTERWARDS = 0.2


class Stalled(Exception):
    """The contestant runs and answers, but what it should carry does not arrive."""


class Bench:
    """The machinery around the contestants: cores, a certificate, a directory for logs."""

    def __init__(self, cores: Cores, directory: Path) -> None:
        self._cores = cores
        self._directory = directory
        self._certificate = native.certificate(directory)

    def sample(self, load: Load, contestant: Contestant, round_: int) -> Sample:
        """Measure once. Raises ProcessError, OSError, HTTPException or Stalled if something breaks."""
        directory = Path(tempfile.mkdtemp(prefix=f"{load.name}-{contestant.name}-", dir=self._directory))
        with native.upstream(
            core=self._cores.others, directory=directory, certificate=self._certificate, query=load.query
        ) as upstream:
            # The generator speaks no TLS: `direct` is in plain text under every load.
            tls = isinstance(load, Steady) and load.tls and contestant.name != "direct"
            place = Place(
                port=lineup.free_port(),
                second_port=lineup.free_port(),
                upstream_port=upstream.tls_port if tls else upstream.port,
                tls=tls,
                ca=self._certificate.cert,
                directory=directory,
            )
            with lineup.running(contestant, place, core=self._cores.contestant) as running:
                measured = Stage(self._cores, upstream, running, directory).measure(load)
            return measured.sample(load.name, contestant.name, round_, behind=upstream.behind())


@dataclass(frozen=True, slots=True)
class Stage:
    """An upstream and a contestant in front of it, both running."""

    cores: Cores
    upstream: Upstream
    running: Running
    directory: Path

    def measure(self, load: Load) -> Measured:
        """Put the load on."""
        match load:
            case Steady():
                return self._steady(load)
            case Requests():
                return self._requests(load)
            case Replay():
                return self._replay(load)
            case Idle():
                return self._idle(load)
        raise AssertionError(load)

    def _steady(self, load: Steady) -> Measured:
        before = machine.pss_bytes(self.running.pids)
        with self._generator(self._ask(load, load.streams)) as generator:
            generator.ready(OPEN_SECONDS)
            time.sleep(load.settle)
            opening = generator.mark()
            began = self._read(generator)
            time.sleep(load.window)
            ended = self._read(generator)
            marked = generator.mark()
            after = machine.pss_bytes(self.running.pids)
        if not marked.events:
            raise Stalled(f"no event came in {load.window:g} s; errors before: {dict(opening.errors)}")
        # A stream that broke before the window is missing in it.
        marked = replace(marked, errors=Counter(marked.errors) + Counter(opening.errors))
        return Measured(marked, ended - began, load.streams, pss=(before, after))

    def _requests(self, load: Requests) -> Measured:
        ask = self._ask(load, load.concurrency)
        with self._generator(replace(ask, requests=load.warmup)) as generator:
            generator.finished(DONE_SECONDS)
        return self._to_the_end(replace(ask, requests=load.requests))

    def _replay(self, load: Replay) -> Measured:
        path = _recorded(self.running.port, load.target)
        ask = Ask(port=self.running.port, target=path, method="GET", streams=load.readers, stamped=False)
        return self._to_the_end(replace(ask, requests=load.readers))

    def _idle(self, load: Idle) -> Measured:
        before = machine.pss_bytes(self.running.pids)
        with self._generator(self._ask(load, load.streams)) as generator:
            began = replace(self._read(generator), generator=Scheduled())
            generator.ready(OPEN_SECONDS)
            opening = generator.mark()
            ended = self._read(generator)
            time.sleep(load.settle)
            after = machine.pss_bytes(self.running.pids)
            lost = generator.mark().errors
        marked = replace(opening, errors=Counter(opening.errors) + Counter(lost))
        return Measured(marked, ended - began, load.streams, pss=(before, after))

    def _to_the_end(self, ask: Ask) -> Measured:
        with self._generator(ask) as generator:
            began = replace(self._read(generator), generator=Scheduled())
            marked = generator.finished(DONE_SECONDS)
            time.sleep(AFTERWARDS)
            ended = self._read(generator)
        if not marked.done:
            raise Stalled(f"not one stream came to its end; errors: {dict(marked.errors)}")
        return Measured(marked, ended - began, ask.streams)

    def _ask(self, load: Load, streams: int) -> Ask:
        path = self.running.path
        return Ask(
            port=self.running.port,
            target=f"{path}?{load.query}" if path else load.target,
            streams=streams,
            ramp=RAMP_PER_SECOND,
            body=BODY,
            headers=self.running.headers,
            websocket=self._mode(load),
            answer=load.size if isinstance(load, Steady) and load.answered else 0,
        )

    def _mode(self, load: Load) -> Mode | None:
        if isinstance(load, Idle):
            return "idle"
        if load.messages:
            return "messages"
        return "bridge" if self.running.bridges else None

    def _generator(self, ask: Ask) -> AbstractContextManager[Generator]:
        return native.generator(ask, core=self.cores.others, directory=self.directory)

    def _read(self, generator: Generator) -> Reading:
        return Reading(
            contestant=machine.scheduled(self.running.pids),
            upstream=machine.scheduled([self.upstream.pid]),
            generator=machine.scheduled([generator.pid]),
            stolen_ns=machine.stolen_ns(self.cores.contestant),
        )


def _recorded(port: int, target: str) -> str:
    """Have one stream run to its end; return the path under which it can be read again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DONE_SECONDS)
    try:
        connection.request("POST", target, BODY, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return f"/_streams/{response.headers['Stream-Id']}"
    finally:
        connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What everybody has had of the processors at one moment, or between two."""

    contestant: Scheduled
    upstream: Scheduled
    generator: Scheduled
    stolen_ns: int

    def __sub__(self, earlier: Reading) -> Reading:
        return Reading(
            contestant=self.contestant - earlier.contestant,
            upstream=self.upstream - earlier.upstream,
            generator=self.generator - earlier.generator,
            stolen_ns=self.stolen_ns - earlier.stolen_ns,
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What the generator saw, what passed meanwhile, and the memory without and with ``streams`` streams."""

    marked: Marked
    passed: Reading
    streams: int
    pss: tuple[int, int] = (0, 0)

    def sample(self, load: str, contestant: str, round_: int, behind: int) -> Sample:
        """All of it in one flat record."""
        marked, passed = self.marked, self.passed
        return Sample(
            load=load, contestant=contestant, round=round_, streams=self.streams, behind=behind,
            window_ns=marked.duration_ns, events=marked.events, bytes=marked.bytes, done=marked.done,
            errors=marked.errors, latency_ns=marked.latency_ns,
            ttfb_ns=marked.ttfb_ns, ttfe_ns=marked.ttfe_ns,
            cpu_ns=passed.contestant.ran, upstream_ns=passed.upstream.ran, generator_ns=passed.generator.ran,
            disturbed=(passed.contestant.waited + passed.stolen_ns) / marked.duration_ns,
            pss_before=self.pss[0], pss_after=self.pss[1],
        )  # fmt: skip
