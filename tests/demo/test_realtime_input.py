"""What the demo's ear hears."""

from __future__ import annotations

from proxy.demo.realtime_input import InputBuffer, Sign
from proxy.demo.tone import BYTES_PER_MS

SOUND = b"\x01" * BYTES_PER_MS  # a millisecond


def hush(milliseconds: int) -> bytes:
    """Digital silence."""
    return bytes(milliseconds * BYTES_PER_MS)


def heard(ear: InputBuffer, audio: bytes) -> list[Sign]:
    """What the ear makes of audio, with ten milliseconds for the end of a turn."""
    return ear.listen(audio, silence_ms=10)


def test_speech_starts_once() -> None:
    """With the first byte; nothing is no audio."""
    ear = InputBuffer()
    assert heard(ear, b"") == []
    assert heard(ear, SOUND) == [Sign.STARTED]
    assert heard(ear, SOUND) == []
    assert ear.speaking


def test_a_silence_of_several_pieces_ends_it() -> None:
    """Zeros at the end of a piece count as well, those before a sound do not."""
    ear = InputBuffer()
    heard(ear, hush(50) + SOUND + hush(4))
    assert heard(ear, hush(5)) == []
    assert heard(ear, SOUND + hush(9)) == []
    assert heard(ear, hush(1)) == [Sign.STOPPED]
    assert not ear.speaking


def test_one_piece_can_start_and_end_it() -> None:
    """A whole turn in one message."""
    assert heard(InputBuffer(), SOUND + hush(10)) == [Sign.STARTED, Sign.STOPPED]


def test_silence_goes_on_after_the_end() -> None:
    """It starts nothing; a sound does."""
    ear = InputBuffer()
    heard(ear, SOUND + hush(10))
    assert heard(ear, hush(100)) == []
    assert heard(ear, SOUND) == [Sign.STARTED]


def test_silence_alone_is_speech_without_an_end() -> None:
    """Who sends nothing but zeros commits them."""
    ear = InputBuffer()
    assert heard(ear, hush(100)) == [Sign.STARTED]
    assert heard(ear, hush(100)) == []


def test_a_cleared_buffer_holds_nothing() -> None:
    """Speech in its middle is over, untold; the time since the session began goes on."""
    ear = InputBuffer()
    heard(ear, SOUND)
    ear.clear()
    assert (ear.empty, ear.held_ms, ear.written_ms, ear.speaking) == (True, 0, 1, False)
    assert heard(ear, hush(1)) == [Sign.STARTED]
