"""What the shipped nginx configuration tells the sidecar, the client and the log; and that nginx takes it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.nginx.conftest import Edge, StartEdge, servers, shipped
from tests.support.client import Truncated, ask
from tests.support.forwarder import Forwarder
from tests.support.nginx import FOLDER, Certificate, Nginx, check, free_port, http, substitute
from tests.support.process import program, run
from tests.support.script import answers, holds, streams

SIDECARS = "server 127.0.0.1:8080;"


# The redirect


async def test_plain_http_is_redirected(start_edge: StartEdge) -> None:
    """To the same path and query, by a status that keeps a POST a POST."""
    edge = await start_edge("http://127.0.0.1:1")
    answer = await ask(edge.plain_url, "/v1/x?q=%2F", method="POST", body=b"{}")
    assert answer.status == 308
    assert answer.header("location") == "https://127.0.0.1/v1/x?q=%2F"


# To the sidecar


async def test_what_is_said_of_the_client(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Its address, scheme and the name it called, port and all; and nothing that it made up itself."""
    origin = await start_origin(streams())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    forged = {
        "Forwarded": "for=192.0.2.1;proto=http",
        "X-Real-IP": "192.0.2.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "elsewhere.example",
        "Host": "app.example:8443",
    }
    await edge.ask("/", headers=forged)
    request = await origin.request()
    assert request.header("x-forwarded-for") == "127.0.0.1, 127.0.0.1"  # the client's, and nginx's
    assert request.header("x-forwarded-proto") == "https"
    assert request.header("x-forwarded-host") == "app.example:8443"
    assert request.header("forwarded") is None
    assert b"192.0.2.1" not in request.head


async def test_the_name_that_was_called_over_http_2(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """There it is no header field of the client's, and comes as one, with the port, all the same."""
    origin = await start_origin(streams())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    async with edge.curl("/") as curl:
        await curl.rest()
    assert (await origin.request()).header("x-forwarded-host") == edge.url.removeprefix("https://")


async def test_the_chain_of_addresses_goes_on(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """What a balancer in front said stays in it, for a sidecar that trusts that balancer."""
    origin = await start_origin(streams())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    await edge.ask("/", headers={"X-Forwarded-For": "203.0.113.7"})
    assert (await origin.request()).header("x-forwarded-for") == "203.0.113.7, 127.0.0.1, 127.0.0.1"


async def test_connections_to_the_sidecar_are_kept(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Ten requests, one after the other, come over one."""
    origin = await start_origin(answers(b"200 OK", b"hello"))
    async with Forwarder((await start_sidecar(origin.url)).url) as between:
        edge = await start_edge(between.url)
        for _ in range(10):
            assert await (await edge.ask("/")).body() == b"hello"
        assert len(between.wires) == 1


async def test_an_upstream_sends_nobody_elsewhere(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """With X-Accel-Redirect, a provider could have nginx ask for any path in the client's name."""
    origin = await start_origin(answers(b"200 OK\r\nX-Accel-Redirect: /elsewhere", b"hello"))
    edge = await start_edge((await start_sidecar(origin.url)).url)
    assert await (await edge.ask("/here", method="POST", body=b"{}")).body() == b"hello"
    assert [request.target for request in origin.requests] == ["/here"]


# Request ids


@pytest.mark.parametrize("kept", ["0123456789abcdef", "req_7.a-B"])
async def test_a_clients_request_id_is_kept(
    kept: str, start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """It goes to the upstream, comes back to the client, and stands in the log."""
    origin = await start_origin(streams())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask("/", headers={"X-Request-Id": kept})
    assert answer.headers("x-request-id") == [kept]
    assert (await origin.request()).header("x-request-id") == kept
    assert (await logged(edge))["request"] == kept


@pytest.mark.parametrize("bad", ["short", "x" * 129, 'a"quote"and\\more', "spaces in it"])
async def test_a_bad_request_id_is_replaced(
    bad: str, start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """By one that nobody can have chosen."""
    origin = await start_origin(streams())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask("/", headers={"X-Request-Id": bad})
    (told,) = answer.headers("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", told)
    assert (await origin.request()).header("x-request-id") == told


async def test_a_providers_request_id_is_left_alone(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Its SDK shows it, and its support asks for it: there is one such header, not two."""
    origin = await start_origin(answers(b"200 OK\r\nX-Request-Id: req_011"))
    edge = await start_edge((await start_sidecar(origin.url)).url)
    assert (await edge.ask("/")).headers("x-request-id") == ["req_011"]


# The log


async def logged(edge: Edge, number: int = 1) -> dict[str, Any]:
    """Wait for the access log's line of this number (from 1)."""
    await eventually(lambda: edge.nginx.access_log().count("\n") >= number, f"{number} lines")
    line: dict[str, Any] = json.loads(edge.nginx.access_log().splitlines()[number - 1])
    return line


@pytest.mark.parametrize("node", [None, "a"])
async def test_a_stream_id_is_shortened_in_the_log(
    node: str | None, start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """It is the right to read the stream. Queries, which may hold one as well, are not shown at all."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    settings = {} if node is None else {"node": node}
    edge = await start_edge((await start_sidecar(origin.url, **settings)).url)
    opening = await edge.ask("/chat?key=secret", method="POST", body=b"{}")
    stream = opening.header("stream-id") or ""
    await edge.ask(f"/_streams/{stream}/state?last_event_id={stream}.1")
    shown = stream[: 6 + (0 if node is None else 2)]
    assert (await logged(edge))["path"] == f"/_streams/{shown}…/state"
    opening.abort()
    chat = await logged(edge, 2)
    assert (chat["path"], chat["status"], chat["complete"], chat["method"]) == ("/chat", 200, "", "POST")
    assert chat["stream"] == shown  # as the sidecar's own log has it
    assert float(chat["headers_s"]) <= chat["seconds"]
    assert stream not in edge.nginx.access_log()
    assert "secret" not in edge.nginx.access_log()


async def test_a_stream_that_broke_behind_nginx_stands_in_its_error_log(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """To nginx's access log it was complete: there is no variable that tells."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask("/chat", method="POST", body=b"{}")
    await (await origin.request()).close()
    with pytest.raises(Truncated):
        await answer.body()
    assert (await logged(edge))["complete"] == "OK"
    assert "upstream prematurely closed connection" in edge.nginx.error_log()


async def test_what_is_no_stream_is_logged_as_it_is(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """The path, decoded, with its quotes escaped; and that the answer went out whole."""
    edge = await start_edge((await start_sidecar((await start_origin(answers(b"200 OK"))).url)).url)
    await edge.ask('/a%20b/"c"')
    line = await logged(edge)
    assert (line["path"], line["complete"]) == ('/a b/"c"', "OK")


# nginx takes it


@pytest.mark.parametrize(
    ("urls", "nodes"),
    [
        pytest.param(["http://127.0.0.1:8080"], None, id="one"),
        pytest.param(["http://127.0.0.1:8080", "http://127.0.0.1:8081"], None, id="two"),
        pytest.param(["http://127.0.0.1:8080"], {}, id="nodes-empty"),
        pytest.param(["http://127.0.0.1:8080"], {"a": "http://127.0.0.1:8080"}, id="nodes"),
    ],
)
async def test_nginx_takes_the_template(
    urls: list[str],
    nodes: dict[str, str] | None,
    certificate: Certificate,
    nginx_command: list[str | Path],
) -> None:
    """With one variable or two; and warns of nothing, but a new one of the old way to ask for HTTP/2."""
    conf = shipped(certificate, free_port(), free_port(), *urls, nodes=nodes)
    status, output = await check(conf, nginx_command)
    assert status == 0, output
    warnings = [line for line in output.splitlines() if "[warn]" in line]
    assert all('the "listen ... http2" directive is deprecated' in line for line in warnings), output


async def test_without_sidecars_nginx_does_not_start(certificate: Certificate) -> None:
    """It says which variable is missing."""
    conf = shipped(certificate, free_port(), free_port()).replace(servers([]), "")
    text = (FOLDER / "default.conf.template").read_text("utf-8")
    assert "${SIDECARS}" in text
    status, output = await check(conf.replace("least_conn;", "least_conn; ${SIDECARS}"))
    assert status == 1
    assert 'unknown directive "${SIDECARS}"' in output


@pytest.mark.parametrize(
    "variables", [{"SIDECARS": SIDECARS}, {"SIDECARS": SIDECARS, "SIDECAR_NODES": "a b;"}]
)
async def test_the_images_own_substitution(variables: dict[str, str]) -> None:
    """The envsubst of these tests does what the real one does: only what is defined is replaced."""
    envsubst, template = program("envsubst"), FOLDER / "default.conf.template"
    names = " ".join(f"${{{name}}}" for name in variables)
    assignments = [f"{name}={value}" for name, value in variables.items()]
    command = f"exec {envsubst} '{names}' < '{template}'"
    status, output = await run("env", *assignments, "sh", "-c", command)
    assert (status, output) == (0, substitute(template.read_text("utf-8"), **variables))


# An existing server


EXISTING = """
    include {folder}/sse-sidecar-http.conf;
    upstream sidecars {{ {servers} keepalive 8; }}
    map $sidecar_node $sidecar_of_node {{ default sidecars; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_set_header X-Own yes;
        proxy_buffering on;
        client_max_body_size 1k;
        include {folder}/sse-sidecar.conf;
        location / {{ return 200 "the app's own"; }}
        location /v1/ {{
            client_max_body_size 0;
            try_files /dev/null @sidecar;
        }}
    }}
"""


async def test_the_include_in_an_existing_server(
    start_origin: StartOrigin, start_sidecar: StartSidecar, nginx_command: list[str | Path]
) -> None:
    """Two includes: the server's own settings stay, and do not reach the streams."""
    origin = await start_origin(holds())
    sidecar = await start_sidecar(origin.url)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    conf = http(EXISTING.format(folder=FOLDER, servers=servers([sidecar.url]), port=port))
    async with Nginx(conf, command=nginx_command) as nginx:
        assert "[warn]" not in nginx.error_log()
        assert await (await ask(url, "/page")).body() == b"the app's own"
        answer = await ask(url, "/v1/chat/completions", method="POST", body=b"x" * 65536)
        upstream = await origin.request()
        assert upstream.header("x-own") is None
        for number in range(3):
            await upstream.chunk(b"data: %d\n\n" % number)
            assert (await answer.block()).endswith(b"data: %d\n\n" % number)
        resumed = await ask(url, f"/_streams/{answer.header('stream-id')}?after=1")
        assert (await resumed.block()).endswith(b"data: 1\n\n")
        answer.abort()
        resumed.abort()


def test_no_directive_is_unexplained() -> None:
    """Each has a comment above it, or stands in a block of lines that has one."""
    for name in ("default.conf.template", "sse-sidecar.conf", "sse-sidecar-http.conf"):
        text = (FOLDER / name).read_text("utf-8")
        for paragraph in re.split(r"\n\s*\n", text):
            assert "#" in paragraph or re.fullmatch(r"[\s}]*", paragraph), (name, paragraph)


def test_files_are_readable_by_the_image() -> None:
    """Nginx of the image reads the mounted folder as another user."""
    for path in (FOLDER, *FOLDER.glob("*.conf*")):
        assert os.stat(path).st_mode & 0o004, Path(path)
