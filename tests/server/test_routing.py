"""The route table: which entry of the configuration a request belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.errors import MethodNotAllowed, NoRoute
from proxy.server.routing import COMMON_METHODS, RouteTable
from tests.conftest import StartOrigin, StartSidecar, config_for
from tests.support.client import ask
from tests.support.origin import reply


def table(*routes: dict[str, Any]) -> RouteTable:
    """A table of routes, each named after its path unless it says otherwise."""
    named = [{"name": f"r{number}", "upstream": "origin", **route} for number, route in enumerate(routes)]
    return RouteTable(config_for("http://127.0.0.1:1", routes=named).routes)


TABLE = table(
    {"name": "exact", "path": "/v1/models"},
    {"name": "write", "path": "/v1/items/{id}", "methods": ["POST", "PUT"]},
    {"name": "read", "path": "/v1/items/{id}", "methods": ["GET"]},
    {"name": "number", "path": "/n/{id:[0-9]+}"},
    {"name": "v1", "path": "/v1/{tail:.*}"},
    {"name": "dotted", "path": "/a.b"},
    {"name": "encoded", "path": "/café/{x}"},
)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/models", "exact"),
        ("GET", "/v1/models/", "v1"),
        ("GET", "/v1/items/7", "read"),
        ("PUT", "/v1/items/7", "write"),
        ("DELETE", "/v1/items/7", "v1"),
        ("GET", "/v1/items/7/8", "v1"),
        ("GET", "/v1/items/", "v1"),
        ("GET", "/v1/items/%2F", "read"),
        ("GET", "/v1/", "v1"),
        ("GET", "/n/12", "number"),
        ("GET", "/a.b", "dotted"),
        ("GET", "/café/é", "encoded"),
    ],
)
def test_the_first_route_that_matches_path_and_method_wins(method: str, path: str, name: str) -> None:
    """In the order of the file; a variable ends at a slash, and an encoded slash is none."""
    assert TABLE.find(method, path).name == name


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/x", "/n/", "/n/1a", "/aXb", "/V1/models", "//v1/models", "", "*"]
)
def test_no_route(path: str) -> None:
    """A path matches whole, to the letter, or not at all."""
    with pytest.raises(NoRoute):
        TABLE.find("GET", path)


def test_a_path_that_serves_other_methods_lists_them() -> None:
    """All routes of the path count, in their order."""
    some = table(
        {"path": "/x", "methods": ["POST"]},
        {"path": "/{any}", "methods": ["GET", "POST"]},
    )
    with pytest.raises(MethodNotAllowed) as refused:
        some.find("DELETE", "/x")
    assert refused.value.allowed == ("POST", "GET")


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", ""])
def test_tunnels_and_echoes_are_never_proxied(method: str, path: str) -> None:
    """CONNECT would open a tunnel, TRACE send back what the sidecar adds to a request."""
    with pytest.raises(MethodNotAllowed) as refused:
        TABLE.find(method, path)
    assert set(COMMON_METHODS) == set(refused.value.allowed)


@pytest.mark.parametrize(
    ("target", "sent"), [("/caf%C3%A9/%C3%A9", True), ("/caf%c3%a9/x%2Fy", True), ("/caf%C3%A9/x/y", False)]
)
async def test_paths_match_decoded_and_pass_undecoded(
    target: str, sent: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A route is written as people read it, whatever the client encoded."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"path": "/café/{x}"})
    answer = await ask(sidecar.url, target)
    assert (answer.status, [request.target for request in origin.requests]) == (
        (200, [target]) if sent else (404, [])
    )
