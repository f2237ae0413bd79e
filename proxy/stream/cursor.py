"""Where a reader stands: ``<stream>.<seq>``, the id that every numbered block carries.

A stream id is 22 characters, the base64url form of 128 random bits (RFC 4648 §5, no padding). It is
the capability to read and to cancel the stream, so logs and metrics show ``short(id)`` only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.errors import BadCursor

STREAM_ID_LENGTH = 22

#: What logs, metrics and listings show of a stream id: enough to find a stream, too little to use it.
SHOWN_CHARACTERS = 6

#: No log counts further than this; a longer number is not worth parsing.
MAX_SEQ_DIGITS = 18

_STREAM_ID = re.compile(rf"[A-Za-z0-9_-]{{{STREAM_ID_LENGTH}}}")
_CURSOR = re.compile(rf"([A-Za-z0-9_-]{{{STREAM_ID_LENGTH}}})\.([0-9]{{1,{MAX_SEQ_DIGITS}}})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last block a reader has: the one numbered ``seq`` (0: none yet) of stream ``stream``."""

    stream: str
    seq: int


def parse(last_event_id: str) -> Cursor | None:
    """Return the cursor that an id of our form names, or None where the id is somebody else's."""
    match = _CURSOR.fullmatch(last_event_id)
    return Cursor(match[1], int(match[2])) if match else None


def parse_after(value: str, head: int) -> int:
    """Return the seq that the query parameter ``after`` means: a number, or ``now`` for ``head``.

    Raises BadCursor for anything else.
    """
    if value == "now":
        return head
    if not (value.isascii() and value.isdigit() and len(value) <= MAX_SEQ_DIGITS):
        raise BadCursor(f"after={value[:40]!r}: expected a number of blocks (0, 1, 2, …) or 'now'")
    return int(value)


def is_stream_id(value: str) -> bool:
    """Whether ``value`` has the form of a stream id."""
    return _STREAM_ID.fullmatch(value) is not None


def short(stream_id: str) -> str:
    """The part of a stream id that may be shown."""
    return stream_id[:SHOWN_CHARACTERS]
