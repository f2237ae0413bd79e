"""How one gets there: name, TCP, TLS, HTTP/2, and who answers."""

from __future__ import annotations

import ipaddress

from proxy.doctor.evidence import Connection, Head
from proxy.doctor.finding import Figures, Finding, fault, ok, unseen, warning

ONLY_SIX = (
    "a browser opens six connections an origin over HTTP/1.1: the seventh stream of a page waits for ever"
)

HTTP2_MEND = (
    "HTTP/2 at the edge: nginx from 1.25.1 'http2 on', before 'listen 443 ssl http2'; "
    "an ALB's HTTPS listener speaks it"
)

UNREACHABLE_MEND = "name, port, firewall, certificate (--cacert, -k)"


def judge_unreachable(failure: str, *, without_tls: bool = False) -> Finding:
    """There is no way there; ``without_tls``: a handshake failed, and not for its certificate."""
    mend = "does it speak TLS there? If not, http://" if without_tls else UNREACHABLE_MEND
    return fault("connection", failure, mend)


def judge_connection(connection: Connection, head: Head) -> Finding:
    """The steps to the server, each timed."""
    steps = [
        f"{name} {seconds * 1000:.1f} ms"
        for name, seconds in (
            ("name", connection.lookup),
            ("TCP", connection.connect),
            ("TLS", connection.handshake),
        )
        if seconds is not None
    ]
    server = ", ".join(f"{name}: {head.get(name)[:80]}" for name in ("Server", "Via") if head.has(name))
    parts = [
        connection.address or connection.host,
        connection.tls or "no TLS",
        *([f"through the proxy {connection.proxy}"] if connection.proxy else []),
        *steps,
        *([server] if server else []),
    ]
    figures: Figures = {
        "address": connection.address,
        "tls": connection.tls or None,
        "proxy": connection.proxy or None,
        "name": _rounded(connection.lookup),
        "connect": _rounded(connection.connect),
        "handshake": _rounded(connection.handshake),
        "server": head.get("Server")[:80] or None,
        "via": head.get("Via")[:80] or None,
    }
    return ok("connection", ", ".join(parts), **figures)


def judge_http2(connection: Connection, offered: bool | None) -> Finding:
    """Whether a page gets more than six streams from here."""
    if connection.encrypted:
        if offered:
            return ok("http2", "the edge takes HTTP/2", alpn="h2")
        return warning("http2", f"the edge takes HTTP/1.1 only; {ONLY_SIX}", HTTP2_MEND, alpn="http/1.1")
    if is_loopback(connection.address) or is_loopback(connection.host):
        return unseen("http2", "no TLS on loopback: HTTP/2 is the edge's work")
    said = f"http:// across a network: anybody on the way reads along, and there is no HTTP/2; {ONLY_SIX}"
    return warning("http2", said, f"TLS, and {HTTP2_MEND}")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
