"""The compose file: by compose's own schema, against the files it names, and run without containers.

There is no container engine here. The last test starts what the file starts, with the file's own values:
the app, a sidecar for each service with its environment, and nginx with its variables.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml

from proxy.config import Config, load
from tests.nginx.edges import HOSTS, Sidecars
from tests.support.client import Answer, ask
from tests.support.command import PROJECT
from tests.support.nginx import FOLDER, Certificate, Nginx, http, template
from tests.support.process import Process, free_port

COMPOSE = FOLDER / "compose.yaml"

#: Seconds that the sidecar takes at most after its ``drain``; docs/operations.md tells them.
LAST_WORDS = 3

SIDECARS = ("sidecar-a", "sidecar-b")


@pytest.fixture
def services() -> dict[str, Any]:
    """The services by name, anchors and merges resolved."""
    document: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return document["services"]


def config_of(service: dict[str, Any]) -> Config:
    """Return what a sidecar reads in its container."""
    return load(FOLDER / "sidecar.yaml", service["environment"])


def seconds(text: str) -> int:
    """Return a duration of whole seconds."""
    return int(text.removesuffix("s"))


def test_compose_would_take_it() -> None:
    """By the schema of the compose specification; and a misspelt key would be found."""
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text("utf-8"))
    document = yaml.safe_load(COMPOSE.read_text("utf-8"))
    jsonschema.validate(document, schema)
    document["services"]["nginx"]["stop_grace_peroid"] = "30s"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_what_it_mounts_and_builds_is_there(services: dict[str, Any]) -> None:
    """Every file beside it exists, but for the certificate, which the first lines make."""
    for service in services.values():
        for volume in service.get("volumes", []):
            source, target, mode = volume.split(":")
            assert mode == "ro"
            assert (FOLDER / source).exists() or source == "./tls", volume
            assert target.startswith("/")
    for name in SIDECARS:
        build = services[name]["build"]
        assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == PROJECT / "Dockerfile"


def test_the_sidecar_reads_what_the_image_serves(services: dict[str, Any]) -> None:
    """The configuration is mounted where the image's command looks."""
    (volume,) = services["sidecar-a"]["volumes"]
    assert f'"{volume.split(":")[1]}"' in (PROJECT / "Dockerfile").read_text("utf-8")


def test_nginx_gets_the_variables_of_its_template(services: dict[str, Any]) -> None:
    """Each of the template's is set, and is one that may be filled in."""
    environment = services["nginx"]["environment"]
    allowed = environment["NGINX_ENVSUBST_FILTER"]
    directives = re.sub(r"(?m)^\s*#.*$", "", (FOLDER / "default.conf.template").read_text("utf-8"))
    wanted = set(re.findall(r"\$\{(\w+)\}", directives))
    assert wanted == environment.keys() - {"NGINX_ENVSUBST_FILTER"}
    assert all(re.search(allowed, name) for name in wanted)


def test_nginx_finds_what_its_template_includes(services: dict[str, Any]) -> None:
    """Template, includes and certificate are mounted where they are looked for."""
    mounted = [volume.split(":")[1] for volume in services["nginx"]["volumes"]]
    text = (FOLDER / "default.conf.template").read_text("utf-8")
    included = re.findall(r"^\s*include ([^;]+);", text, re.MULTILINE)
    certificates = re.findall(r"^\s*ssl_certificate(?:_key)?\s+([^;]+);", text, re.MULTILINE)
    assert len(included) == len(certificates) == 2
    for path in ("/etc/nginx/templates/default.conf.template", *included, *certificates):
        assert path in mounted or str(Path(path).parent) in mounted, path


def test_nginx_knows_where_each_node_is(services: dict[str, Any]) -> None:
    """Addresses and nodes are those of the services, and the port is the configuration's."""
    nodes, servers = {}, set()
    for name in SIDECARS:
        config = config_of(services[name])
        address = services[name]["networks"]["streams"]["ipv4_address"]
        port = config.listen.rpartition(":")[2]
        assert config.node is not None
        nodes[config.node] = f"{address}:{port}"
        servers.add(f"{address}:{port}")
    environment = services["nginx"]["environment"]
    assert set(re.findall(r"server (\S+) [^;]*;", environment["SIDECARS"])) == servers
    assert dict(re.findall(r"(\S+) (\S+);", environment["SIDECAR_NODES"])) == nodes
    assert len(nodes) == len(SIDECARS)


def test_only_nginx_is_published(services: dict[str, Any]) -> None:
    """Neither the data plane nor the admin port can be reached from outside."""
    assert {name for name, service in services.items() if "ports" in service} == {"nginx"}


def test_everybody_waits_for_what_it_needs(services: dict[str, Any]) -> None:
    """Started from the app on; stopped the other way round."""
    healthy = {"condition": "service_healthy"}
    assert services["nginx"]["depends_on"] == dict.fromkeys(SIDECARS, healthy)
    for name in SIDECARS:
        assert services[name]["depends_on"] == {"app": healthy}
    assert "HEALTHCHECK" in (PROJECT / "Dockerfile").read_text("utf-8")
    assert all("healthcheck" in services[name] for name in ("nginx", "app"))


def test_the_sidecars_get_more_time_than_their_drain(services: dict[str, Any]) -> None:
    """`stop_grace_period` is above `drain` and the last words."""
    for name in SIDECARS:
        assert seconds(services[name]["stop_grace_period"]) > config_of(services[name]).drain + LAST_WORDS


async def test_it_works_without_containers(
    services: dict[str, Any], certificate: Certificate, tmp_path: Path
) -> None:
    """A chat through nginx and a sidecar to the app, and a resume, with the values of the file."""
    app_port, plain, secure = free_port(), free_port(), free_port()
    app = Process(
        *(sys.executable, FOLDER / "app.py", f"127.0.0.1:{app_port}"),
        ports=[app_port],
        output=tmp_path / "app",
    )
    sidecars = Sidecars(f"http://127.0.0.1:{app_port}")
    variables = {
        name: re.sub(r"172\.30\.0\.1(\d):8080", lambda at: sidecars.address("ab"[int(at[1]) - 1]), value)
        for name, value in services["nginx"]["environment"].items()
    }
    conf = http(template(http=plain, https=secure, certificate=certificate, **variables))
    for node in HOSTS:
        await sidecars.start(node)
    try:
        async with app, Nginx(conf):
            url, tls = f"https://127.0.0.1:{secure}", certificate.client()
            answer = await ask(url, "/api/chat", method="POST", body=b"hello", tls=tls)
            assert await words(answer) == ["You ", "said: ", "hello "]
            stream = answer.header("Stream-Id")
            resumed = await ask(url, f"/_streams/{stream}?after=1", tls=tls)
            assert await words(resumed) == ["said: ", "hello "]
            assert (await ask(url, "/healthz", tls=tls)).status == 200
    finally:
        await asyncio.gather(*(sidecars.stop(node) for node in HOSTS))


async def words(answer: Answer) -> list[str]:
    """Return what the events of a finished stream say."""
    assert answer.status == 200
    return re.findall(r'"text": "([^"]+)"', (await answer.rest()).decode())
