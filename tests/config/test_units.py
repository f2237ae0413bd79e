"""Durations and sizes: every value survives being written and read again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.units import (
    DURATION_PATTERN,
    MAX_BYTES,
    MAX_SECONDS,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@given(st.floats(0, MAX_SECONDS, allow_nan=False, allow_infinity=False))
def test_duration_round_trip(seconds: float) -> None:
    """Any duration is the same float after it was written and read."""
    written = format_duration(seconds)
    assert parse_duration(written) == seconds
    assert re.search(DURATION_PATTERN, written), "editors accept what we write"


@given(st.integers(0, MAX_BYTES))
def test_size_round_trip(size: int) -> None:
    """Any size is the same number of bytes after it was written and read."""
    written = format_size(size)
    assert parse_size(written) == size
    assert re.search(SIZE_PATTERN, written), "editors accept what we write"


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"]))
def test_duration_units(number: int, unit: str) -> None:
    """A number with a unit is that many of it, and what is longer than a year is refused."""
    seconds = number * {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}[unit] / 1000
    if seconds <= MAX_SECONDS:
        assert parse_duration(f"{number}{unit}") == seconds
    else:
        with pytest.raises(ValueError, match="from 0s to 8784h"):
            parse_duration(f"{number}{unit}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15.0), ("250ms", 0.25), ("5m", 300.0), ("1h", 3600.0), ("1.5s", 1.5), ("7", 7.0), ("0.1s", 0.1)],
)
def test_duration(text: str, seconds: float) -> None:
    """The forms of the documentation mean what they say."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("4MiB", 4 << 20),
        ("1GiB", 1 << 30),
        ("10MB", 10_000_000),
        ("512", 512),
        ("1.5KiB", 1536),
    ],
)
def test_size(text: str, size: int) -> None:
    """KiB counts 1024 bytes, KB counts 1000, a bare number counts bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.25, "250ms"),
        (15.0, "15s"),
        (90.0, "90s"),
        (300.0, "5m"),
        (86400.0, "24h"),
        (1e-05, "0.00001s"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    """A duration is written in its longest whole unit, never with an exponent."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1, "1B"), (65536, "64KiB"), (10**7, "10MB"), (10**12, "1TB"), (1 << 53, "8192TiB")],
)
def test_format_size(size: int, text: str) -> None:
    """A size is written with the unit that makes its number shortest."""
    assert format_size(size) == text


@pytest.mark.parametrize("text", ["", "s", "15 s", "-1s", "15S", "15d", "1e3", "١s", "inf", "nan", "9" * 30])
def test_bad_duration(text: str) -> None:
    """What is no duration is refused, and the message does not repeat it."""
    with pytest.raises(ValueError, match=r"^expected") as refused:
        parse_duration(text)
    assert "9" * 30 not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "KiB", "64K", "64k", "64kb", "-1", "1.5", "0.3KiB", "1 MiB", "9999999TiB"]
)
def test_bad_size(text: str) -> None:
    """What is no whole number of bytes is refused, and so are units that could mean two things."""
    with pytest.raises(ValueError, match=r"^expected"):
        parse_size(text)
