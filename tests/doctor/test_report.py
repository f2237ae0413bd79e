"""What is told, and what stays here."""

from __future__ import annotations

import io
import json

import pytest
from yarl import URL

from proxy.doctor.dial import Request
from proxy.doctor.finding import fault, ok, unseen, warning
from proxy.doctor.report import Document, Lines, Report, Shade, wants_colour
from tests.doctor.seen import ID

REQUEST = Request(
    URL("https://edge.example/v1/chat?token=hidden-query&n=1"),
    "POST",
    (
        ("Authorization", "Bearer sk-hidden"),
        ("Cookie", "session=hidden-cookie"),
        ("Accept", "text/event-stream"),
    ),
)

FINDINGS = [
    ok("status", "HTTP/1.1 200 OK", status=200),
    fault("resume", f"404 for /_streams/{ID}, said Bearer sk-hidden", "mend it", seen=[f"{ID}.7"]),
    warning("http2", "no h2: session=hidden-cookie hidden-query", "http2 on"),
    unseen("cancel", "it had \x1b[2J ended"),
]


def told(report: Report) -> None:
    """Tell all findings."""
    report.begin(Shade(REQUEST).url(REQUEST.url))
    for finding in FINDINGS:
        report.tell(finding)
    report.end(FINDINGS, judged=True, requests=3, upstream=1)


def shade() -> Shade:
    """One that knows the stream."""
    shading = Shade(REQUEST)
    shading.hide_stream(ID)
    return shading


@pytest.mark.parametrize("form", ["lines", "document"])
def test_no_secret_is_told(form: str) -> None:
    """Neither credentials, nor cookies, nor the values of a query, nor a whole stream id."""
    out = io.StringIO()
    told(Lines(out, shade(), colour=True) if form == "lines" else Document(out, shade()))
    text = out.getvalue()
    for secret in ("sk-hidden", "hidden-cookie", "hidden-query", ID):
        assert secret not in text
    assert "https://edge.example/v1/chat?token=…&n=…" in text
    assert f"{ID[:6]}…" in text


def test_a_line_is_a_mark_a_name_and_what_was_seen() -> None:
    """The mend stands below it; the sum at the end."""
    out = io.StringIO()
    told(Lines(out, shade(), colour=False))
    lines = out.getvalue().splitlines()
    assert lines[2] == "ok    status      HTTP/1.1 200 OK"
    assert lines[3].startswith("FAULT resume      404 for /_streams/AAAAAA…")
    assert lines[4] == "                  mend: mend it"
    assert lines[-1] == "1 fault, 1 warning; 3 requests, at most 1 of them seen by the upstream"


def test_what_a_server_wrote_does_not_steer_the_terminal() -> None:
    """The attack: escape sequences in a header."""
    out = io.StringIO()
    told(Lines(out, shade(), colour=False))
    assert "\x1b" not in out.getvalue()


def test_the_document_has_the_verdict_of_the_gravest() -> None:
    """And each finding with its figures."""
    out = io.StringIO()
    told(Document(out, shade()))
    document = json.loads(out.getvalue())
    assert document["verdict"] == "fault"
    assert document["requests"] == {"all": 3, "upstream": 1}
    assert document["findings"][0] == {
        "check": "status",
        "verdict": "ok",
        "message": "HTTP/1.1 200 OK",
        "evidence": {"status": 200},
        "mend": "",
    }
    assert document["findings"][1]["evidence"] == {"seen": [f"{ID[:6]}….7"]}


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_colour_is_for_terminals_and_for_those_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR, and the option, forbid it."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour(Terminal(), refused=False)
    assert not wants_colour(io.StringIO(), refused=False)
    assert not wants_colour(Terminal(), refused=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal(), refused=False)
