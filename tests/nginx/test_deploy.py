"""docs/deploy.md against the files it speaks of: every value, and which must exceed which."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import openai
import pytest

from proxy.config import load, parse
from tests.support.command import PROJECT
from tests.support.nginx import FOLDER
from tests.test_docs import Table, tables

PAGE = PROJECT / "docs" / "deploy.md"

#: What a cell says of a limit that is not there.
WITHOUT = {"none", "off", "0s"}


def seconds(text: str) -> float:
    """Return a duration; infinity where there is no limit."""
    if text in WITHOUT:
        return math.inf
    number, unit = re.fullmatch(r"(\d+)\s*([smh]?)", text).groups()  # type: ignore[union-attr]  # or it fails
    return int(number) * {"": 1, "s": 1, "m": 60, "h": 3600}[unit]


def said(file: str, expression: str) -> Callable[[], float]:
    """Return how to find a duration in a file: every place where the expression matches says the same."""

    def find() -> float:
        found = set(re.findall(expression, (FOLDER / file).read_text("utf-8"), re.MULTILINE))
        assert len(found) == 1, (file, expression, found)
        return seconds(found.pop())

    return find


def default(name: str) -> Callable[[], float]:
    """Return how to find a default of the sidecar's: of the file, or of a route."""

    def find() -> float:
        config = parse(
            'upstreams: {app: {url: "http://127.0.0.1:1"}}\n'
            'routes: [{name: app, path: "/{tail:.*}", upstream: app}]'
        )
        if name == "timeouts.idle":
            value: Any = config.routes[0].idle_for(feed=False)
        else:
            value = attrgetter(name)(config if name in ("drain", "keepalive") else config.routes[0])
        return math.inf if value is None else float(value)

    return find


def provider() -> float:
    """Return how long OpenAI's SDK waits for the next byte."""
    read = openai.DEFAULT_TIMEOUT.read
    assert read is not None
    return read


#: Where each value of the tables comes from. Rows about programs that are not here have none.
SOURCES: dict[tuple[str, str], Callable[[], float]] = {
    ("OpenAI's SDK", "timeout"): provider,
    ("provider", "its SDK's timeout"): provider,
    ("ALB", "idle_timeout.timeout_seconds"): said(
        "alb.yaml", r'idle_timeout\.timeout_seconds, Value: "(\d+)"'
    ),
    ("nginx", "proxy_read_timeout"): said("sse-sidecar.conf", r"^\s+proxy_read_timeout (\w+);"),
    ("nginx", "send_timeout"): said("sse-sidecar.conf", r"^\s+send_timeout\s+(\w+);"),
    ("nginx", "keepalive_timeout"): said(
        "default.conf.template", r"keepalive 64;\n\s+keepalive_timeout (\w+);"
    ),
    ("nginx", "worker_shutdown_timeout"): said("default.conf.template", r"worker_shutdown_timeout (\w+)"),
    ("ingress-nginx", "proxy-read-timeout"): said("kubernetes/ingress.yaml", r'proxy-read-timeout: "(\d+)"'),
    ("HAProxy", "timeout client"): said("haproxy.cfg", r"^\s+timeout client (\w+)$"),
    ("HAProxy", "timeout server"): said("haproxy.cfg", r"^\s+timeout server (\w+)$"),
    ("HAProxy", "timeout tunnel"): said("haproxy.cfg", r"^\s+timeout tunnel (\w+)$"),
    ("HAProxy", "hard-stop-after"): said("haproxy.cfg", r"^\s+hard-stop-after (\w+)$"),
    ("Caddy", "keepalive"): said("Caddyfile", r"^\s+keepalive (\w+)$"),
    ("Caddy", "grace_period"): said("Caddyfile", r"^\s+grace_period (\w+)$"),
    ("Envoy", "route timeout"): said("envoy.yaml", r"route:.* timeout: (\w+)\}"),
    ("Envoy", "stream_idle_timeout"): said("envoy.yaml", r"stream_idle_timeout: (\w+)$"),
    ("Envoy", "idle_timeout"): said("envoy.yaml", r"\{idle_timeout: (\w+)\}"),
    ("Traefik", "writeTimeout"): said("traefik.yaml", r"^\s+writeTimeout: (\w+)"),
    ("Traefik", "readTimeout"): said("traefik.yaml", r"^\s+readTimeout: (\w+)"),
    ("Traefik", "graceTimeOut"): said("traefik.yaml", r"^\s+graceTimeOut: (\w+)"),
    ("Traefik", "idleConnTimeout"): said("traefik.dynamic.yaml", r"^\s+idleConnTimeout: (\w+)"),
    ("sidecar behind the ALB", "its keepalive"): said("alb.yaml", r"^\s+keepalive: (\w+)$"),
    ("Kubernetes", "the sidecar's preStop"): said("kubernetes/sidecar.yaml", r"sleep (\d+); kill"),
    ("Kubernetes", "the app's preStop"): said("kubernetes/sidecar.yaml", r"sleep: \{seconds: (\d+)\}"),
    ("Kubernetes", "terminationGracePeriodSeconds"): said(
        "kubernetes/sidecar.yaml", r"terminationGracePeriodSeconds: (\d+)"
    ),
    ("compose", "stop_grace_period"): said("compose.yaml", r"# Above.*\n\s+stop_grace_period: (\w+)"),
    ("ECS", "DrainSeconds"): said("alb.yaml", r"Default: (\d+)\n\s+MinValue"),
    ("ECS", "StopTimeout"): said("alb.yaml", r"StopTimeout: (\d+)"),
    **{
        ("sidecar", name): default(name)
        for name in (
            *("keepalive", "drain", "heartbeat", "open_after", "retry", "linger", "replay.keep"),
            *("timeouts.send", "timeouts.connect", "timeouts.first_byte", "timeouts.idle"),
        )
    },
}

#: What the page says of programs that could not be asked.
TOLD = {("browser", "–"), ("Cloudflare", "proxy read timeout")}


def plain(cell: str) -> str:
    """Return a cell without its code marks."""
    return cell.replace("`", "")


def timeouts() -> list[Table]:
    """The two tables of durations."""
    return [each for each in tables(PAGE) if each.header[0] == "where"]


ROWS = [row for table in timeouts() for row in table.rows]
VALUES = {(row[0], plain(row[1])): seconds(row[2]) for row in ROWS}


def test_every_row_has_a_source() -> None:
    """No value is there that nothing is compared with, and no source is without its row."""
    assert len(timeouts()) == 2
    assert VALUES.keys() == SOURCES.keys() | TOLD


@pytest.mark.parametrize("key", SOURCES, ids=" ".join)
def test_the_page_says_what_the_files_say(key: tuple[str, str]) -> None:
    """A value in the table is the one in the template, in the sidecar's defaults, or in the SDK."""
    assert VALUES[key] == SOURCES[key]()


def below(where: str, cell: str) -> Iterator[float]:
    """Return what a value has to exceed: settings one by one; with plain seconds among them, the sum."""
    parts = [plain(part) for part in re.split(", | and ", cell) if part]
    figures = [seconds(part) if re.fullmatch(r"\d+ s", part) else named(where, part) for part in parts]
    if any(re.fullmatch(r"\d+ s", part) for part in parts):
        yield sum(figures)
    else:
        yield from figures


def named(where: str, part: str) -> float:
    """Return a setting's value: of the same program, of one named with it, of the sidecar, of the ALB."""
    program, _, setting = part.partition(" ")
    keys = [(where, part), (program, setting), ("sidecar", part), ("ALB", part)]
    return next(VALUES[key] for key in keys if key in VALUES)


@pytest.mark.parametrize("row", [row for row in ROWS if row[3]], ids=lambda row: f"{row[0]} {plain(row[1])}")
def test_each_value_exceeds_what_it_must(row: tuple[str, ...]) -> None:
    """The column *above* is true."""
    for figure in below(row[0], row[3]):
        assert VALUES[row[0], plain(row[1])] > figure


def test_the_shared_configuration_keeps_the_defaults() -> None:
    """What the tables say of the sidecar is true of the one behind these edges."""
    config = load(FOLDER / "sidecar.yaml", {})
    assert config.drain == VALUES["sidecar", "drain"]
    assert config.keepalive == VALUES["sidecar", "keepalive"]
    assert {route.heartbeat for route in config.routes} == {VALUES["sidecar", "heartbeat"]}


def test_every_edge_has_a_section_and_a_trap() -> None:
    """The table of files lists each edge once, with its file, its trap, and a section of its own."""
    (edges,) = [each for each in tables(PAGE) if each.header[0] == "edge" and each.header[1] == "file"]
    headings = set(re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), re.MULTILINE))
    for edge, files, _, trap in edges.rows:
        assert trap
        assert {edge, edge.partition(",")[0]} & headings, edge
        for file in re.findall(r"\(\.\./nginx/([^)]+)\)", files):
            assert (FOLDER / file).is_file()


def test_every_file_is_listed() -> None:
    """nginx/README.md has a line for each file, and each line has its file."""
    readme = (FOLDER / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[([^]]+)\]\(([^)]+)\)", readme, re.MULTILINE)
    assert all(shown == link for shown, link in listed)
    made = FOLDER / "tls"  # by the first lines of compose.yaml
    files = [path for path in FOLDER.rglob("*") if path.is_file() and made not in path.parents]
    there = {str(path.relative_to(FOLDER)) for path in files}
    assert {link for _, link in listed} == there - {"README.md"}
