"""What is told, and what is not: credentials, whole stream ids and the values of queries stay here."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable
from typing import Protocol, TextIO

from yarl import URL

from proxy.doctor.dial import Request
from proxy.doctor.finding import Finding, Verdict, many
from proxy.stream.cursor import short

#: Fields whose values may be told: they say nothing about who asks.
PLAIN_FIELDS = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "content-type", "origin", "user-agent"}
)

#: Shorter values are no secrets, and would be found in every other word.
SHORTEST_SECRET = 6

HIDDEN = "…"

MARKS = {Verdict.OK: "ok", Verdict.FAULT: "FAULT", Verdict.WARNING: "warn", Verdict.UNSEEN: "–"}
COLOURS = {Verdict.OK: "32", Verdict.FAULT: "1;31", Verdict.WARNING: "33", Verdict.UNSEEN: "2"}

#: Columns: of a mark, of a check's name, and of the whole where the terminal does not say.
MARK_WIDTH, CHECK_WIDTH, WIDTH = 6, 12, 110


class Shade:
    """Hides the request's secrets in whatever is told."""

    def __init__(self, request: Request) -> None:
        values = {value for name, value in request.fields if name.lower() not in PLAIN_FIELDS}
        values |= {word for value in values for word in value.split()}
        values |= set(request.url.query.values()) | {request.url.password or "", request.url.raw_query_string}
        self._secrets = sorted(
            (value for value in values if len(value) >= SHORTEST_SECRET), key=len, reverse=True
        )
        self._stream_id = ""

    def hide_stream(self, stream_id: str) -> None:
        """From now on, this id is shown by its beginning only."""
        self._stream_id = stream_id

    def __call__(self, text: str) -> str:
        """The text as it may be told."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        if self._stream_id:
            text = text.replace(self._stream_id, short(self._stream_id) + HIDDEN)
        return text

    def url(self, url: URL) -> str:
        """A URL without its credentials and the values of its query."""
        shown = str(url.with_user(None).with_query(None).with_fragment(None))
        keys = "&".join(f"{key}={HIDDEN}" for key in url.query)
        return self(shown) + (f"?{keys}" if keys else "")


class Report(Protocol):
    """Takes findings as they come."""

    def begin(self, url: str) -> None:
        """The examination begins."""

    def tell(self, finding: Finding) -> None:
        """One more finding."""

    def end(self, findings: list[Finding], *, judged: bool, requests: int, upstream: int) -> None:
        """The examination is over."""


class Lines:
    """For people: a line each, its mend below it."""

    def __init__(self, out: TextIO, shade: Shade, *, colour: bool, width: int = WIDTH) -> None:
        self._out = out
        self._shade = shade
        self._colour = colour
        self._width = max(width, 60)

    def begin(self, url: str) -> None:
        """Say what is examined."""
        self._write(f"{url}\n")

    def tell(self, finding: Finding) -> None:
        """Write one finding."""
        mark = self._painted(f"{MARKS[finding.verdict]:<{MARK_WIDTH}}", COLOURS[finding.verdict])
        self._write(f"{mark}{finding.check:<{CHECK_WIDTH}}" + self._wrapped(finding.message))
        if finding.mend:
            self._write(" " * (MARK_WIDTH + CHECK_WIDTH) + self._wrapped(f"mend: {finding.mend}"))

    def end(self, findings: list[Finding], *, judged: bool, requests: int, upstream: int) -> None:
        """Write the sum."""
        counts = {verdict: sum(each.verdict is verdict for each in findings) for verdict in Verdict}
        sum_up = f"{many(counts[Verdict.FAULT], 'fault')}, {many(counts[Verdict.WARNING], 'warning')}"
        if not judged:
            sum_up = "no stream to judge"
        asked = f"{many(requests, 'request')}, at most {upstream} of them seen by the upstream"
        self._write(f"\n{sum_up}; {asked}")

    def _wrapped(self, text: str) -> str:
        indent = MARK_WIDTH + CHECK_WIDTH
        lines = textwrap.wrap(printable(self._shade(text)), self._width - indent, break_on_hyphens=False) or [
            ""
        ]
        return f"\n{' ' * indent}".join(lines)

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _write(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class Document:
    """For programs: one JSON document at the end."""

    def __init__(self, out: TextIO, shade: Shade) -> None:
        self._out = out
        self._shade = shade
        self._url = ""

    def begin(self, url: str) -> None:
        """Keep what is examined."""
        self._url = url

    def tell(self, finding: Finding) -> None:
        """Nothing yet."""

    def end(self, findings: list[Finding], *, judged: bool, requests: int, upstream: int) -> None:
        """Write the document."""
        document = {
            "url": self._url,
            "verdict": overall(findings, judged=judged),
            "findings": [self._finding(finding) for finding in findings],
            "requests": {"all": requests, "upstream": upstream},
        }
        print(json.dumps(document, ensure_ascii=False, indent=2), file=self._out, flush=True)

    def _finding(self, finding: Finding) -> dict[str, object]:
        return {
            "check": finding.check,
            "verdict": finding.verdict.value,
            "message": self._shade(finding.message),
            "evidence": {name: self._shaded(value) for name, value in finding.evidence.items()},
            "mend": self._shade(finding.mend),
        }

    def _shaded(self, value: object) -> object:
        if isinstance(value, str):
            return self._shade(value)
        return [self._shaded(each) for each in value] if isinstance(value, list) else value


def overall(findings: Iterable[Finding], *, judged: bool) -> str:
    """The verdict on the whole: ``unjudged`` where there was no stream, else the gravest."""
    if not judged:
        return "unjudged"
    verdicts = {finding.verdict for finding in findings}
    gravest = next((each for each in (Verdict.FAULT, Verdict.WARNING) if each in verdicts), Verdict.OK)
    return gravest.value


def printable(text: str) -> str:
    """What a server wrote may not steer the terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def wants_colour(out: TextIO, *, refused: bool) -> bool:
    """Colour only on a terminal, and where neither the option nor NO_COLOR (no-color.org) forbids it."""
    return out.isatty() and not refused and not os.environ.get("NO_COLOR")
