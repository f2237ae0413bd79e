"""What the provider's voice sounds like: one short tone a word, PCM16 mono, the same every time.

The pitch tells the number of the word, so that a missing or a repeated word can be heard, and seen.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Final

#: The only format that the Realtime API has for PCM: samples a second, bytes a sample.
SAMPLE_RATE: Final = 24_000
SAMPLE_BYTES = 2
BYTES_PER_MS = SAMPLE_RATE * SAMPLE_BYTES // 1000

#: Length of one word, in milliseconds.
WORD_MS = 100

#: A fifth of full scale: it must not startle whoever wears headphones.
AMPLITUDE = 6_500

#: Pitches, in Hz, over and over. Each makes whole waves in a word, so that nothing clicks.
PITCHES = (220, 250, 280, 330, 370)


def word_audio(number: int) -> bytes:
    """The sound of the word of that number, counted from 0."""
    return _wave(PITCHES[number % len(PITCHES)])


def expected_audio(tokens: int) -> bytes:
    """All that a client must have received when an answer of ``tokens`` words was spoken."""
    return b"".join(word_audio(number) for number in range(tokens))


@cache
def _wave(pitch: int) -> bytes:
    length = SAMPLE_RATE * WORD_MS // 1000
    turn = math.tau * pitch / SAMPLE_RATE
    samples = (round(AMPLITUDE * math.sin(turn * index)) for index in range(length))
    return struct.pack(f"<{length}h", *samples)
