"""From the document's tree to :class:`Config`, with the defaults merged into the routes."""

from __future__ import annotations

from typing import Final

import msgspec

from proxy.config.document import Item, holding
from proxy.config.form import Block, settings_of
from proxy.config.model import Config, Policy, Route
from proxy.config.reading import Fault, Reading


def resolve(root: Item, reading: Reading) -> Config | None:
    """The configuration that ``root`` says; None if it has faults, all of which are in ``reading``."""
    try:
        config: Config = Block(Config).read(with_defaults(root), reading)
    except Fault as fault:
        if fault.args:
            reading.refuse(root, str(fault))
        return None
    idle = config.defaults.timeouts.idle
    if idle is msgspec.UNSET:
        return config
    routes = tuple(_with_idle(route, idle) for route in config.routes)
    return msgspec.structs.replace(config, routes=routes)


def _with_idle(route: Route, idle: float | None) -> Route:
    timeouts = msgspec.structs.replace(route.timeouts, idle_default=idle)
    return msgspec.structs.replace(route, timeouts=timeouts)


# ── defaults ────────────────────────────────────────────────────────────────────────────────────────────

MERGED: Final = ("replay", "timeouts")
"""Policies whose keys are merged one by one; any other is replaced whole (a principal has one key only)."""


def with_defaults(root: Item) -> Item:
    """``root`` with the policies of `defaults`, and the top-level hosts and origins, in every route.

    This happens before anything is converted, and each item keeps the path and line where it was written.
    """
    routes = root.children.get("routes")
    if routes is None or not routes.elements:
        return root
    policies = _shared_policies(root)
    merged = [_merged_route(route, policies) for route in routes.elements]
    return holding(root, root.children | {"routes": holding(routes, merged)})


def _shared_policies(root: Item) -> dict[str, Item]:
    shared = {key: item for key, item in root.children.items() if key in ("hosts", "origins")}
    if defaults := root.children.get("defaults"):
        # A key that is no policy (`path`) is reported where it stands; it must not become every route's.
        shared |= {key: item for key, item in defaults.children.items() if key in settings_of(Policy)}
    if timeouts := shared.get("timeouts"):
        # `idle` in defaults holds for streams that end; see Route.idle_for.
        shared["timeouts"] = _without(timeouts, "idle")
    return shared


def _without(item: Item, key: str) -> Item:
    if not item.children:
        return item
    return holding(item, {name: child for name, child in item.children.items() if name != key})


def _merged_route(route: Item, shared: dict[str, Item]) -> Item:
    if not isinstance(route.value, dict):
        return route
    entries = shared | route.children
    for key in shared.keys() & route.children.keys() & set(MERGED):
        entries[key] = _merged(shared[key], route.children[key])
    return holding(route, entries)


def _merged(default: Item, own: Item) -> Item:
    if not default.children:
        return own
    if own.word == "on":
        return default
    return holding(own, default.children | own.children) if isinstance(own.value, dict) else own
