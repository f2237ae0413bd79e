"""For how long a stream is watched."""

from __future__ import annotations

from proxy.doctor.transcript import Transcript
from proxy.doctor.watch import Patience
from tests.doctor.seen import SSE, event, head, steady


def seen(*reads: tuple[float, bytes], fields: tuple[tuple[str, str], ...] = SSE) -> Transcript:
    """A transcript of these reads."""
    transcript = Transcript(head(*fields))
    for at, data in reads:
        transcript.receive(data, at)
    return transcript


def test_fifty_events_over_three_seconds_are_enough() -> None:
    """Fifty at once are not, and neither are ten over four seconds."""
    patience = Patience(10.0)
    assert patience.satisfied(seen(*steady(70)), 0.0)
    assert not patience.satisfied(seen((1.0, b"".join(map(event, range(60))))), 0.0)
    assert not patience.satisfied(seen(*steady(10, interval=0.4)), 0.0)


def test_nothing_more_is_waited_for_than_was_agreed() -> None:
    """Seconds count from the head, whatever comes."""
    assert Patience(10.0).leaves_at(seen(*steady(3)), 2.0) == 12.0


def test_a_wanted_silence_is_awaited_from_the_last_event_on() -> None:
    """Heartbeats do not end it; the next event does, and then it has been seen."""
    patience = Patience(10.0, idle=30.0)
    quiet = seen((1.0, event(1)), (16.0, b": ping\n"))
    assert not patience.satisfied(quiet, 0.5)
    assert patience.leaves_at(quiet, 0.5) == 31.5
    assert patience.satisfied(seen((1.0, event(1)), (32.0, event(2))), 0.5)
    assert patience.satisfied(seen((31.0, event(1))), 0.5)
    assert not patience.satisfied(seen((1.0, event(1)), (2.0, event(2))), 0.5)


def test_a_stream_that_is_never_silent_is_left_all_the_same() -> None:
    """The silence must have begun within the agreed seconds."""
    busy = seen((1.0, event(1)), (39.0, event(2)))
    assert Patience(10.0, idle=30.0).leaves_at(busy, 0.0) == 40.5


def test_a_large_page_is_no_stream() -> None:
    """It is not read to its end."""
    page = (("Content-Type", "text/html"),)
    assert Patience().satisfied(seen((1.0, b"<p>" * 30_000), fields=page), 0.0)
    assert not Patience().satisfied(seen((1.0, b"<p>"), fields=page), 0.0)
