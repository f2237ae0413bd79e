"""Which header fields pass, in which direction, and which ones a proxy writes itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web
from multidict import CIMultiDict

#: RFC 9110 §7.6.1 and its ancestors: fields that speak to the next peer only.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: Fields that a client cannot have removed by naming them in Connection: they frame or address the
#: message, and "a sender MUST NOT send a connection option corresponding to a field that is intended
#: for all recipients of the content" (RFC 9110 §7.6.1). The attack: strip the field on which the
#: upstream relies, and keep the rest.
NOT_NOMINABLE = frozenset({"content-length", "host"})

#: What a proxy in front says of the client. All names that begin with X-Forwarded- belong to it.
FORWARDING = frozenset({"forwarded", "x-real-ip"})
FORWARDING_PREFIX = "x-forwarded-"

#: What tells the caller's identity or page. An upstream that gets our credential must not get these.
CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key"})
PAGE = frozenset({"origin", "referer"})

#: What a credential upstream must not be able to set in the client's browser for *our* origin.
NOT_RETURNED = frozenset({"set-cookie", "set-cookie2", "alt-svc", "strict-transport-security"})

#: What stands for the address of a client on a Unix socket, here and in logs.
UNIX = "unix"

LAST_EVENT_ID = "Last-Event-ID"


def end_to_end(headers: Mapping[str, str], drop: Iterable[str] = ()) -> CIMultiDict[str]:
    """Return the fields that go on to the next hop, repeated ones repeated, in their order.

    A field has one spelling: of ``X-A`` and ``x-a`` aiohttp's client would send the last one only.
    """
    gone = HOP_BY_HOP | nominated(headers) | frozenset(drop)
    spelled: dict[str, str] = {}
    return CIMultiDict(
        (spelled.setdefault(lower, name), value)
        for lower, name, value in ((name.lower(), name, value) for name, value in headers.items())
        if lower not in gone
    )


def nominated(headers: Mapping[str, str]) -> frozenset[str]:
    """Return the fields that ``Connection`` names, in lower case, those it may not name left out."""
    values = headers.getall(hdrs.CONNECTION, ()) if hasattr(headers, "getall") else ()
    names = (name.strip().lower() for value in values for name in value.split(","))
    return frozenset(name for name in names if name and name not in NOT_NOMINABLE)


def is_forwarding(name: str) -> bool:
    """Whether a field (in lower case) says where a request came from."""
    return name in FORWARDING or name.startswith(FORWARDING_PREFIX)


@dataclass(frozen=True, slots=True)
class Peers:
    """The peers whose forwarding headers are believed."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    unix: bool

    @classmethod
    def of(cls, names: Iterable[str]) -> Peers:
        """Build from addresses, CIDRs and the word ``unix`` (validated by the configuration)."""
        listed = tuple(names)
        networks = tuple(ipaddress.ip_network(name, strict=False) for name in listed if name != "unix")
        return cls(networks, "unix" in listed)

    def trusts(self, address: str | None) -> bool:
        """Whether the peer at ``address`` (None: a Unix socket) is believed."""
        if address is None:
            return self.unix
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as far as it can be believed.

    ``address`` is the client's, ``chain`` the X-Forwarded-For list that goes upstream, ``scheme`` and
    ``host`` what the client used.
    """

    address: str
    chain: str
    scheme: str
    host: str
    trusted: bool


def origin_of(request: web.BaseRequest, peers: Peers) -> Origin:
    """Tell where a request came from: the nearest address that is not a trusted peer's."""
    peername = request.transport.get_extra_info("peername") if request.transport else None
    peer = peername[0] if isinstance(peername, tuple) else None
    shown = peer or UNIX
    host = request.headers.get(hdrs.HOST, "")
    if not peers.trusts(peer):
        return Origin(shown, shown, request.scheme, host, trusted=False)
    said = [
        part.strip() for value in request.headers.getall("X-Forwarded-For", ()) for part in value.split(",")
    ]
    address = next((part for part in reversed(said) if part and not peers.trusts(part)), shown)
    return Origin(
        address,
        ", ".join([*(part for part in said if part), shown]),
        request.headers.get("X-Forwarded-Proto", request.scheme),
        request.headers.get("X-Forwarded-Host", host),
        trusted=True,
    )


def forwarding(origin: Origin, request: web.BaseRequest) -> dict[str, str]:
    """Return the forwarding fields for the upstream.

    A trusted peer's ``Forwarded`` (RFC 7239) is continued; nobody else's is believed.
    """
    fields = {"X-Forwarded-Proto": origin.scheme}
    chain = [address for address in origin.chain.split(", ") if address != UNIX]
    if chain:  # a Unix socket has no address
        fields["X-Forwarded-For"] = ", ".join(chain)
    if origin.host:
        fields["X-Forwarded-Host"] = origin.host
    said = request.headers.getall("Forwarded", ())
    if origin.trusted and said:
        peer = origin.chain.rpartition(", ")[2]
        fields["Forwarded"] = ", ".join([*said, f"for={_node(peer)};proto={request.scheme}"])
    return fields


def _node(address: str) -> str:
    """RFC 7239 §6: an IPv6 address stands in brackets and quotes; a socket has no address."""
    if ":" in address:
        return f'"[{address}]"'
    return address if address != UNIX else "unknown"
