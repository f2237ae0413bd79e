"""What the matrix showed, as a table of docs/sdks.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from tests.sdks.matrix import CONDITIONS, ROWS, Cell, Row
from tests.sdks.node_clients import NodeSdk
from tests.support.command import PROJECT
from tests.support.marks import Marks
from tests.support.node import SDKS as NODE

PAGE = PROJECT / "docs" / "sdks.md"

#: Where the table stands on the page.
MARKS = Marks("matrix")

#: From a row and one of its packages to a version.
Version = Callable[[Row, str], str]

HEADER = ("SDK", "reads", *CONDITIONS)

#: Where the versions stand that the tests install.
CONSTRAINTS = PROJECT / "tests" / "constraints.txt"
PACKAGES = NODE / "package.json"


def markdown(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """Return the table: the cells of all rows, each row's by column."""
    body = [
        (*label, *(_results(cells[name][condition] for name in names) for condition in CONDITIONS))
        for label, names in labels(installed).items()
    ]
    return "\n".join([_line(HEADER), "|" + "---|" * len(HEADER), *map(_line, body)])


def labels(version: Version) -> dict[tuple[str, str], list[str]]:
    """Return the table's rows by their first two cells: the SDK in its version, and what it reads.

    Several ways to read make one row.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name, row in ROWS.items():
        packages = ", ".join(f"`{package}` {version(row, package)}" for package in row.packages)
        where = f"{packages} (Node)" if isinstance(row, NodeSdk) else packages
        found.setdefault((where, row.api.name), []).append(name)
    return found


def installed(row: Row, package: str) -> str:
    """Return the version that is tested here."""
    if not isinstance(row, NodeSdk):
        return metadata.version(package)
    told = json.loads((NODE / "node_modules" / package / "package.json").read_text("utf-8"))
    return str(told["version"])


def pinned(row: Row, package: str) -> str:
    """Return the version that ``tests/install.sh`` installs."""
    if isinstance(row, NodeSdk):
        return str(json.loads(PACKAGES.read_text("utf-8"))["dependencies"][package])
    (found,) = re.findall(rf"^{re.escape(package)}==(.+)$", CONSTRAINTS.read_text("utf-8"), re.MULTILINE)
    return str(found)


def write(text: str, page: Path = PAGE) -> None:
    """Put ``text`` between the page's marks. ValueError where it has none."""
    MARKS.write(text, page)


def rows(page: Path = PAGE) -> list[tuple[str, ...]]:
    """Return the cells between the marks, the header's first."""
    lines = [line for line in MARKS.lines(page) if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in lines]


def _results(cells: Iterable[Cell]) -> str:
    return ", ".join(dict.fromkeys(cell.result for cell in cells))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
