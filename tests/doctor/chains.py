"""Chains of real servers, each broken in one way or in none, and what the doctor has to say of each.

Behind all of them is the demo's provider, which sends a small event every few hundredths of a second: what
comes otherwise, comes so by the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from tests.doctor.apps import numbered_with_pings, ticking
from tests.doctor.site import Site, location, server, servers
from tests.support.process import free_port


@dataclass(frozen=True, slots=True)
class Front:
    """Where a chain begins for its readers: a base URL, and what the doctor must be told to get there."""

    url: str
    options: tuple[str, ...] = ()


#: Builds the servers of a chain at a site.
Build = Callable[[Site], Awaitable[Front]]

PROMPT = '{"model":"demo","stream":true,"messages":[{"role":"user","content":"hello"}]}'

#: How a completion is asked for. Its route is a bridge, so that a WebSocket has to pass as well.
COMPLETION = ("-d", PROMPT, "--websocket", "--seconds", "2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One chain, and one request that shows what is wrong with it.

    ``wrong`` is empty for a good one. ``finds`` is the check that must find a fault, ``mend`` stands in its
    mend. ``follows`` are those that may see what follows from it; no other check may find anything.
    """

    name: str
    build: Build
    wrong: str = ""
    target: str = "/v1/chat/completions?endless=1&interval=0.04"
    asks: tuple[str, ...] = COMPLETION
    finds: str = ""
    mend: str = ""
    follows: tuple[str, ...] = ()


# ── broken in front of the sidecar ──────────────────────────────────────────────────────────────────────────

#: What nginx 1.22 does by itself. Over HTTP/1.0 no chunk tells it where an event ends, so that it fills
#: its buffers first. Over HTTP/1.1 it buffers as well, but passes on each chunk.
HOLDING = {"proxy_buffering": "on", "proxy_http_version": "1.0"}

#: For an nginx that holds streams, but not WebSockets: one fault is enough.
SOCKETS = "error_page 418 = @socket; if ($http_upgrade) { return 418; }"


async def buffering(site: Site) -> Front:
    """An nginx that is told not to listen to the sidecar."""
    sidecar = await site.sidecar()
    deaf = {**HOLDING, "proxy_ignore_headers": "X-Accel-Buffering"}
    return Front(await site.edge(sidecar, deaf, more=f"{SOCKETS} {location('@socket', sidecar)}"))


async def plain(site: Site) -> Front:
    """An nginx with the two lines that everybody writes first."""
    port, sidecar = free_port(), await site.sidecar()
    lines = f"location / {{ proxy_pass {sidecar}; proxy_ignore_headers X-Accel-Buffering; }}"
    await site.nginx(server(port, lines))
    return Front(f"http://127.0.0.1:{port}")


async def nested(site: Site) -> Front:
    """An nginx that does as X-Accel-Buffering says, and keeps it for itself: the one before it buffers."""
    inner = await site.edge(await site.sidecar())
    return Front(await site.edge(inner, HOLDING))


async def hoarding(site: Site) -> Front:
    """A Caddy that is told to have the whole answer before it sends its head."""
    return Front(await site.caddy(await site.sidecar(), proxying="buffer_responses"))


async def compressing(site: Site) -> Front:
    """An nginx that compresses whatever it can; no-transform does not keep it from that."""
    changes = {"gzip": "on", "gzip_types": "text/event-stream", "gzip_proxied": "any"}
    return Front(await site.edge(await site.sidecar(), changes))


async def impatient(site: Site) -> Front:
    """An nginx whose idle limit is below the heartbeat."""
    return Front(await site.edge(await site.sidecar(heartbeat="15s"), {"proxy_read_timeout": "1s"}))


async def stripping(site: Site) -> Front:
    """An nginx that keeps headers back which it does not know."""
    changes = {"proxy_hide_header Stream-Id": "", "proxy_hide_header Link": ""}
    return Front(await site.edge(await site.sidecar(), changes))


#: What is kept: a GET that ends.
CACHED = "/api/chat?prompt=hello&tokens=15&interval=0.1"


async def scattering(site: Site) -> Front:
    """Two sidecars in turn, whichever of them holds the stream."""
    port = free_port()
    sidecars = [(await site.sidecar()).removeprefix("http://") for _ in range(2)]
    pool = f"upstream sidecars {{ {servers(*sidecars)} }}"
    await site.nginx(f"{pool} {server(port, location('/', 'http://sidecars'))}")
    return Front(f"http://127.0.0.1:{port}")


async def fenced(site: Site) -> Front:
    """An nginx that knows the API, and nothing else."""
    port = free_port()
    only = location("/v1/", await site.sidecar())
    await site.nginx(server(port, only, "location / { return 404; }"))
    return Front(f"http://127.0.0.1:{port}")


async def paging(site: Site) -> Front:
    """An nginx that knows the API, and answers anything else with a single-page app."""
    port = free_port()
    page = "location / { default_type text/html; return 200 '<!doctype html><title>App</title>'; }"
    await site.nginx(server(port, location("/v1/", await site.sidecar()), page))
    return Front(f"http://127.0.0.1:{port}")


async def hurried(site: Site) -> Front:
    """A Caddy with a limit on whole answers."""
    limit = "servers {\n timeouts {\n write 1500ms\n }\n }"
    return Front(await site.caddy(await site.sidecar(), options=limit))


async def caching(site: Site) -> Front:
    """An nginx that keeps a stream and gives it to the next reader; somebody has read it before."""
    port, keep = (
        free_port(),
        {"proxy_cache": "streams", "proxy_cache_valid": "200 1m", "proxy_buffering": "on"},
    )
    deaf = {"proxy_ignore_headers": "Cache-Control X-Accel-Buffering"}
    cached = location("/", await site.sidecar(), keep | deaf)
    await site.nginx(f"proxy_cache_path cache keys_zone=streams:1m; {server(port, cached)}")
    front = Front(f"http://127.0.0.1:{port}")
    async with ClientSession() as session, session.get(front.url + CACHED) as answer:
        await answer.read()
    return front


async def one_way(site: Site) -> Front:
    """An nginx that does not hand on an Upgrade: HTTP/1.0 to the sidecar, as by default."""
    changes = {
        "proxy_http_version": "1.0",
        "proxy_set_header Upgrade": '""',
        "proxy_set_header Connection": "close",
    }
    return Front(await site.edge(await site.sidecar(), changes))


async def forgetful(site: Site) -> Front:
    """An nginx that does not hand on where the reader was."""
    return Front(await site.edge(await site.sidecar(), {"proxy_set_header Last-Event-ID": '""'}))


# ── broken without a sidecar ────────────────────────────────────────────────────────────────────────────────


async def held_app(site: Site) -> Front:
    """An app behind an nginx as it comes; the origin can be asked as well."""
    return Front(await site.edge(site.provider, HOLDING), ("--direct", site.provider))


async def held_clock(site: Site) -> Front:
    """An app behind an nginx as it comes, whose events say when they were made."""
    return Front(await site.edge(await site.app(ticking), {"proxy_buffering": "on"}))


async def tutorial(site: Site) -> Front:
    """An app with ids, and with the heartbeat that most tutorials show."""
    return Front(await site.app(numbered_with_pings))


BROKEN = (
    Chain(
        name="nginx, one second of a stream",
        wrong="`proxy_pass`, `proxy_ignore_headers X-Accel-Buffering`, and all else as it comes",
        build=plain,
        target="/v1/chat/completions",
        asks=("-d", PROMPT),
        finds="buffering",
        mend="proxy_buffering off",
    ),
    Chain(
        name="nginx, a stream without an end",
        wrong="the same, but WebSockets pass",
        build=buffering,
        finds="buffering",
        mend="proxy_buffering off",
    ),
    Chain(
        name="nginx in front of nginx",
        wrong="the inner one consumes `X-Accel-Buffering`, the outer one buffers",
        build=nested,
        finds="buffering",
        mend="proxy_pass_header X-Accel-Buffering",
    ),
    Chain(
        name="a gateway that collects",
        wrong="Caddy with `buffer_responses`: nothing is sent before the whole answer is there",
        build=hoarding,
        target="/v1/chat/completions?tokens=60&interval=0.04",
        finds="buffering",
        mend="buffer_responses",
    ),
    Chain(
        name="nginx compresses",
        wrong="`gzip on`, `gzip_types text/event-stream`",
        build=compressing,
        finds="compression",
        mend="gzip off",
    ),
    Chain(
        name="a limit of a second",
        wrong="`proxy_read_timeout 1s`, and a model that pauses",
        build=impatient,
        target="/v1/chat/completions?tokens=40&pause_at=9&pause=3",
        finds="idle",
        mend="proxy_read_timeout",
        follows=("end",),
    ),
    Chain(
        name="nginx hides headers",
        wrong="`proxy_hide_header Stream-Id`, `proxy_hide_header Link`",
        build=stripping,
        finds="headers",
        mend="proxy_hide_header",
    ),
    Chain(
        name="two sidecars in turn",
        wrong="round robin, and no map of nodes: a resume comes to the other sidecar",
        build=scattering,
        finds="resume",
        mend="node",
        follows=("cancel",),
    ),
    Chain(
        name="only the API is routed",
        wrong="`location /v1/`, and 404 for `/_streams/`",
        build=fenced,
        finds="resume",
        mend="/_streams/",
        follows=("cancel",),
    ),
    Chain(
        name="the API is routed, and a page",
        wrong="as above, but what is not the API is answered by a single-page app, with 200",
        build=paging,
        finds="resume",
        mend="/_streams/",
        follows=("cancel",),
    ),
    Chain(
        name="a limit on whole answers",
        wrong="Caddy with `write 1500ms` in `timeouts`; Envoy has 15 s by default",
        build=hurried,
        finds="end",
        mend="write",
    ),
    Chain(
        name="nginx keeps streams",
        wrong="`proxy_cache`, `proxy_ignore_headers Cache-Control`",
        build=caching,
        target=CACHED,
        asks=(),
        finds="headers",
        mend="proxy_cache off",
    ),
    Chain(
        name="no Upgrade",
        wrong="HTTP/1.0 to the sidecar, `Upgrade` is not handed on",
        build=one_way,
        finds="websocket",
        mend="proxy_set_header Upgrade",
    ),
    Chain(
        name="Last-Event-ID is lost",
        wrong='`proxy_set_header Last-Event-ID ""`',
        build=forgetful,
        finds="resume",
        mend="Last-Event-ID",
    ),
    Chain(
        name="an app behind nginx, and its origin",
        wrong="buffering as nginx has it by default; no sidecar, no ids; `--direct` tells",
        build=held_app,
        target="/api/chat?prompt=hello&endless=1&interval=0.02&size=250",
        asks=("--seconds", "2"),
        finds="buffering",
        mend="proxy_buffering off",
    ),
    Chain(
        name="an app behind nginx, with times",
        wrong="buffering as nginx has it by default; no sidecar; the events' own times tell",
        build=held_clock,
        target="/ticks",
        asks=("--seconds", "2"),
        finds="buffering",
        mend="proxy_buffering off",
    ),
    Chain(
        name="an app with a tutorial's heartbeat",
        wrong="ids, and `: ping` with an empty line",
        build=tutorial,
        target="/v1/chat/completions",
        asks=("-d", PROMPT, "--seconds", "2"),
        finds="heartbeats",
        mend="one line end",
    ),
)


# ── good ────────────────────────────────────────────────────────────────────────────────────────────────────


async def direct(site: Site) -> Front:
    """The sidecar, and nothing in front of it."""
    return Front(await site.sidecar())


async def lumpy(site: Site) -> Front:
    """A provider that is reached through an nginx that buffers: the sidecar gets lumps."""
    return Front(await site.sidecar(await site.edge(site.provider, HOLDING)))


async def narrow(site: Site) -> Front:
    """A sidecar at the end of a slow line: what is on its way is not held back."""
    return Front(await site.line(await site.sidecar(), rate=1e6))


async def departing(site: Site) -> Front:
    """A sidecar that is told to cancel a stream as soon as nobody reads it."""
    return Front(await site.sidecar(linger="0s"))


async def asking(site: Site) -> Front:
    """An nginx that asks somebody else first whether one may come in, and waits for a second."""
    sidecar = await site.sidecar()
    somebody = (
        f"location = /auth {{ internal; proxy_pass {site.provider}/api/hello; proxy_pass_request_body off;"
        ' proxy_set_header Content-Length ""; proxy_set_header X-Misbehave headers_delay=1.2; }'
    )
    first = location("/v1/", sidecar, {"auth_request": "/auth"})
    return Front(await site.edge(sidecar, more=f"{somebody} {first}"))


async def template(site: Site) -> Front:
    """The shipped template, with two sidecars that it tells apart."""
    url, authority = await site.shipped_template()
    return Front(url, ("--cacert", authority))


async def include(site: Site) -> Front:
    """The shipped include, in a server block that was there before."""
    return Front(await site.shipped_include())


def shipped(name: str) -> Build:
    """Return what builds a chain with the file that is shipped for another edge than nginx."""

    async def build(site: Site) -> Front:
        url, authority = await site.shipped(name)
        return Front(url, ("--cacert", authority))

    return build


#: The one route of the shipped sidecar.yaml that is a bridge.
CHAT = "/api/chat?endless=1&interval=0.04"
CHATTING = ("-d", '{"prompt":"hello"}', "--websocket", "--seconds", "2")

GOOD = (
    Chain(name="the sidecar alone", build=direct),
    Chain(name="`nginx/default.conf.template`, TLS, two sidecars", build=template),
    Chain(name="`nginx/sse-sidecar.conf` in a server block", build=include),
    Chain(
        name="`nginx/haproxy.cfg`, TLS, two sidecars", build=shipped("haproxy"), target=CHAT, asks=CHATTING
    ),
    Chain(name="`nginx/Caddyfile`, TLS, two sidecars", build=shipped("caddy"), target=CHAT, asks=CHATTING),
    Chain(
        name="a line of a megabyte a second",
        build=narrow,
        target="/v1/chat/completions?tokens=10&size=262144&interval=0.02",
    ),
    Chain(name="the sidecar alone, an nginx that buffers behind it", build=lumpy),
    Chain(name="`linger: 0s`", build=departing),
    Chain(name="an edge that takes a second to let one in", build=asking),
    Chain(
        name="the template, asked with `--openai`", build=template, target="/v1", asks=("--openai", "demo")
    ),
)


def sender(name: str, target: str, *asks: str, **more: Any) -> Chain:
    """Return a good chain, the shipped template, in which only the sender is unusual."""
    return Chain(name=name, build=template, target=target, asks=asks, **more)


#: Senders at which a careless doctor would cry wolf, behind the template.
SENDERS = (
    sender(
        "a sender of ten events at once",
        "/v1/chat/completions?tokens=60&burst=10&interval=0.4",
        *COMPLETION,
    ),
    sender("a model that thinks for 2.5 s", "/v1/chat/completions?tokens=10&first_delay=2.5", *COMPLETION),
    sender(
        "a model that pauses for 2.5 s, `--idle 2`",
        "/v1/chat/completions?tokens=20&pause_at=9&pause=2.5",
        *COMPLETION,
        "--idle",
        "2",
    ),
    sender("a stream of one event", "/api/chat?tokens=0", "-d", '{"prompt":"hello"}'),
    sender(
        "as many events as go through",
        "/v1/chat/completions?endless=1&interval=0",
        *("-d", PROMPT, "--websocket", "--seconds", "1"),
    ),
    sender(
        "events of a mebibyte",
        "/api/chat?tokens=12&size=1048576&interval=0.05",
        *("-d", '{"prompt":"hello"}'),
    ),
    sender(
        "Gemini's dialect",
        "/v1beta/models/demo:streamGenerateContent?alt=sse&interval=0.04&pause_at=9&pause=1.5",
        *("-d", '{"contents":[{"parts":[{"text":"hello"}]}]}'),
    ),
    sender(
        "Anthropic's dialect",
        "/v1/messages?interval=0.03",
        *("-d", PROMPT.replace('"stream"', '"max_tokens":100,"stream"')),
    ),
    sender(
        "OpenAI's Responses",
        "/v1/responses?interval=0.03",
        *("-d", '{"model":"demo","stream":true,"input":"hello"}'),
    ),
    sender("an app's feed with its own ids", "/api/events?interval=0.1", "--seconds", "2"),
)
