"""Rules that span settings: one of two keys, names that must exist, values that could never take effect.

A rule gets the fields of its struct that could be read, so that one fault does not hide another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from proxy.config import syntax
from proxy.config.document import Item, shown_key
from proxy.config.form import settings_of
from proxy.config.model import Config, Policy, Principal, Route, Timeouts, Upstream
from proxy.config.reading import Fields, Reading, Rule, suggestion


def check_upstream(fields: Fields, item: Item, reading: Reading) -> None:
    """One of `url` and `urls`; fills in ``urls`` and ``secret_headers``."""
    if len({"url", "urls"} & item.children.keys()) != 1:
        reading.refuse(item, "needs `url` or `urls`, and not both")
    if fields.get("url"):
        fields["urls"] = (fields["url"],)
    if "set_headers" in fields:
        _check_headers(item.children["set_headers"], reading)
        fields["secret_headers"] = tuple(_from_environment(item.children["set_headers"]))
    _check_tls(fields, item, reading)


def _from_environment(headers: Item) -> Iterator[str]:
    return (name for name, value in headers.children.items() if value.variables)


def _check_headers(headers: Item, reading: Reading) -> None:
    first: dict[str, str] = {}
    for name, value in headers.children.items():
        other = first.setdefault(name.lower(), name)
        if other != name:
            reading.refuse_key(value, f"the same header as `{other}`: case does not matter")


def _check_tls(fields: Fields, item: Item, reading: Reading) -> None:
    if not fields.get("tls_ca"):
        return
    if not fields.get("tls_verify", True):
        reading.refuse_key(item.children["tls_ca"], "has no effect: `tls_verify` is off")
    elif fields.get("urls") and not any(url.startswith("https:") for url in fields["urls"]):
        reading.refuse_key(item.children["tls_ca"], "has no effect: no url is https")


def check_principal(fields: Fields, item: Item, reading: Reading) -> None:
    """One of `cookie` and `header`."""
    if len({"cookie", "header"} & item.children.keys()) != 1:
        reading.refuse(item, "needs `cookie` or `header`, and not both")


def check_timeouts(fields: Fields, item: Item, reading: Reading) -> None:
    """`idle` must be able to strike before `total` does."""
    idle, total = fields.get("idle"), fields.get("total")
    if idle and total and idle > total:
        reading.refuse(item.children["idle"], f"is never reached: `total` ends the stream after {total:g}s")


def check_policy(fields: Fields, item: Item, reading: Reading) -> None:
    """`open_after` must be able to strike before `first_byte` does, where it is written."""
    opening, timeouts = fields.get("open_after"), fields.get("timeouts", Timeouts())
    if opening is None or not item.children["open_after"].where.startswith(item.where):
        return
    if opening >= timeouts.first_byte:
        said = f"is never reached: `timeouts.first_byte` answers 504 after {timeouts.first_byte:g}s"
        reading.refuse(item.children["open_after"], said)


def check_route(fields: Fields, item: Item, reading: Reading) -> None:
    """A policy's rule, and: reconnects are GETs, a stripped prefix is one of the path, WebSocket is on for
    what is about it.
    """
    check_policy(fields, item, reading)
    _check_websocket(fields, item, reading)
    methods = fields.get("methods")
    if fields.get("reconnect") and methods and "GET" not in methods:
        reading.refuse(item.children["reconnect"], f"needs GET, but the methods are {', '.join(methods)}")
    prefix, path = fields.get("strip_prefix"), fields.get("path")
    if prefix and path and not _strips(prefix, path):
        said = f"expected whole leading segments of the path's literal part `{syntax.literal_prefix(path)}`"
        reading.refuse(item.children["strip_prefix"], said)


def _check_websocket(fields: Fields, item: Item, reading: Reading) -> None:
    """`max_message` and `max_concurrent` must have something to bound, where the route itself says them."""
    if "websocket" in item.children and "websocket" not in fields:
        return  # what was meant is not known, and is asked already
    spoken = fields.get("websocket", "off")
    for name, needs in (("max_message", ("bridge", "passthrough")), ("max_concurrent", ("bridge",))):
        setting = item.children.get(name)
        if setting is None or spoken in needs or not setting.where.startswith(item.where):
            continue
        reading.refuse_key(setting, f"has no effect: needs `websocket: {' or '.join(needs)}`")


def _strips(prefix: str, path: str) -> bool:
    """Whether what is left always starts with a slash: ``/app{tail:.*}`` less ``/app`` might not."""
    return path == prefix or syntax.literal_prefix(path).startswith(prefix + "/")


def check_config(fields: Fields, item: Item, reading: Reading) -> None:
    """What names something elsewhere, and the order of routes.

    Works on items, not on structs: a fault in one route must not hide those of another.
    """
    routes = item.children["routes"].elements if "routes" in item.children else []
    _check_listeners(fields, item, reading)
    if "upstreams" in item.children:
        _check_upstream_names(routes, item.children["upstreams"], reading)
    _check_route_names(routes, reading)
    _check_order(routes, reading)


def _check_listeners(fields: Fields, item: Item, reading: Reading) -> None:
    listen = fields.get("listen", settings_of(Config)["listen"].default)
    admin = fields.get("admin")
    if admin and admin.listen == listen and not listen.endswith(":0"):
        reading.refuse(item.children["admin"], f"listens on {listen}, as the sidecar itself does")


def _check_upstream_names(routes: list[Item], upstreams: Item, reading: Reading) -> None:
    for route in routes:
        name = _text(route, "upstream")
        if name is not None and not upstreams.spoilt and name not in upstreams.children:
            upstream = route.children["upstream"]
            said = f"no such upstream, got {upstream.shown()}"
            hint = "" if upstream.variables else suggestion(name, upstreams.children)
            reading.refuse(upstream, f"{said}{hint or _known(upstreams)}")


def _known(upstreams: Item) -> str:
    names = [name for name in upstreams.children if shown_key(name) == name]
    return f"; there is {', '.join(names[:8])}" if names else ""


def _check_route_names(routes: list[Item], reading: Reading) -> None:
    first: dict[str, Item] = {}
    for route in routes:
        name = _text(route, "name")
        if name is not None and first.setdefault(name, route) is not route:
            other = first[name]
            said = f"{other.where} on line {other.children['name'].line} has this name already"
            reading.refuse(route.children["name"], said)


def _check_order(routes: list[Item], reading: Reading) -> None:
    """The first route that matches wins, so a broader one before a narrower one hides it."""
    seen: dict[str, list[Item]] = {}
    for route in routes:
        path = _text(route, "path")
        if path is None or not syntax.is_route_path(path):
            continue
        broader = [other for reach in syntax.reaches_over(path) for other in seen.get(reach, ())]
        hiding = next((other for other in broader if _serves_methods_of(other, route)), None)
        if hiding is not None:
            line = hiding.children["path"].line
            said = f"is never reached: {hiding.where} on line {line} matches all of it first"
            reading.refuse(route.children["path"], said)
        elif _speaks_websocket(route):
            _check_handshakes(route, broader, reading)
        seen.setdefault(syntax.reach(path), []).append(route)


def _check_handshakes(route: Item, broader: list[Item], reading: Reading) -> None:
    """A handshake is a GET, and goes to the first route that serves that, or WebSocket."""
    for other in broader:
        methods = _methods(other)
        if methods is None or "GET" in methods or _speaks_websocket(other):
            line = other.children["path"].line
            said = f"is never reached: {other.where} on line {line} takes the handshakes first"
            reading.refuse(route.children["websocket"], said)
            return


def _speaks_websocket(route: Item) -> bool:
    return "websocket" in route.children and route.children["websocket"].word in ("bridge", "passthrough")


def _serves_methods_of(broad: Item, narrow: Item) -> bool:
    served, wanted = _methods(broad), _methods(narrow)
    return served is None or (wanted is not None and wanted <= served)


def _methods(route: Item) -> set[str] | None:
    """The methods of a route; None for all of them."""
    if "methods" not in route.children or route.children["methods"].value is None:
        return None
    return {element.text.upper() for element in route.children["methods"].elements}


def _text(item: Item, key: str) -> str | None:
    """The text under ``key``; None if there is none or it is no text."""
    child = item.children.get(key)
    return child.value if child is not None and isinstance(child.value, str) else None


RULES: Final[dict[type[msgspec.Struct], Rule]] = {
    Config: check_config,
    Upstream: check_upstream,
    Principal: check_principal,
    Policy: check_policy,
    Route: check_route,
    Timeouts: check_timeouts,
}
