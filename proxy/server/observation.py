"""What a stream tells of itself while it passes through as it came: its model, its tokens, its times.

Events are not looked into on their way. The first ones are decoded, until one of them holds a token: when
it came gives the time to first token, and models are named there. The last ones are decoded when the stream
has ended: there, providers tell what it took, and why it ended. What stands between the two nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from proxy.dialects import Dialect
from proxy.dialects.base import Decoder
from proxy.dialects.part import Part
from proxy.dialects.summary import Summary
from proxy.stream.log import Reason
from proxy.stream.sse import has_data
from proxy.telemetry import Answer
from proxy.telemetry.answers import label

#: So many blocks are decoded in search of a first token. Models that search or think in silence tell of it
#: in some dozens; a stream that never holds a token must not be decoded to its end.
MOST_BLOCKS = 256

#: Ends that are nobody's error: a client that pressed stop got what it wanted.
GOOD_ENDS = (Reason.COMPLETE, Reason.CANCELLED)


class Observer:
    """Reads the beginning and the end of one stream.

    ``summary`` is what it has told of itself so far. ``searching``: no token has come yet.
    """

    __slots__ = ("_decoder", "_read", "searching", "summary")

    def __init__(self, decoder: Decoder, began: float) -> None:
        self._decoder = decoder
        self._read = 0  # blocks with data, of those that have come
        self.searching = True
        self.summary = Summary(began)

    def read_first(self, blocks: Sequence[bytes], now: float) -> None:
        """Read the next of the first blocks, which came at ``now``, as far as there is no token."""
        for block in blocks:
            if not self.searching:
                return
            self._read += has_data(block)
            self._note(self._decoder.decode(block), now)
            self.searching = self.summary.first is None and self._read < MOST_BLOCKS

    def read_last(self, tail: Sequence[bytes], last: int, now: float, *, whole: bool) -> None:
        """Read the last blocks, but for those that were read among the first.

        ``last`` is the number of the last of them, ``now`` when it came. ``whole``: the stream ended well.
        """
        self.searching = False
        unread, first = min(last - self._read, len(tail)), self.summary.first
        for block in tail[len(tail) - unread :]:
            self._note(self._decoder.decode(_bare(block)), now)
        if whole:
            self._note(self._decoder.finish(), now)
        self.summary.first = first  # that of a stream in which it was not found is not known now
        if unread and first is not None:
            self.summary.last = now

    def _note(self, parts: list[Part], now: float) -> None:
        for part in parts:
            self.summary.note(part, now)


def _bare(block: bytes) -> bytes:
    """Return a block without the ``id`` line in front: decoders are fastest with blocks as they came."""
    return block.partition(b"\n")[2] if block.startswith(b"id: ") else block


class Heard(NamedTuple):
    """What is known of a stream's answer, as it is shown; None where it did not say.

    ``first_token`` is in seconds from the request.
    """

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    first_token: float | None = None


NOTHING = Heard()


def heard(summary: Summary, model: str) -> Heard:
    """Return what a stream has told so far. A model's name is a peer's word, and cut."""
    first, finish = summary.time_to_first_token, summary.finish
    return Heard(
        model=label(model) or None,
        input_tokens=summary.usage.input_tokens,
        output_tokens=summary.usage.output_tokens,
        finish_reason=finish.reason if finish is not None else None,
        first_token=None if first is None else round(first, 4),
    )


def answer(dialect: Dialect, summary: Summary, model: str, reason: Reason, duration: float) -> Answer:
    """Return a stream that has ended, as it is counted."""
    error = "" if reason in GOOD_ENDS else reason.value
    if reason is Reason.UPSTREAM_ERROR and summary.error is not None:
        error = summary.error.code or error
    return Answer(dialect.provider, dialect.operation, model, error, duration, summary)
