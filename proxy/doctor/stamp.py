"""The sender's clock, where its events carry one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

#: Data longer than this is not searched: nobody needs half a megabyte to say what time it is.
MAX_DATA_CHARACTERS = 64 * 1024

#: Seconds since 1970 between which a number is taken for a time: 2001 to 2286.
EARLIEST, LATEST = 1e9, 1e10

#: What a number may count: seconds, milliseconds, microseconds, nanoseconds.
SCALES = (1.0, 1e3, 1e6, 1e9)


class Stamped(msgspec.Struct, rename={"created_at_": "createdAt", "sent_at_": "sentAt"}):
    """The names under which apps and providers write the time of an event."""

    sent_at: Any = None
    sent_at_: Any = None
    timestamp: Any = None
    time: Any = None
    ts: Any = None
    t: Any = None
    created_at: Any = None
    created_at_: Any = None
    date: Any = None


def stamp_of(data: str) -> float | None:
    """The time that an event's data names, in seconds since 1970, or None."""
    if len(data) > MAX_DATA_CHARACTERS or not data.startswith("{"):
        return None
    try:
        stamped = msgspec.json.decode(data, type=Stamped)
    except (ValueError, RecursionError):
        return None
    values = (getattr(stamped, name) for name in Stamped.__struct_fields__)
    return next((stamp for value in values if (stamp := seconds_of(value)) is not None), None)


def seconds_of(value: object) -> float | None:
    """A number of any common scale, or ISO 8601 with its zone, as seconds since 1970; else None."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return moment.timestamp() if moment.tzinfo is not None else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return next((value / scale for scale in SCALES if EARLIEST <= value / scale < LATEST), None)
