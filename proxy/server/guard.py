"""Who may use a route: paths that cannot mislead, hosts and origins that are ours.

An upstream that gets an injected credential turns the sidecar into a way to spend somebody's key.
A web page is the attacker who needs no access to the machine: it can post a form to a loopback
address, fetch with a foreign Origin, or have its own name resolve to 127.0.0.1 (DNS rebinding). A
browser tells on all three, in Origin, Sec-Fetch-Site and Host, and this module listens.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urlsplit

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11

from proxy.config import Config, Route
from proxy.errors import BadPath, BadRequest, Refused, VersionNotSupported

#: Names that nobody outside can make resolve to us: they are not in the public DNS.
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".svc", ".test")

#: uri-host [ ":" port ], as far as its characters go (RFC 9110 §7.2, RFC 3986 §3.2.2).
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")

SPOKEN = (HttpVersion11, HttpVersion10)

_SEPARATORS = re.compile(rb"[/\\]")


def check_path(raw_path: str) -> None:
    """Raise BadPath where a segment is ``.`` or ``..``, plain, percent-encoded, or with parameters.

    ``/v1/%2e%2e/admin`` must not match ``/v1/…`` here and become ``/admin`` at the upstream.
    """
    if "." not in raw_path and "%" not in raw_path:
        return
    for segment in _SEPARATORS.split(unquote_to_bytes(raw_path)):
        if segment.partition(b";")[0] in (b".", b".."):
            raise BadPath("the path has a '.' or '..' segment; send the path that is meant")


def check_message(request: web.BaseRequest) -> None:
    """Raise for what aiohttp's parser lets through and a stricter peer might read otherwise."""
    version, headers = request.version, request.headers
    if version not in SPOKEN:
        raise VersionNotSupported(f"HTTP/{version.major}.{version.minor}: expected 1.0 or 1.1")
    if hdrs.TRANSFER_ENCODING in headers:
        _check_codings(version, headers.getall(hdrs.TRANSFER_ENCODING))
    hosts = headers.getall(hdrs.HOST, ())
    named = urlsplit(request.raw_path).netloc if not request.raw_path.startswith("/") else ""
    if named and hosts and named.lower() != hosts[0].lower():
        # RFC 9112 §3.2.2: the target's authority counts. A peer that goes by the other one is misled.
        raise BadRequest("the target names another host than the Host field")
    if len(hosts) > 1 or not all(map(_HOST.fullmatch, hosts)):
        raise BadRequest("expected one Host field that is a host name and, perhaps, a port")


def _check_codings(version: HttpVersion, codings: list[str]) -> None:
    if any(coding.lower() != "chunked" for coding in codings):
        # It would be lost on the way, since aiohttp undoes the chunks and nothing else.
        raise BadRequest("the body has a transfer coding besides 'chunked'")
    if version == HttpVersion10:
        # RFC 9112 §6.1: such a message's "framing is faulty, even if a Content-Length is present".
        raise BadRequest("Transfer-Encoding in an HTTP/1.0 request; expected Content-Length")


def check_caller(request: web.BaseRequest, config: Config, route: Route, *, credentials: bool) -> None:
    """Raise Refused for a host that is not ours and, with ``credentials``, for a foreign page."""
    hosts = route.hosts if route.hosts is not None else config.hosts
    if hosts is not None:
        check_host(request, hosts)
    if credentials:
        if hosts is None:
            _check_private_host(request)
        _check_page(request, allowed_origins(config, route))


def allowed_origins(config: Config, route: Route) -> tuple[str, ...]:
    """The web origins that may use the route from their pages."""
    return route.origins if route.origins is not None else config.origins


def check_host(request: web.BaseRequest, hosts: Iterable[str]) -> None:
    """Raise Refused where the Host field names none of ``hosts`` (``*.`` stands for any label)."""
    name = host_name(request)
    for host in hosts:
        if name == host.lower() or (host.startswith("*.") and name.endswith(host[1:].lower())):
            return
    raise Refused(f"Host {_shown(name)} is not one of this sidecar's hosts")


def host_name(request: web.BaseRequest) -> str:
    """The Host field's name in lower case, without its port and an IPv6 address's brackets."""
    value = request.headers.get(hdrs.HOST, "").strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0].rstrip(".")


def has_private_host(request: web.BaseRequest) -> bool:
    """Whether the Host is what no foreign DNS server can make point here: an address or a local name."""
    name = host_name(request)
    return "." not in name or name.endswith(PRIVATE_SUFFIXES) or _is_address(name)


def _check_private_host(request: web.BaseRequest) -> None:
    if has_private_host(request):
        return
    raise Refused(
        f"Host {_shown(host_name(request))} is not known to be ours; a route with an injected credential "
        "answers to addresses, local names and the names listed under 'hosts'"
    )


def _check_page(request: web.BaseRequest, origins: tuple[str, ...]) -> None:
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None:
        if origin not in origins and not same_origin(request, origin):
            raise Refused(
                f"Origin {_shown(origin)} may not use this route; list it under 'origins' if it should"
            )
    elif request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Refused("a cross-site request may not use this route (Sec-Fetch-Site: cross-site)")


def check_spending(request: web.BaseRequest, origins: tuple[str, ...]) -> None:
    """Raise Refused for a GET with a price that a page has its visitor's browser send unasked.

    ``check_caller`` has seen to a foreign Origin, and to requests that say ``cross-site``. What is left:

    * another site of the same domain (``same-site``), and the address bar or a bookmark (``none``);
    * images, scripts, links and forms, also those that somebody slipped into a page of ours;
    * prefetches, which nobody asked for;
    * browsers that do not say where a request comes from, as none does to plain http beyond this machine.
      There a page can send a GET with any Accept and without Origin (``fetch`` with ``mode: "no-cors"``). It
      cannot make up a Referer, nor hide that it is a browser.
    """
    headers = request.headers
    site, origin = headers.get("Sec-Fetch-Site"), headers.get(hdrs.ORIGIN)
    if origin is not None and origin in origins:
        site = "same-origin"
    if site not in (None, "same-origin"):
        raise Refused(f"only a page of this origin may ask (Sec-Fetch-Site: {site[:20]})")
    mode = headers.get("Sec-Fetch-Mode", "cors")
    if mode not in ("cors", "same-origin"):
        raise Refused(f"only EventSource or fetch may ask (Sec-Fetch-Mode: {mode[:20]})")
    if any("prefetch" in headers.get(name, "").lower() for name in ("Sec-Purpose", "Purpose", "X-Moz")):
        raise Refused("a prefetch may not ask: nobody might ever look at the answer")
    if site is None and origin is None and headers.get(hdrs.USER_AGENT, "").startswith("Mozilla/"):
        _check_referer(request, origins)


def _check_referer(request: web.BaseRequest, origins: Iterable[str]) -> None:
    """Raise Refused where a browser that says nothing else does not come from a page of ours."""
    referer = request.headers.get(hdrs.REFERER, "")
    if same_origin(request, referer) or any(referer.startswith(f"{origin}/") for origin in origins):
        return
    raise Refused(
        "a browser that says neither Sec-Fetch-Site nor Origin must name a page of ours in Referer; "
        "browsers say the former over https and to this machine"
    )


def same_origin(request: web.BaseRequest, origin: str) -> bool:
    """Whether a page of ``origin`` calls the host it came from."""
    try:
        host = urlsplit(origin).netloc.lower()
    except ValueError:  # such as http://[x: no browser says that
        return False
    return bool(host) and host == request.headers.get(hdrs.HOST, "").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _shown(value: str) -> str:
    return repr(value[:80])
