"""A route that spends a credential of ours, and the attacks on it that must fail.

The attacker is a web page that somebody opens on the machine, or in the network, where the sidecar
listens. It cannot read our key, but it could have the sidecar use it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import StartOrigin, StartSidecar
from tests.support.client import ask, send
from tests.support.origin import PATIENCE, Connection, reply, response

KEY = "sk-ours-and-secret"
CHAT = "/v1/chat/completions"
PAGE = "https://app.example"
US = {"Host": "localhost:8080"}


def spending(url: str, **settings: Any) -> dict[str, Any]:
    """Settings of a sidecar whose upstream gets our key."""
    return {
        "upstreams": {"origin": {"url": url, "set_headers": {"Authorization": f"Bearer {KEY}"}}},
        **settings,
    }


async def streaming(connection: Connection) -> None:
    """Answer with a stream that goes on."""
    await connection.start_stream(b"Set-Cookie: theirs=1\r\n")
    await connection.chunk(b'data: {"choices":[{"delta":{"content":"words"}}]}\n\n')
    await connection.gone()


# What a page can make a browser send

FOREIGN = {
    "a form's POST": {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    "a fetch without CORS": {"Origin": "http://evil.example"},
    "a sandboxed frame": {"Origin": "null"},
    "a file": {"Origin": "file://"},
    "another port of this machine": {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    "an image, without Origin": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a rebound name": {"Host": "rebound.evil.example:8080", "Sec-Fetch-Site": "same-origin"},
    "a rebound name with its Origin": {
        "Host": "rebound.evil.example:8080",
        "Origin": "http://rebound.evil.example:8080",
    },
    "a name that means this machine to everybody": {"Host": "127.0.0.1.nip.io:8080"},
}


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_foreign_page_cannot_spend_the_key(
    method: str, attack: dict[str, str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It is refused before anything goes upstream, in words that it cannot read."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar("", **spending(origin.url, origins=[PAGE]))
    headers = {**US, "Content-Type": "text/plain", **attack}
    answer = await ask(sidecar.url, CHAT, method=method, headers=headers, body=b'{"stream":true}')
    assert answer.status == 403
    assert answer.header("access-control-allow-origin") is None
    assert "message" in (await answer.json())["error"]  # the form in which the provider's SDK raises
    assert not origin.requests


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
async def test_a_route_without_a_key_leaves_its_pages_to_the_app(
    attack: dict[str, str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An app behind a plain route knows its own pages; what it needs for that reaches it."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    headers = {**US, **attack, "Cookie": "session=1", "Referer": "http://evil.example/"}
    answer = await ask(sidecar.url, method="POST", headers=headers, body=b"x")
    assert answer.status == 200
    request = origin.requests[0]
    assert (request.header("origin"), request.header("cookie")) == (attack.get("Origin"), "session=1")
    assert request.header("referer") == "http://evil.example/"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_the_key_is_not_read_by_an_echo(
    method: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: TRACE, which a server answers with the request as it came, key and all."""
    origin = await start_origin(reply(response(body=KEY.encode())))
    sidecar = await start_sidecar("", **spending(origin.url))
    answer = await ask(sidecar.url, CHAT, method=method, headers=US)
    assert answer.status == 405
    assert KEY.encode() not in await answer.body()
    assert not origin.requests


# What the provider learns

PRIVATE = {
    "Cookie": "session=1",
    "authorization": "Bearer the-callers-own",
    "X-Api-Key": "the-callers-own",
    "Api-Key": "the-callers-own",
    "X-Goog-Api-Key": "the-callers-own",
    "Proxy-Authorization": "Basic x",
    "Origin": PAGE,
    "Referer": f"{PAGE}/patients/7",
    "Forwarded": "for=192.0.2.7",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Host": "intern.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Client-Cert": "Subject=me",
    "X-Real-IP": "192.0.2.7",
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "cors",
}


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
async def test_nothing_of_the_caller_reaches_the_provider(
    trusted: list[str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Neither cookie nor credential, neither page nor address: not even from a trusted peer."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar("", **spending(origin.url, origins=[PAGE], trusted_peers=trusted))
    headers = {**US, **PRIVATE, "Content-Type": "application/json", "User-Agent": "sdk/1"}
    answer = await ask(sidecar.url, CHAT, method="POST", headers=headers, body=b"{}")
    assert answer.status == 200
    request = origin.requests[0]
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.headers.keys() == {
        *("host", "authorization", "accept-encoding", "content-type", "content-length", "user-agent"),
    }


@pytest.mark.parametrize("nominated", ["authorization", "Authorization, close"])
async def test_the_key_cannot_be_nominated_away(
    nominated: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: name our own field in Connection, to learn what the provider says without it."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar("", **spending(origin.url))
    await ask(sidecar.url, CHAT, headers={**US, "Connection": nominated, "Authorization": "Bearer mine"})
    assert origin.requests[0].header("authorization") == f"Bearer {KEY}"


async def test_the_key_stands_in_no_answer(
    start_sidecar: StartSidecar, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failure tells where it failed, not with what."""
    sidecar = await start_sidecar("", **spending("http://127.0.0.1:1"))
    answer = await ask(sidecar.url, "/other", headers=US)
    assert answer.status == 502
    assert KEY not in (await answer.body()).decode() + "".join(capfd.readouterr())


# What the provider cannot do to the browser

RETURNED = ("Set-Cookie: theirs=1", "Set-Cookie: more=2", 'Alt-Svc: h3="evil.example:443"',
            "Strict-Transport-Security: max-age=31536000; includeSubDomains")  # fmt: skip


def returned(names: list[str]) -> set[str]:
    """Those of RETURNED that are among the names of fields."""
    return {line.partition(":")[0].lower() for line in RETURNED} & {name.lower() for name in names}


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_the_provider_sets_nothing_for_our_name(
    content_type: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A cookie of theirs would be sent to us, their Alt-Svc would move our name, their HSTS break it."""
    answered = response(f"Content-Type: {content_type}", *RETURNED, body=b"data: {}\n\n")
    origin = await start_origin(reply(answered))
    sidecar = await start_sidecar("", **spending(origin.url))
    answer = await ask(sidecar.url, CHAT, headers=US)
    assert answer.status == 200
    assert not returned([name for name, _ in answer.raw_headers])
    resumed = await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}", headers=US)
    assert resumed.status == (200 if "event" in content_type else 404)
    assert not returned([name for name, _ in resumed.raw_headers])


async def test_an_apps_own_fields_return(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Behind a route without a key they are the app's, for its own name."""
    origin = await start_origin(reply(response(*RETURNED)))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert returned([name for name, _ in answer.raw_headers]) == {
        *("set-cookie", "alt-svc", "strict-transport-security"),
    }
    assert answer.headers("set-cookie") == ["theirs=1", "more=2"]


async def test_early_hints_set_nothing_either(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A 103 is a response too."""
    hints = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n" + "".join(f"{line}\r\n" for line in RETURNED).encode()
    )
    origin = await start_origin(reply(hints + b"\r\n" + response(body=b"ok")))
    sidecar = await start_sidecar("", **spending(origin.url))
    reader, _ = await send(sidecar.url, b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


# Streams by their id


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
async def test_a_foreign_page_cannot_use_a_stream_of_such_a_route(
    attack: dict[str, str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``/_streams/`` is guarded as the route is: no reading, no state, no cancel, though it knew the id."""
    origin = await start_origin(streaming)
    sidecar = await start_sidecar("", **spending(origin.url, origins=[PAGE]))
    first = await ask(sidecar.url, CHAT, method="POST", headers=US, body=b"{}")
    path = f"/_streams/{first.header('stream-id')}"
    for method, target in [
        ("GET", path),
        ("GET", f"{path}/state"),
        ("POST", f"{path}/cancel"),
        ("DELETE", path),
    ]:
        answer = await ask(sidecar.url, target, method=method, headers={**US, **attack})
        assert answer.status == 403
        assert answer.header("access-control-allow-origin") is None
        assert b"words" not in await answer.body()
    (relay,) = sidecar.hub.running
    assert not relay.finished


# Who may


async def test_a_listed_page_may(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Its preflight is answered here, its request goes upstream, and it can read and resume the stream."""
    origin = await start_origin(streaming)
    sidecar = await start_sidecar("", **spending(origin.url, origins=[PAGE]))
    page = {**US, "Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    asking = {
        **page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    preflight = await ask(sidecar.url, CHAT, method="OPTIONS", headers=asking)
    assert (preflight.status, preflight.header("access-control-allow-origin")) == (204, PAGE)
    assert preflight.header("access-control-allow-headers") == "content-type"
    assert not origin.requests
    answer = await ask(sidecar.url, CHAT, method="POST", headers=page, body=b"{}")
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, PAGE)
    path = f"/_streams/{answer.header('stream-id')}"
    preflight = await ask(
        sidecar.url, path, method="OPTIONS", headers={**asking, "Access-Control-Request-Method": "GET"}
    )
    assert (preflight.status, preflight.header("access-control-allow-origin")) == (204, PAGE)
    resumed = await ask(sidecar.url, path, headers=page)
    assert (resumed.status, resumed.header("access-control-allow-origin")) == (200, PAGE)


@pytest.mark.parametrize("target", [CHAT, "/_streams/ID"])
async def test_a_foreign_pages_preflight_is_refused_here(
    target: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The provider, which may allow every origin, is not asked what it thinks of the page."""
    origin = await start_origin(streaming)
    sidecar = await start_sidecar("", **spending(origin.url, origins=[PAGE]))
    stream = await ask(sidecar.url, CHAT, method="POST", headers=US, body=b"{}")
    asking = {**US, "Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    target = target.replace("ID", stream.header("stream-id") or "")
    answer = await ask(sidecar.url, target, method="OPTIONS", headers=asking)
    assert answer.status == 403
    assert answer.header("access-control-allow-origin") is None
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "127.0.0.1:8080"},
        {"Host": "[::1]:8080"},
        {"Host": "sidecar.default.svc"},
        {"Host": "ai.example"},
        {"Host": "ai.example", "Origin": "https://ai.example"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_programs_and_our_own_pages_may(
    headers: dict[str, str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An SDK, a page of the sidecar's own name, and the names that are listed."""
    origin = await start_origin(reply())
    names = ["localhost", "127.0.0.1", "::1", "*.svc", "ai.example"]
    sidecar = await start_sidecar("", **spending(origin.url, hosts=names))
    assert (await ask(sidecar.url, CHAT, headers={**US, **headers})).status == 200


async def test_the_operator_has_the_last_word_on_what_a_credential_is(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``credentials: false`` frees a header that only looks like one, ``true`` guards one that does not."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(
        "",
        upstreams={
            "free": {"url": origin.url, "set_headers": {"X-Auth-Mode": "none"}, "credentials": False},
            "guarded": {"url": origin.url, "set_headers": {"X-Tenant": "7"}, "credentials": True},
        },
        routes=[
            {"name": "free", "path": "/free", "upstream": "free"},
            {"name": "guarded", "path": "/guarded", "upstream": "guarded"},
        ],
    )
    evil = {**US, "Origin": "http://evil.example"}
    assert (await ask(sidecar.url, "/free", headers=evil)).status == 200
    assert (await ask(sidecar.url, "/guarded", headers=evil)).status == 403
