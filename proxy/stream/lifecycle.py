"""A stream's states, as a table.

::

    opening ──answered──▶ live ◀──joined── lingering
       │                   │ ──abandoned──▶   │
       └──────ended────────┴───ended──────────┘
                           ▼
                       finished ──forgotten──▶ expired

*opening*: the upstream has been asked and has not answered. *live*: blocks come, somebody reads.
*lingering*: blocks come, nobody reads; it ends when its linger time is over. *finished*: the log has
its terminal record and can be replayed. *expired*: the log is gone, a tombstone remembers the id;
readers that were still replaying it, or on their way in, may finish.

A pair that is not in the table cannot happen; ``next_state`` says so loudly.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.StrEnum):
    """Where a stream stands."""

    __hash__ = object.__hash__  # of each member there is one; Enum's own way is ten times as long

    OPENING = "opening"
    LIVE = "live"
    LINGERING = "lingering"
    FINISHED = "finished"
    EXPIRED = "expired"


class Happening(enum.Enum):
    """What moves a stream on."""

    __hash__ = object.__hash__

    ANSWERED = "the upstream answered with a stream"
    JOINED = "a reader came"
    ABANDONED = "the last reader left"
    ENDED = "the terminal record was written"
    FORGOTTEN = "the log was dropped"


TRANSITIONS: Mapping[tuple[State, Happening], State] = {
    (State.OPENING, Happening.ANSWERED): State.LIVE,
    (State.OPENING, Happening.JOINED): State.OPENING,
    (State.OPENING, Happening.ABANDONED): State.LINGERING,
    (State.OPENING, Happening.ENDED): State.FINISHED,
    (State.LIVE, Happening.ANSWERED): State.LIVE,  # a feed's upstream, asked again
    (State.LIVE, Happening.JOINED): State.LIVE,
    (State.LIVE, Happening.ABANDONED): State.LINGERING,
    (State.LIVE, Happening.ENDED): State.FINISHED,
    (State.LINGERING, Happening.ANSWERED): State.LINGERING,
    (State.LINGERING, Happening.JOINED): State.LIVE,
    (State.LINGERING, Happening.ENDED): State.FINISHED,
    (State.FINISHED, Happening.JOINED): State.FINISHED,
    (State.FINISHED, Happening.ABANDONED): State.FINISHED,
    (State.FINISHED, Happening.FORGOTTEN): State.EXPIRED,
    (State.EXPIRED, Happening.JOINED): State.EXPIRED,
    (State.EXPIRED, Happening.ABANDONED): State.EXPIRED,
}


class ImpossibleTransition(AssertionError):
    """A stream was told of something that cannot happen in its state: a bug of ours."""


def next_state(state: State, happening: Happening) -> State:
    """Return the state that follows. Raises ImpossibleTransition for a pair outside the table."""
    try:
        return TRANSITIONS[state, happening]
    except KeyError:
        raise ImpossibleTransition(f"{happening.value} while {state.value}") from None
