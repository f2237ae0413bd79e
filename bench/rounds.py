"""The rounds: A B C, A B C, …, so that what disturbs the machine for a while disturbs all alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.client import HTTPException

from bench.lineup import Contestant
from bench.loads import Load
from bench.measure import Bench, Stalled
from bench.process import ProcessError
from bench.sample import Sample

#: One measurement to do: the load, who carries it, and the round.
Turn = tuple[Load, Contestant, int]


def turns(loads: Sequence[Load], contestants: Sequence[Contestant], rounds: int) -> Iterator[Turn]:
    """All measurements in their order.

    Loads of a block take turns within a round; otherwise one load is done before the next begins.
    """
    by_name = {contestant.name: contestant for contestant in contestants}
    for _, block in itertools.groupby(loads, key=lambda load: load.block or load.name):
        together = list(block)
        for number in range(1, rounds + 1):
            for load in together:
                for name in load.contestants:
                    if name in by_name:
                        yield load, by_name[name], number


def run(bench: Bench, order: Iterable[Turn], told: Callable[[Load, Sample], None]) -> list[Sample]:
    """Measure one after another; ``told`` hears of each. One that breaks is a sample that says why."""
    samples = []
    for load, contestant, number in order:
        try:
            sample = bench.sample(load, contestant, number)
        except (ProcessError, OSError, HTTPException, Stalled) as error:
            failure = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
            sample = Sample(load=load.name, contestant=contestant.name, round=number, failure=failure)
        told(load, sample)
        samples.append(sample)
    return samples
