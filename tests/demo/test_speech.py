"""What the provider says."""

from __future__ import annotations

from itertools import islice

import pytest

from proxy.demo import expected_text
from proxy.demo.speech import Speech


def test_the_pieces_join_to_the_expected_text() -> None:
    """A text of N tokens is N pieces."""
    pieces = list(Speech(7).pieces())
    assert len(pieces) == 7
    assert "".join(pieces) == expected_text(7) == "A stream is a river — ein"


def test_a_long_text_starts_over() -> None:
    """A text longer than the passage repeats it."""
    assert len(expected_text(100).split()) == 100
    assert expected_text(100).count("A stream is a river") == 3


def test_every_length_of_utf8_comes_early() -> None:
    """The default text holds characters of one to four bytes, so that bad cuts show."""
    assert {len(character.encode()) for character in expected_text()} == {1, 2, 3, 4}


def test_an_endless_speech_goes_on_and_has_no_whole() -> None:
    """Without a number of tokens there is no last piece, no text and no length."""
    speech = Speech(None)
    assert len(list(islice(speech.pieces(), 1000))) == 1000
    with pytest.raises(ValueError, match="endless"):
        speech.text()
    with pytest.raises(ValueError, match="endless"):
        speech.length()
