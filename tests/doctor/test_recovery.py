"""Resume, cancel, WebSocket: the answers, and what they mean."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.doctor.evidence import Poll, Stream
from proxy.doctor.finding import Verdict
from proxy.doctor.recovery import (
    Cancelled,
    Resumed,
    Upgrade,
    judge_cancel,
    judge_resume,
    judge_websocket,
)
from tests.doctor.seen import OURS, SSE, event, head, heard

FIRST = heard([(0.1 * n, event(n)) for n in range(1, 6)], fields=OURS)
APP = heard([(0.1 * n, b"id: %d\ndata: %d\n\n" % (n, n)) for n in range(1, 6)])


def resumed(*numbers: int, status: int = 200) -> Stream:
    """A sidecar's answer to a resume, with these events."""
    stream = heard([(1.0, event(number)) for number in numbers], fields=OURS, until=3.0)
    return replace(stream, head=head(*OURS, status=status))


@pytest.mark.parametrize(
    ("numbers", "verdict", "word"),
    [
        ((3, 4, 5, 6, 7), Verdict.OK, "no gap, none twice"),
        ((3, 4, 5), Verdict.OK, "behind event 2"),
        ((4, 5, 6), Verdict.FAULT, "event 3 is another one"),
        ((1, 2, 3), Verdict.FAULT, "event 1 in place of 3: Last-Event-ID was dropped"),
        ((3, 3, 4), Verdict.FAULT, "event 4 is another one"),
        ((3, 4, 5, 7), Verdict.FAULT, "jump"),
        ((3, 4), Verdict.FAULT, "only 2 of 3"),
        ((), Verdict.FAULT, "nothing came"),
    ],
    ids=["live", "finished", "lost", "from-the-start", "twice", "gap", "held", "nothing"],
)
def test_the_resumed_half_is_held_against_the_first(
    numbers: tuple[int, ...], verdict: Verdict, word: str
) -> None:
    """Three events are asked for again, so that both halves can be compared."""
    finding = judge_resume(FIRST, Resumed(2, resumed(*numbers)))
    assert finding.verdict is verdict
    assert word in finding.message


@pytest.mark.parametrize(
    ("left", "verdict"), [(1.5, Verdict.UNSEEN), (9.0, Verdict.FAULT)], ids=["coming-in", "stuck"]
)
def test_an_event_that_was_coming_in_may_have_come(left: float, verdict: Verdict) -> None:
    """A slow line is not taken for a buffer; one on which nothing more came, is."""
    half = heard([(0.5, event(3)), (1.0, event(4)[:5])], fields=OURS, until=left)
    finding = judge_resume(FIRST, Resumed(2, half))
    assert finding.verdict is verdict
    assert "1 of 3 events" in finding.message


def test_another_sidecars_404_is_not_the_edges() -> None:
    """One is mended by stickiness or nodes, the other by a location."""
    elsewhere = judge_resume(FIRST, Resumed(2, resumed(status=404), "unknown-stream"))
    unrouted = judge_resume(FIRST, Resumed(2, resumed(status=404)))
    assert "another sidecar" in elsewhere.message
    assert "node:" in elsewhere.mend
    assert "does not route /_streams/" in unrouted.message
    assert elsewhere.verdict is unrouted.verdict is Verdict.FAULT


def test_a_node_in_the_id_may_be_mapped_to_the_wrong_sidecar() -> None:
    """As well as not at all."""
    named = heard([(0.1, event(1).replace(b"id: ", b"id: a-"))])
    finding = judge_resume(named, Resumed(0, resumed(status=404), "unknown-stream"))
    assert "names node a, which the edge does not heed, or maps to another sidecar" in finding.message


def test_a_cancel_that_was_not_routed_needs_its_methods_too() -> None:
    """POST, and DELETE."""
    assert judge_cancel(Cancelled(405)).mend.endswith("; and let POST and DELETE pass")


def test_a_page_in_place_of_a_stream_is_the_edges() -> None:
    """A single-page app answers everything that nobody else does: 200, text/html."""
    page = replace(heard([]), head=head(("Content-Type", "text/html")))
    finding = judge_resume(FIRST, Resumed(2, page))
    assert finding.verdict is Verdict.FAULT
    assert "200 text/html from somebody who is no sidecar" in finding.message
    assert "public_path" in finding.mend


def test_a_log_that_is_too_short_is_a_setting() -> None:
    """The reader was further behind than the log reaches."""
    finding = judge_resume(FIRST, Resumed(2, resumed(status=410), "gap"))
    assert finding.verdict is Verdict.WARNING
    assert "replay.max_events" in finding.mend


def test_a_stream_that_ends_when_its_reader_leaves_cannot_be_resumed() -> None:
    """``linger: 0s`` is legal: we left, so it was cancelled."""
    polls = (Poll(0, 0, 200, state="finished", reason="cancelled", last=5),)
    left = replace(FIRST, polls=polls)
    finding = judge_resume(left, Resumed(2, resumed(status=410), "expired"))
    assert finding.verdict is Verdict.UNSEEN
    assert "linger" in finding.message


def test_a_resume_that_worked_by_luck_is_a_fault() -> None:
    """Half of the looks met the other sidecar; the resume, which is counted, did not."""
    polls = (Poll(0, 0, 404, "unknown-stream"), Poll(0, 0, 200, state="live", last=3))
    finding = judge_resume(replace(FIRST, polls=polls), Resumed(2, resumed(3, 4, 5, 6)))
    assert finding.verdict is Verdict.FAULT
    assert "1 of 3 requests" in finding.message


def test_what_could_not_be_tried_is_not_judged() -> None:
    """No events; a POST that might cost; an app without ids."""
    silent = heard([], fields=OURS, until=2.0)
    paid = heard([(1.0, b"data: 1\n\n")], method="POST")
    bare = heard([(1.0, b"data: 1\n\n")])
    for stream, word in ((silent, "no event"), (paid, "paid for"), (bare, "no ids")):
        finding = judge_resume(stream, None)
        assert finding.verdict is Verdict.UNSEEN
        assert word in finding.message


@pytest.mark.parametrize(
    ("ids", "status", "verdict"),
    [
        ((3, 4, 5), 200, Verdict.OK),
        ((1, 2, 3), 200, Verdict.WARNING),
        ((9, 10), 200, Verdict.WARNING),
        ((), 404, Verdict.WARNING),
    ],
    ids=["resumes", "anew", "elsewhere", "refuses"],
)
def test_an_apps_own_resume_is_its_own_affair(ids: tuple[int, ...], status: int, verdict: Verdict) -> None:
    """It is told, and never a fault: nobody has promised one. Data may differ: it may tell the time."""
    again = heard([(1.0, b"id: %d\ndata: now\n\n" % n) for n in ids], until=2.0)
    finding = judge_resume(APP, Resumed(2, replace(again, head=head(*SSE, status=status))))
    assert finding.verdict is verdict


@pytest.mark.parametrize(
    ("cancelled", "verdict"),
    [
        (Cancelled(202, "", 0.01, told=True), Verdict.OK),
        (Cancelled(202, "", None, told=True), Verdict.FAULT),
        (Cancelled(200, told=True), Verdict.UNSEEN),
        (Cancelled(200), Verdict.FAULT),
        (Cancelled(404, "unknown-stream"), Verdict.FAULT),
        (Cancelled(405), Verdict.FAULT),
        (Cancelled(0), Verdict.FAULT),
        (None, Verdict.UNSEEN),
    ],
)
def test_stop_must_stop(cancelled: Cancelled | None, verdict: Verdict) -> None:
    """202 from the sidecar, and the reader's stream ends; a 200 of anybody else stops nothing."""
    assert judge_cancel(cancelled, "nothing ran").verdict is verdict


@pytest.mark.parametrize(
    ("seen", "required", "verdict"),
    [
        (Upgrade(head(status=101), True), False, Verdict.OK),
        (Upgrade(head(status=101), False), False, Verdict.FAULT),
        (Upgrade(head(status=426), text="Upgrade Required"), False, Verdict.WARNING),
        (Upgrade(head(status=426), text="Upgrade Required"), True, Verdict.FAULT),
        (Upgrade(head(status=405)), False, Verdict.UNSEEN),
        (Upgrade(head(status=405)), True, Verdict.FAULT),
        (Upgrade(None, failure="reset"), True, Verdict.FAULT),
        (None, False, Verdict.UNSEEN),
    ],
    ids=["right", "wrong", "lost", "lost-required", "not-offered", "required", "silent", "not-asked"],
)
def test_a_handshake_is_answered_or_was_lost(seen: Upgrade | None, required: bool, verdict: Verdict) -> None:
    """Whoever asks us for an Upgrade did not see ours."""
    assert judge_websocket(seen, required=required).verdict is verdict


def test_an_origin_that_upgrades_convicts_the_edge() -> None:
    """The same handshake, past the edge, is a 101."""
    origin = Upgrade(head(status=101), True)
    finding = judge_websocket(Upgrade(head(status=405)), required=False, direct=origin)
    assert finding.verdict is Verdict.FAULT
    assert "lost on the way" in finding.message
