"""The log: one line for each stream, and how lines get to stderr."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from proxy.config import Log as LogSettings

#: The name of our own log lines; every other name is a library's.
LOGGER = "sse-sidecar"


class Facts(msgspec.Struct, frozen=True):
    """A finished stream, as its log line tells it. Times in seconds, sizes in bytes.

    What is None was not told, or not looked for.
    """

    stream: str
    route: str
    upstream: str
    dialect: str
    emit: str
    method: str
    path: str
    client: str
    reason: str
    message: str
    events: int
    bytes_in: int
    bytes_out: int
    first_event: float | None
    duration: float
    longest_gap: float
    readers: int
    resumes: int
    replayed: int
    heartbeats: int
    drops: int
    pauses: int
    evicted: int
    recorded: bool
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    finish_reason: str | None
    first_token: float | None


class Visited(msgspec.Struct, frozen=True):
    """An answered request that was no stream's, as its log line tells it.

    ``path`` has no query. Seconds, and bytes of the answer's body.
    """

    route: str
    method: str
    path: str
    client: str
    status: int
    bytes: int
    duration: float


class Joined(msgspec.Struct, frozen=True):
    """A WebSocket that passed through and is over, as its log line tells it.

    ``cause`` is what ended it, ``by`` the side that did, ``code`` the close code, 1006 where there was none.
    Messages and bytes of their payload as on the wire; seconds.
    """

    route: str
    upstream: str
    path: str
    client: str
    cause: str
    by: str
    code: int | None
    messages_to_upstream: int
    messages_to_client: int
    bytes_to_upstream: int
    bytes_to_client: int
    duration: float


#: What has a line of its own: there are many of these.
Told = Facts | Visited | Joined


def configure_logging(settings: LogSettings) -> None:
    """Write log lines to stderr, ours and the libraries': JSON, or for people where stderr is a terminal.

    Libraries are heard from warnings on. A stderr that cannot be written to never breaks a stream.

    Our own lines do not take the way through the standard library's logging, which is the libraries':
    one is written for every stream, and that way would cost more than the rest of a short stream's end.
    """
    level = getattr(logging, settings.level.upper())
    people = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    rendered = _rendered(people)
    structlog.configure(
        processors=[_what_first, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: STDERR,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _what_first, *rendered],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger(LOGGER).setLevel(level)
    logging.captureWarnings(True)


class Stderr:
    """Takes finished lines to stderr. A line that nobody takes is lost, and breaks nothing.

    Those of streams and requests, of which there are many, wait for a moment and leave together:
    ``waiting`` holds when each was told (seconds since the epoch), its level, its event and its facts.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[float, int, str, Told]] = []

    def write(self, line: str) -> None:
        """Write one line, behind those that wait. (A stream that somebody has closed raises ValueError.)"""
        if self.waiting:
            self.flush()
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = write

    def write_soon(self, level: int, event: str, facts: Told) -> None:
        """Write a line of ``facts`` in JSON, within LINES_TOGETHER."""
        self.waiting.append((time.time(), level, event, facts))
        if len(self.waiting) == 1:
            asyncio.get_running_loop().call_later(LINES_TOGETHER, self.flush)
        elif len(self.waiting) >= MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        lines, self.waiting = self.waiting, []
        if lines:
            self.write("\n".join(_json_line(*line) for line in lines))


#: So long the line of a stream or a request may wait for others, in seconds, and so many may wait. A write
#: for each of them would be a tenth of what a short stream costs.
LINES_TOGETHER = 0.1
MOST_LINES = 1000


class Lines:
    """Writes the lines of streams and requests, in JSON without structlog's steps.

    Those are made for lines to which anybody may add; for these they would take five times as long.
    Other forms than ours are structlog's to render, at once.
    """

    __slots__ = ("_log", "_processors")

    def __init__(self) -> None:
        self._log = structlog.get_logger(LOGGER).bind()
        self._processors = structlog.get_config()["processors"]

    def write(self, level: int, event: str, facts: Told) -> None:
        """Write a line of ``facts``."""
        if not self._log.is_enabled_for(level):
            return
        if self._processors[-1] is _as_json:
            STDERR.write_soon(level, event, facts)
        else:
            self._log.log(level, event, **msgspec.structs.asdict(facts))


def _json_line(at: float, level: int, event: str, facts: Told) -> str:
    when, word = _iso(datetime.fromtimestamp(at, UTC)), LEVELS[level]
    with contextlib.suppress(UnicodeEncodeError):
        told = msgspec.json.format(_ENCODER.encode(facts), indent=0)
        if told.isascii():
            return f'{{"timestamp": "{when}", "level": "{word}", "event": "{event}", {told[1:].decode()}'
    line = {"timestamp": when, "level": word, "event": event, **msgspec.structs.asdict(facts)}
    return _as_json(None, "", line)


LEVELS = {logging.INFO: "info", logging.WARNING: "warning"}

#: This process's; what waits in it leaves at the latest when the process ends.
STDERR = Stderr()
atexit.register(STDERR.flush)


def _rendered(for_people: bool) -> list[Processor]:
    if for_people:
        return [structlog.dev.ConsoleRenderer()]
    return [structlog.processors.format_exc_info, _as_json]


def _what_first(_logger: Any, method: str, line: EventDict) -> EventDict:
    """Begin a line with when and what: people read JSON too."""
    return {"timestamp": _iso(datetime.now(UTC)), "level": method, "event": line.pop("event"), **line}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


_ENCODER = msgspec.json.Encoder(enc_hook=repr)


def _as_json(_logger: Any, _method: str, line: EventDict) -> str:
    r"""Return a line as JSON in ASCII, spaced for reading.

    Text that is not ASCII (what a client wrote into its path, say) takes the slow way, which escapes it:
    it may hold what cannot be encoded (``\udcff``) and what a terminal would obey (``\x9b``).
    """
    with contextlib.suppress(UnicodeEncodeError):
        encoded = msgspec.json.format(_ENCODER.encode(line), indent=0)
        if encoded.isascii():
            return encoded.decode()
    return json.dumps(line, default=repr)
