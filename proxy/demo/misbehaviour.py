"""How one answer should go wrong: the provider misbehaves exactly as the request asks.

A request asks by query parameters (``?drop_at=7&interval=0``), which suits curl, or by one header
(``X-Misbehave: drop_at=7; interval=0``), which suits an SDK. The keys are the same, the header wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from proxy.demo.speech import DEFAULT_TOKENS, Speech

HEADER = "X-Misbehave"

#: Bounds of what a request may ask for. The provider answers on a loopback address, so they are
#: there to catch a typing error, not an attacker.
MAX_SECONDS = 86_400.0
MAX_COUNT = 10_000_000
MAX_EVENT_BYTES = 64 * 1024 * 1024

NEWLINES = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}


class BadMisbehaviour(ValueError):
    """The request asks for something the provider does not know how to do wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """What to do wrong, and when. Times are seconds; an event is a block with data, counted from 1.

    A field ``…_at`` of N acts once N events were sent, so 0 acts before the first. Without any field
    set, this is a provider that behaves well.
    """

    headers_delay: float = 0.0
    first_delay: float = 0.0
    interval: float = 0.02
    pause_at: int | None = None
    pause: float = 0.0
    tokens: int = DEFAULT_TOKENS
    endless: bool = False
    drop_at: int | None = None
    error_at: int | None = None
    truncate_at: int | None = None
    hang_at: int | None = None
    burst: int = 1
    split: int | None = None
    size: int = 0
    encoding: str = "identity"
    newline: str = "lf"
    comments: bool = False
    close: bool = False
    status: int = 200

    @classmethod
    def read(cls, asked: Mapping[str, str], *, interval: float | None = None) -> Self:
        """Build from the keys as the request wrote them; ``interval`` is the endpoint's own default.

        BadMisbehaviour names a key that is unknown, with those that are known, or a value that does
        not fit, with what would.
        """
        settings: dict[str, Any] = {} if interval is None else {"interval": interval}
        for name, text in asked.items():
            settings[name] = _key(name).value(text)
        return cls(**settings)

    @property
    def speech(self) -> Speech:
        """What is to be said under this misbehaviour."""
        return Speech(None if self.endless else self.tokens)

    @property
    def line_end(self) -> str:
        """The characters that end a line."""
        return NEWLINES[self.newline]


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that a request can ask for: ``form`` shows its values, ``reader`` takes one in."""

    name: str
    form: str
    reader: Callable[[str], object]
    what: str

    def value(self, text: str) -> object:
        """The value that ``text`` stands for, or BadMisbehaviour."""
        try:
            return self.reader(text)
        except ValueError as error:
            raise BadMisbehaviour(f"{self.name}={text}: {error}") from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # fits no bounds
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"must be seconds, from 0 to {MAX_SECONDS:.0f}")
    return value


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return read


def _choice(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return read


def _flag(text: str) -> bool:
    return _choice("0", "1")(text) == "1"


_count = _whole(0, MAX_COUNT)
_count_from_one = _whole(1, MAX_COUNT)

KEYS = (
    Key("headers_delay", "S", _seconds, "hold the response headers back for S seconds"),
    Key("first_delay", "S", _seconds, "send the headers, then wait S seconds before the first event"),
    Key("interval", "S", _seconds, "wait S seconds between events (default 0.02; the feed 1)"),
    Key("pause_at", "N", _count, "after N events, pause as long as `pause` says"),
    Key("pause", "S", _seconds, "how long that pause is, in seconds"),
    Key("tokens", "N", _count, "answer with a text of N words (default 40)"),
    Key("endless", "1", _flag, "never stop talking"),
    Key(
        "drop_at", "N", _count, "after N events, half of the next, then hang up; on a download, after N bytes"
    ),
    Key("error_at", "N", _count, "after N events, the API's own error event, then the end"),
    Key("truncate_at", "N", _count, "after N events, a clean end without the terminal marker"),
    Key("hang_at", "N", _count, "after N events, send nothing more and keep the connection open"),
    Key("burst", "N", _count_from_one, "send N events in each write"),
    Key("split", "N", _count_from_one, "send writes of N bytes, through the middle of UTF-8 characters"),
    Key("size", "BYTES", _whole(0, MAX_EVENT_BYTES), "pad each JSON event to at least that many bytes"),
    Key("encoding", "gzip|deflate|br", _choice("identity", "gzip", "deflate", "br"), "compress the stream"),
    Key("newline", "crlf|cr", _choice(*NEWLINES), "end lines with CR LF or with CR alone"),
    Key("comments", "1", _flag, "before each event, the comment `: OPENROUTER PROCESSING` and a blank line"),
    Key("close", "1", _flag, "no chunks and no length: the body ends with the connection"),
    Key("status", "429|500|…", _whole(400, 599), "in place of the answer, that error in the API's own form"),
)
_BY_NAME = {key.name: key for key in KEYS}


def _key(name: str) -> Key:
    if name not in _BY_NAME:
        raise BadMisbehaviour(f"unknown key {name!r}; known are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def misbehaviours() -> list[tuple[str, str]]:
    """Every key with the form of its value, and what it does: ``("drop_at=N", "after N events, …")``."""
    return [(f"{key.name}={key.form}", key.what) for key in KEYS]


def asked(
    query: Mapping[str, str], header_values: Iterable[str], *, own_keys: Container[str] = ()
) -> dict[str, str]:
    """The keys that a request carries, unread: its query without the endpoint's own, then the header's."""
    pairs = (pair.partition("=") for value in header_values for pair in value.split(";") if pair.strip())
    of_query = {name: text for name, text in query.items() if name not in own_keys}
    return of_query | {name.strip(): text.strip() for name, _, text in pairs}
