"""Where a reader stands: ``<stream>.<seq>``, the id that every numbered block carries.

A stream id is 22 characters, the base64url form of 128 random bits (RFC 4648 §5, no padding). Where the
sidecar that began the stream has a name, its node, the id begins with that name and a dash: an edge in
front of several sidecars then knows which of them holds the stream. The id is the capability to read and
to cancel the stream, so logs and metrics show ``short(id)`` only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.errors import BadCursor

RANDOM_LENGTH = 22

#: A node is what DNS calls a label (RFC 1123 §2.1), in lower case: the name of a host or a pod will do.
#: Each block carries it: hence the bound.
NODE_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"

#: What logs, metrics and listings show of a stream id: enough to find a stream, too little to use it.
SHOWN_CHARACTERS = 6

#: No log counts further than this; a longer number is not worth parsing.
MAX_SEQ_DIGITS = 18

# Either part may hold dashes. The random one's length tells them apart.
_STREAM_ID = re.compile(rf"(?:({NODE_PATTERN})-)?[A-Za-z0-9_-]{{{RANDOM_LENGTH}}}")
_CURSOR = re.compile(rf"({_STREAM_ID.pattern})\.([0-9]{{1,{MAX_SEQ_DIGITS}}})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last block a reader has: the one numbered ``seq`` (0: none yet) of stream ``stream``."""

    stream: str
    seq: int


def parse(last_event_id: str) -> Cursor | None:
    """Return the cursor that an id of our form names, or None where the id is somebody else's."""
    match = _CURSOR.fullmatch(last_event_id)
    return Cursor(match[1], int(match[3])) if match else None


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


def node_of(stream_id: str) -> str | None:
    """The node that began a stream, or None where its id names none."""
    match = _STREAM_ID.fullmatch(stream_id)
    return match[1] if match else None


def short(stream_id: str) -> str:
    """The part of a stream id that may be shown: its node, and the beginning of what is random."""
    node = node_of(stream_id)
    return stream_id[: SHOWN_CHARACTERS + (len(node) + 1 if node else 0)]
