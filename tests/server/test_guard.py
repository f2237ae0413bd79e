"""Who may use a route: paths that mislead, hosts that are not ours, pages of others."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11
from aiohttp.test_utils import make_mocked_request

from proxy.errors import BadPath, BadRequest, Refused, VersionNotSupported
from proxy.server import guard
from tests.conftest import config_for


def check_caller(headers: dict[str, str], *, credentials: bool = True, **top: Any) -> None:
    """Ask whether a request with these headers may use the route of a configuration."""
    config = config_for("http://127.0.0.1:1", **top)
    request = make_mocked_request("POST", "/", headers=headers)
    guard.check_caller(request, config, config.routes[0], credentials=credentials)


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/./admin",
        "/..",
        "/.",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/.%2e/admin",
        "/v1/%2e/admin",
        "/v1/..%2fadmin",
        "/v1%2f..%2fadmin",
        "/v1%2f%2e%2e%2fadmin",
        "/v1/..\\admin",
        "/v1\\..\\admin",
        "/v1/..%5cadmin",
        "/v1%5c%2e%2e%5cadmin",
        "/v1/..;/admin",
        "/v1/..;a=b/admin",
        "/v1/..%3b/admin",
        "/v1/%2e%2e%3bx/admin",
        "/v1/.;/admin",
        "/v1/..",
        "/v1/%2e",
    ],
)
def test_dot_segments_are_refused_in_every_spelling(path: str) -> None:
    """The attack: a path that matches one route here and becomes another one's at the upstream."""
    with pytest.raises(BadPath):
        guard.check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/...",
        "/v1/..a",
        "/a..b/.c",
        "/.well-known/x",
        "/a.b",
        "/%20",
        "/%252e%252e/x",
        "/..%c0%af",
        "/;..",
        "/%",
    ],
)
def test_other_dots_pass(path: str) -> None:
    """A dot is not a dot segment; what is encoded twice is a name to everybody who decodes once."""
    guard.check_path(path)


# Messages


@pytest.mark.parametrize(
    "host",
    [
        "x",
        "example.com:8080",
        "[::1]:80",
        "127.0.0.1",
        "my_host",
        "xn--bcher-kva.example",
        "",
        "x:",
        "[::ffff:1.2.3.4]",
    ],
)
def test_a_host_and_a_port_make_a_host_field(host: str) -> None:
    """RFC 9110 §7.2: uri-host, and perhaps a port."""
    guard.check_message(make_mocked_request("GET", "/", headers={"Host": host}))


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "a/b",
        "user@host",
        "a?b",
        "a#b",
        "a\\b",
        "[::1",
        "::1",
        "a:b",
        "a:80:80",
        "é",
        "a\tb",
        '"a"',
    ],
)
def test_anything_else_is_no_host_field(host: str) -> None:
    """The attack: a value that a guard, a cache and an upstream read as three different hosts."""
    with pytest.raises(BadRequest):
        guard.check_message(make_mocked_request("GET", "/", headers={"Host": host}))


def test_two_hosts_are_none() -> None:
    """RFC 9112 §3.2: more than one Host line is answered 400."""
    with pytest.raises(BadRequest):
        guard.check_message(make_mocked_request("GET", "/", headers=[("Host", "a"), ("Host", "a")]))


def test_chunks_are_not_for_http_1_0() -> None:
    """RFC 9112 §6.1: such a message's framing is faulty; an older peer would read its length otherwise."""
    headers = {"Host": "x", "Transfer-Encoding": "chunked"}
    guard.check_message(make_mocked_request("POST", "/", headers=headers, version=HttpVersion11))
    with pytest.raises(BadRequest):
        guard.check_message(make_mocked_request("POST", "/", headers=headers, version=HttpVersion10))


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "identity"])
def test_chunks_are_the_only_transfer_coding(coding: str) -> None:
    """Another one would be undone by nobody, and announced to nobody."""
    with pytest.raises(BadRequest):
        guard.check_message(make_mocked_request("POST", "/", headers={"Transfer-Encoding": coding}))


@pytest.mark.parametrize(
    "version", [HttpVersion(0, 9), HttpVersion(1, 2), HttpVersion(2, 0), HttpVersion(3, 0)]
)
def test_other_versions_are_not_spoken(version: HttpVersion) -> None:
    """What calls itself HTTP/2.0 in HTTP/1's syntax would be answered in a syntax that it does not read."""
    with pytest.raises(VersionNotSupported):
        guard.check_message(make_mocked_request("GET", "/", headers={"Host": "x"}, version=version))


# Hosts


@pytest.mark.parametrize(
    ("hosts", "host", "ours"),
    [
        (["api.example"], "api.example", True),
        (["api.example"], "API.example:8443", True),
        (["api.example"], "api.example.", True),
        (["api.example"], "evil.example", False),
        (["api.example"], "api.example.evil", False),
        (["api.example"], "x.api.example", False),
        (["api.example"], "", False),
        (["*.example.com"], "a.example.com", True),
        (["*.example.com"], "a.b.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "badexample.com", False),
        (["::1"], "[::1]:8080", True),
        (["127.0.0.1"], "localhost", False),
    ],
)
@pytest.mark.parametrize("credentials", [True, False])
def test_hosts_that_are_ours(credentials: bool, hosts: list[str], host: str, ours: bool) -> None:
    """Where ``hosts`` are named no other host is answered, whatever the route; the port does not matter."""
    if ours:
        check_caller({"Host": host}, credentials=credentials, hosts=hosts)
        return
    with pytest.raises(Refused):
        check_caller({"Host": host}, credentials=credentials, hosts=hosts)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "127.0.0.1:8080",
        "[::1]",
        "app.localhost",
        "sidecar",
        "x.svc",
        "a.internal",
    ],
)
def test_names_that_nobody_outside_can_point_here_need_no_list(host: str) -> None:
    """Without ``hosts`` a credential route answers to addresses and private names."""
    check_caller({"Host": host})


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "localtest.me:8080"]
)
def test_public_names_need_to_be_listed(host: str) -> None:
    """The attack: DNS rebinding. A page's own name resolves to 127.0.0.1, and is same-origin with itself."""
    with pytest.raises(Refused):
        check_caller({"Host": host, "Origin": f"http://{host}"})
    check_caller({"Host": host}, credentials=False)


def test_a_routes_hosts_replace_the_top_level_ones() -> None:
    """The route's list counts, not both."""
    settings: dict[str, Any] = {"hosts": ["a.example"], "route": {"hosts": ["b.example"]}}
    check_caller({"Host": "b.example"}, **settings)
    with pytest.raises(Refused):
        check_caller({"Host": "a.example"}, **settings)


# Pages

OURS = {"Host": "localhost:8080"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:8080"},
        {"Origin": "http://LOCALHOST:8080"},
        {"Origin": "https://app.example"},
        {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_our_own_pages_and_allowed_ones_may(headers: dict[str, str]) -> None:
    """No browser, the sidecar's own origin, a listed origin, or an address typed in."""
    check_caller(OURS | headers, origins=["https://app.example"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost"},
        {"Origin": "https://app.example.evil"},
        {"Origin": "http://app.example"},
        {"Origin": "https://app.example:8443"},
        {"Origin": "file://"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null", "Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_others_may_not(headers: dict[str, str]) -> None:
    """A foreign Origin, an opaque one, another port of this machine, or a cross-site request without one."""
    with pytest.raises(Refused):
        check_caller(OURS | headers, origins=["https://app.example"])
    check_caller(OURS | headers, credentials=False)
