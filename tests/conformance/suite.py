"""Autobahn's test suite as a program: what it is told, and what it reports."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Where tests/install.sh unpacks Python 2.7 and installs the suite.
HOME = Path(__file__).parent / ".autobahn"

#: Seconds in which a run of all cases against one server must end; it takes some minutes.
PATIENCE = 3600.0

#: What the suite says of itself, as JSON.
_ABOUT = """
import json, platform, autobahn, autobahntestsuite, twisted
from autobahntestsuite.case import CaseCategories, Cases
print(json.dumps({
    "versions": {
        "autobahntestsuite": autobahntestsuite.version, "autobahn": autobahn.version,
        "Twisted": twisted.version.base(), "Python": platform.python_version()},
    "sections": {int(number): name for number, name in CaseCategories.items()},
    "cases": [case.__name__[len("Case"):].replace("_", ".") for case in Cases]}))
"""


class SuiteFailed(Exception):
    """The suite ended without a report; what it printed last is told."""


@dataclass(frozen=True, slots=True)
class About:
    """The suite's ``versions`` by package, its ``sections`` by number, its ``cases`` by their own (7.1.5)."""

    versions: Mapping[str, str]
    sections: Mapping[int, str]
    cases: Sequence[str]

    def matching(self, *patterns: str) -> list[str]:
        """Return the numbers of the cases that fit one of these patterns (``7.1.5``, ``9.*``), in order."""
        return [case for case in self.cases if any(fnmatch.fnmatchcase(case, each) for each in patterns)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the suite saw in one run of one case, as far as it does not depend on the clock.

    ``verdict`` and ``close_verdict`` are the suite's words (OK, NON-STRICT, …). ``handshake`` is the server's
    status line and what it agreed to. ``close`` is the server's close code and reason, ``ending`` how the
    connection came to its end. ``frames`` are those that the server sent (opcode, final, reserved bits,
    length, how the payload begins) as far as the suite keeps them; of long cases it only keeps ``counts`` by
    opcode.
    """

    verdict: str
    close_verdict: str
    handshake: tuple[str, ...]
    close: tuple[int | None, str | None]
    ending: tuple[tuple[str, bool], ...]
    frames: tuple[tuple[int, bool, int, int, str], ...]
    counts: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Outcome:
        """Read the suite's report of one case."""
        received = [entry for entry in report["wirelog"] if entry[0] == "RF"]
        return cls(
            verdict=report["behavior"],
            close_verdict=report["behaviorClose"],
            handshake=_agreed(report["httpResponse"]),
            close=(report["remoteCloseCode"], report["remoteCloseReason"]),
            ending=tuple(
                (name, report[name]) for name in ("wasClean", "closedByMe", "failedByMe", "droppedByMe")
            ),
            frames=tuple((opcode, fin, rsv, *payload) for _, payload, opcode, fin, rsv, *_ in received),
            counts=tuple(sorted(report["rxFrameStats"].items())),
        )

    def differs_from(self, other: Outcome) -> list[str]:
        """Say in which respects it is another one: ``name: here, not there``."""
        return [
            f"{name}: {getattr(self, name)!r}, not {getattr(other, name)!r}"
            for name in self.__slots__
            if getattr(self, name) != getattr(other, name)
        ]


def installed() -> bool:
    """Whether tests/install.sh has installed the suite."""
    return (HOME / ".installed").exists()


async def about() -> About:
    """Ask the suite what it is and has."""
    process = await _start("-c", _ABOUT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    said = json.loads(output)
    sections = {int(number): name for number, name in said["sections"].items()}
    return About(said["versions"], sections, said["cases"])


async def run(url: str, cases: Sequence[str], directory: Path) -> dict[str, Outcome]:
    """Run the cases of these numbers against the server at ``url``, a ws: URL.

    Returns the outcomes by case; one without a connection has none. The suite's reports, with a log of what
    was on the wire, are left in ``directory``. Raises SuiteFailed, and TimeoutError after PATIENCE.
    """
    spec = _specify(url, cases, directory)
    arguments = ("-m", "autobahntestsuite.wstest", "--mode", "fuzzingclient", "--spec", str(spec))
    with (directory / "output").open("wb") as output:
        process = await _start(*arguments, stdout=output)
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _outcomes(directory)


def _specify(url: str, cases: Sequence[str], directory: Path) -> Path:
    """Write down what the suite shall do, in a new directory."""
    directory.mkdir()
    spec = directory / "spec.json"
    servers = [{"agent": "server", "url": url}]
    spec.write_text(json.dumps({"outdir": str(directory / "reports"), "servers": servers, "cases": cases}))
    return spec


def _outcomes(directory: Path) -> dict[str, Outcome]:
    reports = directory / "reports"
    try:
        index = json.loads((reports / "index.json").read_text())
    except FileNotFoundError:
        raise SuiteFailed((directory / "output").read_text(errors="replace")[-2000:]) from None
    return {
        case: Outcome.of(json.loads((reports / entry["reportfile"]).read_text()))
        for case, entry in index.get("server", {}).items()
    }


def _agreed(response: str) -> tuple[str, ...]:
    """The status line, and which extensions and subprotocol the server chose."""
    status, *fields = response.split("\r\n")
    chosen = ("sec-websocket-extensions:", "sec-websocket-protocol:")
    return (status, *sorted(field for field in fields if field.lower().startswith(chosen)))


async def _start(*arguments: str, stdout: Any) -> asyncio.subprocess.Process:
    """Start Python 2.7, with the libraries that were unpacked beside it."""
    libraries = ":".join(map(str, (HOME / "usr" / "lib").glob("*-linux-gnu")))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return await asyncio.create_subprocess_exec(
        *(str(HOME / "usr" / "bin" / "python2.7"), *arguments),
        env={**environ, "LD_LIBRARY_PATH": libraries},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.STDOUT,
    )
