"""The report: Markdown for people, JSON with everything for programs, and a short table for a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import indent

from bench import figures, plot
from bench.figures import MARKS, Entry, Figure, Mark, Results, Spread
from bench.loads import WEBSOCKET, Idle, Load, Requests, Steady
from bench.sample import Sample

#: Above this share of a window in which a contestant was kept off its core, its figures are doubtful.
DISTURBED = 0.05

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmark, with what its report must tell besides the samples.

    machine: Facts about it, by name.
    versions: Of each contestant.
    left_out: Why a contestant did not take part.
    part: Whether loads or contestants were picked: then it is no news which marks were not measured.
    """

    loads: Sequence[Load]
    results: Results
    machine: Mapping[str, object]
    versions: Mapping[str, str]
    left_out: Mapping[str, str]
    rounds: int
    quick: bool
    part: bool = False


def write(run: Run, directory: Path) -> list[Path]:
    """Write ``latest.md``, ``latest.svg`` and ``latest.json``; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"latest.md": markdown(run), "latest.svg": plot.svg(bars(run)), "latest.json": as_json(run)}
    for name, text in texts.items():
        (directory / name).write_text(text, "utf-8")
    return [directory / name for name in texts]


def as_json(run: Run) -> str:
    """All samples of all rounds, and what is known about the machine."""
    document = {
        "machine": run.machine,
        "versions": run.versions,
        "left_out": run.left_out,
        "rounds": run.rounds,
        "quick": run.quick,
        "loads": [{"kind": type(load).__name__, **asdict(load)} for load in run.loads],
        "samples": [asdict(sample) for sample in run.results.samples],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def bars(run: Run) -> list[plot.Group]:
    """CPU time per event as groups of bars, one group a load."""
    return [
        plot.Group(load.title, found)
        for load in (*_steady(run), *_sockets(run))
        if (found := [bar for name in _measured(run, load) if (bar := _bar(run, load.name, name))])
    ]


def _bar(run: Run, load: str, name: str) -> plot.Bar | None:
    entry, nginx = run.results.at(load, name), run.results.at(load, "nginx")
    value = entry.spread(figures.us_per_event)
    if name == "direct" or value is None:
        return None
    return plot.Bar(name, value, entry.over(nginx, figures.us_per_event))


# ── a terminal's table ──────────────────────────────────────────────────────────────────────────────────


def compact(run: Run) -> str:
    """A line for each load and contestant, and the marks for which that suffices.

    Percentiles are those of an event's latency; of requests, those of the time to the first event; where
    there are no events, to the response.
    """
    rows = [_line(run, load, name) for load in run.loads for name in _measured(run, load)]
    header = [
        "load",
        "contestant",
        "CPU",
        "µs per",
        "over nginx",
        "busy",
        "others",
        "p50 µs",
        "p99 µs",
        "errors",
    ]
    marks = _measured_marks(run)
    return "\n\n".join(
        [table(header, rows), *([_marks(run.results, marks)] if marks else []), *_disturbed(run)]
    )


def _measured_marks(run: Run) -> list[Mark]:
    return [mark for mark in MARKS if mark.measured(run.results) is not None]


def _disturbed(run: Run) -> Iterator[str]:
    """Say so if the machine was not quiet."""
    good = run.results.good
    if doubtful := [sample for sample in good if sample.disturbed > DISTURBED]:
        yield (
            f"{len(doubtful)} of {len(good)} measurements were disturbed: something else had the "
            f"contestant's core\nfor over {DISTURBED:.0%} of the time. "
            "bench/README.md says what that does to the figures."
        )


def _line(run: Run, load: Load, name: str) -> Row:
    entry, nginx = run.results.at(load.name, name), run.results.at(load.name, "nginx")
    figure, unit = cost(load)
    latency = {Requests: figures.ttfe_us, Idle: figures.ttfb_us}.get(type(load), figures.latency_us)
    proxied = name != "direct"
    return [
        load.name,
        name,
        spread(entry.spread(figure)) if proxied else NOTHING,
        unit,
        spread(entry.over(nginx, figure), "×") if proxied else NOTHING,
        percent(entry.spread(figures.busy)) if proxied else NOTHING,
        percent(entry.spread(figures.others_busy)),
        *(median(entry.spread(latency(each))) for each in ("p50", "p99")),
        _counted(entry),
    ]


def cost(load: Load) -> tuple[Figure, str]:
    """What is counted in this load, and what it is called: CPU time per event, stream or connection."""
    match load:
        case Requests():
            return figures.us_per_stream, "stream"
        case Idle():
            return figures.us_per_connection, "connection"
    return figures.us_per_event, "message" if load.messages else "event"


# ── the report ──────────────────────────────────────────────────────────────────────────────────────────


def markdown(run: Run) -> str:
    """The whole report."""
    return "\n\n".join(_sections(run)) + "\n"


def _sections(run: Run) -> Iterator[str]:
    yield "# What an event costs"
    if run.quick:
        yield "**A quick run: short windows, fewer streams, two rounds. For a look, not for a verdict.**"
    yield _machine(run)
    if wrong := [*_failures(run), *_errors(run)]:
        yield "## What went wrong\n\n" + "\n".join(wrong)
    if marks := _measured_marks(run) if run.part else MARKS:
        yield f"## Marks\n\n{_marks(run.results, marks)}"
    yield "## CPU time per event\n\n![CPU time per event, by load and contestant](latest.svg)"
    for load in _steady(run):
        yield _told(run, load)
    if sockets := _sockets(run):
        yield f"## WebSocket\n\n{ABOUT_SOCKETS}"
        for load in sockets:
            yield _told(run, load)
    for section in SECTIONS:
        if rows := list(section.rows(run)):
            yield f"## {section.title}\n\n{section.words}\n\n{table(section.header, rows)}"


#: What to know about the tables of WebSockets.
ABOUT_SOCKETS = (
    "Over the bridge, clients receive as frames what nginx and `ours-full` carry beside it as server-sent "
    "events, from the same upstream. Under pass-through, the upstream is a WebSocket itself, which sends "
    "binary messages; nginx tunnels them too."
)


def _told(run: Run, load: Steady) -> str:
    return f"### {load.title}\n\n`{load.name}`: {_described(load)}\n\n{_events(run, load)}"


def _machine(run: Run) -> str:
    told = run.machine
    virtual = ", virtual" if told["virtual"] else ""
    lines = [
        f"{told['date']}; {told['cpu']}, {told['cores']} cores{virtual}, {told['memory_mib']:,} MiB; "
        f"{told['system']}, Linux {told['kernel']}. {run.rounds} rounds. "
        "In the tables: the median over the rounds (least–greatest).",
        "\n".join(f"- `{name}`: {version}" for name, version in run.versions.items()),
    ]
    lines += [f"**Left out: `{name}`: {why}**" for name, why in run.left_out.items()]
    return "\n\n".join(lines)


def _failures(run: Run) -> Iterator[str]:
    for sample in run.results.failures:
        words = indent(sample.failure, "  ")
        yield f"- `{sample.load}`, `{sample.contestant}`, round {sample.round}:\n  ```\n{words}\n  ```"


def _errors(run: Run) -> Iterator[str]:
    for load in run.loads:
        for name in _measured(run, load):
            if (entry := run.results.at(load.name, name)).errors():
                yield f"- `{load.name}`, `{name}`: errors in all rounds together: {_counted(entry)}"


def _marks(results: Results, marks: Sequence[Mark]) -> str:
    rows = [
        [
            mark.title,
            f"{mark.limit:g} {mark.unit}",
            spread(mark.measured(results), f" {mark.unit}"),
            mark.verdict(results),
        ]
        for mark in marks
    ]
    return table(["figure", "at most", "measured", "verdict"], rows)


def _described(load: Steady) -> str:
    pace = "as fast as they are taken" if load.saturates else f"{load.rate:g} writes/s each"
    noun = "message" if load.messages else "event"
    events = f"1 {noun}" if load.burst == 1 else f"{load.burst} {noun}s"
    answered = ", each answered by a message of that size" if load.answered else ""
    written = f"{events} of {load.size:,} bytes a write{answered}"
    return f"{load.streams:,} streams, {pace}, {written}; {load.window:g} s."


def _events(run: Run, load: Steady) -> str:
    columns = ("events/s", "own core busy", "other core busy")
    if not load.saturates:  # where there is always a queue, its length is no latency
        columns = ("added p50 µs", "added p99 µs", "other core busy")
    header = ["contestant", f"CPU µs/{cost(load)[1]}", "over nginx", *columns, "errors"]
    return table(header, [_event(run, load, name) for name in _measured(run, load)])


def _event(run: Run, load: Steady, name: str) -> Row:
    entry = run.results.at(load.name, name)
    nginx, direct = (run.results.at(load.name, other) for other in ("nginx", "direct"))
    if name == "direct":
        cells = [NOTHING, NOTHING]
    else:
        cells = [
            spread(entry.spread(figures.us_per_event)),
            spread(entry.over(nginx, figures.us_per_event), "×"),
        ]
    if load.saturates:
        cells += [spread(entry.spread(figures.events_per_second))]
        cells += [percent(entry.spread(figures.busy)) if name != "direct" else NOTHING]
    else:
        cells += [_added(entry, direct, figures.latency_us(each)) for each in ("p50", "p99")]
    return [name, *cells, percent(entry.spread(figures.others_busy)), _counted(entry)]


def _set_up(run: Run) -> Iterator[Row]:
    others = [run.results.at("setup", other) for other in ("nginx", "textbook")]
    for name, entry in _entries(run, "setup"):
        yield [
            name,
            spread(entry.spread(figures.us_per_stream)),
            *(spread(entry.over(other, figures.us_per_stream), "×") for other in others),
            _counted(entry),
        ]


def _lone(run: Run) -> Iterator[Row]:
    direct = run.results.at("lone", "direct")
    for name, entry in _entries(run, "lone"):
        yield [
            name,
            *(spread(entry.spread(figures.ttfe_us(each))) for each in ("p50", "p99")),
            *(_added(entry, direct, figures.ttfe_us(each)) for each in ("p50", "p99")),
            _counted(entry),
        ]


def _memory(run: Run) -> Iterator[Row]:
    for name, entry in _entries(run, "idle-5000"):
        if name != "direct":
            yield [
                name,
                spread(entry.spread(figures.kib_per_stream)),
                spread(entry.spread(lambda sample: sample.pss_before / (1 << 20))),
                spread(entry.spread(lambda sample: sample.pss_after / (1 << 20))),
            ]


def _open_sockets(run: Run) -> Iterator[Row]:
    for load in run.loads:
        if load.block == WEBSOCKET and load.name.endswith(("-open", "-idle")):
            for name, entry in _entries(run, load.name):
                yield [
                    load.title,
                    name,
                    spread(entry.spread(figures.kib_per_stream)),
                    spread(entry.spread(lambda sample: sample.pss_before / (1 << 20))),
                    spread(entry.spread(lambda sample: sample.pss_after / (1 << 20))),
                    _counted(entry),
                ]


def _many(run: Run) -> Iterator[Row]:
    for name, many in _entries(run, "open-9000"):
        few = run.results.at("open-100", name)
        yield [
            name,
            spread(few.spread(figures.us_per_event)),
            spread(many.spread(figures.us_per_event)),
            spread(many.over(few, figures.us_per_event), "×"),
            _counted(many),
        ]


def _replayed(run: Run) -> Iterator[Row]:
    for load in run.loads:
        if load.block == "replay":
            for _, entry in _entries(run, load.name):
                yield [
                    load.title,
                    spread(entry.spread(figures.us_per_event)),
                    spread(entry.spread(figures.events_per_second)),
                    _counted(entry),
                ]


def _bottleneck(run: Run) -> Iterator[Row]:
    for load in run.loads:
        samples = [sample for sample in run.results.good if sample.load == load.name]
        if samples:
            late = max(figures.quotient(sample.behind, sample.events) for sample in samples)
            yield [
                load.name,
                _worst(samples, figures.others_busy),
                f"{late:.1%}",
                _worst(samples, figures.busy),
                _worst(samples, lambda sample: sample.disturbed),
            ]


def _worst(samples: Sequence[Sample], figure: Figure) -> str:
    worst = max(samples, key=figure)
    return f"{figure(worst):.0%} ({worst.contestant})"


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a heading and a few words; left out where a run has no rows for it."""

    title: str
    words: str
    header: Sequence[str]
    rows: Callable[[Run], Iterator[Row]]


SECTIONS: tuple[Section, ...] = (
    Section(
        "Set-up and end of a stream",
        "Streams of one event and the end marker, 10 at a time over connections that the client keeps.",
        ["contestant", "CPU µs per stream", "over nginx", "over textbook", "errors"],
        _set_up,
    ),
    Section(
        "A lone request",
        "One request at a time over one connection, from its writing to the receipt of its first event. "
        "*Added* is what comes on top of `direct` in the same round.",
        ["contestant", "first event after, p50 µs", "p99 µs", "added p50 µs", "added p99 µs", "errors"],
        _lone,
    ),
    Section(
        "Memory of an idle stream",
        "Proportional set size of the contestant's processes under `idle-5000`, when all streams are "
        "open and had an event, less that before the first request, by the number of streams. The "
        "kernel's socket buffers are not in it.",
        ["contestant", "KiB per stream", "MiB without streams", "MiB with all"],
        _memory,
    ),
    Section(
        "Memory of an idle WebSocket",
        "The same with WebSockets: of the bridge without a stream and with one, and of pairs, one to the "
        "client and one to the upstream.",
        ["", "contestant", "KiB each", "MiB without", "MiB with all", "errors"],
        _open_sockets,
    ),
    Section(
        "Many streams",
        "As many events a second, over 100 streams and over 9,000; both loads in turn within each round.",
        [
            "contestant",
            "100 streams, CPU µs/event",
            "9,000 streams, CPU µs/event",
            "9,000 over 100",
            "errors",
        ],
        _many,
    ),
    Section(
        "Replay",
        "All readers at once read one finished stream again, each from its first event to its end, in "
        "turn within each round with live streams through the same contestant (`ours-full`).",
        ["", "CPU µs/event", "events/s", "errors"],
        _replayed,
    ),
    Section(
        "Were the upstream and the generator the bottleneck?",
        "They share one core. *Other core busy*: their CPU time together, over the window. *Events "
        "late*: those that the upstream could not write when they were due, over those received. "
        "*Disturbed*: the share of a window in which the contestant could have run and did not, because "
        "something else ran on its core (of a contestant with several processes, it may be itself), or "
        "because the hypervisor had taken it; above 5 % the figures of that round are doubtful. Each is "
        "the worst of all rounds.",
        ["load", "other core busy", "events late", "contestant's core busy", "disturbed"],
        _bottleneck,
    ),
)


# ── cells ───────────────────────────────────────────────────────────────────────────────────────────────

Row = Sequence[str]


def table(header: Row, rows: Sequence[Row]) -> str:
    """A table in Markdown, its columns aligned: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Row) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        padded[0] = cells[0].ljust(widths[0])
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def number(value: float) -> str:
    """Three digits, or all of a larger number: 0.123, 1.23, 12.3, 1,234."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or size == 0 else 3
    return f"{value:,.{digits}f}"


def spread(value: Spread | None, unit: str = "") -> str:
    """Median, and from where to where: ``12.3 (11.9–12.8)``."""
    if value is None or value.low == value.high:
        return median(value, unit)
    return f"{number(value.median)}{unit} ({number(value.low)}–{number(value.high)})"


def median(value: Spread | None, unit: str = "") -> str:
    """The median alone."""
    return NOTHING if value is None else f"{number(value.median)}{unit}"


def percent(value: Spread | None) -> str:
    """The median, in percent."""
    return NOTHING if value is None else f"{value.median:.0%}"


def _added(entry: Entry, direct: Entry, figure: Figure) -> str:
    return NOTHING if entry is direct or entry == direct else spread(entry.less(direct, figure))


def _counted(entry: Entry) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in entry.errors().items()) or "0"


def _measured(run: Run, load: Load) -> list[str]:
    return [name for name in load.contestants if run.results.at(load.name, name).by_round]


def _entries(run: Run, load: str) -> Iterator[tuple[str, Entry]]:
    for each in run.loads:
        if each.name == load:
            for name in _measured(run, each):
                yield name, run.results.at(load, name)


def _steady(run: Run) -> list[Steady]:
    """The loads that have a table of their own, and bars in the plot."""
    return [load for load in run.loads if isinstance(load, Steady) and not load.block]


def _sockets(run: Run) -> list[Steady]:
    """The same of those over WebSocket that are compared with nginx."""
    return [
        load
        for load in run.loads
        if isinstance(load, Steady) and load.block == WEBSOCKET and "nginx" in load.contestants
    ]
