"""What a check has found."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

#: A figure of the evidence, as JSON spells it.
Figure = str | int | float | bool | list[str] | None
Figures = dict[str, Figure]


class Verdict(enum.Enum):
    """How one check came out."""

    OK = "ok"
    FAULT = "fault"
    WARNING = "warning"
    UNSEEN = "not seen"
    """There was no occasion to see it: neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    ``message`` says what was seen, ``evidence`` holds its figures (times in seconds), ``mend`` what to
    change where something is to be changed.
    """

    check: str
    verdict: Verdict
    message: str
    mend: str = ""
    evidence: Mapping[str, Figure] = field(default_factory=dict)


def ok(check: str, message: str, **evidence: Figure) -> Finding:
    """Seen, and good."""
    return Finding(check, Verdict.OK, message, "", evidence)


def unseen(check: str, message: str, **evidence: Figure) -> Finding:
    """Not seen, and why not."""
    return Finding(check, Verdict.UNSEEN, message, "", evidence)


def warning(check: str, message: str, mend: str, **evidence: Figure) -> Finding:
    """Seen, and doubtful: it may be meant so."""
    return Finding(check, Verdict.WARNING, message, mend, evidence)


def fault(check: str, message: str, mend: str, **evidence: Figure) -> Finding:
    """Seen, and wrong."""
    return Finding(check, Verdict.FAULT, message, mend, evidence)


def many(number: int, noun: str) -> str:
    """``1 event``, ``2 events``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def spoken(seconds: float) -> str:
    """A time as people say it: ``2.3 s``, ``17 ms``."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
