"""Heartbeats, ids, silences and ends."""

from __future__ import annotations

import pytest

from proxy.doctor.evidence import Ending, Poll
from proxy.doctor.finding import Verdict
from proxy.doctor.liveness import judge_end, judge_heartbeats, judge_idle, judge_ids, limit_near
from tests.doctor.seen import OURS, event, heard, steady

CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/m:streamGenerateContent"
CHUNK = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
ID_CHUNK = b"id: 1\n" + CHUNK
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
TOLD = b'data: {"error":{"message":"no","type":"server_error","code":"truncated"}}\n\n'
CANDIDATE = b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}]}\n\n'

RUNS = Poll(0.0, 0.0, 200, state="lingering", last=3)
WHOLE = Poll(0.0, 0.0, 200, state="finished", reason="complete", last=3)
BROKE = Poll(0.0, 0.0, 200, state="finished", reason="truncated", last=3)


# heartbeats


@pytest.mark.parametrize(
    ("path", "reads", "verdict"),
    [
        (CHAT, [ID_CHUNK, b": ping\n", CHUNK], Verdict.OK),
        (CHAT, [CHUNK, b": ping\n\n", CHUNK], Verdict.OK),
        (CHAT, [ID_CHUNK, b": ping\n\n", CHUNK], Verdict.FAULT),
        ("/events", [b"id: 1\ndata: x\n\n", b": ping\n\n"], Verdict.WARNING),
        (GEMINI, [CANDIDATE, b"\n", CANDIDATE], Verdict.OK),
        (GEMINI, [CANDIDATE, b": ping\n", CANDIDATE], Verdict.FAULT),
        (CHAT, [CHUNK, CHUNK], Verdict.UNSEEN),
    ],
    ids=["line-ids", "block-no-ids", "block-ids", "app", "gemini-empty", "gemini-comment", "none"],
)
def test_a_heartbeat_must_be_one_that_the_readers_survive(
    path: str, reads: list[bytes], verdict: Verdict
) -> None:
    """The blank line behind a comment breaks SDKs only where there are ids; Google's break on any comment."""
    stream = heard(((float(at), data) for at, data in enumerate(reads)), path=path)
    assert judge_heartbeats(stream).verdict is verdict


def test_a_long_silence_without_a_heartbeat_is_worth_a_warning() -> None:
    """Forty seconds: some edge would have cut it."""
    assert judge_heartbeats(heard([(1.0, event(1)), (41.0, event(2))])).verdict is Verdict.WARNING


# ids


@pytest.mark.parametrize(
    ("reads", "fields", "path", "verdict"),
    [
        ([event(1) + event(2) + event(3)], OURS, "/events", Verdict.OK),
        ([event(1) + event(3)], OURS, "/events", Verdict.FAULT),
        ([event(2) + event(1)], OURS, "/events", Verdict.FAULT),
        ([event(1) + event(1)], OURS, "/events", Verdict.FAULT),
        ([b"id: a\ndata: 1\n\nid: b\ndata: 2\n\n"], (), "/events", Verdict.OK),
        ([b"data: 1\n\n"], (), "/events", Verdict.UNSEEN),
        ([b"data: 1\n\n"], OURS, "/events", Verdict.WARNING),
        ([CANDIDATE], OURS, GEMINI, Verdict.OK),
        ([b"id: 1\n" + CANDIDATE], OURS, GEMINI, Verdict.FAULT),
        ([], OURS, "/events", Verdict.UNSEEN),
    ],
    ids=[
        "own",
        "gap",
        "reordered",
        "twice",
        "apps",
        "none",
        "unrecorded",
        "gemini",
        "gemini-with",
        "nothing",
    ],
)
def test_ids_number_the_events(
    reads: list[bytes], fields: tuple[tuple[str, str], ...], path: str, verdict: Verdict
) -> None:
    """Each event its own, in order, where the readers can bear them."""
    stream = heard(((1.0, data) for data in reads), fields=fields, path=path)
    assert judge_ids(stream).verdict is verdict


# idle


@pytest.mark.parametrize(
    ("silence", "limit"), [(0.7, 1.0), (1.05, 1.0), (14.8, 15.0), (60.1, 60.0), (100.5, 100.0), (43.0, None)]
)
def test_a_limit_is_known_by_the_silence_before_the_cut(silence: float, limit: float | None) -> None:
    """Nginx's timers strike up to 0.3 s early; 43 seconds are nobody's default."""
    assert limit_near(silence) == limit


def test_a_cut_after_a_silence_is_a_fault_and_names_the_limit() -> None:
    """The sidecar says that the stream goes on: somebody between lost patience."""
    stream = heard([(1.0, event(1))], fields=OURS, until=61.0, ending=Ending.CUT)
    finding = judge_idle(stream, None, RUNS)
    assert finding.verdict is Verdict.FAULT
    assert "a limit of 60 s" in finding.message
    assert "goes on" in finding.message
    assert finding.evidence["limit"] == 60.0


def test_a_clean_end_is_a_cut_where_the_sidecar_goes_on() -> None:
    """A proxy that speaks HTTP/1.0 behind itself ends what it gives up as if it were whole."""
    stream = heard([(1.0, event(1))], fields=OURS, until=16.0, ending=Ending.WHOLE)
    assert judge_idle(stream, None, RUNS).verdict is Verdict.FAULT
    assert judge_idle(stream, None, WHOLE).verdict is Verdict.OK


def test_a_cut_that_the_upstream_made_is_not_the_edges() -> None:
    """The sidecar breaks a generic stream off where its upstream did."""
    stream = heard([(1.0, event(1))], fields=OURS, until=3.0, ending=Ending.CUT)
    assert judge_idle(stream, None, BROKE).verdict is not Verdict.FAULT
    finding = judge_end(stream, BROKE)
    assert finding.verdict is Verdict.FAULT
    assert "upstream" in finding.message


@pytest.mark.parametrize(
    ("reads", "wanted", "verdict"),
    [
        ([(1.0, event(1)), (16.0, b": ping\n"), (31.0, event(2))], 30.0, Verdict.OK),
        ([(1.0, event(1)), (31.0, event(2))], 30.0, Verdict.WARNING),
        (steady(20), 30.0, Verdict.UNSEEN),
        ([(1.0, event(1)), (3.0, event(2))], None, Verdict.OK),
        (steady(20), None, Verdict.UNSEEN),
    ],
    ids=["heartbeats", "bare", "never-silent", "by-the-way", "busy"],
)
def test_a_silence_that_was_survived_is_told(
    reads: list[tuple[float, bytes]], wanted: float | None, verdict: Verdict
) -> None:
    """With what filled it; one that nothing filled is a matter of luck."""
    assert judge_idle(heard(reads), wanted, None).verdict is verdict


def test_a_cut_in_full_flow_is_a_limit_on_the_whole_answer() -> None:
    """Events came until the very end: no idle limit, and so another mend."""
    stream = heard(steady(40), fields=(*OURS, ("Server", "Caddy")), until=2.05, ending=Ending.CUT)
    assert judge_idle(stream, None, RUNS).verdict is not Verdict.FAULT
    finding = judge_end(stream, RUNS)
    assert finding.verdict is Verdict.FAULT
    assert "after 2.0 s in all, while events came" in finding.message
    assert "no write" in finding.mend


def test_what_was_cancelled_because_we_left_has_no_fault() -> None:
    """A short ``linger``: the resumed half ends with the sidecar's word for it."""
    cancelled = Poll(0.0, 0.0, 200, state="finished", reason="cancelled", last=4)
    first = heard([(1.0, CHUNK)], fields=OURS, path=CHAT)
    again = heard([(3.0, CHUNK + TOLD)], fields=OURS, ending=Ending.WHOLE)
    assert judge_end(first.rejoined(again), cancelled).verdict is Verdict.UNSEEN
    assert judge_end(first, cancelled).verdict is Verdict.UNSEEN


# the end


@pytest.mark.parametrize(
    ("body", "ending", "after", "path", "verdict"),
    [
        (CHUNK + STOP + DONE, Ending.WHOLE, None, CHAT, Verdict.OK),
        (CHUNK + STOP, Ending.WHOLE, None, CHAT, Verdict.OK),
        (CHUNK, Ending.WHOLE, None, CHAT, Verdict.FAULT),
        (CHUNK + TOLD, Ending.WHOLE, BROKE, CHAT, Verdict.FAULT),
        (CHUNK, Ending.CUT, None, CHAT, Verdict.FAULT),
        (CHUNK, Ending.RESET, RUNS, CHAT, Verdict.FAULT),
        (CHUNK + DONE, Ending.CUT, None, CHAT, Verdict.WARNING),
        (CHUNK, None, None, CHAT, Verdict.UNSEEN),
        (CHUNK + DONE, None, None, CHAT, Verdict.OK),
        (event(1), Ending.WHOLE, None, "/events", Verdict.OK),
        (event(1), Ending.CLOSED, None, "/events", Verdict.WARNING),
        (event(1), Ending.WHOLE, RUNS, "/events", Verdict.FAULT),
        (b"", Ending.WHOLE, None, "/events", Verdict.FAULT),
    ],
    ids=[
        "done",
        "finished",
        "half",
        "told",
        "cut",
        "reset",
        "late-cut",
        "running",
        "marked",
        "app",
        "close",
        "lying",
        "empty",
    ],
)
def test_an_end_is_whole_or_it_is_told(
    body: bytes, ending: Ending | None, after: Poll | None, path: str, verdict: Verdict
) -> None:
    """By the dialect's marker, by HTTP's framing, and by what the sidecar says."""
    stream = heard([(1.0, body)] if body else [], ending=ending, path=path, until=1.1)
    assert judge_end(stream, after).verdict is verdict
