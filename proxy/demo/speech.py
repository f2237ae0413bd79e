"""What the built-in provider says: one short text, over and over, cut into tokens.

The text is the same for every prompt, so that a test can compare the whole of it. It holds words of
two, three and four UTF-8 bytes a character, early on, so that a cut in the wrong place shows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice

_PASSAGE = (
    "A stream is a river — ein Strom, 流れ, поток — and every drop of it has a number 🌊 "
    "Whoever steps out for a moment, naïve or in a hurry, steps back in at the very next drop: "
    "none lost, none twice. Grüße from the source."
)
WORDS = tuple(_PASSAGE.split())

#: Words of an answer unless the request says otherwise.
DEFAULT_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Speech:
    """A text of ``tokens`` words, or one that never ends (``None``)."""

    tokens: int | None = DEFAULT_TOKENS

    def pieces(self) -> Iterator[str]:
        """The text in the pieces in which a model would send it: every word but the first after a space."""
        words = cycle(WORDS) if self.tokens is None else islice(cycle(WORDS), self.tokens)
        for index, word in zip(count(), words, strict=False):
            yield f" {word}" if index else word

    def text(self) -> str:
        """The whole text. A speech without an end has none: ValueError."""
        if self.tokens is None:
            raise ValueError("an endless speech has no whole text")
        return "".join(self.pieces())

    def length(self) -> int:
        """Number of tokens. ValueError for a speech without an end."""
        if self.tokens is None:
            raise ValueError("an endless speech has no length")
        return self.tokens


def expected_text(tokens: int = DEFAULT_TOKENS) -> str:
    """The whole text that a client must have received when ``tokens`` words were asked for."""
    return Speech(tokens).text()
