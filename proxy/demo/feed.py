"""An app's feed: events without an end, with ids of the app's own, that a client can come back to.

The event of a given id is always the same, so a reader that came back can tell whether one is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

from proxy.demo.event import Event
from proxy.demo.speech import WORDS
from proxy.demo.voice import FAILURE

#: Seconds between two events unless the request says otherwise.
INTERVAL = 1.0

#: How long an EventSource should wait before it comes back, in milliseconds.
RETRY = 1000

#: Every fifth event is a note, so that a page has two kinds to listen to.
NOTE_EVERY = 5


class BadNumber(ValueError):
    """A ``Last-Event-ID`` that this feed never gave, or a count that is none."""


class Feed:
    """The events after ``last_id``, up to ``length`` or without an end."""

    def __init__(self, *, last_id: int = 0, length: int | None = None) -> None:
        self._last_id = last_id
        self._length = length

    @property
    def exhausted(self) -> bool:
        """Whether no event is left after the last one that the reader has."""
        return self._length is not None and self._last_id >= self._length

    def events(self) -> Iterator[Event]:
        """The events in order; the first one carries the retry hint."""
        retry: int | None = RETRY
        for number in count(self._last_id + 1):
            if self._length is not None and number > self._length:
                return
            yield feed_event(number, retry=retry)
            retry = None

    def complaint(self) -> Event:
        """An ``error`` event without an id, as nothing can be resumed after it."""
        return Event(json.dumps({"error": FAILURE}), name="error")


def feed_event(number: int, *, retry: int | None = None) -> Event:
    """The event with that id."""
    data = json.dumps({"number": number, "text": WORDS[number % len(WORDS)]}, ensure_ascii=False)
    return Event(data, name="tick" if number % NOTE_EVERY else "note", id=str(number), retry=retry)


def parse_number(name: str, value: str) -> int | None:
    """The number in ``value``, None for an empty one. BadNumber when it is no number, as every id here is."""
    if not value:
        return None
    if not (value.isascii() and value.isdigit()):
        raise BadNumber(f"{name} is {value!r}; this feed counts in whole numbers")
    return int(value)
