"""Several answers in one stream, and which of them are finished."""

from __future__ import annotations


class Choices:
    """Follows the answers (OpenAI's choices, Gemini's candidates) that a run of chunks carries.

    An answer is finished by a chunk with a finish reason, and no longer so when a later chunk adds
    to it: some Gemini models and gateways put a reason on every chunk. A later chunk that adds
    nothing changes nothing: OpenRouter sends usage, and Azure the verdicts of its content filter,
    with an empty delta and no reason after the one that finished.
    """

    __slots__ = ("_finished",)

    def __init__(self) -> None:
        self._finished: dict[int, bool] = {}

    def note(self, index: int, *, finished: bool, speaks: bool) -> None:
        """Take in one chunk of answer ``index``: does it have a finish reason, does it say anything?"""
        if finished or speaks:
            self._finished[index] = finished
        else:
            self._finished.setdefault(index, False)

    @property
    def all_finished(self) -> bool:
        """Whether there was an answer at all, and every one has been finished.

        With many answers at once, one that was finished before the chunks seen here is not missed;
        one that stalled before them is not noticed.
        """
        return bool(self._finished) and all(self._finished.values())
