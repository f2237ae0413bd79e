"""Rules that span settings: one of two keys, names that must exist, values that could never take effect.

A rule gets the fields of its struct that could be read, so that one fault does not hide another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from proxy.config import syntax
from proxy.config.document import Item, shown_key
from proxy.config.form import settings_of
from proxy.config.model import Config, Emit, Policy, Principal, Prompt, Route, Timeouts, Upstream
from proxy.config.reading import Fields, Reading, Rule, suggestion
from proxy.dialects import DIALECTS, Dialect, propose
from proxy.emit import EMITS

#: Methods of requests whose body may name a chat.
BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})

#: What a route with `prompt` serves. HEAD mirrors GET, and starts nothing.
PROMPT_METHODS: Final = ("GET", "HEAD")


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
    _check_emit(fields, item, reading)
    _check_inject(fields, item, reading)
    _check_alias(fields, item, reading)
    if fields.get("prompt"):
        _check_prompt(fields, item, reading)
        return
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


def _check_emit(fields: Fields, item: Item, reading: Reading) -> None:
    """A form needs events whose meaning is known, and ids of our own, where the route itself asks for it.

    One that `defaults` ask for is had where it can be had.
    """
    emit = fields.get("emit", Emit())
    form = EMITS.get(emit.form)
    if emit.raw and not (form is not None and form.tells_raw):
        said = f"`raw` has no effect: `{emit.form}` has no place for such events"
        reading.refuse(item.children["emit"], said)
    if form is None or not item.children["emit"].where.startswith(item.where):
        return
    dialect = DIALECTS.get(fields.get("dialect", "auto"))
    if dialect is not None and dialect.decoder("") is None:
        said = f"nobody knows what the events of dialect {dialect.name} mean; they can only pass through"
        reading.refuse(item.children["emit"], said)
    if fields.get("ids") == "upstream":
        reading.refuse(item.children["ids"], f"the blocks of `emit: {emit.form}` are not the upstream's")


#: A request that asks for a stream in every dialect that has a word for it.
_ASKING: Final = b'{"stream":true}'


def _check_inject(fields: Fields, item: Item, reading: Reading) -> None:
    """There must be a way to tell which requests ask for a stream."""
    dialect = DIALECTS.get(fields.get("dialect", "auto"))
    if fields.get("inject") and dialect is not None and not dialect.wants_stream(_ASKING):
        said = f"has no effect: nothing tells which requests of dialect {dialect.name} ask for a stream"
        reading.refuse_key(item.children["inject"], said)


def _check_alias(fields: Fields, item: Item, reading: Reading) -> None:
    """An alias can be guessed, comes in a body, stands below the path, and is answered from the log."""
    if not fields.get("alias"):
        return
    alias, methods, path = item.children["alias"], fields.get("methods"), fields.get("path", "/")
    if "principal" not in item.children or fields.get("principal", item) is None:
        said = "needs a `principal`: a chat's id can be guessed, and must not be all that it takes to read it"
        reading.refuse_key(alias, said)
    if fields.get("prompt"):
        reading.refuse_key(alias, "has no effect: a route with `prompt` takes no body that could name a chat")
    elif methods and not BODY_METHODS & set(methods):
        said = f"has no effect: the alias is read from a body, and the methods are {', '.join(methods)}"
        reading.refuse_key(alias, said)
    if path.rstrip("/").endswith("}"):
        said = (
            f"streams are asked for at <path>/<alias>/stream; expected a path with a fixed end, got `{path}`"
        )
        reading.refuse_key(alias, said)
    if "replay" in fields and not fields["replay"].enabled:
        reading.refuse_key(alias, "has no effect: `replay` is off, so that no stream can be read again")


_WITHOUT_IDS: Final = (
    "cannot be on a route with `prompt`: an EventSource without ids begins anew whenever a stream ends"
)

#: What a route with `prompt` cannot also be, by setting: which of its values are good, and why no others.
_OF_A_PROMPT: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "methods": (lambda methods: methods is None, "has no effect: a route with `prompt` serves GET"),
    "reconnect": (lambda reconnect: not reconnect, "has no effect: a prompt is never sent a second time"),
    "strip_prefix": (lambda prefix: not prefix, "has no effect: `prompt.path` goes upstream as it is"),
    "websocket": (lambda word: word == "off", "cannot be: `prompt` is for GET; route the bridge beside it"),
    "ids": (lambda word: word in ("auto", "always"), _WITHOUT_IDS),
    "replay": (lambda replay: replay.enabled, _WITHOUT_IDS),
}


def _check_prompt(fields: Fields, item: Item, reading: Reading) -> None:
    """It serves GET, numbers every block itself, and asks for a stream. Fills in ``methods`` and ``ids``."""
    for name, (good, said) in _OF_A_PROMPT.items():
        if name in fields and name in item.children and not good(fields[name]):
            reading.refuse_key(item.children[name], said)
    prompt: Prompt = fields["prompt"]
    blank = prompt.body.filled(dict.fromkeys((reference.name for reference in prompt.body.references), ""))
    dialect = _dialect_of(prompt, fields)
    if dialect is not None and dialect.llm and not dialect.wants_stream(blank):
        said = f"does not ask for a stream, as dialect {dialect.name} does with `stream: true`"
        reading.refuse(item.children["prompt"].children["body"], said)
    fields["methods"], fields["ids"] = PROMPT_METHODS, "always"


def _dialect_of(prompt: Prompt, fields: Fields) -> Dialect | None:
    named = fields.get("dialect", "auto")
    return propose(prompt.path.partition("?")[0]) if named == "auto" else DIALECTS.get(named)


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
        if "alias" in route.children:
            _check_resumes(route, broader, reading)
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


def _check_resumes(route: Item, broader: list[Item], reading: Reading) -> None:
    """Streams are asked for by their alias with GET, below the path of the route."""
    for other in broader:
        methods = _methods(other)
        if (methods is None or "GET" in methods) and syntax.reach(_text(other, "path") or "").endswith("*"):
            line = other.children["path"].line
            said = f"is never reached: {other.where} on line {line} takes the GETs below its path first"
            reading.refuse_key(route.children["alias"], said)
            return


def _speaks_websocket(route: Item) -> bool:
    return "websocket" in route.children and route.children["websocket"].word in ("bridge", "passthrough")


def _serves_methods_of(broad: Item, narrow: Item) -> bool:
    served, wanted = _methods(broad), _methods(narrow)
    return served is None or (wanted is not None and wanted <= served)


def _methods(route: Item) -> set[str] | None:
    """The methods of a route; None for all of them."""
    if "prompt" in route.children and route.children["prompt"].children:
        return set(PROMPT_METHODS)
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
