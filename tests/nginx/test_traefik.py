"""Traefik's files, by reading: there is no Traefik here to run them, and the files say so."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from proxy.config import load
from tests.support.nginx import FOLDER

#: What may stand in an id behind the node's name.
TAIL = "aB3-_" * 4 + "xy"


def read(name: str) -> Any:
    """Return a file's document."""
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


@pytest.fixture
def dynamic() -> Any:
    """Routers, services and transports."""
    return read("traefik.dynamic.yaml")["http"]


def router(dynamic: Any, path: str, last_event_id: str = "", query: str = "") -> str:
    """Return the service to which Traefik leads a request: of the rules that match, by priority."""
    seen = {"PathRegexp": path, "PathPrefix": path, "HeaderRegexp": last_event_id, "QueryRegexp": query}

    def matches(rule: str) -> bool:
        """Whether one of the alternatives does: a matcher's last argument is its expression."""
        return any(
            re.search(f"^{value}" if name == "PathPrefix" else value, seen[name])
            for name, value in re.findall(r"(\w+)\((?:`[^`]*`, )?`([^`]*)`\)", rule)
        )

    found = [each for each in dynamic["routers"].values() if matches(each["rule"])]
    return str(max(found, key=lambda each: each["priority"])["service"])


def test_what_could_not_be_run_is_marked() -> None:
    """Nobody takes these files for tried ones."""
    for name in ("traefik.yaml", "traefik.dynamic.yaml"):
        assert "NOT RUN" in (FOLDER / name).read_text("utf-8")


@pytest.mark.parametrize("node", ["a", "b"])
def test_what_names_a_stream_goes_to_its_node(dynamic: Any, node: str) -> None:
    """By path, header and query; and no other node's id does."""
    stream = f"{node}-{TAIL}"
    for path in (f"/_streams/{stream}", f"/_streams/{stream}/cancel"):
        assert router(dynamic, path) == f"first-{node}"
    assert router(dynamic, "/api/chat", f"{stream}.17") == f"first-{node}"
    assert router(dynamic, "/api/chat", query=f"{stream}.17") == f"first-{node}"
    assert router(dynamic, f"/_streams/{node}-x-{TAIL}") == "any"
    assert router(dynamic, "/api/chat", "17") == "any"


def test_a_lost_node_s_requests_go_to_the_other(dynamic: Any) -> None:
    """The other one can say 404, or begin a feed anew."""
    services = dynamic["services"]
    assert services["first-a"]["failover"] == {"service": "a", "fallback": "b"}
    assert services["first-b"]["failover"] == {"service": "b", "fallback": "a"}


def test_nothing_ends_a_stream(dynamic: Any) -> None:
    """No time spans an answer or a request, no middleware repeats a request, none compresses a stream."""
    (limits,) = (
        entry["transport"]["respondingTimeouts"]
        for entry in read("traefik.yaml")["entryPoints"].values()
        if "transport" in entry
    )
    assert limits["writeTimeout"] == limits["readTimeout"] == "0s"
    used = {name for router in dynamic["routers"].values() for name in router["middlewares"]}
    assert used == dynamic["middlewares"].keys() == {"unclaimed", "compress"}
    assert dynamic["middlewares"]["compress"] == {"compress": {"excludedContentTypes": ["text/event-stream"]}}


def test_health_and_idle_connections(dynamic: Any) -> None:
    """Health checks go to the admin port; idle connections are dropped before the sidecar drops them."""
    config = load(FOLDER / "sidecar.yaml", {})
    assert config.admin is not None
    for name in ("any", "a", "b"):
        balancer = dynamic["services"][name]["loadBalancer"]
        assert balancer["healthCheck"]["path"] == "/readyz"
        assert balancer["healthCheck"]["port"] == int(config.admin.listen.rpartition(":")[2])
        assert {server["url"].rpartition(":")[2] for server in balancer["servers"]} == {
            config.listen.rpartition(":")[2]
        }
    (transport,) = dynamic["serversTransports"].values()
    assert int(transport["forwardingTimeouts"]["idleConnTimeout"].removesuffix("s")) < config.keepalive
