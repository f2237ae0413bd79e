"""Held back or not: arrivals, as they were written down, and what is concluded from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.doctor.evidence import Ending, Poll, Stream
from proxy.doctor.finding import Verdict
from proxy.doctor.holding import judge, judge_nothing
from tests.doctor.seen import OURS, SSE, buffered, event, heard, looks, steady

NGINX = (*SSE, ("Server", "nginx/1.22.1"))
OUR_NGINX = (*OURS, ("Server", "nginx/1.22.1"))


def stamped(count: int, *, every: float, arrives_every: int, grain: float = 0.001) -> Stream:
    """Events that say when they were made, let go in lumps of ``arrives_every``."""
    reads: list[tuple[float, bytes]] = []
    lump = b""
    for number in range(1, count + 1):
        made = number * every
        stamp = 1_800_000_000 + (made // grain) * grain
        lump += b"data: " + json.dumps({"ts": stamp}).encode() + b"\n\n"
        if number % arrives_every == 0:
            reads.append((made + 0.02, lump))
            lump = b""
    return heard(reads)


# the sidecar's state


def test_a_sidecar_that_is_ahead_again_and_again_proves_a_buffer() -> None:
    """It has sent what has not come; the finding says how late, from which source, and names the buffer."""
    reads = buffered(100, buffer=4096)
    finding = judge(heard(reads, fields=OUR_NGINX, polls=looks(0.15, 3.0, pace=0.03)))
    assert finding.verdict is Verdict.FAULT
    assert finding.evidence["source"] == "state"
    assert finding.evidence["buffer"] == 4096
    assert "proxy_buffering off" in finding.mend


def test_a_stream_that_comes_only_when_it_is_over_was_held_whole() -> None:
    """No look was possible before; but the sidecar remembers how soon it had its first event."""
    poll = Poll(4.1, 4.2, 200, state="finished", reason="complete", last=100, first_event=0.03, age=4.2)
    whole = b"".join(event(number) for number in range(1, 101))
    finding = judge(heard([(4.0, whole)], headed=4.0, fields=OURS, ending=Ending.WHOLE, polls=[poll]))
    assert finding.verdict is Verdict.FAULT
    assert finding.evidence["late_max"] == pytest.approx(3.97)


def test_a_slow_way_to_the_sidecar_holds_nothing() -> None:
    """An edge that asks an auth service first: the sidecar had the request 1.5 s later than we sent it."""
    reads = [(at + 1.5, data) for at, data in steady(40)]
    polls = [replace(poll, age=poll.answered - 1.52) for poll in looks(0.15, 3.5, pace=1.0, first=0.05)]
    finding = judge(heard(reads, headed=1.55, fields=OURS, polls=polls))
    assert finding.verdict is Verdict.OK


def test_a_stream_of_which_nothing_comes_was_held_too() -> None:
    """Headers, then silence, while the sidecar sends and sends."""
    finding = judge(heard([], fields=OURS, until=10.0, polls=looks(0.5, 10.0, pace=0.05)))
    assert finding.verdict is Verdict.FAULT


def test_a_sender_that_bursts_is_no_buffer() -> None:
    """Twenty events at once, every half second: and the sidecar has sent no more than came."""
    reads = [(0.5 * n, b"".join(event(20 * n + i - 19) for i in range(20))) for n in range(1, 8)]
    polls = [
        Poll(at - 0.01, at, 200, state="live", last=20 * int(at / 0.5), first_event=0.5)
        for at in (0.3, 0.6, 0.9, 1.2, 1.7, 2.2, 2.7, 3.2)
    ]
    finding = judge(heard(reads, fields=OURS, polls=polls))
    assert finding.verdict is Verdict.OK
    assert finding.evidence["source"] == "state"


def test_large_events_on_a_slow_line_are_no_buffer() -> None:
    """The sidecar is ahead all the time, but bytes come all the time: nothing is held."""
    body = b"".join(event(number, size=1_000_000) for number in range(1, 9))
    reads = [(0.02 + 0.04 * n, body[65536 * n : 65536 * (n + 1)]) for n in range(len(body) // 65536 + 1)]
    finding = judge(heard(reads, fields=OURS, polls=looks(0.15, 4.5, pace=0.05, total=8)))
    assert finding.verdict is Verdict.OK


def test_our_own_slowness_is_nobodys_fault() -> None:
    """A machine that lets us look twice a second only: what came in between came in no lump."""
    reads = [(0.5 * n, b"".join(event(16 * n + i - 15, ids=False) for i in range(16))) for n in range(1, 8)]
    stream = heard(reads)
    assert judge(stream).verdict is Verdict.WARNING
    stalls = tuple((0.5 * n + 0.01, 0.5 * n + 0.5) for n in range(8))
    assert judge(replace(stream, stalls=stalls)).verdict is Verdict.OK


def test_a_short_stream_through_a_small_buffer_is_found() -> None:
    """The demo through nginx as it comes: 43 events in a second, four lumps of 4096 bytes, few looks."""
    reads = buffered(43, buffer=4096, interval=0.021, size=290)
    headed = reads[0][0]
    polls = [poll for poll in looks(0.1, reads[-1][0], pace=0.021) if poll.asked > headed]
    finding = judge(heard(reads, headed=headed, fields=OUR_NGINX, ending=Ending.WHOLE, polls=polls))
    assert finding.verdict is Verdict.FAULT
    for few in (polls[:1], polls[-1:]):
        held = heard(reads, headed=headed, fields=OUR_NGINX, ending=Ending.WHOLE, polls=few)
        assert judge(held).verdict is Verdict.FAULT


def test_lumps_that_the_sidecar_already_gets_are_told_as_such() -> None:
    """Nothing is held in front of it: look behind."""
    reads = [(0.5 * n, b"".join(event(16 * n + i - 15) for i in range(16))) for n in range(1, 8)]
    polls = []
    for at in (0.3, 0.6, 0.9, 1.2, 1.6, 2.1, 2.6, 3.1):
        sent = 16 * int(at / 0.5)
        polls.append(Poll(at - 0.01, at, 200, state="live", last=sent, first_event=0.5))
    finding = judge(heard(reads, fields=OURS, polls=polls))
    assert finding.verdict is Verdict.OK
    assert "does its upstream burst, or does something behind the sidecar hold them?" in finding.message


def test_a_stream_that_was_joined_in_its_middle_counts_from_there() -> None:
    """Its first event is number 41."""
    reads = [(0.02 + 0.05 * n, event(40 + n)) for n in range(1, 60)]
    polls = [
        Poll(at - 0.01, at, 200, state="live", last=40 + int((at - 0.02) / 0.05), first_event=None)
        for at in (0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1)
    ]
    assert judge(heard(reads, fields=OURS, polls=polls)).verdict is Verdict.OK


# the origin, asked directly


def test_the_origin_is_believed_before_anything_else() -> None:
    """The same request, at the same time: one by one there, in lumps here."""
    held = heard(buffered(100, buffer=8192, ids=False), fields=NGINX)
    finding = judge(held, heard(steady(100, interval=0.03, ids=False)))
    assert finding.verdict is Verdict.FAULT
    assert finding.evidence["source"] == "direct"
    assert "8192" in finding.message


def test_an_origin_that_bursts_acquits_its_edge() -> None:
    """The same lumps on both sides."""
    lumps = [(0.4 * n, b"".join(event(10 * n + i, ids=False) for i in range(10))) for n in range(1, 8)]
    finding = judge(heard(lumps), heard([(at - 0.01, data) for at, data in lumps]))
    assert finding.verdict is Verdict.OK


def test_a_longer_way_is_no_buffer() -> None:
    """All events come 1.7 s late, in lumps no larger than at the origin."""
    late = [(at + 1.7, data) for at, data in steady(60)]
    assert judge(heard(late, headed=1.7), heard(steady(60))).verdict is Verdict.OK


def test_a_narrow_line_is_no_buffer() -> None:
    """Large events come ever later, but bytes come all the time."""
    body = b"".join(event(number, size=250_000) for number in range(1, 14))
    narrow = [(0.02 + 0.06 * n, body[65536 * n : 65536 * (n + 1)]) for n in range(len(body) // 65536 + 1)]
    origin = [(0.02 + 0.05 * n, event(n, size=250_000)) for n in range(1, 14)]
    assert judge(heard(narrow), heard(origin)).verdict is Verdict.OK


def test_an_edge_from_which_not_even_a_head_comes_is_convicted_by_the_origin() -> None:
    """While the origin streams."""
    finding = judge_nothing(heard(steady(60)), 6.0)
    assert finding.verdict is Verdict.FAULT
    assert "not even headers, while the origin sent 60 events" in finding.message


def test_a_slower_second_generation_is_no_fault() -> None:
    """Two answers of a model differ in pace: late is only what also comes in larger lumps, or very late."""
    finding = judge(heard(steady(60, interval=0.06)), heard(steady(60, interval=0.05)))
    assert finding.verdict is Verdict.OK


# the events' own times


def test_stamps_show_how_late_each_event_was() -> None:
    """Made every 50 ms, let go by the ten."""
    finding = judge(stamped(60, every=0.05, arrives_every=10))
    assert finding.verdict is Verdict.FAULT
    assert finding.evidence["source"] == "stamps"
    assert finding.evidence["late_max"] == pytest.approx(0.45, abs=0.01)


def test_stamps_acquit_a_steady_stream_and_one_of_whole_seconds() -> None:
    """A stamp in whole seconds is up to a second old when it comes."""
    assert judge(stamped(60, every=0.05, arrives_every=1)).verdict is Verdict.OK
    assert judge(stamped(80, every=0.05, arrives_every=1, grain=1.0)).verdict is Verdict.OK


def test_history_is_not_lateness() -> None:
    """A feed that begins with yesterday's events sends them as soon as it can."""
    lines = (b'data: {"ts":%d}\n\n' % (1_799_900_000 + 60 * n) for n in range(40))
    finding = judge(heard([(0.1, b"".join(lines))]))
    assert finding.evidence["source"] == "pattern"
    assert finding.verdict is not Verdict.FAULT


# the pattern alone


@pytest.mark.parametrize("buffer", [4096, 8192, 16384])
def test_a_buffer_is_known_by_its_lumps(buffer: int) -> None:
    """Lumps of its size that end inside an event, again and again: no sender writes so."""
    finding = judge(heard(buffered(600, buffer=buffer, ids=False), fields=NGINX))
    assert finding.verdict is Verdict.FAULT
    assert finding.evidence["buffer"] == buffer
    assert f"{buffer} bytes" in finding.message


def test_lumps_without_a_trace_are_a_doubt_only() -> None:
    """A sender may collect on purpose."""
    lumps = [(0.4 * n, b"".join(event(10 * n + i, ids=False) for i in range(10))) for n in range(1, 8)]
    finding = judge(heard(lumps))
    assert finding.verdict is Verdict.WARNING
    assert "--direct" in finding.mend


def test_everything_at_once_at_the_end_is_a_doubt_only() -> None:
    """The application may have made it all before it sent it."""
    whole = b"".join(event(number, ids=False) for number in range(1, 41))
    finding = judge(heard([(5.0, whole)], headed=5.0, ending=Ending.WHOLE))
    assert finding.verdict is Verdict.WARNING
    assert "5.0 s" in finding.message


@pytest.mark.parametrize(
    "reads",
    [
        steady(100),
        steady(5),
        [(0.02, b"".join(event(n) for n in range(1, 60)))],
        [(0.001 * n, event(n)) for n in range(1, 1000)],
        [(0.5 * n, event(2 * n) + event(2 * n + 1)) for n in range(1, 20)],
        [
            (0.3 * n, event(n, size=40_000)[:20_000] if n % 2 else event(n, size=40_000)[20_000:])
            for n in range(9)
        ],
    ],
    ids=["steady", "few", "cached", "quick", "pairs", "halves"],
)
def test_ordinary_senders_are_left_in_peace(reads: list[tuple[float, bytes]]) -> None:
    """A false alarm is worse than silence."""
    assert judge(heard(reads)).verdict in (Verdict.OK, Verdict.UNSEEN)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 2.0, allow_nan=False), st.integers(1, 60), st.integers(0, 3000)),
        max_size=40,
    )
)
def test_whole_events_are_never_proof_by_their_pattern(writes: list[tuple[float, int, int]]) -> None:
    """However a sender bursts and pauses: while events come whole, only a buffer's exact size could be."""
    at, number, reads = 0.02, 0, []
    for pause, count, size in writes:
        at += pause
        reads.append((at, b"".join(event(number + i, ids=False, size=size) for i in range(count))))
        number += count
    finding = judge(heard(reads))
    assert finding.verdict is not Verdict.FAULT or finding.evidence["buffer"] is not None
