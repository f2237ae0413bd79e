"""From samples to figures: medians and spreads over rounds, ratios within a round, and the marks.

A ratio is always one of two samples of the same round, and the median is taken of the ratios: whatever
slows the machine for a minute slows both.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.sample import Sample

Figure = Callable[[Sample], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds: the median, the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Of these values; None if there are none."""
        if not (listed := list(values)):
            return None
        return cls(statistics.median(listed), min(listed), max(listed))


class Results:
    """All samples of a run. Failed ones are in ``failures``, and nowhere else."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.good = [sample for sample in samples if not sample.failure]
        self.failures = [sample for sample in samples if sample.failure]

    def at(self, load: str, contestant: str) -> Entry:
        """What one contestant did under one load."""
        found = [each for each in self.good if (each.load, each.contestant) == (load, contestant)]
        return Entry({sample.round: sample for sample in found})


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant's samples under one load, by round. There may be none."""

    by_round: Mapping[int, Sample]

    def spread(self, figure: Figure) -> Spread | None:
        """A figure over the rounds."""
        return Spread.of(map(figure, self.by_round.values()))

    def over(self, other: Entry, figure: Figure) -> Spread | None:
        """A figure over the other's of the same round."""
        return Spread.of(quotient(figure(mine), figure(theirs)) for mine, theirs in self._pairs(other))

    def less(self, other: Entry, figure: Figure) -> Spread | None:
        """A figure less the other's of the same round."""
        return Spread.of(figure(mine) - figure(theirs) for mine, theirs in self._pairs(other))

    def errors(self) -> dict[str, int]:
        """Errors by kind, all rounds together."""
        total: Counter[str] = Counter()
        for sample in self.by_round.values():
            total.update(sample.errors)
        return dict(sorted(total.items()))

    def _pairs(self, other: Entry) -> Iterator[tuple[Sample, Sample]]:
        for number in self.by_round.keys() & other.by_round.keys():
            yield self.by_round[number], other.by_round[number]


def quotient(a: float, b: float) -> float:
    """``a`` over ``b``; nothing over nothing is nothing."""
    return a / b if b else 0.0


# ── figures of one sample ───────────────────────────────────────────────────────────────────────────────


def us_per_event(sample: Sample) -> float:
    """CPU time per event, in microseconds."""
    return quotient(sample.cpu_ns / 1e3, sample.events)


def us_per_stream(sample: Sample) -> float:
    """CPU time per stream that came to its end, in microseconds."""
    return quotient(sample.cpu_ns / 1e3, sample.done)


def us_per_connection(sample: Sample) -> float:
    """CPU time of opening a connection, in microseconds."""
    return quotient(sample.cpu_ns / 1e3, sample.streams)


def events_per_second(sample: Sample) -> float:
    """Events that reached the clients."""
    return quotient(sample.events * 1e9, sample.window_ns)


def busy(sample: Sample) -> float:
    """Share of the window in which the contestant was on its core."""
    return quotient(sample.cpu_ns, sample.window_ns)


def others_busy(sample: Sample) -> float:
    """Share of the window in which the upstream and the generator were on theirs."""
    return quotient(sample.upstream_ns + sample.generator_ns, sample.window_ns)


def latency_us(percentile: str) -> Figure:
    """From the upstream's write to the generator's read, in microseconds."""
    return lambda sample: sample.latency_ns.get(percentile, 0) / 1e3


def ttfe_us(percentile: str) -> Figure:
    """From the request to its first event, in microseconds."""
    return lambda sample: sample.ttfe_ns.get(percentile, 0) / 1e3


def ttfb_us(percentile: str) -> Figure:
    """From the request to its response's head, in microseconds."""
    return lambda sample: sample.ttfb_ns.get(percentile, 0) / 1e3


def kib_per_stream(sample: Sample) -> float:
    """Memory that one open stream takes, in KiB."""
    return quotient((sample.pss_after - sample.pss_before) / 1024, sample.streams)


# ── marks ───────────────────────────────────────────────────────────────────────────────────────────────


#: The load of the main claim.
STEADY = "steady-100x100"


@dataclass(frozen=True, slots=True)
class Mark:
    """A promise: this figure is at most ``limit``, in ``unit``."""

    title: str
    limit: float
    unit: str
    measured: Callable[[Results], Spread | None]

    def verdict(self, results: Results) -> str:
        """``hit``, ``missed``, or that the run did not measure it."""
        if (spread := self.measured(results)) is None:
            return "not measured"
        return "hit" if spread.median <= self.limit else "missed"


def _over(
    load: str, other: str, figure: Figure, ours: str = "ours-full"
) -> Callable[[Results], Spread | None]:
    """Ours, with everything on, over another contestant under the same load."""
    return lambda results: results.at(load, ours).over(results.at(load, other), figure)


def _as_loaded(load: str, other: str) -> Callable[[Results], Spread | None]:
    """Ours with everything on, CPU time per event under one load over that under another."""
    return lambda results: results.at(load, "ours-full").over(results.at(other, "ours-full"), us_per_event)


def _lone(results: Results) -> Spread | None:
    ours, direct = results.at("lone", "ours-full"), results.at("lone", "direct")
    return ours.less(direct, lambda sample: ttfe_us("p50")(sample) / 1e3)


def _kib(load: str, contestant: str) -> Callable[[Results], Spread | None]:
    return lambda results: results.at(load, contestant).spread(kib_per_stream)


MARKS: tuple[Mark, ...] = (
    Mark(
        "CPU per event, everything on, 100 × 100/s, over nginx",
        1.3,
        "×",
        _over(STEADY, "nginx", us_per_event),
    ),
    Mark("the same, over the textbook loop", 1.0, "×", _over(STEADY, "textbook", us_per_event)),
    Mark("the same, 1,000 × 20/s, over nginx", 1.5, "×", _over("steady-1000x20", "nginx", us_per_event)),
    Mark("the same, 5,000 mostly idle, over nginx", 1.5, "×", _over("idle-5000", "nginx", us_per_event)),
    Mark("bursts of 20 events a read, over nginx", 2.5, "×", _over("bursts", "nginx", us_per_event)),
    Mark(
        "CPU of a 1-event stream, over the textbook loop", 1.3, "×", _over("setup", "textbook", us_per_stream)
    ),
    Mark("ids, replay and heartbeat on, over ours bare", 1.15, "×", _over(STEADY, "ours-bare", us_per_event)),
    Mark(
        "CPU per event translated from OpenAI to unified, 100 × 100/s, over nginx",
        2.5,
        "×",
        _over(STEADY, "nginx", us_per_event, ours="ours-unified"),
    ),
    Mark("added time to first event of a lone request, p50, over direct", 1.0, "ms", _lone),
    Mark("memory per idle stream, recorded", 20.0, "KiB", _kib("idle-5000", "ours-full")),
    Mark("CPU per event at 9,000 streams, over that at 100", 1.25, "×", _as_loaded("open-9000", "open-100")),
    Mark("CPU per event of a full log's replay, over live", 0.1, "×", _as_loaded("replay", "live")),
    Mark(
        "CPU per event over the bridge, 100 × 100/s, over nginx's SSE",
        1.6,
        "×",
        _over("bridge-100x100", "nginx", us_per_event, ours="ours-bridge"),
    ),
    Mark(
        "CPU per message passed through, 100 × 100/s, over nginx's WebSocket",
        2.0,
        "×",
        _over("tunnel-100x100", "nginx", us_per_event, ours="ours-passthrough"),
    ),
    Mark("memory per idle bridge connection", 25.0, "KiB", _kib("bridge-open", "ours-bridge")),
    Mark("memory per idle pass-through pair", 50.0, "KiB", _kib("tunnel-idle", "ours-passthrough")),
)
