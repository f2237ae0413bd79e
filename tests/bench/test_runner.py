"""The runner of the benchmark: what it reads, what it makes of it, and one small run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import figures, lineup, loads, machine, native, plot, report, rounds
from bench.figures import MARKS, Results, Spread
from bench.lineup import LINEUP, Place
from bench.loads import LOADS, WEBSOCKET, Idle, Replay, Requests, Steady
from bench.machine import Scheduled
from bench.native import Ask, Marked
from bench.process import Process, ProcessError
from bench.report import Run
from bench.sample import Sample
from proxy.config import load as load_config

PROJECT = Path(__file__).parents[2]


def sample(contestant: str, number: int, us: float, load: str = "steady-100x100", **more: object) -> Sample:
    """A measurement of a thousand events that cost ``us`` microseconds each."""
    facts = {"window_ns": 10**9, "events": 1000, "cpu_ns": int(us * 1e6), **more}
    return Sample(load=load, contestant=contestant, round=number, **facts)  # type: ignore[arg-type]


def run_of(*samples: Sample) -> Run:
    """A run that found these samples."""
    names = {each.load for each in samples}
    told = {"date": "today", "cpu": "some", "cores": 2, "virtual": True, "memory_mib": 1024}
    return Run(
        loads=[load for load in LOADS if load.name in names],
        results=Results(samples),
        machine={**told, "system": "Debian", "kernel": "6.1"},
        versions={"nginx": "1.22"},
        left_out={"haproxy": "no such program"},
        rounds=2,
        quick=False,
    )


# ── the machine ─────────────────────────────────────────────────────────────────────────────────────────


def test_schedstat_tells_time_on_a_cpu_and_time_in_the_queue() -> None:
    """Both in nanoseconds; a thread that has ended meanwhile counts as nothing."""
    assert machine.scheduled_of("194372435 13809459 659\n") == Scheduled(194_372_435, 13_809_459)
    assert machine.scheduled_of("") == Scheduled(0, 0)


def test_cpu_time_is_that_of_the_whole_tree() -> None:
    """A child's work is its parent's; what was before the first reading is not."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        try:
            while len(list(machine.tree(parent.pid))) < 2:
                time.sleep(0.01)
            before, began = machine.scheduled([parent.pid]), time.monotonic_ns()
            deadline = time.monotonic() + 30
            while (passed := machine.scheduled([parent.pid]) - before).ran < 0.05e9:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            lasted = time.monotonic_ns() - began
            _, child = machine.tree(parent.pid)
            os.kill(child, 9)
        finally:
            parent.kill()
    assert passed.ran < lasted + 0.05e9, "one core's time, and no more than has passed since"


def test_pss_is_the_proportional_set_size() -> None:
    """In bytes, and not that of anonymous pages only; a process that is gone has none."""
    rollup = "55d0-7fff ---p 00000000 00:00 0 [rollup]\nRss: 3000 kB\nPss: 1234 kB\nPss_Anon: 1000 kB\n"
    assert machine.pss_of(rollup) == 1234 * 1024
    assert machine.pss_of("") == 0
    assert machine.pss_bytes([os.getpid()]) > 1 << 20


def test_stolen_time_is_the_eighth_figure() -> None:
    """Of the line of that CPU, not of the sum over all."""
    stat = "cpu  9 9 9 9 9 9 9 99 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 1 2 3 4 5 6 7 80 0 0\n"
    assert machine.stolen_of(stat, 1) == 80 * machine.TICK_NS
    with pytest.raises(KeyError):
        machine.stolen_of(stat, 2)


def test_lists_of_cpus() -> None:
    """As the kernel writes them."""
    assert machine.cpu_list("0-2,8\n") == {0, 1, 2, 8}
    assert machine.cpu_list("5") == {5}


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_process_is_pinned_and_heard(tmp_path: Path) -> None:
    """On its core from its first instruction, line by line."""
    core = max(os.sched_getaffinity(0))
    script = "import os, sys; print(os.sched_getaffinity(0), flush=True); print(sys.stdin.readline().upper())"
    command = [sys.executable, "-c", script]
    with Process(command, core=core, errors=tmp_path / "errors", talks=True) as process:
        assert process.read_line(10) == str({core})
        process.write_line("mark")
        assert process.read_line(10) == "MARK"
    assert not process.running


def test_a_process_that_fails_tells_why(tmp_path: Path) -> None:
    """The error holds the end of its stderr."""
    command = [sys.executable, "-c", "raise SystemExit('no such port')"]
    with (
        Process(
            command, core=min(os.sched_getaffinity(0)), errors=tmp_path / "errors", talks=True
        ) as process,
        pytest.raises(ProcessError, match="ended: no such port"),
    ):
        process.read_line(10)


def test_descendants_end_with_their_process(tmp_path: Path) -> None:
    """Nothing is left on the contestant's core for the next one to meet."""
    script = "sleep 60 & echo $!; wait"
    core = min(os.sched_getaffinity(0))
    with Process(["sh", "-c", script], core=core, errors=tmp_path / "errors", talks=True) as process:
        child = int(process.read_line(10))
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ── the generator's language ────────────────────────────────────────────────────────────────────────────


def test_a_mark_is_parsed() -> None:
    """Kinds of errors that did not happen are left out."""
    line = json.dumps({
        "t_ns": 3_000_000_000, "events": 30_000, "bytes": 6_600_000, "done": 0, "errors": 2,
        "error_kinds": {"gap": 2, "status": 0}, "open": 100, "latency_ns": {"n": 30_000, "p50": 20_000},
        "ttfb_ns": {}, "ttfe_ns": {"p50": 90_000}, "cpu_ns": 5,
    })  # fmt: skip
    marked = Marked.parse(line)
    assert (marked.duration_ns, marked.events, marked.errors) == (3_000_000_000, 30_000, {"gap": 2})
    assert (marked.latency_ns["p50"], marked.ttfe_ns["p50"]) == (20_000, 90_000)


def test_what_is_asked_becomes_arguments() -> None:
    """Streams that are held, or requests that end."""
    held = Ask(port=80, target="/x?n=1", streams=7, ramp=100, headers=("A: b",)).arguments()
    assert held[held.index("--streams") + 1] == "7"
    assert held[held.index("--header") + 1] == "A: b"
    assert "--requests" not in held
    short = Ask(port=80, target="/x", streams=2, requests=9, stamped=False).arguments()
    assert (short[short.index("--requests") + 1], short[short.index("--concurrency") + 1]) == ("9", "2")
    assert "--no-latency" in short
    socket = Ask(port=80, target="/x", streams=2, websocket="idle").arguments()
    assert socket[socket.index("--websocket") + 1] == "idle"
    assert "--websocket" not in held
    answered = Ask(port=80, target="/x", streams=2, websocket="messages", answer=1920).arguments()
    assert answered[answered.index("--answer") + 1] == "1920"


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spread_is_the_median_between_the_extremes() -> None:
    """Of no values there is none."""
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert Spread.of([]) is None


def test_ratios_are_taken_within_a_round() -> None:
    """A round that slowed both changes no ratio; a round that one of them did not finish has none."""
    results = Results([
        sample("nginx", 1, 10), sample("ours-full", 1, 12),
        sample("nginx", 2, 20), sample("ours-full", 2, 26),
        sample("nginx", 3, 10), sample("ours-full", 3, 0, failure="ended"),
    ])  # fmt: skip
    ours, nginx = (results.at("steady-100x100", name) for name in ("ours-full", "nginx"))
    assert ours.over(nginx, figures.us_per_event) == Spread(1.25, 1.2, 1.3)
    assert ours.less(nginx, figures.us_per_event) == Spread(4.0, 2.0, 6.0)
    assert nginx.spread(figures.us_per_event) == Spread(10.0, 10.0, 20.0)
    assert [each.round for each in results.failures] == [3]


def test_figures_of_one_sample() -> None:
    """Each in its unit."""
    one = sample(
        "nginx", 1, 20, done=100, streams=50, upstream_ns=10**8, generator_ns=2 * 10**8, pss_before=1 << 20,
        pss_after=2 << 20, latency_ns={"p99": 5000}, ttfe_ns={"p50": 250_000},
    )  # fmt: skip
    assert figures.us_per_event(one) == 20
    assert figures.us_per_stream(one) == 200
    assert figures.us_per_connection(one) == 400
    assert figures.events_per_second(one) == 1000
    assert figures.busy(one) == pytest.approx(0.02)
    assert figures.others_busy(one) == pytest.approx(0.3)
    assert figures.kib_per_stream(one) == pytest.approx(1024 / 50)
    assert figures.latency_us("p99")(one) == 5
    assert figures.ttfe_us("p50")(one) == 250


def test_a_mark_is_hit_up_to_its_limit() -> None:
    """By the median; without measurements there is no verdict."""
    results = Results([sample("nginx", 1, 10), sample("ours-full", 1, 13), sample("textbook", 1, 12)])
    verdicts = [mark.verdict(results) for mark in MARKS[:3]]
    assert verdicts == ["hit", "missed", "not measured"]


def test_every_mark_is_measured_by_some_load() -> None:
    """Samples of all loads and contestants suffice for all marks, at the limits of the issue."""
    every = [
        sample(name, 1, 10, load=load.name, done=1, streams=1) for load in LOADS for name in load.contestants
    ]
    results = Results(every)
    assert all(mark.measured(results) is not None for mark in MARKS)
    limits = [mark.limit for mark in MARKS]
    assert limits == [1.3, 1.0, 1.5, 1.5, 2.5, 1.3, 1.15, 2.5, 1.0, 20.0, 1.25, 0.1, 1.6, 2.0, 25.0, 50.0]


# ── rounds ──────────────────────────────────────────────────────────────────────────────────────────────


def order(*names: str, rounds_: int = 2) -> list[str]:
    """The turns of some loads and two contestants, in short."""
    chosen = [load for load in LOADS if load.name in names]
    contestants = [LINEUP["nginx"], LINEUP["ours-full"]]
    return [
        f"{load.name} {one.name} {number}" for load, one, number in rounds.turns(chosen, contestants, rounds_)
    ]


def test_contestants_take_turns() -> None:
    """A B A B of one load, then of the next."""
    assert order("steady-100x100", "bursts") == [
        "steady-100x100 nginx 1", "steady-100x100 ours-full 1",
        "steady-100x100 nginx 2", "steady-100x100 ours-full 2",
        "bursts nginx 1", "bursts ours-full 1", "bursts nginx 2", "bursts ours-full 2",
    ]  # fmt: skip


def test_loads_of_a_block_take_turns_too() -> None:
    """Those whose figures are compared."""
    assert order("open-100", "open-9000", rounds_=1) == [
        "open-100 nginx 1", "open-100 ours-full 1", "open-9000 nginx 1", "open-9000 ours-full 1",
    ]  # fmt: skip


def test_every_load_names_contestants_that_exist() -> None:
    """And no two loads have one name."""
    assert {name for load in LOADS for name in load.contestants} == set(LINEUP)
    assert len({load.name for load in LOADS}) == len(LOADS)


def test_loads_have_streams_of_a_thousand_events() -> None:
    """So that set-up does not hide the event; set-up has loads of its own."""
    for load in LOADS:
        events = int(re.search(r"n=(\d+)", load.query)[1])  # type: ignore[index]
        assert isinstance(load, (Requests, Idle)) or events >= 1000


def test_the_loads_of_websockets_can_be_chosen_alone() -> None:
    """With all that their marks compare them with."""
    block = [load for load in LOADS if load.block == WEBSOCKET]
    samples = [sample(name, 1, 10, load=load.name, streams=1) for load in block for name in load.contestants]
    found = [mark.limit for mark in MARKS if mark.measured(Results(samples)) is not None]
    assert found == [1.6, 2.0, 25.0, 50.0]


def test_only_the_bridge_and_pass_through_are_asked_for_websockets() -> None:
    """The others carry the same streams as events, and nginx the same messages."""
    assert [each.name for each in LINEUP.values() if each.bridges] == ["ours-bridge"]
    for load in LOADS:
        assert ("ours-passthrough" in load.contestants) == load.messages
        assert not (load.messages and "ours-bridge" in load.contestants)


def test_a_quick_run_offers_as_many_events() -> None:
    """Over fewer streams, for a shorter time."""
    for load in loads.quick(LOADS):
        match load, next(each for each in LOADS if each.name == load.name):
            case Steady() as short, Steady() as whole:
                assert short.streams * short.rate == pytest.approx(whole.streams * whole.rate)
                assert (short.streams <= 1000, short.window <= 1) == (True, True)
            case (Requests() | Replay() | Idle()) as short, whole:
                assert short != whole


# ── the report ──────────────────────────────────────────────────────────────────────────────────────────


def test_tables_are_aligned() -> None:
    """The first column to the left, figures to the right."""
    assert report.table(["who", "µs"], [["nginx", "9.1"], ["ours", "12.0"]]) == (
        "| who   |   µs |\n"
        "| ----- | ---: |\n"
        "| nginx |  9.1 |\n"
        "| ours  | 12.0 |"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0.00"), (0.1234, "0.123"), (1.234, "1.23"), (-12.34, "-12.3"), (123.4, "123"), (5502.8, "5,503")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, written: str) -> None:
    """Or all of a larger number."""
    assert report.number(value) == written


def test_a_spread_names_its_extremes_where_they_differ() -> None:
    """What was not measured is a dash."""
    assert report.spread(Spread(1.25, 1.2, 1.3), "×") == "1.25× (1.20–1.30)"
    assert report.spread(Spread(1.0, 1.0, 1.0), "×") == "1.00×"
    assert report.spread(None) == "–"


def test_the_report_tells_ratios_errors_failures_and_what_was_left_out() -> None:
    """Nothing that went wrong is missing."""
    text = report.markdown(run_of(
        sample("direct", 1, 0, latency_ns={"p50": 20_000}),
        sample("nginx", 1, 10, latency_ns={"p50": 60_000}),
        sample("ours-full", 1, 13, latency_ns={"p50": 80_000}, errors={"gap": 2}),
        sample("ours-full", 2, 0, failure="ProcessError: python ended"),
    ))  # fmt: skip
    assert "Left out: `haproxy`: no such program" in text
    assert re.search(r"\| ours-full +\| +13\.0 \| +1\.30× \| +60\.0 \|.* 2 gap \|", text)
    assert "- `steady-100x100`, `ours-full`: errors in all rounds together: 2 gap" in text
    assert "`ours-full`, round 2:\n  ```\n  ProcessError: python ended" in text
    assert re.search(r"over nginx +\| +1\.3 × \| +1\.30 × \| +hit \|", text)


def test_the_terminal_s_table_has_a_line_for_each() -> None:
    """And only the marks that were measured."""
    text = report.compact(run_of(sample("nginx", 1, 10), sample("ours-full", 1, 13)))
    assert len(re.findall(r"^\| steady-100x100 ", text, re.M)) == 2
    assert len(re.findall(r" hit \|$", text, re.M)) == 1
    assert "not measured" not in text


def test_the_report_has_a_chapter_on_websockets() -> None:
    """The bridge beside nginx's events, messages beside nginx's, and the memory of idle ones."""
    text = report.markdown(run_of(
        sample("nginx", 1, 10, load="bridge-100x100"),
        sample("ours-bridge", 1, 15, load="bridge-100x100"),
        sample("nginx", 1, 10, load="tunnel-100x100"),
        sample("ours-passthrough", 1, 21, load="tunnel-100x100"),
        sample("ours-bridge", 1, 0, load="bridge-open", streams=64, pss_before=1 << 20, pss_after=2 << 20),
    ))  # fmt: skip
    assert re.search(r"over the bridge.* over nginx's SSE +\| +1\.6 × \| +1\.50 × \| +hit \|", text)
    assert re.search(r"message passed through.* \| +2 × \| +2\.10 × \| +missed \|", text)
    assert re.search(r"\| ours-bridge +\| +15\.0 \| +1\.50× \|", text)
    assert re.search(r"\| contestant +\| +CPU µs/message \|", text)
    assert re.search(r"\| bridge: 5,000 connections without a stream +\| ours-bridge \| +16\.0 \|", text)


def test_the_json_has_every_sample() -> None:
    """With the machine, as it came."""
    one = sample("nginx", 1, 10)
    document = json.loads(report.as_json(run_of(one)))
    assert document["samples"][0]["cpu_ns"] == one.cpu_ns
    assert document["machine"]["kernel"] == "6.1"
    assert document["loads"][0]["streams"] == 100


def test_the_plot_is_well_formed() -> None:
    """A bar and a label for each contestant, none for the client that asks the upstream directly."""
    run = run_of(sample("direct", 1, 0), sample("nginx", 1, 10), sample("ours-full", 1, 13))
    root = ElementTree.fromstring(plot.svg(report.bars(run)))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"nginx", "ours-full", "10 µs · 1.00 ×", "13 µs · 1.30 ×"} <= set(texts)
    assert "direct" not in texts
    assert set(plot.COLOURS) == set(LINEUP) - {"direct"}


@pytest.mark.parametrize("longest", [0.35, 1.0, 7.7, 40.0, 99.7, 555.0])
def test_the_plot_has_a_handful_of_grid_lines(longest: float) -> None:
    """At round distances."""
    assert 4 <= longest / plot.grid_step(longest) <= 10


# ── the contestants' configurations ─────────────────────────────────────────────────────────────────────


@pytest.fixture(params=[False, True], ids=["http", "https"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a contestant could stand."""
    ca = tmp_path / "ca.pem"
    shutil.copy(native.certificate(tmp_path).cert, ca) if shutil.which("openssl") else ca.touch()
    return Place(
        port=lineup.free_port(),
        second_port=lineup.free_port(),
        upstream_port=9,
        tls=request.param,
        ca=ca,
        directory=tmp_path,
    )


@pytest.mark.parametrize(
    ("name", "replay", "websocket", "emit"),
    [
        ("ours-bare", False, "off", "passthrough"),
        ("ours-full", True, "off", "passthrough"),
        ("ours-unified", True, "off", "unified"),
        ("ours-bridge", True, "bridge", "passthrough"),
        ("ours-passthrough", True, "passthrough", "passthrough"),
    ],
)
def test_our_configurations_load(name: str, replay: bool, websocket: str, emit: str, place: Place) -> None:
    """What is measured is what the file says."""
    (command,) = LINEUP[name].commands(place)
    config = load_config(Path(command[-1]))
    (route,) = config.routes
    assert (route.replay.enabled, route.websocket, route.emit.form) == (replay, websocket, emit)
    assert (config.upstreams["provider"].tls_ca is not None) == place.tls


@pytest.mark.parametrize(("name", "check"), [("nginx", ["-t"]), ("haproxy", ["-c"])])
def test_their_configurations_are_valid(name: str, check: list[str], place: Place) -> None:
    """By their own judgement."""
    if missing := LINEUP[name].missing():
        pytest.skip(f"LEFT OUT: the benchmark's contestant {name}: {missing}")
    (command,) = LINEUP[name].commands(place)
    done = subprocess.run([*command, *check], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "warn" not in done.stdout.lower(), done.stdout


def test_nothing_is_left_to_fill_in(place: Place) -> None:
    """A placeholder that nobody knows is a mistake in the file."""
    for contestant in LINEUP.values():
        contestant.commands(place)
    for path in place.directory.iterdir():
        assert not re.search(r"@[A-Z_]+@", path.read_text("utf-8")), path
    with pytest.raises(KeyError):
        place.filled_in("@NOBODY@")


# ── a small run ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_small_run_measures_and_reports(tmp_path: Path) -> None:
    """One load, straight and through us: every event arrives, and the report stands in its directory."""
    try:
        native.build()
        machine.two_cores()
    except (native.NotBuilt, machine.TooSmall) as error:
        pytest.skip(f"LEFT OUT: a run of the benchmark: {error}")
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--out", str(tmp_path)]
    command += ["--load", "steady-100x100", "--contestant", "direct", "--contestant", "ours-full"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "latest.json").read_text("utf-8"))
    direct, ours = (Sample(**each) for each in document["samples"])
    assert (direct.contestant, ours.contestant) == ("direct", "ours-full")
    for each in (direct, ours):
        assert not each.errors
        assert each.events == pytest.approx(10_000, rel=0.2)
        assert 0 < each.latency_ns["p50"] < 1e9
    assert direct.cpu_ns == 0
    assert 1 < figures.us_per_event(ours) < 1000
    assert 0 < ours.pss_before < ours.pss_after
    assert "steady-100x100" in done.stdout
    assert "ours-full" in (tmp_path / "latest.md").read_text("utf-8")
    assert ElementTree.parse(tmp_path / "latest.svg").getroot().tag.endswith("svg")
