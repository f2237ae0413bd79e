"""The input audio buffer of a Realtime session, and the ear that listens to it.

The demo's ear is simple, so that tests can know what it hears. Any audio is speech, from its first byte on.
Speech ends when, after a sound, so many milliseconds of digital silence (zeros) were written; more of
the same silence then starts no new speech. Audio that never ends in zeros is committed by the client.
"""

from __future__ import annotations

from enum import Enum, auto

from proxy.demo.tone import BYTES_PER_MS


class Sign(Enum):
    """What the ear noticed."""

    STARTED = auto()
    STOPPED = auto()


class InputBuffer:
    """Counts the audio that the client wrote; the bytes themselves are not kept."""

    def __init__(self) -> None:
        self._written = 0  # bytes since the session began
        self._held = 0  # bytes since the last commit or clear
        self._speaking = False
        self._sounded = False  # whether this speech had anything but zeros
        self._hushed = False  # whether the silence lasts that ended the last speech
        self._silence = 0  # bytes of zeros at the end of what was written

    @property
    def written_ms(self) -> int:
        """Milliseconds of audio written since the session began."""
        return self._written // BYTES_PER_MS

    @property
    def held_ms(self) -> int:
        """Milliseconds of audio that wait to be committed."""
        return self._held // BYTES_PER_MS

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return self._held == 0

    @property
    def speaking(self) -> bool:
        """Whether the ear noticed a start and not yet the end."""
        return self._speaking

    def append(self, audio: bytes) -> None:
        """Write audio that nobody listens to."""
        self._written += len(audio)
        self._held += len(audio)

    def listen(self, audio: bytes, *, silence_ms: int) -> list[Sign]:
        """Write audio, and tell what the ear noticed, in order."""
        signs = [Sign.STARTED] if self._starts(audio) else []
        self.append(audio)
        tail = len(audio) - len(audio.rstrip(b"\0"))
        self._sounded = self._sounded or tail < len(audio)
        self._silence = tail if tail < len(audio) else self._silence + tail
        if self._speaking and self._sounded and self._silence >= silence_ms * BYTES_PER_MS:
            signs.append(Sign.STOPPED)
            self._speaking, self._hushed = False, True
        return signs

    def clear(self) -> None:
        """Hold nothing any more. Where the client did so in the middle of speech, that is over, untold."""
        self._held = 0
        self._speaking = False

    def _starts(self, audio: bytes) -> bool:
        self._hushed = self._hushed and not audio.strip(b"\0")
        if self._speaking or self._hushed or not audio:
            return False
        self._speaking, self._sounded, self._silence = True, False, 0
        return True
