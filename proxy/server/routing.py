"""The route table: which entry of the configuration a request belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from proxy.config import Route
from proxy.config.syntax import route_pattern
from proxy.errors import MethodNotAllowed, NoRoute

#: CONNECT asks for a tunnel and TRACE would send back injected credentials; neither is ever proxied.
REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})

#: What a 405 lists for a route that serves every method.
COMMON_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


#: How a stream can be asked for by its alias.
ALIAS_METHODS = ("GET", "HEAD")


class Asked(NamedTuple):
    """A request for the stream of a name: the route and the path at which such a stream would have begun."""

    route: Route
    path: str
    name: str


class RouteTable:
    """Routes in the order of the configuration; the first whose path and method match wins."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._rows = [(_matcher(route.path), route) for route in routes]
        self._aliased = {
            route.name: _matcher(route.path.rstrip("/")) for route in routes if route.alias is not None
        }

    def find(self, method: str, path: str, *, upgrade: bool = False) -> Route:
        """Return the route for a request. ``path`` is decoded, but for encoded slashes and percents.

        A WebSocket handshake (``upgrade``) is a GET, whatever methods its route serves otherwise.

        Raises NoRoute, or MethodNotAllowed where only other methods of the path are served.
        """
        allowed: list[str] = []
        for matches, route in self._rows:
            if not matches(path):
                continue
            if method not in REFUSED_METHODS and (route.methods is None or method in route.methods):
                return route
            if upgrade and route.websocket != "off":
                return route
            allowed += route.methods or COMMON_METHODS
        if allowed or method in REFUSED_METHODS:  # CONNECT names no path that a route could match
            raise MethodNotAllowed(method[:20], tuple(dict.fromkeys(allowed or COMMON_METHODS)))
        raise NoRoute(f"no route matches {path[:200]!r}")

    def find_alias(self, method: str, path: str) -> Asked | None:
        """Return what a request for a stream by its alias asks for; None where it is another request.

        It asks for ``/{alias}/stream``, below the path of a route with aliases; that route's methods are
        those of requests that begin a stream. A route that stands before it comes first here, too.
        """
        if not self._aliased or method not in ALIAS_METHODS or not path.endswith("/stream"):
            return None
        above, _, name = path.removesuffix("/stream").rpartition("/")
        for matches, route in self._rows if name else ():
            if matches(path) and (route.methods is None or method in route.methods):
                return None
            if route.name in self._aliased and self._aliased[route.name](above):
                return Asked(route, above, unquote(name))  # slashes and percents are still encoded here
        return None


def _matcher(path: str) -> Callable[[str], object]:
    """Compile a path pattern (``/v1/{tail:.*}``). (aiohttp's own class wants letters like é encoded.)"""
    return re.compile(route_pattern(path)).fullmatch
