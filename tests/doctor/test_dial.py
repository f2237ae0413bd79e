"""Requests and connections, step by step."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from proxy.doctor.dial import Dialer, NoAnswer, NoTLS, Request, Unreachable, proxy_for
from proxy.doctor.evidence import Ending
from tests.conftest import StartOrigin
from tests.doctor.seen import head
from tests.support.origin import Connection, reply, response
from tests.support.process import free_port
from tests.support.script import answers, streams


async def test_a_request_is_sent_as_it_is_and_its_answer_read(start_origin: StartOrigin) -> None:
    """Method, target, fields, body; then the head, the body, and how it ended."""
    origin = await start_origin(streams(b"data: 1\n\n"))
    request = Request(URL(f"{origin.url}/a%2Fb?x=%20y"), "POST", (("X-Own", "é"),), b"body")
    exchange = await Dialer().send(request)
    answer = await exchange.head(5.0)
    assert (answer.status, await exchange.read(), await exchange.read()) == (200, b"data: 1\n\n", b"")
    assert exchange.ending is Ending.WHOLE
    exchange.drop()
    seen = await origin.request()
    assert (seen.method, seen.target, seen.body) == ("POST", "/a%2Fb?x=%20y", b"body")
    assert seen.header("host") == f"127.0.0.1:{origin.port}"
    assert exchange.connection.address == "127.0.0.1"
    assert exchange.asked <= exchange.headed


async def test_a_peer_that_hangs_up_has_not_answered(start_origin: StartOrigin) -> None:
    """And one that says nothing has not either, but may still."""
    hangs_up = await start_origin(reply(b"", close=True))
    exchange = await Dialer().send(Request(URL(hangs_up.url)))
    with pytest.raises(NoAnswer) as failure:
        await exchange.head(5.0)
    assert not failure.value.patient
    exchange.drop()

    async def silent(connection: Connection) -> None:
        await connection.gone()

    exchange = await Dialer().send(Request(URL((await start_origin(silent)).url)))
    with pytest.raises(NoAnswer) as failure:
        await exchange.head(0.05)
    assert failure.value.patient
    exchange.drop()


async def test_nobody_there_is_told_with_the_step_that_failed() -> None:
    """Name, or port; in the system's words."""
    port = free_port()
    with pytest.raises(Unreachable, match=rf"^127\.0\.0\.1:{port}: Connection refused$"):
        await Dialer().send(Request(URL(f"http://127.0.0.1:{port}/")))
    with pytest.raises(Unreachable, match=r"^nowhere\.invalid: \w+"):
        await Dialer().send(Request(URL("http://nowhere.invalid/")))


async def test_a_port_without_tls_is_told_by_its_handshake() -> None:
    """Without a line number of Python's own source."""
    async with TestServer(web.Application()) as app:
        with pytest.raises(NoTLS, match=r"^TLS: [\w ]+$"):
            await Dialer().send(Request(URL(f"https://localhost:{app.port}/")))


async def test_a_coded_error_is_read_all_the_same(start_origin: StartOrigin) -> None:
    """An edge may compress JSON."""
    body = gzip.compress(b'{"type":"x"}')
    origin = await start_origin(answers(b"404 Not Found\r\nContent-Encoding: gzip", body))
    exchange = await Dialer().send(Request(URL(origin.url)))
    await exchange.head(5.0)
    assert await exchange.whole(5.0, 1000) == b'{"type":"x"}'
    exchange.drop()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Whoever signs the test's certificates."""
    return trustme.CA()


@pytest.fixture
def cacert(authority: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate, as a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def secured(authority: trustme.CA, *protocols: str) -> ssl.SSLContext:
    """A server's TLS that chooses among these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(list(protocols))
    return context


@pytest.mark.parametrize(
    ("protocols", "http2"), [(("h2", "http/1.1"), True), (("http/1.1",), False), ((), False)]
)
async def test_tls_is_timed_and_http2_asked_for_by_alpn(
    authority: trustme.CA, cacert: Path, protocols: tuple[str, ...], http2: bool
) -> None:
    """The stream itself goes over HTTP/1.1, where its framing can be seen."""
    app = TestServer(web.Application(), scheme="https")
    await app.start_server(ssl=secured(authority, *protocols))
    try:
        url = URL(f"https://localhost:{app.port}/")
        dialer = Dialer(cacert=cacert)
        assert await dialer.offers_http2(url) is http2
        exchange = await dialer.send(Request(url))
        assert (await exchange.head(5.0)).status == 404
        assert exchange.connection.tls.startswith("TLSv1")
        assert exchange.connection.handshake is not None
        exchange.drop()
        with pytest.raises(Unreachable, match="TLS: "):
            await Dialer().send(Request(url))
        exchange = await Dialer(insecure=True).send(Request(url))
        exchange.drop()
    finally:
        await app.close()


async def test_there_is_no_alpn_without_tls() -> None:
    """Nothing to ask."""
    assert await Dialer().offers_http2(URL("http://127.0.0.1:1/")) is None


# forward proxies


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the environment name a proxy for http and https."""

    def name(proxy: str) -> None:
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, proxy)
        monkeypatch.setenv("no_proxy", "direct.example")

    return name


async def test_a_forward_proxy_gets_the_whole_address(
    start_origin: StartOrigin, through: Callable[[str], None]
) -> None:
    """RFC 9112 §3.2.2; and the report names the proxy."""
    proxy = await start_origin(reply(response(body=b"ok")))
    through(proxy.url)
    exchange = await Dialer().send(Request(URL("http://far.example/stream?x=1")))
    assert (await exchange.head(5.0)).status == 200
    exchange.drop()
    assert (await proxy.request()).target == "http://far.example/stream?x=1"
    assert exchange.connection.proxy == f"127.0.0.1:{proxy.port}"
    assert proxy_for(URL("http://direct.example/")) is None


async def test_a_proxy_that_refuses_a_tunnel_is_told(
    start_origin: StartOrigin, through: Callable[[str], None]
) -> None:
    """With its status; the credentials in its address go to it alone."""
    proxy = await start_origin(answers(b"407 Proxy Authentication Required"))
    through(f"http://me:secret@127.0.0.1:{proxy.port}")
    with pytest.raises(Unreachable, match="407") as failure:
        await Dialer().send(Request(URL("https://far.example/")))
    assert "secret" not in str(failure.value)
    asked = await proxy.request()
    assert (asked.method, asked.target) == ("CONNECT", "far.example:443")
    assert asked.header("proxy-authorization") == "Basic bWU6c2VjcmV0"


# requests that follow


def test_the_cookies_of_an_answer_come_along() -> None:
    """A balancer's stickiness may be one of them."""
    answer = head(("Set-Cookie", "AWSALB=x; Path=/"), ("Set-Cookie", "b=2"))
    request = Request(URL("http://e/"), fields=(("Cookie", "own=1"),)).remembering(answer)
    assert request.field("cookie") == "own=1; AWSALB=x; b=2"
    assert request.remembering(head()) is request


def test_another_request_of_the_same_caller_has_no_body() -> None:
    """Credentials go along, what described the body does not."""
    fields = (("Authorization", "x"), ("Content-Type", "a/b"), ("Accept", "c"), ("Idempotency-Key", "k"))
    first = Request(URL("http://e/"), "POST", fields, b"body")
    again = first.to(URL("http://e/_streams/x"), Last_Event_ID="x.3", Accept="text/event-stream")
    assert (again.method, again.body) == ("GET", None)
    assert dict(again.fields) == {
        "Authorization": "x",
        "Last-Event-ID": "x.3",
        "Accept": "text/event-stream",
    }
