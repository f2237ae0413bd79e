"""Durations and sizes as people write them: ``15s``, ``250ms``, ``64KiB``, ``10MB``.

Arithmetic is decimal, so that what is written is what is meant: ``0.1s`` is exactly the float ``0.1``, and
every value survives being written and read again.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

SECONDS: Final = {"h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
"""Units of a duration in seconds, longest first."""

BYTES: Final = {
    "TiB": 1 << 40,
    "GiB": 1 << 30,
    "MiB": 1 << 20,
    "KiB": 1 << 10,
    "TB": 10**12,
    "GB": 10**9,
    "MB": 10**6,
    "KB": 10**3,
    "B": 1,
}
"""Units of a size in bytes: powers of 1024 carry an ``i``, powers of 1000 do not."""

MAX_SECONDS: Final = 366 * 86_400.0
"""Longest duration: a year. More is a slip of the unit, and timers lose their precision with it."""

MAX_BYTES: Final = 1 << 53
"""Largest size: every integer up to here is the same number in JSON, in a float and in Python."""

# Bounded digits: no number in a file is worth an arithmetic of a million places.
_NUMBER: Final = r"[0-9]{1,20}(?:\.[0-9]{1,400})?"
DURATION_PATTERN: Final = rf"^{_NUMBER}(?:{'|'.join(SECONDS)})?$"
SIZE_PATTERN: Final = rf"^{_NUMBER}(?:{'|'.join(BYTES)})?$"

_QUANTITY: Final = re.compile(rf"({_NUMBER})([A-Za-z]*)", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds in ``text``; a bare number counts seconds. ValueError says what is wrong, without the text."""
    number, unit = _split(text, "a duration such as 15s, 250ms, 5m or 1h")
    if unit and unit not in SECONDS:
        raise ValueError("expected ms, s, m or h after the number")
    return checked_seconds(float(number * SECONDS[unit or "s"]))


def parse_size(text: str) -> int:
    """Bytes in ``text``; a bare number counts bytes. ValueError says what is wrong, without the text."""
    number, unit = _split(text, "a size such as 64KiB, 4MiB, 10MB or a number of bytes")
    if unit and unit not in BYTES:
        raise ValueError("expected a unit such as KiB (1024), KB (1000), MiB or MB after the number")
    return checked_bytes(number * BYTES[unit or "B"])


def format_duration(seconds: float) -> str:
    """``seconds`` in the longest unit without a fraction; :func:`parse_duration` gives it back exactly."""
    exact = Decimal(repr(seconds))
    for unit, length in SECONDS.items():
        if exact and exact % length == 0:
            return f"{int(exact / length)}{unit}"
    return f"{exact:f}s" if exact else "0s"


def format_size(size: int) -> str:
    """``size`` bytes in the unit that makes the shortest count; :func:`parse_size` gives it back exactly."""
    counts = {unit: size // length for unit, length in BYTES.items() if size % length == 0}
    unit = min(counts, key=counts.__getitem__) if size else "B"
    return f"{counts[unit]}{unit}"


def checked_seconds(seconds: float) -> float:
    """``seconds``, if a duration can be that long, else ValueError."""
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"expected a duration from 0s to {format_duration(MAX_SECONDS)}")
    return seconds


def checked_bytes(size: float | Decimal) -> int:
    """``size``, if it is a whole number and anything can be that large, else ValueError."""
    if not 0 <= size <= MAX_BYTES:
        raise ValueError(f"expected a size from 0B to {format_size(MAX_BYTES)}")
    if size != int(size):
        raise ValueError("expected a whole number of bytes")
    return int(size)


def _split(text: str, expected: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {expected}")
    return Decimal(match[1]), match[2]
