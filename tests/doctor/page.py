"""The doctor's verdicts on the chains, as tables of docs/doctor.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.doctor.chains import SENDERS, Chain
from tests.doctor.examination import Examined
from tests.support.command import PROJECT
from tests.support.marks import Marks

PAGE = PROJECT / "docs" / "doctor.md"

#: Where the tables stand on the page.
MARKS = Marks("chains")

BROKEN_HEADER = ("broken chain", "what is wrong", "found by", "what the doctor says", "its mend")
GOOD_HEADER = ("good chain", "faults", "ok", "not seen", "what the doctor says of buffering")
SENDERS_HEADER = ("sender behind the template", *GOOD_HEADER[1:])
HEADERS = (BROKEN_HEADER, GOOD_HEADER, SENDERS_HEADER)


def markdown(examined: Sequence[Examined]) -> str:
    """Return three tables: the broken chains, the good ones, and the senders that only look broken."""
    broken = [_broken(each) for each in examined if each.chain.finds]
    good = [_good(each) for each in examined if not each.chain.finds and each.chain not in SENDERS]
    senders = [_good(each) for each in examined if each.chain in SENDERS]
    tables = (BROKEN_HEADER, broken), (GOOD_HEADER, good), (SENDERS_HEADER, senders)
    return "\n\n".join("\n".join(_table(header, body)) for header, body in tables)


def write(text: str, page: Path = PAGE) -> None:
    """Put ``text`` between the page's marks. ValueError where it has none."""
    MARKS.write(text, page)


def rows(page: Path = PAGE) -> list[tuple[str, ...]]:
    """Return the cells of all rows between the marks, without the headers."""
    lines = [line for line in MARKS.lines(page) if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]
    return [row for row in cells if row not in HEADERS and set(row[0]) - set("-")]


def promised(chain: Chain) -> tuple[str, ...]:
    """Return the cells of a chain's row that are the same in every run."""
    return (chain.name, chain.wrong, f"`{chain.finds}`") if chain.finds else (chain.name, "none")


def _broken(examined: Examined) -> tuple[str, ...]:
    finding = examined.found("fault")[examined.chain.finds]
    return *promised(examined.chain), finding["message"], finding["mend"]


def _good(examined: Examined) -> tuple[str, ...]:
    findings = examined.document["findings"]
    counts = Counter(finding["verdict"] for finding in findings)
    (buffering,) = (finding["message"] for finding in findings if finding["check"] == "buffering")
    return *promised(examined.chain), str(counts["ok"]), str(counts["not seen"]), buffering


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(header)
    yield "|" + "---|" * len(header)
    yield from map(_row, body)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
