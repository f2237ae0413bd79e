"""Who may stand between: known by what they write into an answer, and how each is told to pass streams on."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.doctor.evidence import Head


@dataclass(frozen=True, slots=True)
class Edge:
    """A kind of middlebox: fields that give it away, and its settings.

    ``signs`` are pairs of a field's name and a word that its value contains (any, where empty). ``total`` is
    about limits on a whole answer, however lively it is.
    """

    name: str
    signs: tuple[tuple[str, str], ...]
    buffering: str
    compression: str
    idle: str
    total: str = ""


EDGES = (
    Edge(
        "Cloudflare",
        (("CF-Ray", ""), ("Server", "cloudflare")),
        "Cloudflare passes text/event-stream unbuffered unless a Worker or a rule collects it",
        "Cloudflare: Cache-Control: no-transform on the stream, or a Compression Rule that disables it",
        "Cloudflare ends what is silent for 100 s (524): a heartbeat below that",
    ),
    Edge(
        "nginx",
        (("Server", "nginx"), ("Server", "openresty")),
        "nginx: proxy_buffering off in the location (or let X-Accel-Buffering: no pass: without "
        "proxy_ignore_headers, with proxy_pass_header X-Accel-Buffering on an inner nginx); no proxy_cache",
        "nginx: gzip off in the location; no text/event-stream and no * in gzip_types",
        "nginx: proxy_read_timeout (60s) above the heartbeat, e.g. 1h",
    ),
    Edge(
        "AWS",
        (("Server", "awselb"), ("X-Amzn-Trace-Id", ""), ("X-Amz-Cf-Id", "")),
        "an ALB does not buffer: look at a Lambda target (it does), API Gateway, or the proxy behind it",
        "CloudFront: Compress: false in the behaviour",
        "ALB: idle_timeout.timeout_seconds (60, at most 4000) above the heartbeat",
        "API Gateway ends answers after 29 s, Lambda and CloudFront after their timeouts",
    ),
    Edge(
        "Caddy",
        (("Server", "caddy"), ("Via", "caddy")),
        "Caddy: no buffer_responses or response_buffers in reverse_proxy; it flushes event streams by itself",
        "Caddy: leave text/event-stream out of what encode matches",
        "Caddy: read_timeout and write_timeout of the transport above the heartbeat",
        "Caddy: no write in servers' timeouts, or one above the longest answer",
    ),
    Edge(
        "Envoy",
        (("Server", "envoy"), ("Server", "istio"), ("X-Envoy-Upstream-Service-Time", "")),
        "Envoy: no buffer filter on the route",
        "Envoy: leave text/event-stream out of the compressor's content_type",
        "Envoy: stream_idle_timeout above the heartbeat, timeout: 0s on the route",
        "Envoy: timeout: 0s on the route (15 s by default), no max_stream_duration",
    ),
    Edge(
        "Apache httpd",
        (("Server", "apache"),),
        "Apache: ProxyPass … flushpackets=on, and no mod_buffer",
        "Apache: SetEnv no-gzip 1 on the path, no text/event-stream in AddOutputFilterByType DEFLATE",
        "Apache: ProxyTimeout above the heartbeat",
    ),
    Edge(
        "IIS",
        (("Server", "microsoft-iis"), ("X-Powered-By", "asp.net")),
        "IIS/ARR: responseBufferLimit=0; ASP.NET: Response.BufferOutput = false",
        "IIS: dynamic compression off for text/event-stream",
        "IIS/ARR: the proxy's time-out above the heartbeat",
    ),
    Edge(
        "Varnish or Fastly",
        (("Via", "varnish"), ("X-Served-By", "cache-")),
        "Varnish: set beresp.do_stream = true, and return (pass) for the path",
        "Varnish: set beresp.do_gzip = false",
        "Varnish: between_bytes_timeout above the heartbeat",
    ),
    Edge(
        "an Express app with compression()",
        (("X-Powered-By", "express"),),
        "Express: res.flushHeaders(), and res.flush() after each event where compression() is used",
        "Express: leave streams out of compression() by its filter",
        "Node: server.requestTimeout and keepAliveTimeout do not end streams; look at the balancer",
    ),
)

ANY_BUFFERING = (
    "nginx: proxy_buffering off; Apache: flushpackets=on; Caddy: no response_buffers; Envoy: no buffer "
    "filter; an app: write and flush each event, no middleware that collects the body"
)
ANY_COMPRESSION = (
    "no gzip, br or deflate for text/event-stream: Cache-Control: no-transform; nginx: gzip off; Caddy: no "
    "encode; Express: compression() with a filter"
)
ANY_IDLE = (
    "a heartbeat below the shortest limit on the way, and limits above it: nginx proxy_read_timeout 60 s, "
    "ALB idle 60 s, Cloudflare 100 s, Envoy route timeout 15 s, HAProxy timeout client/server"
)

ANY_TOTAL = (
    "no limit on a whole answer: Envoy: timeout: 0s (15 s by default); Caddy: no write in servers' timeouts; "
    "Traefik: writeTimeout 0; API Gateway ends after 29 s; app servers: gunicorn's timeout. Else ask the "
    "sender's log why it hung up"
)


def edges_in(head: Head) -> list[Edge]:
    """Those that have left a sign in the head."""
    return [edge for edge in EDGES if any(_shows(head, name, word) for name, word in edge.signs)]


def _shows(head: Head, name: str, word: str) -> bool:
    return head.has(name) and word in head.get(name).lower()


def mend_buffering(head: Head) -> str:
    """What to change where a buffer holds a stream back."""
    return "; ".join(edge.buffering for edge in edges_in(head)) or ANY_BUFFERING


def mend_compression(head: Head) -> str:
    """What to change where a stream is compressed."""
    return "; ".join(edge.compression for edge in edges_in(head)) or ANY_COMPRESSION


def mend_idle(head: Head) -> str:
    """What to change where silence ends a stream."""
    return "; ".join(edge.idle for edge in edges_in(head)) or ANY_IDLE


def mend_total(head: Head) -> str:
    """What to change where a stream ends in full flow."""
    return "; ".join(edge.total for edge in edges_in(head) if edge.total) or ANY_TOTAL
