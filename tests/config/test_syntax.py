"""What texts are accepted as: addresses, URLs, origins, hosts, paths, header fields."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiohttp.web_urldispatcher import DynamicResource, PlainResource
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.config import syntax

Check = Callable[[str], str]


@pytest.mark.parametrize(
    ("check", "text", "normalised"),
    [
        (syntax.listen, "127.0.0.1:8080", "127.0.0.1:8080"),
        (syntax.listen, "LocalHost:0", "localhost:0"),
        (syntax.listen, "[::1]:8080", "[::1]:8080"),
        (syntax.listen, "[0:0::1]:80", "[::1]:80"),
        (syntax.listen, "unix:/run/sidecar.sock", "unix:/run/sidecar.sock"),
        (syntax.trusted_peer, "10.0.0.0/8", "10.0.0.0/8"),
        (syntax.trusted_peer, "::1", "::1"),
        (syntax.trusted_peer, "unix", "unix"),
        (syntax.host, "Chat.Example.COM", "chat.example.com"),
        (syntax.host, "*.example.com", "*.example.com"),
        (syntax.host, "127.0.0.1", "127.0.0.1"),
        (syntax.host, "[0:0::1]", "::1"),
        (syntax.host, "fe80::1:2", "fe80::1:2"),
        (syntax.host, "my_container", "my_container"),
        (syntax.origin, "https://Example.com", "https://example.com"),
        (syntax.origin, "https://example.com:443", "https://example.com"),
        (syntax.origin, "http://localhost:5173", "http://localhost:5173"),
        (syntax.origin, "chrome-extension://abcdef", "chrome-extension://abcdef"),
        (syntax.upstream_url, "https://API.openai.com/", "https://api.openai.com"),
        (syntax.upstream_url, "HTTP://127.0.0.1:3000/v1/", "http://127.0.0.1:3000/v1"),
        (syntax.upstream_url, "http://[::1]:3000", "http://[::1]:3000"),
        (syntax.path_prefix, "", ""),
        (syntax.path_prefix, "/", ""),
        (syntax.path_prefix, "/app/v1/", "/app/v1"),
        (syntax.method, "patch", "PATCH"),
        (syntax.method, "VERSION-CONTROL", "VERSION-CONTROL"),
        (syntax.header_value, " Bearer x\ty ", "Bearer x\ty"),
        (syntax.route_path, "/", "/"),
        (syntax.route_path, "/v1/{tail:.*}", "/v1/{tail:.*}"),
        (syntax.route_path, "/items/{id:[0-9]{3}}/{name}.{ext}", "/items/{id:[0-9]{3}}/{name}.{ext}"),
        (syntax.route_path, "/_streamsfoo", "/_streamsfoo"),
    ],
)
def test_accepted(check: Check, text: str, normalised: str) -> None:
    """Good text is given back in its one normal form, which is accepted again."""
    assert check(text) == normalised
    assert check(normalised) == normalised


@pytest.mark.parametrize(
    ("check", "text", "what"),
    [
        (syntax.listen, "8080", "expected host:port"),
        (syntax.listen, ":8080", "expected host:port"),
        (syntax.listen, "localhost", "expected host:port"),
        (syntax.listen, "localhost:http", "expected a port from 0 to 65535"),
        (syntax.listen, "localhost:65536", "expected a port from 0 to 65535"),
        (syntax.listen, "::1:8080", "to stand in brackets"),
        (syntax.listen, "[::x]:8080", "expected an IPv6 address between the brackets"),
        (syntax.listen, "300.1.1.1:80", "expected four numbers from 0 to 255"),
        (syntax.listen, "unix:sidecar.sock", "expected an absolute path after `unix:`"),
        (syntax.listen, "unix:/" + "x" * 107, "at most 107 bytes"),
        (syntax.trusted_peer, "10.1.2.3/8", "expected an address, a network without host bits"),
        (syntax.trusted_peer, "localhost", "expected an address, a network without host bits"),
        (syntax.host, "example.com:443", "expected a host without a port"),
        (syntax.host, "[::1]:443", "expected a host without a port"),
        (syntax.host, "::x", "to stand in brackets"),
        (syntax.host, "example.com:", "expected a host without a port"),
        (syntax.host, "*", "expected a host name or an address"),
        (syntax.host, "a.*.com", "expected a host name or an address"),
        (syntax.host, "*.10.0.0.1", "expected a name after .*, not an address"),
        (syntax.host, "bücher.example", "ASCII form"),
        (syntax.origin, "*", "expected an origin, scheme://host"),
        (syntax.origin, "null", "expected an origin, scheme://host"),
        (syntax.origin, "example.com", "expected an origin, scheme://host"),
        (syntax.origin, "https://example.com/", "expected an origin without a path"),
        (syntax.origin, "https://example.com?x", "expected an origin without a path"),
        (syntax.origin, "https://u@example.com", "expected an origin, scheme://host"),
        (syntax.upstream_url, "api.openai.com", "expected http://host"),
        (syntax.upstream_url, "ftp://host", "expected http://host"),
        (syntax.upstream_url, "http://", "expected http://host"),
        (syntax.upstream_url, "http+unix:///run/app.sock", "expected http://host"),
        (syntax.upstream_url, "http://u:p@host", "without user name and password"),
        (syntax.upstream_url, "http://host/?key=1", "without query and fragment"),
        (syntax.upstream_url, "http://host/#x", "without query and fragment"),
        (syntax.upstream_url, "http://host:99999", "expected a port"),
        (syntax.upstream_url, "http://host:", "expected a port"),
        (syntax.upstream_url, "http://host/a/../b", r"without `\.` and `\.\.` segments"),
        (syntax.upstream_url, "http://host/a/%2e%2E/b", r"without `\.` and `\.\.` segments"),
        (syntax.upstream_url, "http://ho st", "without blanks"),
        (syntax.upstream_url, "http://host\n", "without blanks"),
        (syntax.upstream_url, "http://[::1", "IPv6 address in the brackets"),
        (syntax.path_prefix, "app", "starts with `/`"),
        (syntax.path_prefix, "/app/{x}", "literal path"),
        (syntax.path_prefix, "/a//b", "without empty segments"),
        (syntax.path_prefix, "/a?b", "without query"),
        (syntax.method, "GET POST", "expected a name"),
        (syntax.method, "connect", "CONNECT is always answered 405"),
        (syntax.header_name, "Authorization Bearer", "is a colon missing"),
        (syntax.header_name, "Transfer-Encoding", "frames the message"),
        (syntax.header_value, "a\nb", "line break"),
        (syntax.header_value, "a\0b", "line break or NUL"),
        (syntax.header_value, "a\x1bb", "control character"),
        (syntax.file_path, "-----BEGIN KEY-----\nx", "path of a file"),
        (syntax.name, "a b", "1 to 64 letters"),
        (syntax.name, "x" * 65, "1 to 64 letters"),
        (syntax.route_path, "v1", "starts with `/`"),
        (syntax.route_path, "/{tail", "in pairs"),
        (syntax.route_path, "/tail}", "in pairs"),
        (syntax.route_path, "/{1st}", "in pairs"),
        (syntax.route_path, "/{a-b}", "in pairs"),
        (syntax.route_path, "/{a:[}", r"valid regular expressions in \{\} \(unterminated character set\)"),
        (syntax.route_path, "/{a}/{a}", "redefinition of group name"),
        (syntax.route_path, "/v1/../x", r"without `\.` and `\.\.` segments"),
        (syntax.route_path, "/v1?x", "without query"),
        (syntax.route_path, "/_streams/{id}", "outside /_streams"),
        (syntax.route_path, "/_streams", "outside /_streams"),
    ],
)
def test_refused(check: Check, text: str, what: str) -> None:
    """Bad text is refused for the reason that helps."""
    with pytest.raises(ValueError, match=what):
        check(text)


PATHS = st.text("/ab{}:.*_1[]()?$", max_size=14).map("/".__add__)


@given(PATHS)
@example("/{a:.*}")
@example("/{a:[0-9]{2}}")
def test_route_paths_are_what_aiohttp_takes(text: str) -> None:
    """Every path that is accepted can be given to the router, and it finds the same braces wrong."""
    try:
        syntax.route_path(text)
    except ValueError as error:
        if "in pairs" in str(error) or "regular expressions" in str(error):
            with pytest.raises(ValueError, match=r"Invalid path|Bad pattern"):
                DynamicResource(text)
    else:
        DynamicResource(text)


LITERAL = st.sampled_from(["/", "/a", "/b", "/a/", "/ab/", "/a/b"])
VARIABLE = st.sampled_from(["", "{x}", "{x:.*}", "{x:.+}", "{x:[ab]}", "{x:.*}{y}", "{x}/{y:.*}"])
REQUESTED = st.text("ab/", max_size=5).map("/".__add__)


@given(LITERAL, VARIABLE, LITERAL, VARIABLE, REQUESTED)
def test_a_covering_path_matches_all(under: str, x: str, below: str, y: str, requested: str) -> None:
    """Where one path is said to cover another, the router agrees on every request."""
    earlier, later = under + x, below + y
    if syntax.reach(earlier) in syntax.reaches_over(later) and _matches(later, requested):
        assert _matches(earlier, requested)


def _matches(path: str, requested: str) -> bool:
    resource = DynamicResource(path) if "{" in path else PlainResource(path)
    return resource._match(requested) is not None


def test_what_is_covered() -> None:
    """A catch-all covers what lies below its literal part, and nothing beside it."""
    assert syntax.reach("/v1/{tail:.*}") in set(syntax.reaches_over("/v1/chat"))
    assert syntax.reach("/{tail:.*}") in set(syntax.reaches_over("/v1/{id:[0-9]+}"))
    assert syntax.reach("/v1/{tail:.*}") not in set(syntax.reaches_over("/v1"))
    assert syntax.reach("/v1/{id}") not in set(syntax.reaches_over("/v1/chat"))
    assert syntax.reach("/v1/{tail:.+}") not in set(syntax.reaches_over("/v1/chat"))
