"""The documentation, held against the program: it loads, parses, runs, and leaves nothing out."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from msgspec import UNSET, Struct
from prometheus_client.core import Metric

from proxy.cli import _parser, main
from proxy.config import model, parse
from proxy.config.form import settings_of
from proxy.config.json_schema import STRUCTS
from proxy.demo.misbehaviour import misbehaviours
from proxy.demo.run import demo_config
from proxy.dialects.part import Finish, Text, Usage
from proxy.errors import ConfigError, RequestError, SidecarError, UpstreamError
from proxy.server.routing import RouteTable
from proxy.server.tunnel import Cause
from proxy.telemetry import Facts, Joined, StoreFigures, Telemetry
from tests.support.answers import answer
from tests.support.client import leave
from tests.support.process import free_port
from tests.support.websocket import BINARY, connect

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
DOCS = PROJECT / "docs"
PAGES = (README, *sorted(PROJECT.glob("C*.md")), *sorted(DOCS.glob("*.md")))

#: Seconds that anything which the docs show may take on a slow machine.
PATIENCE = 90.0


# ── reading Markdown ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block: its language, the word after it (``yaml broken``), and its text."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


_FENCE = re.compile(r"^```(\w*)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Fence(page, text.count("\n", 0, match.start()) + 1, match[1], match[2] or "", match[3])
        for match in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


ALL_FENCES = [fence for page in PAGES for fence in fences(page)]


def yaml_fences(*marks: str) -> list[Any]:
    """Parameters: the YAML blocks with one of these marks."""
    found = [fence for fence in ALL_FENCES if fence.language == "yaml" and fence.mark in marks]
    return [pytest.param(fence, id=str(fence)) for fence in found]


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the heading under which it stands. ``rows`` are cells, without their blanks."""

    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(page: Path) -> Iterator[Table]:
    """The tables of a page, in order."""
    heading, lines = "", [*prose(page).splitlines(), ""]
    collected: list[tuple[str, ...]] = []
    for line in lines:
        if line.startswith("|"):
            collected.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
        elif collected:
            yield Table(heading, collected[0], tuple(collected[2:]))
            collected = []
        if line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")


def table(page: Path, heading: str, first: str) -> Table:
    """The table under ``heading`` whose first column is called ``first``."""
    return next(found for found in tables(page) if found.heading == heading and found.header[0] == first)


def names(cell: str) -> list[str]:
    """What stands in code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# ── links ───────────────────────────────────────────────────────────────────────────────────────────────


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_internal_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the project finds it, and every anchor is a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.is_file(), target
        assert not anchor or anchor in anchors(found), target


def test_every_page_is_linked_from_the_readme() -> None:
    """Whoever opens the README finds the rest."""
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", prose(README)))
    assert linked == {f"docs/{page.name}" for page in DOCS.glob("*.md")}


# ── configuration ───────────────────────────────────────────────────────────────────────────────────────


def completed(text: str) -> str:
    """A fragment as a whole file: with an upstream for each name, and a route, where it has none."""
    document = yaml.safe_load(text) or {}
    if "upstreams" not in document:
        wanted = {route["upstream"] for route in document.get("routes", [])} or {"app"}
        text += f"\nupstreams: {{{', '.join(f'{name}: {{url: http://127.0.0.1:3000}}' for name in wanted)}}}"
        document["upstreams"] = dict.fromkeys(wanted)
    if "routes" not in document:
        upstream = next(iter(document["upstreams"]))
        text += f'\nroutes: [{{name: all, path: "/{{tail:.*}}", upstream: {upstream}}}]'
    return text


@pytest.mark.parametrize("fence", yaml_fences(""))
def test_configurations_load(fence: Fence) -> None:
    """Every block of YAML is a configuration, or becomes one with the upstreams and routes it leaves out."""
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)", fence.text), "sk-test")
    assert parse(completed(fence.text), str(fence), environ).routes


@pytest.mark.parametrize("fence", yaml_fences("broken"))
def test_broken_configurations_are_refused(fence: Fence) -> None:
    """What is shown as a mistake is one."""
    with pytest.raises(ConfigError):
        parse(fence.text)


@pytest.mark.parametrize("fence", yaml_fences("prometheus"))
def test_other_yaml_is_yaml(fence: Fence) -> None:
    """Rules can at least be read."""
    assert yaml.safe_load(fence.text)


def test_every_yaml_block_is_tested() -> None:
    """No mark hides a block from these tests."""
    marks = {fence.mark for fence in ALL_FENCES if fence.language == "yaml"}
    assert marks == {"", "broken", "prometheus"}


SECTIONS: dict[str, type[Struct]] = {
    "The file": model.Config,
    "tls": model.Tls,
    "admin": model.Admin,
    "store": model.Store,
    "store.memory": model.MemoryStore,
    "limits": model.Limits,
    "log": model.Log,
    "Upstreams": model.Upstream,
    "Routes": model.Route,
    "prompt": model.Prompt,
    "alias": model.Alias,
    "Policies": model.Policy,
    "emit": model.Emit,
    "replay": model.Replay,
    "timeouts": model.Timeouts,
    "principal": model.Principal,
}

#: How the page says that a setting has no default, or one that is no single value.
NO_DEFAULT = {"none", "below", "off", "found out", "all"}


def test_every_struct_has_a_section() -> None:
    """A new group of settings needs a place on the page."""
    assert set(SECTIONS.values()) == {model.Config, *STRUCTS}


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_setting_is_documented(heading: str) -> None:
    """The page names every setting that there is, none that there is not, and the default of each."""
    kind = SECTIONS[heading]
    settings = settings_of(kind)
    inherited = settings_of(model.Policy) if kind is model.Route else {}
    rows = {names(row[0])[0]: row[2] for row in table(DOCS / "configuration.md", heading, "key").rows}
    assert rows.keys() == settings.keys() - inherited.keys()
    for name, told in rows.items():
        setting = settings[name]
        if setting.required:
            assert told == "required", name
        elif setting.default is not UNSET:
            written = setting.form.written(setting.default)
            shown = "[]" if written == [] else "{}" if written == {} else _as_yaml(written)
            assert told.strip("`") in (NO_DEFAULT if written is None else {shown}), name


def _as_yaml(value: object) -> str:
    return str(value) if isinstance(value, str) and value else json.dumps(value)


# ── operations ──────────────────────────────────────────────────────────────────────────────────────────


def exposed() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every metric as a scrape shows it: its type and its labels, by name."""
    telemetry = Telemetry()
    telemetry.store = lambda: StoreFigures(bytes=0, max_bytes=0, streams=0, tombstones=0, evicted=0)
    stats = telemetry.route("all")
    telemetry.count_request("all", "GET", 200)
    for counter in (stats.resumes, stats.cancels, stats.drops, stats.ends, stats.reconnects):
        counter["something"] += 1
    for directed in (stats.websocket_messages, stats.websocket_bytes):
        directed["to_client"] += 1
    stats.websocket_ends["closed", "client", "1000"] += 1
    telemetry.process.upstream_errors["upstream", "kind"] += 1
    telemetry.answered("all", answer(Text("a"), Text("b"), Usage(1, 2), Finish("stop", "stop"), error="e"))
    return dict(_described(metric) for metric in telemetry.collect())


def _described(metric: Metric) -> tuple[str, tuple[str, tuple[str, ...]]]:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    labels = dict.fromkeys(label for sample in metric.samples for label in sample.labels if label != "le")
    return name, (metric.type, tuple(sorted(labels)))


def test_every_metric_is_documented() -> None:
    """The page names every metric with its type and labels, and none that there is not."""
    rows = table(DOCS / "operations.md", "Metrics", "name").rows
    told = {names(name)[0]: (kind, tuple(sorted(names(labels)))) for name, kind, labels, _ in rows}
    assert told == exposed()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_is_named_exists(page: Path) -> None:
    """No text, no query and no alert names a metric that is not exposed."""
    named = re.findall(r"\b(?:sidecar|gen_ai_client|gen_ai_server)_[a-z_]+", page.read_text("utf-8"))
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in named} <= exposed().keys()


def test_every_field_of_the_log_line_is_documented() -> None:
    """The table lists the fields of a stream's line, and the example has all of them in their order."""
    rows = table(DOCS / "operations.md", "The log", "field").rows
    told = [name for row in rows for name in names(row[0])]
    assert told == ["timestamp", "level", "event", *Facts.__struct_fields__]
    lines = [fence.text for fence in fences(DOCS / "operations.md") if '"event": "stream"' in fence.text]
    assert [list(json.loads(line)) for line in lines] == [told]


def test_every_field_of_a_websockets_line_is_shown() -> None:
    """The example of a WebSocket's line has all of its fields in their order."""
    lines = [fence.text for fence in fences(DOCS / "operations.md") if '"event": "websocket"' in fence.text]
    assert [list(json.loads(line)) for line in lines] == [
        ["timestamp", "level", "event", *Joined.__struct_fields__]
    ]


def test_every_cause_of_a_websockets_end_is_documented() -> None:
    """The operator finds each ``cause`` explained."""
    rows = table(DOCS / "operations.md", "A WebSocket that broke", "cause").rows
    assert [names(row[0])[0] for row in rows] == list(get_args(Cause))


def kinds(error: type[SidecarError]) -> Iterator[type[SidecarError]]:
    """Every class of error below ``error``, itself included."""
    yield error
    for narrower in error.__subclasses__():
        yield from kinds(narrower)


def test_every_error_is_documented() -> None:
    """The table has every kind of error that a client can get, with its status."""
    groups = {RequestError.kind, UpstreamError.kind} - {"bad-request"}
    faults = {error for error in kinds(SidecarError) if error not in (SidecarError, ConfigError)}
    rows = table(DOCS / "wire.md", "Errors before the stream", "status").rows
    told = {(names(kind)[0], int(status)) for status, kind, _ in rows}
    rows = table(DOCS / "websocket.md", "Errors", "code").rows
    told |= {(names(kind)[0], int(status)) for kind, status, _ in rows}
    assert told == {(error.kind, error.status) for error in faults if error.kind not in groups}


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────


def commands() -> Iterator[str]:
    """Every ``sse-sidecar …`` that the docs tell to type."""
    for page in PAGES:
        shown = [fence.text for fence in fences(page) if fence.language in ("sh", "console")]
        typed = [line.removeprefix("$ ") for text in shown for line in text.splitlines()]
        for line in (*typed, *names(prose(page))):
            if re.match(r"(\S+/)?sse-sidecar ", line):
                yield line


def test_commands_parse() -> None:
    """Every command in the docs is one that the program takes."""
    lines = list(commands())
    assert {"serve", "check", "schema", "chat", "demo", "doctor"} == {shlex.split(line)[1] for line in lines}
    for line in lines:
        arguments = shlex.split(line.partition(" > ")[0])[1:]
        assert _parser().parse_args(arguments).run


def test_make_targets_exist() -> None:
    """Whatever is to be made, the Makefile can make."""
    typed = [line for fence in ALL_FENCES if fence.language == "sh" for line in fence.text.splitlines()]
    typed += [code for page in PAGES for code in names(prose(page))]
    targets = {match[1] for line in typed if (match := re.match(r"make ([a-z][\w-]*)", line))}
    makefile = (PROJECT / "Makefile").read_text("utf-8")
    assert {"demo", "test"} <= targets
    assert targets <= set(re.findall(r"^([\w-]+):", makefile, re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_checks_say_what_the_docs_say(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sse-sidecar check` on the block above prints what is shown below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    configuration = ""
    for fence in fences(page):
        if fence.language == "yaml":
            configuration = fence.text
        for file, told in re.findall(r"^\$ sse-sidecar check (\S+)\n((?:[^$].*\n)*)", fence.text, re.M):
            Path(file).write_text(configuration, "utf-8")
            main(["check", file])
            said = capsys.readouterr()
            assert said.out + said.err == told


# ── the README against a running demo ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo, and a way to run the README's text against it."""

    port: int
    admin_port: int
    directory: Path

    def here(self, text: str) -> str:
        """Text of the README with this demo's ports, and files in a directory of its own."""
        moved = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        moved = moved.replace(":9090", f":{self.admin_port}").replace("/tmp/", f"{self.directory}/")
        ours = f"PYTHONPATH={shlex.quote(str(PROJECT))} {shlex.quote(sys.executable)} -m proxy"
        return moved.replace(".venv/bin/sse-sidecar", ours)


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    """`sse-sidecar demo` in a process of its own."""
    running = Demo(free_port(), free_port(), tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "demo",
        "--listen", f"127.0.0.1:{running.port}", "--admin", f"127.0.0.1:{running.admin_port}",
        cwd=PROJECT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            await process.stdout.readuntil(b"Ctrl-C ends it.")
        yield running
    finally:
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


class Terminal:
    """A shell into which one pastes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def paste(self, text: str) -> str:
        """Run some lines and return what they print."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{text}\necho; echo '--- done ---'\n".encode())
        async with asyncio.timeout(PATIENCE):
            printed = await self._process.stdout.readuntil(b"\n--- done ---\n")
        return printed.decode("utf-8", "replace")


@asynccontextmanager
async def terminals(directory: Path) -> AsyncIterator[Terminal]:
    """A shell whose curl shows no progress bar, as on a terminal."""
    (directory / ".curlrc").write_text("silent\nshow-error\nmax-time = 60\n")
    process = await asyncio.create_subprocess_exec(
        "bash", "--norc", env=os.environ | {"CURL_HOME": str(directory)}, limit=1 << 24,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Terminal(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    """A shell."""
    async with terminals(tmp_path) as terminal:
        yield terminal


#: The blocks of "Try it" in their order: a part by which each is known, and what must appear, in order.
TRIES: tuple[tuple[str, str], ...] = (
    ("chat=", r"^\n--- done"),
    ('curl -N "$chat" ', r"id: \S{22}\.1\nretry: 1000\ndata: \{.*id: \S{22}\.43\ndata: \[DONE\]"),
    ("first_delay=12", r"^: ping\n: ping\nid: \S{22}\.1\n.*\[DONE\]"),
    (
        "interval=0.2",
        r"\.1\nretry.*timed out after.*"
        r"id: \S{22}\.4\nretry: 1000\ndata.*\.43\ndata: \[DONE\].*id: \S{22}\.4\nretry.*\.43\ndata: \[DONE\]",
    ),
    (
        "endless=1",
        r'timed out after.*\{"open": 1\}.*"message": "cancelled by the client".*\{"open": 0\}',
    ),
    ("/state", r'"state": "finished", "reason": "cancelled"'),
    ("drop_at=7", r'\.7\ndata: \{"id".*\.8\ndata: \{"error":\{"message".*"code":"truncated"\}\}'),
    ("/as-openai/", r'event: start\ndata: .*event: done\ndata: .*"chat.completion.chunk".*\[DONE\]'),
    ("/api/events", r"id: 1\n.*event: tick.*id: 3\n.*timed out after.*id: 6\n.*number.*timed out after"),
    ("doctor", r"ok +buffering .*\n0 faults, 0 warnings"),
    (":9090", r'\{"streams": \[\{"stream": "\S{6}".*# TYPE sidecar_active_streams gauge'),
)


#: Which of them need the shell of which others. The first two count all open streams, so they run alone.
ALONE = ("endless=1", "/state")
SIDE_BY_SIDE = (
    ('curl -N "$chat" ', "first_delay=12"),
    ("interval=0.2",),
    ("drop_at=7",),
    ("/as-openai/",),
    ("/api/events",),
    ("doctor",),
)
AFTER_ALL = (":9090",)


async def test_the_lines_to_try_work(demo: Demo) -> None:
    """The README's shell blocks show what they promise, in several shells: they spend their time waiting."""
    section = README.read_text("utf-8").partition("## Try it")[2].partition("\n## ")[0]
    texts = [text for language, _, text in _FENCE.findall(section) if language == "sh"][1:]
    assert len(texts) == len(TRIES)
    blocks = {part: (text, expected) for text, (part, expected) in zip(texts, TRIES, strict=True)}
    assert all(part in text for part, (text, _) in blocks.items())
    first = TRIES[0][0]

    async def follow(number: int, parts: tuple[str, ...]) -> None:
        own = demo.directory / f"terminal{number}"
        own.mkdir()
        async with terminals(own) as terminal:
            for part in (first, *parts):
                text, expected = blocks[part]
                printed = await terminal.paste(replace(demo, directory=own).here(text))
                assert re.search(expected, printed, re.DOTALL), f"{text}\nprinted\n{printed}"

    await follow(0, ALONE)
    await asyncio.gather(*(follow(number, parts) for number, parts in enumerate(SIDE_BY_SIDE, 1)))
    await follow(len(SIDE_BY_SIDE) + 1, AFTER_ALL)
    run = {first, *ALONE, *AFTER_ALL, *(part for parts in SIDE_BY_SIDE for part in parts)}
    assert run == set(blocks)


async def test_the_state_has_the_documented_fields(demo: Demo, terminal: Terminal) -> None:
    """The table of a stream's state lists what the answer holds."""
    lines = (
        "curl -D /tmp/headers -o /dev/null 'http://127.0.0.1:8080/api/chat?prompt=hello&tokens=1'\n"
        "id=$(tr -d '\\r' < /tmp/headers | awk 'tolower($1) == \"stream-id:\" {print $2}')\n"
        'curl "http://127.0.0.1:8080/_streams/$id/state"'
    )
    state = json.loads((await terminal.paste(demo.here(lines))).partition("\n")[0])
    told = [name for row in table(DOCS / "wire.md", "State", "field").rows for name in names(row[0])]
    assert told == list(state)


async def test_the_python_blocks_work(demo: Demo, terminal: Terminal) -> None:
    """The examples, over WebSocket and with SDKs, print the demo's whole answer."""
    pages = (DOCS / "websocket.md", README)
    blocks = [fence.text for page in pages for fence in fences(page) if fence.language == "python"]
    imported = [re.findall(r"from (\w+) import", block) for block in blocks]
    assert imported == [["aiohttp"], ["openai"], ["anthropic"]]
    for block in blocks:
        printed = await terminal.paste(shlex.join([sys.executable, "-c", demo.here(block)]))
        assert printed.startswith("A stream is a river")
        assert printed.partition("\n")[0].endswith("none")


async def test_the_hybrid_layout_works_in_the_demo(demo: Demo, terminal: Terminal) -> None:
    """What the README promises of one app's SSE and WebSockets, the demo serves under the same paths."""
    section = README.read_text("utf-8").partition("## SSE and WebSocket from one app")[2]
    layout = parse(next(text for language, _, text in _FENCE.findall(section) if language == "yaml"))
    url = f"http://127.0.0.1:{demo.port}"
    served = demo_config("http://127.0.0.1:3000", "127.0.0.1:8080", "127.0.0.1:9090")
    shown = {route.path: (route.websocket, route.reconnect) for route in layout.routes}
    table = RouteTable(served.routes)
    for path, promised in shown.items():
        if not path.startswith("/{"):
            route = table.find("GET", path)
            assert (route.websocket, route.reconnect) == promised

    posted = await terminal.paste(
        f"""curl -N {url}/api/chat -H 'content-type: application/json' -d '{{"prompt":"x"}}'"""
    )
    assert re.search(r"^id: \S{22}\.1\nretry: 1000\nevent: token\n.*event: done", posted, re.DOTALL)

    chat = await connect(url, "/api/chat?tokens=3")
    await chat.say({"prompt": "x"})
    said = await chat.hear_until("end")
    assert [frame["type"] for frame in said] == ["open", *["event"] * 4, "end"]

    audio = await connect(url, "/api/audio")
    await audio.send(BINARY, b"\0" * 16_000)
    echoed, transcript = await audio.frame(), await audio.hear()
    assert echoed is not None
    assert echoed.payload == b"\0" * 16_000
    assert transcript["type"] == "transcript"
    leave()  # or the demo would give them time when it ends

    resumed = await terminal.paste(f"curl -N -m 2 {url}/api/events -H 'Last-Event-ID: 4'")
    assert "id: 5\n" in resumed
    assert "id: 4\n" not in resumed


async def test_the_chat_prints_what_is_shown(demo: Demo, terminal: Terminal) -> None:
    """The README's chat excerpt is what the command prints, but for the stream's id and the times."""
    excerpt = next(fence.text for fence in fences(README) if "sse-sidecar chat" in fence.text)
    command, _, shown = excerpt.partition("\n")
    arguments = [*shlex.split(command)[2:], "--url", f"http://127.0.0.1:{demo.port}/v1"]
    line = shlex.join([sys.executable, "-m", "proxy", *arguments])
    printed = await terminal.paste(f"cd {shlex.quote(str(PROJECT))}; {line}")
    assert _without_figures(printed).startswith(_without_figures(shown))


def _without_figures(text: str) -> str:
    return re.sub(r"stream \S{6}…|[\d.]+ (?:s\b|tokens/s)", "…", text)


def test_every_misbehaviour_is_named() -> None:
    """The README lists what the demo's provider can be asked to do wrong."""
    listed = prose(README).partition("misbehaves as the query asks:")[2].partition(". ")[0]
    assert names(listed) == [form.partition("=")[0] for form, _ in misbehaviours()]
