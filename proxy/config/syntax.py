"""What each kind of text in a configuration must look like: addresses, URLs, hosts, paths, header fields.

Every function takes the text, gives it back normalised, and says in a ValueError what was expected. No
message repeats the text: the caller knows whether it may be shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from proxy.stream import cursor

NAME_PATTERN: Final = r"^[A-Za-z0-9_.-]{1,64}$"
NODE_PATTERN: Final = rf"^{cursor.NODE_PATTERN}$"
TOKEN_PATTERN: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
PATH_PATTERN: Final = "^/"
URL_PATTERN: Final = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+(/[^?#\s]*)?$"
LISTEN_PATTERN: Final = r"^(unix:/.+|.+:[0-9]{1,5})$"
ORIGIN_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+$"

MAX_SOCKET_PATH: Final = 107
"""Bytes in a unix socket's path: Linux's ``sockaddr_un`` holds 108 with the closing NUL."""

RESERVED_PATH: Final = "/_streams"
"""Where the sidecar answers itself (resume, state, cancel), before any route."""

FRAMING_HEADERS: Final = frozenset({
    "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Fields that say how a message is framed on one connection; setting them by hand desynchronises it."""

_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)
# RFC 9110 §5.6.2: "token = 1*tchar".
_TOKEN: Final = re.compile(TOKEN_PATTERN, re.ASCII)
# Underscores are no host name by RFC 1123, but container runtimes hand them out.
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")


def name(text: str) -> str:
    """The name of a route or an upstream: it stands in metrics, logs and answers."""
    if not _NAME.fullmatch(text):
        raise ValueError("expected a name of 1 to 64 letters, digits, `_`, `.` or `-`")
    return text


def node(text: str) -> str:
    """The name of this sidecar among several; stream ids begin with it."""
    if not re.fullmatch(cursor.NODE_PATTERN, text, re.ASCII):
        raise ValueError("expected a name of 1 to 32 lower-case letters, digits and inner dashes")
    return text


def file_path(text: str) -> str:
    """The path of a file; what a key file holds, pasted instead, is the usual mistake."""
    if not text or "\n" in text or "\0" in text:
        raise ValueError("expected the path of a file")
    return text


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────


def listen(text: str) -> str:
    """Where to listen: ``host:port``, ``[v6]:port`` or ``unix:/path``."""
    if text.startswith("unix:"):
        return _unix_socket(text)
    host_text, colon, port_text = text.rpartition(":")
    if not (colon and host_text):
        raise ValueError("expected host:port (0.0.0.0:8080 for every interface), [v6]:port or unix:/path")
    return f"{_host(host_text)}:{_port(port_text)}"


def _unix_socket(text: str) -> str:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise ValueError("expected an absolute path after `unix:`")
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"expected a socket path of at most {MAX_SOCKET_PATH} bytes")
    return text


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or int(text) > 65535:
        raise ValueError("expected a port from 0 to 65535 after the last colon")
    return int(text)


def _host(text: str) -> str:
    """A host name, an IPv4 address or an IPv6 address in brackets, in lower case."""
    if text.startswith("[") and text.endswith("]"):
        return f"[{_ip_v6(text[1:-1])}]"
    if ":" in text:
        raise ValueError("expected an IPv6 address to stand in brackets: [::1]")
    if not text.isascii():
        raise ValueError("expected a host name in its ASCII form (xn--…)")
    host_name = text.lower()
    if not _HOST_NAME.fullmatch(host_name):
        raise ValueError("expected a host name or an address")
    return _ip_v4(host_name) if host_name.rpartition(".")[2].isdigit() else host_name


def _ip_v4(text: str) -> str:
    """WHATWG URL: a host whose last label is a number is an IPv4 address, or nothing."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError("expected four numbers from 0 to 255 in an IPv4 address") from None


def _ip_v6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError("expected an IPv6 address between the brackets") from None


def trusted_peer(text: str) -> str:
    """A peer whose forwarding headers count: an address, a network, or ``unix`` for unix-socket peers."""
    if text == "unix":
        return text
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("expected an address, a network without host bits (10.0.0.0/8) or `unix`") from None
    return text


def host(text: str) -> str:
    """A host that is ours, in lower case, without port and brackets; ``*.example.com`` is any name below."""
    if _is_ip_v6(text.strip("[]")):
        return _ip_v6(text.strip("[]"))
    if re.search(r":[0-9]*$", text):
        raise ValueError("expected a host without a port: a name is ours on every port")
    wildcard, name_below = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    normalised = _host(name_below)
    if wildcard and normalised.rpartition(".")[2].isdigit():
        raise ValueError("expected a name after `*.`, not an address")
    return wildcard + normalised


def _is_ip_v6(text: str) -> bool:
    try:
        return bool(_ip_v6(text))
    except ValueError:
        return False


# ── URLs ────────────────────────────────────────────────────────────────────────────────────────────────


def upstream_url(text: str) -> str:
    """``http(s)://host[:port][/base/path]``, host in lower case, without a trailing slash."""
    parts = _split_url(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("expected http://host[:port][/path] or https://host[:port][/path]")
    if "@" in parts.netloc:
        raise ValueError("expected a URL without user name and password; Authorization goes in set_headers")
    if "?" in text or "#" in text:
        raise ValueError("expected a URL without query and fragment")
    return f"{parts.scheme}://{_authority(parts)}{_clean_path(parts.path).rstrip('/')}"


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def origin(text: str) -> str:
    """A web origin as browsers write it: ``scheme://host[:port]``, lower case, no default port, no path."""
    parts = _split_url(text)
    if not parts.scheme or not parts.netloc or "@" in parts.netloc:
        raise ValueError("expected an origin, scheme://host[:port]")
    if text.partition("://")[2] != parts.netloc:
        raise ValueError("expected an origin without a path: scheme://host[:port]")
    authority = _authority(parts)
    return f"{parts.scheme}://{authority.removesuffix(f':{_DEFAULT_PORTS.get(parts.scheme)}')}"


def _split_url(text: str) -> SplitResult:
    # urlsplit drops tabs and line ends in silence; a URL that needs that is not the one that was meant.
    if _UNPRINTABLE.search(text):
        raise ValueError("expected a URL without blanks and control characters")
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError("expected nothing but an IPv6 address in the brackets of a URL") from None


def _authority(parts: SplitResult) -> str:
    port = re.search(r":[0-9]*$", parts.netloc)
    if port is None:
        return _host(parts.netloc)
    return f"{_host(parts.netloc.removesuffix(port[0]))}:{_port(port[0][1:])}"


# ── paths ───────────────────────────────────────────────────────────────────────────────────────────────


def path_prefix(text: str) -> str:
    """A literal path prefix without trailing slash; ``""`` for none."""
    if text and not text.startswith("/"):
        raise ValueError("expected a path that starts with `/`")
    if "{" in text or "}" in text:
        raise ValueError("expected a literal path, without {}")
    return _clean_path(text).rstrip("/")


def _clean_path(text: str) -> str:
    """A path that can match: no dot segments (requests with them are refused), no query, no ``//``."""
    if "?" in text or "#" in text or _UNPRINTABLE.search(text):
        raise ValueError("expected a path without query, fragment, blanks and control characters")
    if any(unquote(segment) in (".", "..") for segment in text.split("/")):
        raise ValueError("expected a path without `.` and `..` segments; requests with them are refused")
    if "//" in text:
        raise ValueError("expected a path without empty segments (`//`)")
    return text


def target(text: str) -> str:
    """What an upstream is asked for: a literal path, and perhaps a query."""
    path, question, query = text.partition("?")
    if not path.startswith("/"):
        raise ValueError("expected a path that starts with `/`")
    if "#" in query or _UNPRINTABLE.search(query) or not text.isascii():
        raise ValueError("expected a path and query without fragment, blanks and letters that need encoding")
    return f"{_clean_path(path)}{question}{query}"


# aiohttp's own grammar of dynamic paths (web_urldispatcher.py); a test holds the two against each other.
_DYNAMIC: Final = re.compile(r"(\{[_a-zA-Z][^{}]*(?:\{[^{}]*\}[^{}]*)*\})")
_VARIABLE: Final = re.compile(r"\{(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)(?::(?P<regex>.+))?\}")


def route_path(text: str) -> str:
    """A route's path in aiohttp's pattern language: ``/v1/{tail:.*}``, ``/items/{id}``."""
    if not text.startswith("/"):
        raise ValueError("expected a path that starts with `/`")
    pattern = route_pattern(text)
    _clean_path(_DYNAMIC.sub("x", text))
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected valid regular expressions in {{}} ({error.msg})") from None
    if (literal_prefix(text) + "/").startswith(RESERVED_PATH + "/"):
        raise ValueError(f"expected a path outside {RESERVED_PATH}, where the sidecar answers itself")
    return text


def route_pattern(text: str) -> str:
    """The regular expression that a route's path stands for. It matches whole paths, decoded."""
    return "".join(_piece(piece) for piece in _DYNAMIC.split(text))


def is_route_path(text: str) -> bool:
    """Whether :func:`route_path` accepts ``text``."""
    try:
        return bool(route_path(text))
    except ValueError:
        return False


def _piece(piece: str) -> str:
    if match := _VARIABLE.fullmatch(piece):
        return f"(?P<{match['name']}>{match['regex'] or '[^{}/]+'})"
    if "{" in piece or "}" in piece:
        raise ValueError("expected {} in pairs, around a name ({id}) or a name and a regex ({id:[0-9]+})")
    return re.escape(piece)


def literal_prefix(path: str) -> str:
    """The part of a route's path before its first variable."""
    return path.partition("{")[0]


_CATCH_ALL: Final = re.compile(r"(?P<under>[^{}]*)\{[_a-zA-Z][_a-zA-Z0-9]*:\.\*\}")


def reach(path: str) -> str:
    """What a route's path matches: ``/v1/*`` for a catch-all, else itself."""
    catch_all = _CATCH_ALL.fullmatch(path)
    return f"{catch_all['under']}*" if catch_all else path


def reaches_over(path: str) -> Iterator[str]:
    """Every :func:`reach` that certainly covers all that ``path`` matches, its own first."""
    yield reach(path)
    literal = literal_prefix(path)
    yield from (f"{literal[:length]}*" for length in range(1, len(literal) + 1))


# ── header fields ───────────────────────────────────────────────────────────────────────────────────────


def token(text: str) -> str:
    """A token of RFC 9110 §5.6.2: a header's or a cookie's name."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("expected a name of letters, digits and !#$%&'*+-.^_`|~")
    return text


def method(text: str) -> str:
    """A request method in upper case."""
    if token(text).upper() == "CONNECT":
        raise ValueError("expected a method that a proxy of resources serves; CONNECT is always answered 405")
    return text.upper()


def header_name(text: str) -> str:
    """The name of a header that may be set by hand."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("expected header names of letters, digits and !#$%&'*+-.^_`|~ (is a colon missing?)")
    if text.lower() in FRAMING_HEADERS:
        raise ValueError(f"{text} frames the message and is never set by hand")
    return text


def header_value(text: str) -> str:
    """A header's value: visible characters, blanks and tabs (RFC 9110 §5.5)."""
    if re.search(r"[\r\n\0]", text):
        raise ValueError("holds a line break or NUL (does the secret's file end in a newline?)")
    if re.search(r"[\x01-\x08\x0b-\x1f\x7f]", text):
        raise ValueError("holds a control character")
    return text.strip(" \t")
