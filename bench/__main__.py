"""``python -m bench``: run the benchmark, show a table, write the report."""
# ruff: noqa: T201 -- a command prints

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from bench import figures, loads, machine, native, report, rounds
from bench.figures import Results
from bench.lineup import LINEUP, Contestant
from bench.loads import LOADS, Load
from bench.measure import Bench
from bench.report import Run
from bench.sample import Sample

#: Where the results of whole runs go, and those of runs that were filtered or quick.
RESULTS = Path(__file__).parent / "results"
PARTIAL = RESULTS / "dev"

#: Contestants that need more installed than the others.
EXTRAS = ("litellm", "litellm-messages", "resumable-stream")

ROUNDS, QUICK_ROUNDS = 5, 2

#: What a contestant with 9,000 streams needs: two sockets each, and a few more.
OPEN_FILES = 18_500


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 0, or 1 if something could not be measured."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)  # so that what was started is ended too
    try:
        native.build()
        cores = machine.two_cores()
    except (native.NotBuilt, machine.TooSmall) as error:
        print(error, file=sys.stderr)
        return 1
    chosen = _loads(options)
    present, left_out = _present(_contestants(options))
    count = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    order = list(rounds.turns(chosen, present, count))
    if not order:
        print(
            "There is nothing to measure: no contestant that is here takes part in these loads.",
            file=sys.stderr,
        )
        return 1
    if machine.open_files() < OPEN_FILES:
        print(
            f"Fewer than {OPEN_FILES:,} open files are allowed here: large loads will fail.", file=sys.stderr
        )
    machine.stay_on(cores.others)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        samples = rounds.run(Bench(cores, Path(directory)), order, _teller(len(order)))
    run = Run(
        loads=chosen,
        results=Results(samples),
        machine=machine.facts(),
        versions={each.name: each.versions() for each in present},
        left_out=left_out,
        rounds=count,
        quick=options.quick,
        part=bool(options.load or options.contestant),
    )
    print(f"\n{report.compact(run)}\n")
    for path in report.write(run, options.out or (RESULTS if _whole(options) else PARTIAL)):
        print(path)
    return 1 if run.results.failures else 0


def _interrupted(number: int, frame: FrameType | None) -> None:
    print("Interrupted; no report was written.", file=sys.stderr)
    sys.exit(128 + number)


def _loads(options: argparse.Namespace) -> list[Load]:
    if options.load:
        found = [load for load in LOADS if {load.name, load.block} & set(options.load)]
    else:
        found = [load for load in LOADS if options.extras or not load.extra]
    return loads.quick(found) if options.quick else found


def _contestants(options: argparse.Namespace) -> list[Contestant]:
    wanted = options.contestant or [name for name in LINEUP if name not in EXTRAS]
    return [each for name, each in LINEUP.items() if name in {*wanted, *options.extras}]


def _present(wanted: Sequence[Contestant]) -> tuple[list[Contestant], Mapping[str, str]]:
    """Those that can run on this machine, and why the others cannot; said loudly."""
    left_out = {each.name: missing for each in wanted if (missing := each.missing())}
    for name, why in left_out.items():
        print(f"LEFT OUT: {name}: {why}", file=sys.stderr)
    return [each for each in wanted if each.name not in left_out], left_out


def _whole(options: argparse.Namespace) -> bool:
    return not (options.quick or options.load or options.contestant)


def _teller(count: int) -> Callable[[Load, Sample], None]:
    """Writes one line about each of so many measurements, when it is done."""
    numbers = itertools.count(1)

    def tell(load: Load, sample: Sample) -> None:
        done = f"{next(numbers):{len(str(count))}}/{count}"
        name = f"{load.name:16}  {sample.round}  {sample.contestant:16}"
        print(f"{done}  {name}  {_told(load, sample)}", file=sys.stderr, flush=True)

    return tell


def _told(load: Load, sample: Sample) -> str:
    if sample.failure:
        return f"FAILED: {sample.failure}"
    figure, unit = report.cost(load)
    parts = [f"{report.number(figure(sample)):>7} µs/{unit}  busy {figures.busy(sample):4.0%}"]
    if sample.contestant == "direct":
        parts = [f"{'–':>7}  no proxy"]
    parts.append(f"other core {figures.others_busy(sample):4.0%}")
    if sample.disturbed > report.DISTURBED:
        parts.append(f"disturbed {sample.disturbed:.0%}")
    if sample.errors:
        parts.append(f"ERRORS: {dict(sample.errors)}")
    return "  ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short windows, fewer streams, two rounds")
    parser.add_argument("--rounds", type=_positive, help=f"default: {ROUNDS}")
    names = sorted({load.name for load in LOADS} | {load.block for load in LOADS if load.block})
    parser.add_argument(
        "--load", action="append", choices=names, metavar="NAME", help=f"only this one: {', '.join(names)}"
    )
    parser.add_argument(
        "--contestant", action="append", choices=list(LINEUP), metavar="NAME",
        help=f"only this one: {', '.join(LINEUP)}",
    )  # fmt: skip
    parser.add_argument(
        "--with", dest="extras", type=_extras, default=[], metavar="NAME,…",
        help=f"also these, which need more installed: {', '.join(EXTRAS)}",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, help="directory of the report; default: bench/results, or its dev/ for a part"
    )
    return parser


def _positive(value: str) -> int:
    if not (value.isdecimal() and int(value)):
        raise argparse.ArgumentTypeError(f"{value}: expected a whole number from 1 on")
    return int(value)


def _extras(value: str) -> list[str]:
    names = value.split(",")
    if unknown := set(names) - set(EXTRAS):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: expected some of {', '.join(EXTRAS)}"
        )
    return names


if __name__ == "__main__":
    sys.exit(main())
