"""What one stream has told of itself: the model, the tokens, why it ended, and when it spoke."""

from __future__ import annotations

from proxy.dialects.part import (
    Error,
    Finish,
    Part,
    Refusal,
    Start,
    Text,
    Thinking,
    ToolDelta,
    ToolStart,
    Usage,
)

#: The parts that are output: the first of them is the first token.
SPOKEN: frozenset[type[Part]] = frozenset({Text, Refusal, Thinking, ToolStart, ToolDelta})

#: More tokens than any answer takes. A figure beyond is a peer's invention (one that no float can hold would
#: raise wherever it is divided by), and is not noted.
MOST_TOKENS = 10**10

#: Most answers of one stream that are told apart: OpenAI's ``n`` ends here.
MOST_CHOICES = 128


#: No figures.
NO_USAGE = Usage()


class Summary:
    """Put together from parts. ``began`` is the time of the request; all times are the caller's, in seconds.

    ``usage`` holds the newest figures; ``finishes`` the reason of each choice. ``error`` is the provider's
    own. Whoever reads a stream notes when it spoke: ``first`` and ``last`` are the times of its first and
    its last token.
    """

    __slots__ = ("began", "created", "error", "finishes", "first", "id", "last", "model", "usage")

    def __init__(self, began: float) -> None:
        self.began = began
        self.id = ""
        self.model = ""
        self.created: int | None = None
        self.usage = Usage()
        self.finishes: dict[int, Finish] = {}
        self.error: Error | None = None
        self.first: float | None = None
        self.last: float | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was told at all."""
        told = self.id or self.model or self.finishes or self.error or self.usage != NO_USAGE
        return not told and self.first is None

    def note(self, part: Part, now: float) -> None:
        """Take in one part, which came at ``now``."""
        if type(part) in SPOKEN:
            if self.first is None:
                self.first = now
            self.last = now
        elif isinstance(part, Usage):
            self._usage(part)
        elif isinstance(part, Finish):
            self._finish(part)
        elif isinstance(part, Start):
            self._start(part)
        elif isinstance(part, Error):
            self.error = self.error or part

    @property
    def finish(self) -> Finish | None:
        """Why the first choice ended; None where it did not say."""
        return self.finishes.get(min(self.finishes)) if self.finishes else None

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from the request to the first token."""
        return None if self.first is None else self.first - self.began

    @property
    def time_per_token(self) -> float | None:
        """Seconds from one token to the next, on average; None for fewer than two, or an unknown number."""
        count = self.usage.output_tokens
        if self.first is None or self.last is None or count is None or count < 2:
            return None
        return (self.last - self.first) / (count - 1)

    def _start(self, part: Start) -> None:
        self.id, self.model = part.id or self.id, part.model or self.model
        self.created = part.created if part.created is not None else self.created

    def _usage(self, part: Usage) -> None:
        before = self.usage
        names = part.__struct_fields__
        told = {name: _tokens(getattr(part, name)) for name in names}
        self.usage = Usage(
            **{name: getattr(before, name) if told[name] is None else told[name] for name in names}
        )

    def _finish(self, part: Finish) -> None:
        if part.choice in self.finishes or len(self.finishes) < MOST_CHOICES:
            self.finishes[part.choice] = part


def _tokens(told: int | None) -> int | None:
    return told if told is not None and 0 <= told <= MOST_TOKENS else None
