"""The commonest chain of all: nginx with nothing but a ``proxy_pass``, and a short answer."""

from __future__ import annotations

import json

import pytest

from proxy.server.app import Sidecar
from tests.conftest import StartCommand
from tests.support.nginx import Certificate, Nginx, free_port, http, template

BODY = '{"model":"demo","stream":true,"messages":[]}'


@pytest.mark.parametrize(
    ("setting", "faults"),
    [("", []), ("proxy_ignore_headers X-Accel-Buffering;", ["buffering"])],
    ids=["heeds", "ignores"],
)
async def test_a_proxy_pass_alone_is_good_while_it_heeds_the_sidecar(
    sidecar: Sidecar, start_command: StartCommand, setting: str, faults: list[str]
) -> None:
    """43 events in a second: told to ignore X-Accel-Buffering, nginx makes three or four lumps of them."""
    port = free_port()
    conf = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {sidecar.url}; {setting} }} }}"
    async with Nginx(http(conf)):
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = await start_command("doctor", url, "-d", BODY, "--json")
        status = await command.ended()
    found = [each for each in json.loads(command.output)["findings"] if each["verdict"] == "fault"]
    assert [each["check"] for each in found] == faults, found
    assert status == (1 if faults else 0)
    assert all("proxy_buffering off" in each["mend"] for each in found)


async def test_the_shipped_template_without_a_sidecar_is_one_finding(start_command: StartCommand) -> None:
    """An EventSource is told to come again by a 200, which is no app's stream."""
    port = free_port()
    with Certificate() as certificate:
        conf = template(
            http=free_port(),
            https=port,
            certificate=certificate,
            SIDECARS=f"server 127.0.0.1:{free_port()};",
            SIDECAR_NODES="",
        )
        async with Nginx(http(conf)):
            trust = ("--cacert", str(certificate.ca), "-H", "Sec-Fetch-Mode: cors")
            command = await start_command("doctor", f"https://localhost:{port}/api/events", *trust, "--json")
            assert await command.ended() == 2
    document = json.loads(command.output)
    assert document["verdict"] == "unjudged"
    found = [each for each in document["findings"] if each["verdict"] == "fault"]
    assert [each["check"] for each in found] == ["status"]
    assert "the edge found no sidecar" in found[0]["message"]
    assert "does the edge reach them" in found[0]["mend"]
