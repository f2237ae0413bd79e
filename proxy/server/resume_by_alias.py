"""Streams by the names that an app gives them: a chat's id, in the body of the request that began them.

``useChat`` of the AI SDK does not know of stream ids. It asks for ``GET {api}/{chatId}/stream`` when a page
has been loaded again, and expects the answer that runs in this chat from its beginning, or 204. A route
with an ``alias`` answers that itself; such a request never goes upstream.

A chat's id is no secret: it stands in the address bar, and may be a number that counts up. So an alias
means something together with a principal only. Callers that bring none would all be one; they have no
aliases.
"""

from __future__ import annotations

import msgspec
from aiohttp import hdrs, web

from proxy.config import Config, Route
from proxy.errors import BadRequest, Refused
from proxy.server import cors, guard, resume
from proxy.server.alias import Alias
from proxy.server.exchange import Exchange, owner, principal_of
from proxy.server.hub import Hub
from proxy.server.json_object import members, written
from proxy.server.routing import ALIAS_METHODS, Asked
from proxy.server.wire import SERVER

#: Longest alias in characters. Chat ids are UUIDs or shorter; every kept stream holds one.
MAX_LENGTH = 256


async def take(exchange: Exchange) -> None:
    """Note the alias that a request brings; where the route says so, take it out of what goes upstream.

    Raises BodyTooLarge for a body that cannot be held, and BadRequest for an alias that cannot be one.
    """
    setting, upload = exchange.route.alias, exchange.upload
    if setting is None or not upload.exists:
        return
    limit = exchange.config.limits.buffered_body
    fields = members(await upload.whole(limit, "the `alias` may stand anywhere in it"))
    if fields is None or setting.field not in fields:
        return
    name = _name(setting.field, fields[setting.field])
    if not exchange.route.forwards_alias:
        del fields[setting.field]
        upload.replace(written(fields))
    if name is not None:
        exchange.alias = _alias(exchange.route, exchange.request, exchange.request.rel_url.path_safe, name)


def _name(field: str, said: msgspec.Raw) -> str | None:
    """Return what a field says as an alias: a text, or a number as one. Nothing where it is ``null``."""
    try:
        value = msgspec.json.decode(said, type=str | int | None)
    except ValueError:
        came = f"{bytes(said)[:40].decode('utf-8', 'replace')!r}"
    else:
        name = str(value) if isinstance(value, int) else value
        if name is None or 0 < len(name) <= MAX_LENGTH:
            return name
        came = f"a text of {len(name)} characters"
    raise BadRequest(f"the body's {field!r} is {came}; expected a text of 1 to {MAX_LENGTH} characters")


def _alias(route: Route, request: web.BaseRequest, path: str, name: str) -> Alias | None:
    """Return the alias by which this caller names a stream; None for a caller without a principal."""
    if not principal_of(request, route.principal):
        return None
    caller = owner(request, route.principal)
    return None if caller is None else Alias(route.name, path.rstrip("/"), caller, name)


async def answer(
    hub: Hub, config: Config, request: web.BaseRequest, asked: Asked, caller: str, *, credentials: bool
) -> web.StreamResponse:
    """Answer with the stream from its first block, or 204: the same whoever else may have one of this name.

    Raises SidecarError.
    """
    route = asked.route
    guard.check_caller(request, config, route, credentials=credentials)
    origins = guard.allowed_origins(config, route)
    if cors.is_preflight(request):
        return _preflight(request, origins)
    alias = _alias(route, request, asked.path, asked.name)
    relay = hub.aliases.active(alias) if alias is not None else None
    if relay is not None:
        return await resume.attach(hub, relay, request, 0, caller)
    nothing = web.Response(status=204)
    nothing.headers[hdrs.CACHE_CONTROL] = "no-store"
    nothing.headers[hdrs.SERVER] = SERVER
    cors.allow(request, nothing.headers, origins)
    return nothing


def _preflight(request: web.BaseRequest, origins: tuple[str, ...]) -> web.Response:
    if request.headers[hdrs.ORIGIN] not in origins:
        raise Refused("this origin may not ask for streams by an alias; list it under 'origins' if it should")
    allowed = cors.preflight(request, ALIAS_METHODS)
    cors.allow(request, allowed.headers, origins)
    return allowed
