"""Which header fields pass, in which direction, and which ones a proxy writes itself."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import hdrs, web
from multidict import CIMultiDict, MultiMapping, istr

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

LAST_EVENT_ID = istr("Last-Event-ID")


#: Header fields in their order, repeated ones repeated.
Fields = tuple[tuple[str, str], ...]


class Sieve:
    """Which fields go on to the next hop: all but the hop's own, those that ``drop`` names (in lower case)
    and those that begin like one of ``prefixes``.

    Sieves are made once; a request has a dozen fields, and each is looked at twice on its way.
    """

    __slots__ = ("_names", "_prefixes")

    def __init__(self, drop: Iterable[str] = (), prefixes: tuple[str, ...] = ()) -> None:
        self._names = HOP_BY_HOP | frozenset(drop)
        self._prefixes = prefixes

    def sift(self, headers: MultiMapping[str]) -> list[tuple[str, str]]:
        """Return the fields that go on, repeated ones repeated, in their order."""
        gone, prefixes = self._names, self._prefixes
        if hdrs.CONNECTION in headers:
            gone |= nominated(headers)
        if not prefixes:
            return [field for field in headers.items() if field[0].lower() not in gone]
        return [
            field
            for field in headers.items()
            if (name := field[0].lower()) not in gone and not name.startswith(prefixes)
        ]


_sieve = functools.lru_cache(maxsize=16)(Sieve)  # the code names fewer ways to drop fields


def end_to_end(headers: MultiMapping[str], drop: tuple[str, ...] | frozenset[str] = ()) -> CIMultiDict[str]:
    """Return the fields that go on to the next hop, without those that ``drop`` names."""
    return CIMultiDict(_sieve(drop).sift(headers))


def nominated(headers: MultiMapping[str]) -> frozenset[str]:
    """Return the fields that ``Connection`` names, in lower case, those it may not name left out."""
    values = headers.getall(hdrs.CONNECTION, ())
    names = (name.strip().lower() for value in values for name in value.split(","))
    return frozenset(name for name in names if name and name not in NOT_NOMINABLE)


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
        parsed = _parsed(address) if self.networks else None
        return parsed is not None and any(parsed in network for network in self.networks)


@functools.lru_cache(maxsize=1024)  # an edge has few addresses, and asks often
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


class Origin(NamedTuple):
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
    peername = request.protocol.peername
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
    chain = origin.chain
    if UNIX in chain:  # a Unix socket has no address
        chain = ", ".join(address for address in chain.split(", ") if address != UNIX)
    if chain:
        fields["X-Forwarded-For"] = chain
    if origin.host:
        fields["X-Forwarded-Host"] = origin.host
    said = request.headers.getall("Forwarded", ()) if origin.trusted else ()
    if said:
        peer = origin.chain.rpartition(", ")[2]
        fields["Forwarded"] = ", ".join([*said, f"for={_node(peer)};proto={request.scheme}"])
    return fields


def _node(address: str) -> str:
    """RFC 7239 §6: an IPv6 address stands in brackets and quotes; a socket has no address."""
    if ":" in address:
        return f'"[{address}]"'
    return address if address != UNIX else "unknown"
