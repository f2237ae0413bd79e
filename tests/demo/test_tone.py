"""The sound of the provider's voice."""

from __future__ import annotations

import struct

from proxy.demo.tone import AMPLITUDE, BYTES_PER_MS, PITCHES, WORD_MS, expected_audio, word_audio


def test_a_word_has_its_length_and_is_the_same_every_time() -> None:
    """One word is ``WORD_MS`` of PCM16."""
    assert len(word_audio(3)) == WORD_MS * BYTES_PER_MS
    assert word_audio(3) == word_audio(3)


def test_neighbours_differ() -> None:
    """A missing or a repeated word changes the sound."""
    assert len({word_audio(number) for number in range(len(PITCHES))}) == len(PITCHES)


def test_the_level_is_what_it_says() -> None:
    """Samples are little-endian, and stay under the amplitude."""
    word = word_audio(0)
    samples = struct.unpack(f"<{len(word) // 2}h", word)
    assert max(samples) == AMPLITUDE
    assert min(samples) == -AMPLITUDE


def test_words_follow_each_other() -> None:
    """The whole is the words, one after the other."""
    assert expected_audio(2) == word_audio(0) + word_audio(1)
