"""The way there."""

from __future__ import annotations

import pytest

from proxy.doctor.connection import is_loopback, judge_connection, judge_http2, judge_unreachable
from proxy.doctor.evidence import Connection
from proxy.doctor.finding import Verdict
from tests.doctor.seen import head

TLS = Connection("edge.example", 443, "192.0.2.1", "TLSv1.3", lookup=0.002, connect=0.01, handshake=0.02)
PLAIN = Connection("edge.example", 80, "192.0.2.1")


def test_each_step_is_told_with_its_time() -> None:
    """And who answers, and through which proxy."""
    answer = head(("Server", "nginx"), ("Via", "1.1 varnish"))
    finding = judge_connection(TLS, answer)
    assert finding.verdict is Verdict.OK
    for part in ("192.0.2.1", "TLSv1.3", "name 2.0 ms", "TCP 10.0 ms", "TLS 20.0 ms", "nginx", "varnish"):
        assert part in finding.message
    assert "proxy:3128" in judge_connection(Connection("e", 80, proxy="proxy:3128"), answer).message


def test_a_failed_handshake_asks_whether_there_is_tls() -> None:
    """Any other failure is one of the name, the port, the certificate."""
    assert "http://" in judge_unreachable("TLS: wrong version number", without_tls=True).mend
    assert "--cacert" in judge_unreachable("Connection refused").mend


@pytest.mark.parametrize(
    ("connection", "offered", "verdict"),
    [
        (TLS, True, Verdict.OK),
        (TLS, False, Verdict.WARNING),
        (PLAIN, None, Verdict.WARNING),
        (Connection("localhost", 8080, "127.0.0.1"), None, Verdict.UNSEEN),
    ],
    ids=["h2", "http1", "plain", "loopback"],
)
def test_six_streams_a_page_are_worth_a_warning(
    connection: Connection, offered: bool | None, verdict: Verdict
) -> None:
    """HTTP/1.1 to a browser, or no TLS across a network."""
    assert judge_http2(connection, offered).verdict is verdict


def test_loopback_is_known_by_address_and_by_name() -> None:
    """As RFC 6761 has it."""
    assert all(map(is_loopback, ["127.0.0.1", "127.8.0.1", "::1", "localhost", "app.localhost"]))
    assert not any(map(is_loopback, ["10.0.0.1", "localhost.example", ""]))
