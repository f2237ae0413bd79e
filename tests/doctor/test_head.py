"""Status and header fields."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.doctor.evidence import Ending, Poll
from proxy.doctor.finding import Verdict
from proxy.doctor.head import judge_cors, judge_headers, judge_no_answer, judge_put_off, judge_status
from tests.doctor.seen import OURS, SSE, event, head, heard


def without(name: str) -> tuple[tuple[str, str], ...]:
    """A sidecar's fields, one of them stripped on the way."""
    return tuple(pair for pair in OURS if pair[0] != name)


def test_a_stream_is_a_200() -> None:
    """HTTP/1.0 is told, because a cut would look like an end."""
    assert judge_status(head(), 0.1, streams=True).verdict is Verdict.OK
    assert judge_status(head(version="HTTP/1.0"), 0.1, streams=True).verdict is Verdict.WARNING
    assert judge_status(head(), 0.1, streams=False).verdict is Verdict.FAULT


def test_a_gateways_status_says_what_it_means() -> None:
    """And after how long it came, and whom to ask."""
    finding = judge_status(head(("Server", "nginx"), status=504), 60.0, streams=False)
    assert finding.verdict is Verdict.FAULT
    assert "60.0 s" in finding.message
    assert "nginx" in finding.mend
    assert "refused" in judge_status(head(status=403), 0.1, streams=False, problem="refused").message
    assert "redirect" in judge_status(head(status=307), 0.1, streams=False).message


@pytest.mark.parametrize(
    ("status", "problem", "meaning", "mend"),
    [
        (502, "upstream-unreachable", "the sidecar does not reach its upstream", "`upstream failed`"),
        (502, "upstream-broken", "upstream broke off", "`upstream failed`"),
        (504, "upstream-timeout", "no headers in time", "timeouts.first_byte"),
        (503, "capacity", "the sidecar is full", "limits.streams"),
        (404, "no-route", "no such route", "prefix"),
        (403, "refused", "the sidecar refuses", "hosts and origins"),
        (410, "gap", "no stream", "docs/wire.md"),
    ],
)
def test_the_sidecars_own_refusal_is_mended_at_the_sidecar(
    status: int, problem: str, meaning: str, mend: str
) -> None:
    """The edge has only passed it on: it is innocent, and has logged nothing."""
    answer = head(("Server", "nginx"), status=status)
    finding = judge_status(answer, 0.1, streams=False, problem=problem)
    assert meaning in finding.message
    assert mend in finding.mend
    assert "nginx" not in finding.mend


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ((("Server", "nginx"),), "the edge found no sidecar"),
        ((("Server", "nginx"), ("X-Accel-Buffering", "no")), "the sidecar has no answer"),
        ((("Server", "sse-sidecar"),), "the sidecar has no answer"),
    ],
    ids=["edge", "passed-on", "sidecar"],
)
def test_whoever_puts_an_event_source_off_has_nobody_behind(
    fields: tuple[tuple[str, str], ...], word: str
) -> None:
    """The edge that found no sidecar, or the sidecar itself."""
    stream = heard([(0.02, b"retry: 3000\n\n")], fields=(*SSE, *fields), ending=Ending.WHOLE)
    assert stream.put_off
    finding = judge_put_off(stream)
    assert finding.verdict is Verdict.FAULT
    assert "retry: 3000" in finding.message
    assert word in finding.message
    assert "upstream failed" in finding.mend


@pytest.mark.parametrize(
    ("body", "fields", "ending"),
    [
        (b"retry: 3000\ndata: 1\n\n", SSE, Ending.WHOLE),
        (b"retry: 3000\n\n", OURS, Ending.WHOLE),
        (b"retry: 3000\n\n", SSE, None),
        (b": hello\n\n", SSE, Ending.WHOLE),
    ],
    ids=["event", "sidecars-stream", "goes-on", "no-retry"],
)
def test_a_stream_that_only_begins_with_a_retry_is_not_put_off(
    body: bytes, fields: tuple[tuple[str, str], ...], ending: Ending | None
) -> None:
    """It has an event, or an id, or may still bring one; or nobody has said when to come again."""
    assert not heard([(0.02, body)], fields=fields, ending=ending).put_off


@pytest.mark.parametrize(
    ("fields", "verdict", "word"),
    [
        (SSE, Verdict.OK, "text/event-stream"),
        (OURS, Verdict.OK, "no-transform"),
        (without("Stream-Id"), Verdict.FAULT, "Stream-Id was stripped"),
        (without("Link"), Verdict.FAULT, "Link was stripped"),
        ((*without("Cache-Control"), ("Cache-Control", "no-cache")), Verdict.FAULT, "no-transform"),
        ((*SSE, ("Content-Length", "12")), Verdict.FAULT, "smuggle"),
        ((*SSE[:2], ("Content-Length", "12")), Verdict.FAULT, "whole answer"),
        (SSE[:2], Verdict.WARNING, "neither length nor chunks"),
        ((SSE[0], SSE[2]), Verdict.WARNING, "no Cache-Control"),
        ((("Content-Type", "text/plain"), *SSE[1:]), Verdict.FAULT, "text/plain"),
        ((("Content-Type", "text/event-stream; charset=latin1"), *SSE[1:]), Verdict.FAULT, "latin1"),
        ((*SSE, ("X-Cache", "HIT from edge")), Verdict.FAULT, "from a cache"),
        ((*SSE, ("Age", "7")), Verdict.FAULT, "from a cache"),
        ((*SSE, ("Age", "0"), ("X-Cache", "MISS")), Verdict.OK, "Age"),
    ],
)
def test_what_a_head_says_too_much_or_too_little(
    fields: tuple[tuple[str, str], ...], verdict: Verdict, word: str
) -> None:
    """The ids of the events tell whose stream it is, whatever was stripped."""
    finding = judge_headers(heard([(1.0, event(1, ids=OURS[0] in fields))], fields=fields))
    assert finding.verdict is verdict
    assert word in finding.message


def test_a_stream_that_began_before_it_was_asked_for_is_another_requests() -> None:
    """The sidecar tells its age; a cache in between has forgotten it."""
    poll = Poll(2.0, 2.1, 200, state="finished", reason="complete", last=1, first_event=0.1, age=9.1)
    old = heard([(1.0, event(1))], fields=OURS, polls=[poll])
    finding = judge_headers(old)
    assert finding.verdict is Verdict.FAULT
    assert "another request's stream: it began 7.0 s before" in finding.message
    assert judge_headers(replace(old, polls=(replace(poll, age=2.0),))).verdict is Verdict.OK
    assert judge_headers(replace(old, resumes=True)).verdict is Verdict.OK
    replayed = head(*OURS, ("Idempotency-Replayed", "true"))
    assert judge_headers(replace(old, head=replayed)).verdict is Verdict.OK


def test_no_answer_at_all_names_the_buffer_that_may_hold_even_the_head() -> None:
    """Where we gave up; where the peer hung up, its log is to be asked."""
    waiting = judge_no_answer("no answer within 75 s", 75.0, patient=True)
    assert "nothing for 75 s, not even headers" in waiting.message
    assert "proxy_buffering off" in waiting.mend
    assert "log" in judge_no_answer("no answer: reset", 0.1, patient=False).mend


def test_a_strangers_ids_strip_nothing() -> None:
    """Only a sidecar's stream must have a Stream-Id."""
    stream = heard([(1.0, b"id: 7\ndata: x\n\n")])
    assert judge_headers(stream).verdict is Verdict.OK


PAGE = "https://page.example"
ALLOWED = ("Access-Control-Allow-Origin", PAGE)
EXPOSED = ("Access-Control-Expose-Headers", "Stream-Id, Link")


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ((*OURS, ALLOWED, EXPOSED), Verdict.OK),
        ((*OURS, ALLOWED), Verdict.FAULT),
        ((*SSE, ALLOWED), Verdict.OK),
        ((*SSE, ("Access-Control-Allow-Origin", "*")), Verdict.OK),
        ((*SSE, ("Access-Control-Allow-Origin", "https://other.example")), Verdict.FAULT),
        (SSE, Verdict.FAULT),
    ],
    ids=["exposed", "hidden", "nothing-to-hide", "anybody", "another", "nobody"],
)
def test_a_page_must_be_allowed_to_read_what_it_needs(
    fields: tuple[tuple[str, str], ...], verdict: Verdict
) -> None:
    """Looked at only where an Origin was sent."""
    finding = judge_cors(head(*fields), PAGE)
    assert finding is not None
    assert finding.verdict is verdict
    assert judge_cors(head(*fields), None) is None
