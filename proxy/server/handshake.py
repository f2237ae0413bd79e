"""The WebSocket opening handshake: RFC 6455 §4, as a server and as a proxy see it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict, MultiMapping

from proxy.config import Config, Route
from proxy.errors import BadRequest, Refused, UpgradeRequired
from proxy.server import guard
from proxy.server.headers import nominated
from proxy.server.wire import FrontProtocol

#: §1.3: what is hashed behind the client's key.
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: §4.1: a key is the base64 form of so many bytes.
KEY_BYTES = 16

VERSION = "13"

#: A browser cannot set headers on a handshake. What it can say is a list of subprotocols; so that is where
#: its credential comes from, beside the protocol that it really wants to speak.
BEARER = "bearer."

#: Entries of that list which are credentials; the second is OpenAI's own.
SECRETS = (BEARER, "openai-insecure-api-key.")


def is_asked(request: web.BaseRequest) -> bool:
    """Whether a request is a handshake: a GET that offers to switch to WebSocket (RFC 9110 §7.8)."""
    protocol = request.protocol
    return (
        isinstance(protocol, FrontProtocol)
        and protocol.upgraded
        and request.method == hdrs.METH_GET
        and request.version == HttpVersion11
        and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
        and "upgrade" in nominated(request.headers)
    )


def check(request: web.BaseRequest) -> str:
    """Return the handshake's key. Raises UpgradeRequired for another version, BadRequest for the rest."""
    versions = request.headers.getall(hdrs.SEC_WEBSOCKET_VERSION, ())
    if list(versions) != [VERSION]:
        said = ", ".join(versions)[:40] or "none"
        raise UpgradeRequired(f"Sec-WebSocket-Version: expected {VERSION}, got {said}")
    keys = request.headers.getall(hdrs.SEC_WEBSOCKET_KEY, ())
    if len(keys) != 1 or not _is_key(keys[0]):
        raise BadRequest(f"expected one Sec-WebSocket-Key, {KEY_BYTES} bytes in base64")
    if request.body_exists:
        raise BadRequest("a WebSocket handshake has no body")
    return keys[0]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def accept_of(key: str) -> str:
    """Return what proves that a handshake was understood (§4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + ACCEPT_GUID).digest()).decode()


def fault_of(answer: MultiMapping[str], key: str) -> str | None:
    """Tell why the fields of a 101 do not answer a handshake with this key (§4.1), if they do not."""
    if answer.get(hdrs.UPGRADE, "").lower() != "websocket":
        return "it switched to another protocol than WebSocket"
    if "upgrade" not in nominated(answer):
        return "its 101 has no 'Connection: Upgrade'"
    if answer.get(hdrs.SEC_WEBSOCKET_ACCEPT) != accept_of(key):
        return "its Sec-WebSocket-Accept does not fit the key"
    return None


def check_origin(request: web.BaseRequest, config: Config, route: Route) -> None:
    """Raise Refused where a foreign page opens a connection, or goes on over one.

    CORS does not hold a page back here: only the server can. The attacks: a page that brings the user's
    cookies along (cross-site WebSocket hijacking), and one that needs none, since the app behind a loopback
    or an internal address takes whoever reaches it. Over HTTP the browser would have asked that app; a
    bridge speaks in its place, so it lets in its own pages and those of ``origins`` only. An app behind a
    pass-through sees the Origin, and judges for itself where the route lists none.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return
    origins = guard.allowed_origins(config, route)
    guarded = bool(origins) or route.websocket == "bridge"
    if guarded and origin not in origins and not guard.same_origin(request, origin):
        raise Refused(
            f"Origin {origin[:80]!r} may not open a WebSocket here; list it under 'origins' if it should"
        )


def offered(headers: MultiMapping[str]) -> list[str]:
    """Return the subprotocols that a client offers, in its order."""
    values = headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())
    return [name for value in values for part in value.split(",") if (name := part.strip())]


def bearer_of(subprotocols: Iterable[str]) -> str | None:
    """Return the credential among the subprotocols, if there is one. Raises BadRequest for several."""
    tokens = [name.removeprefix(BEARER) for name in subprotocols if name.startswith(BEARER)]
    if len(tokens) > 1:
        raise BadRequest(f"{len(tokens)} subprotocols begin with {BEARER!r}; expected one")
    return tokens[0] if tokens and tokens[0] else None


def without_secrets(headers: CIMultiDict[str]) -> None:
    """Take the credentials out of the offered subprotocols: an upstream that gets ours must not get them."""
    names = offered(headers)
    kept = [name for name in names if not name.startswith(SECRETS)]
    if len(kept) < len(names):
        headers.popall(hdrs.SEC_WEBSOCKET_PROTOCOL)
        if kept:
            headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = ", ".join(kept)


def switching(key: str, subprotocol: str | None) -> CIMultiDict[str]:
    """Return the fields of our own 101."""
    headers = CIMultiDict(
        {
            hdrs.UPGRADE: "websocket",
            hdrs.CONNECTION: "Upgrade",
            hdrs.SEC_WEBSOCKET_ACCEPT: accept_of(key),
        }
    )
    if subprotocol is not None:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = subprotocol
    return headers
