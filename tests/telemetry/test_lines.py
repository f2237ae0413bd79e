"""The lines of streams, requests and WebSockets: what they say, and when they leave."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from msgspec import structs
from msgspec.structs import replace
from structlog.testing import capture_logs

from proxy.config import Log
from proxy.telemetry import Facts, Joined, Telemetry, Visited, configure_logging
from proxy.telemetry.lines import MOST_LINES
from tests.conftest import eventually

FACTS = Facts(
    stream="AZaz09",
    route="chat",
    upstream="origin",
    dialect="openai",
    emit="passthrough",
    method="POST",
    path="/v1/chat/completions",
    client="127.0.0.1",
    reason="complete",
    message="",
    events=3,
    bytes_in=300,
    bytes_out=330,
    first_event=0.1235,
    duration=1.9877,
    longest_gap=0.5,
    readers=1,
    resumes=0,
    replayed=0,
    heartbeats=0,
    drops=0,
    pauses=0,
    evicted=0,
    recorded=True,
    model="gpt",
    input_tokens=12,
    output_tokens=3,
    finish_reason="stop",
    first_token=0.1235,
)

JOINED = Joined(
    route="realtime",
    upstream="origin",
    path="/v1/realtime",
    client="127.0.0.1",
    cause="closed",
    by="client",
    code=1000,
    messages_to_upstream=3,
    messages_to_client=4,
    bytes_to_upstream=300,
    bytes_to_client=400,
    duration=12.5,
)

VISITED = Visited("rest", "GET", "/x", "127.0.0.1", 200, 12, 0.0123)


# The end of a stream


def test_a_stream_that_ended() -> None:
    """It is counted by reason, its duration observed, and every fact stands in one line."""
    telemetry = Telemetry()
    with capture_logs() as lines:
        telemetry.stream_ended(FACTS)
    stats = telemetry.route("chat")
    assert stats.ends == {"complete": 1}
    assert (sum(stats.durations.counts), stats.durations.total) == (1, FACTS.duration)
    (line,) = lines
    assert (line.pop("event"), line.pop("log_level")) == ("stream", "info")
    assert line.keys() == set(Facts.__struct_fields__)
    assert (line["first_event"], line["duration"], line["events"]) == (0.1235, 1.9877, 3)
    assert line["recorded"] is True


@pytest.mark.parametrize(
    ("reason", "level"),
    [("complete", "info"), ("cancelled", "info"), ("truncated", "warning"), ("idle_timeout", "warning")],
)
def test_a_stream_that_went_wrong_is_a_warning(reason: str, level: str) -> None:
    """Whoever looks for trouble finds it by level; a reader that left is no trouble."""
    with capture_logs() as lines:
        Telemetry().stream_ended(replace(FACTS, reason=reason, first_event=None))
    assert [(line["log_level"], line["first_event"]) for line in lines] == [(level, None)]


@pytest.mark.parametrize(("status", "level"), [(200, "info"), (404, "info"), (499, "info"), (502, "warning")])
def test_a_plain_request(status: int, level: str) -> None:
    """A request that was no stream's has a line too, where that is wanted."""
    with capture_logs() as lines:
        Telemetry().request_ended(replace(VISITED, status=status))
    assert [(line["event"], line["log_level"], line["duration"]) for line in lines] == [
        ("request", level, 0.0123)
    ]


# The end of a WebSocket


def test_a_websocket_that_ended() -> None:
    """It is counted by what ended it, who did and with which code; every fact stands in one line."""
    telemetry = Telemetry()
    with capture_logs() as lines:
        telemetry.websocket_ended(JOINED)
        telemetry.websocket_ended(replace(JOINED, cause="lost", by="upstream", code=1006))
    assert telemetry.route("realtime").websocket_ends == {
        ("closed", "client", "1000"): 1,
        ("lost", "upstream", "1006"): 1,
    }
    line = lines[0]
    assert (line.pop("event"), line.pop("log_level")) == ("websocket", "info")
    assert line == structs.asdict(JOINED)


@pytest.mark.parametrize(
    ("cause", "level"),
    [
        ("closed", "info"),
        ("drain", "info"),
        ("lost", "warning"),
        ("silent", "warning"),
        ("send_timeout", "warning"),
        ("too_big", "warning"),
    ],
)
def test_a_websocket_that_went_wrong_is_a_warning(cause: str, level: str) -> None:
    """Peers that close, and a sidecar that leaves, are no trouble."""
    with capture_logs() as lines:
        Telemetry().websocket_ended(replace(JOINED, cause=cause))
    assert [line["log_level"] for line in lines] == [level]


def test_codes_of_applications_share_one_label() -> None:
    """The attack: closes with each of two thousand codes, which would be as many time series."""
    telemetry = Telemetry()
    codes = [*range(1000, 1016), 0, 999, 1016, 2000, *range(3000, 5000), 65535, None]
    with capture_logs() as lines:
        for code in codes:
            telemetry.websocket_ended(replace(JOINED, code=code))
    labels = [label for _, _, label in telemetry.route("realtime").websocket_ends]
    assert sorted(labels) == [*map(str, range(1000, 1016)), "other"]
    assert telemetry.route("realtime").websocket_ends["closed", "client", "other"] == len(codes) - 16
    assert [line["code"] for line in lines] == codes, "the line says which it was"


# Lines of which there are many


class Written:
    """What was written to stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    @property
    def text(self) -> str:
        """All of it."""
        self._text += self._capsys.readouterr().err
        return self._text

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines, which are JSON."""
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """The log, in JSON."""
    root, ours = logging.getLogger(), logging.getLogger("sse-sidecar")
    handlers, level = root.handlers[:], root.level
    configure_logging(Log(format="json"))
    yield Written(capsys)
    structlog.reset_defaults()
    logging.captureWarnings(False)
    ours.setLevel(logging.NOTSET)
    root.setLevel(level)
    root.handlers[:] = handlers


async def test_lines_of_streams_leave_together(stderr: Written) -> None:
    """They wait for each other for a moment; each tells when its stream ended."""
    telemetry = Telemetry()
    telemetry.stream_ended(FACTS)
    telemetry.request_ended(VISITED)
    telemetry.websocket_ended(JOINED)
    assert not stderr.text
    await eventually(lambda: bool(stderr.text), "the lines are written")
    first, second, third = stderr.lines
    assert list(first) == ["timestamp", "level", "event", *Facts.__struct_fields__]
    assert list(third) == ["timestamp", "level", "event", *Joined.__struct_fields__]
    assert (first["stream"], third["upstream"]) == ("AZaz09", "origin")
    assert [line["event"] for line in (first, second, third)] == ["stream", "request", "websocket"]
    assert first["timestamp"] <= second["timestamp"] <= third["timestamp"]


async def test_no_line_overtakes_another(stderr: Written) -> None:
    """What is written at once takes along what waits."""
    telemetry = Telemetry()
    telemetry.stream_ended(FACTS)
    telemetry.log.info("stopped")
    assert [line["event"] for line in stderr.lines] == ["stream", "stopped"]


async def test_few_lines_wait(stderr: Written) -> None:
    """A thousand streams that end at once are not held in memory to be told of."""
    telemetry = Telemetry()
    for _ in range(MOST_LINES):
        telemetry.stream_ended(FACTS)
    assert len(stderr.lines) == MOST_LINES


@pytest.mark.parametrize("path", ["/é", "/\x9b2J", "/\udcff", '/"\\\n'])
async def test_a_line_is_ascii_whatever_a_client_wrote(stderr: Written, path: str) -> None:
    """The attack: bytes that are no text, that a terminal obeys, or that end the line."""
    telemetry = Telemetry()
    telemetry.stream_ended(replace(FACTS, path=path))
    telemetry.log.info("now")
    (told, _) = stderr.lines
    assert told["path"] == path
    assert stderr.text.isascii()
    assert stderr.text.replace("\n", "").isprintable()


async def test_the_level_holds_for_them_too(stderr: Written) -> None:
    """With ``level: warning`` a whole stream has no line."""
    configure_logging(Log(format="json", level="warning"))
    telemetry = Telemetry()
    telemetry.stream_ended(FACTS)
    telemetry.stream_ended(replace(FACTS, reason="truncated"))
    telemetry.log.warning("now")
    assert [line.get("reason") for line in stderr.lines] == ["truncated", None]
