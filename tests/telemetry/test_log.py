"""What a sidecar writes to stderr: one JSON line a stream, and never a credential."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from tests.conftest import StartCommand, StartOrigin, eventually
from tests.support.client import Truncated, ask, read_answer, send
from tests.support.command import PROJECT, write_config
from tests.support.origin import PATIENCE, Connection, response
from tests.support.script import holds
from tests.support.tunnel import accepts
from tests.support.websocket import CLOSE, ask_upgrade, closing, connect, frame

SECRETS = {
    "authorization": "Bearer sk-client-2f9c",
    "cookie": "session=cookie-77aa",
    "idempotency-key": "idem-93b1",
    "x-api-key": "xkey-51d0",
    "proxy-authorization": "Basic proxy-08ce",
}
QUERY = "key=query-6e4d"
INJECTED = "sk-injected-c3f7"
PATH = "bot-path-e21f"

#: In a block by which an SDK knows its provider.
CHUNK = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}'
)


async def provider(connection: Connection) -> None:
    """An origin that does what the path says."""
    path = connection.target.partition("?")[0]
    if path == "/plain":
        body = b"plain" if connection.method != "HEAD" else b""
        await connection.send(response("Set-Cookie: s=set-cookie-19bd", body=body))
    elif path == "/fails":
        await connection.send(response(status="500 Internal Server Error", body=b"oops"))
    elif path == "/garbage":
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: what\r\n\r\n")
        await connection.close()
    elif path == "/silent":
        await connection.gone()
    else:
        chat = path == "/v1/chat/completions"
        await connection.start_stream()
        for number in range(3):
            await connection.chunk(b"data: %b\n\n" % (CHUNK if chat else b"%d" % number))
        await (connection.close if chat else connection.end)()


async def test_a_stream_has_one_line(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """It says where the stream came from, how it went, and how it ended."""
    origin = await start_origin(provider)
    sidecar = await start_command("serve", write_config(tmp_path, origin.url))
    url = await sidecar.url()
    stream = await ask(url, f"/api/chat?{QUERY}")
    body = await stream.rest()
    line = await sidecar.logged("stream")

    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    assert line["level"] == "info"
    expected = {
        "stream": (stream.header("stream-id") or "")[:6],
        "route": "all",
        "upstream": "origin",
        "dialect": "generic",
        "emit": "passthrough",
        "method": "GET",
        "path": "/api/chat",
        "client": "127.0.0.1",
        "reason": "complete",
        "message": "",
        "events": 3,
        "bytes_in": len(b"data: 0\n\n" * 3),
        "bytes_out": len(body),
        "readers": 1,
        "resumes": 0,
        "replayed": 0,
        "heartbeats": 0,
        "drops": 0,
        "pauses": 0,
        "evicted": 0,
        "recorded": True,
        "model": None,
        "input_tokens": None,
        "output_tokens": None,
        "finish_reason": None,
        "first_token": None,
    }
    assert {name: line[name] for name in expected} == expected
    assert 0 <= line["first_event"] <= line["duration"] < PATIENCE
    assert 0 <= line["longest_gap"] <= line["duration"]
    assert set(line) - set(expected) == {
        *("timestamp", "level", "event", "first_event", "duration", "longest_gap")
    }


async def test_a_stream_that_went_wrong_is_a_warning(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """And says what went wrong."""
    origin = await start_origin(provider)
    sidecar = await start_command("serve", write_config(tmp_path, origin.url))
    broken = await ask(await sidecar.url(), "/v1/chat/completions", method="POST", body=b'{"stream":true}')
    await broken.rest()
    line = await sidecar.logged("stream")
    assert (line["level"], line["reason"], line["dialect"]) == ("warning", "truncated", "openai")
    assert "broke off" in line["message"]


async def test_plain_requests_have_lines_if_asked_for(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """``log.requests``: one line each, our own answers and abandoned requests too; a stream has its own."""
    origin = await start_origin(provider)
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, log={"requests": True}))
    url = await sidecar.url()
    assert await (await ask(url, f"/plain?{QUERY}")).body() == b"plain"
    assert (await ask(url, "/plain", method="HEAD")).status == 200
    assert await (await ask(url, "/fails", method="DELETE")).body() == b"oops"
    nowhere = await (await ask(url, "/%2e%2e/x")).body()
    stream = await ask(url, "/stream")
    await stream.rest()
    here = f"/_streams/{stream.header('stream-id')}"
    state = await (await ask(url, f"{here}/state")).body()
    assert (await ask(url, f"{here}?after=3")).status == 204
    _, writer = await send(url, b"POST /silent HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
    await origin.request(5)
    writer.close()
    assert (await sidecar.logged("request", 7))["status"] == 499

    lines = sidecar.log("request")
    told = [[line[name] for name in ("method", "path", "status", "bytes", "route")] for line in lines]
    shown = here[: len("/_streams/") + 6]
    assert told == [
        ["GET", "/plain", 200, 5, "all"],
        ["HEAD", "/plain", 200, 0, "all"],
        ["DELETE", "/fails", 500, 4, "all"],
        ["GET", "/%2e%2e/x", 400, len(nowhere), "-"],
        ["GET", f"{shown}/state", 200, len(state), "_streams"],
        ["GET", shown, 204, 0, "_streams"],
        ["POST", "/silent", 499, 0, "all"],
    ]
    assert all(line["client"] == "127.0.0.1" and 0 <= line["duration"] < PATIENCE for line in lines)
    assert [line["level"] for line in lines] == ["info"] * 2 + ["warning"] + ["info"] * 4
    assert len(sidecar.log("stream")) == 1


async def test_plain_requests_have_no_lines_otherwise(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """The log tells of streams; what every access log tells is the edge's to tell."""
    origin = await start_origin(provider)
    sidecar = await start_command("serve", write_config(tmp_path, origin.url))
    url = await sidecar.url()
    assert (await ask(url, "/plain")).status == 200
    await (await ask(url, "/stream")).rest()
    await sidecar.logged("stream")
    assert not sidecar.log("request")


async def test_the_level_leaves_out_what_is_less(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """With ``level: warning`` only what went wrong is written."""
    origin = await start_origin(provider)
    config = write_config(tmp_path, origin.url, log={"level": "warning", "requests": True})
    config.write_text(config.read_text().replace("127.0.0.1:0", "unix:" + str(tmp_path / "s.sock"), 1))
    sidecar = await start_command("serve", config)
    for path in ("/plain", "/stream", "/fails"):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await connected(tmp_path / "s.sock")
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            await reader.read()
            writer.close()
            await writer.wait_closed()
    await sidecar.logged("request")
    assert [(line["event"], line["status"]) for line in sidecar.log()] == [("request", 500)]


async def connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as soon as somebody listens."""
    while True:
        try:
            return await asyncio.open_unix_connection(path)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0.01)


async def test_no_credential_is_ever_written(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """Whatever a client sends and however it ends: no header, no query, no whole id of a stream.

    An upstream's error may quote the key that it refuses; that is for the client, not for the log.
    """
    answered_early = asyncio.Event()

    async def script(connection: Connection) -> None:
        if not connection.target.startswith("/refuses"):
            await provider(connection)
            return
        await answered_early.wait()
        said = f"no such key: {connection.header('authorization')}".encode()
        await connection.send(response(status="401 Unauthorized", body=said))

    origin = await start_origin(script)
    config = write_config(
        tmp_path,
        origin.url,
        log={"level": "debug", "requests": True},
        upstreams={
            "origin": {"url": origin.url},
            "paid": {"url": origin.url, "set_headers": {"Authorization": "Bearer ${PROVIDER_KEY}"}},
            "nobody": {"url": f"http://127.0.0.1:1/{PATH}"},
        },
        routes=[
            {"name": "paid", "path": "/refuses", "upstream": "paid", "open_after": "10ms"},
            {"name": "dead", "path": "/dead", "upstream": "nobody"},
            {"name": "all", "path": "/{tail:.*}", "upstream": "origin"},
        ],
    )
    sidecar = await start_command("serve", config, PROVIDER_KEY=INJECTED)
    url, admin = await sidecar.url(), await sidecar.admin_url()
    ids = []
    for path in ("/plain", "/fails", "/garbage", "/dead", "/stream", "/v1/chat/completions"):
        for method in ("GET", "POST"):
            body = b'{"stream":true,"secret":"body-40a2"}' if method == "POST" else None
            answer = await ask(url, f"{path}?{QUERY}", method=method, headers=SECRETS, body=body)
            ids.append(answer.header("stream-id"))
            answer.close()
    early = await ask(
        url, f"/refuses?{QUERY}", method="POST", headers={"Accept": "text/event-stream"}, body=b"{}"
    )
    ids.append(early.header("stream-id"))
    assert early.status == 200
    answered_early.set()
    stream = await ask(url, f"/stream?{QUERY}", headers=SECRETS)
    await stream.rest()
    stream_id = stream.header("stream-id") or ""
    ids.append(stream_id)
    for target, headers in (
        (f"/_streams/{stream_id}/state", {}),
        (f"/_streams/{stream_id}?last_event_id={stream_id}.1", {}),
        (f"/stream?{QUERY}", {"Last-Event-ID": f"{stream_id}.1"}),
        (f"/stream?{QUERY}", {"Last-Event-ID": f"{stream_id}.99"}),
        (f"/_streams/{stream_id[:-1]}x?{QUERY}", {}),
    ):
        (await ask(url, target, headers=headers)).close()
    malformed = f"GET /plain?{QUERY} HTTP/1.1\r\nCookie {SECRETS['cookie']}\r\n\r\n"
    reader, writer = await send(url, malformed.encode())
    assert (await read_answer(reader, writer)).status == 400
    await eventually(lambda: "upstream_error" in sidecar.errors, "the end of the refused one")
    metrics = await (await ask(admin, "/metrics")).body()
    listing = await (await ask(admin, "/streams")).body()
    sidecar.signal(signal.SIGTERM)
    assert await sidecar.ended() == 0

    assert len([stream_id for stream_id in ids if stream_id]) >= 5
    assert {line["reason"] for line in sidecar.log("stream")} >= {"complete", "truncated"}
    written = "\n".join((sidecar.errors, sidecar.output, metrics.decode(), listing.decode()))
    values = [value.split(" ")[-1].split("=")[-1] for value in SECRETS.values()]
    for secret in (*values, "query-6e4d", "body-40a2", "set-cookie-19bd", INJECTED, PATH):
        assert secret not in written, [line for line in written.splitlines() if secret in line]
    for known in filter(None, ids):
        assert known not in written, [line for line in written.splitlines() if known in line]


async def test_no_credential_of_a_websocket_is_ever_written(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """What a page can only say as a subprotocol, in the query or in a frame is as secret as a header."""

    async def script(connection: Connection) -> None:
        path = connection.target.partition("?")[0]
        if path == "/refuses":
            said = f"no such key: {connection.headers}".encode()
            await connection.send(response(status="401 Unauthorized", body=said))
        elif path == "/socket":
            await accepts()(connection)
        elif path == "/wrong":
            await connection.send(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n")
            await connection.close()
        else:
            await provider(connection)

    origin = await start_origin(script)
    config = write_config(
        tmp_path,
        origin.url,
        log={"level": "debug", "requests": True},
        upstreams={"origin": {"url": origin.url}, "nobody": {"url": f"http://127.0.0.1:1/{PATH}"}},
        routes=[
            {"name": "dead", "path": "/dead", "upstream": "nobody", "websocket": "bridge"},
            {
                "name": "tunnel",
                "path": "/{tail:socket|wrong}",
                "upstream": "origin",
                "websocket": "passthrough",
            },
            {"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"},
        ],
    )
    sidecar = await start_command("serve", config)
    url, admin = await sidecar.url(), await sidecar.admin_url()
    bearers = "sse-sidecar.v1, bearer.bearer-a81c, openai-insecure-api-key.sk-openai-7d20"
    headers = {**SECRETS, "Sec-WebSocket-Protocol": bearers}
    ids = []
    for path in ("/stream", "/v1/chat/completions", "/refuses", "/garbage", "/dead"):
        socket = await connect(url, f"{path}?{QUERY}", headers)
        await socket.say({"type": "start", "body": {"secret": "body-40a2"}})
        heard = await socket.hear()
        if heard["type"] == "open":
            ids.append(heard["stream"])
            await socket.hear_until("end")
            await socket.say({"type": "resume", "last_event_id": f"{ids[-1]}.1"})
            await socket.hear_until("end")
            await socket.say({"type": "resume", "last_event_id": f"{ids[-1]}.99"})
            await socket.hear()
        await socket.say('{"secret":"body-40a2"')
        assert "body-40a2" in (await socket.hear())["message"]
        assert (await socket.close(3000, "reason-5b1e")).code == 3000
    for path in ("/socket", "/wrong"):
        answer = await ask_upgrade(
            url, f"{path}?{QUERY}", headers, early=frame(CLOSE, closing(3000, "reason-5b1e"))
        )
        assert answer.status == {"/socket": 101, "/wrong": 502}[path]
        answer.abort()
    assert (await ask_upgrade(url, f"/?{QUERY}", {**headers, "Sec-WebSocket-Version": "7"})).status == 426
    twice = {**headers, "Sec-WebSocket-Protocol": f"{bearers}, bearer.bearer-a81c"}
    assert (await ask_upgrade(url, f"/?{QUERY}", twice)).status == 400
    await sidecar.logged("websocket")
    metrics = await (await ask(admin, "/metrics")).body()
    listing = await (await ask(admin, "/streams")).body()
    sidecar.signal(signal.SIGTERM)
    assert await sidecar.ended() == 0

    assert len(ids) == 2
    assert {line["status"] for line in sidecar.log("request")} >= {101, 400, 426, 502}
    written = "\n".join((sidecar.errors, sidecar.output, metrics.decode(), listing.decode()))
    values = [value.split(" ")[-1].split("=")[-1] for value in SECRETS.values()]
    for secret in (
        *values,
        "bearer-a81c",
        "sk-openai-7d20",
        "query-6e4d",
        "body-40a2",
        "reason-5b1e",
        PATH,
        *ids,
    ):
        assert secret not in written, [line for line in written.splitlines() if secret in line]


# The format


async def stderr_of(program: str) -> str:
    """Run Python code in a process of its own and return what it wrote to stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        cwd=PROJECT,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return errors.decode()


LIBRARIES = """
import logging, warnings
from proxy.config import Log
from proxy.telemetry import Telemetry, configure_logging
configure_logging(Log(format={format!r}))
logging.getLogger("aiohttp.client").info("not told")
logging.getLogger("aiohttp.client").warning("broken %s", "cookie")
try:
    raise ValueError("of a library")
except ValueError:
    logging.getLogger("asyncio").exception("task failed")
    Telemetry().log.error("ours failed", exc_info=True)
warnings.warn("deprecated", UserWarning)
Telemetry().log.info("ours", number=1)
"""


async def test_libraries_write_json_too() -> None:
    """Every line can be parsed, a library's warning and a traceback among them."""
    lines = [json.loads(line) for line in (await stderr_of(LIBRARIES.format(format="json"))).splitlines()]
    warning, failure, own_failure, deprecation, own = lines
    assert (warning["level"], warning["event"], warning["logger"]) == (
        *("warning", "broken cookie"),
        "aiohttp.client",
    )
    assert (failure["level"], failure["event"], failure["logger"]) == ("error", "task failed", "asyncio")
    assert failure["exception"].endswith("ValueError: of a library")
    assert own_failure["exception"].endswith("ValueError: of a library")
    assert deprecation["logger"] == "py.warnings"
    assert "deprecated" in deprecation["event"]
    assert own == {"timestamp": own["timestamp"], "level": "info", "event": "ours", "number": 1}


async def test_people_get_lines_for_people() -> None:
    """``format: console``: no JSON, and a traceback that can be read."""
    text = await stderr_of(LIBRARIES.format(format="console"))
    assert "broken cookie" in text
    assert "number" in text
    assert "Traceback" in text
    with pytest.raises(ValueError, match=r"Expecting value|Extra data"):
        json.loads(text.splitlines()[0])


async def test_a_log_that_nobody_takes_breaks_no_stream(tmp_path: Path, start_origin: StartOrigin) -> None:
    """``sse-sidecar serve … 2>&1 | head``: when head has left, streams go on."""
    origin = await start_origin(provider)
    socket_path = tmp_path / "s.sock"
    config = write_config(tmp_path, origin.url, listen=f"unix:{socket_path}")
    taken, given = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", str(config)),
        cwd=PROJECT,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=given,
    )
    os.close(given)
    try:
        while b"listening" not in await asyncio.to_thread(os.read, taken, 65536):
            pass
        os.close(taken)
        for _ in range(2):
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(socket_path)
                writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).endswith(b"0\r\n\r\n")
                writer.close()
                await writer.wait_closed()
    finally:
        process.kill()
        await process.wait()


async def test_the_silence_that_ended_a_stream_counts(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """``longest_gap`` has the last gap too, which is the one that an idle limit is about."""
    origin = await start_origin(holds(b"data: a\n\n"))
    config = write_config(tmp_path, origin.url, defaults={"timeouts": {"idle": "300ms"}})
    sidecar = await start_command("serve", config)
    with contextlib.suppress(Truncated):
        await (await ask(await sidecar.url(), "/x", method="POST", body=b"{}")).rest()
    line = await sidecar.logged("stream")
    assert 0.29 <= line["longest_gap"] <= line["duration"]


async def test_a_tls_failure_is_told_by_its_cause(tmp_path: Path, start_command: StartCommand) -> None:
    """The operator learns which of the many it was; the client does not."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(served)
    upstream = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=served)
    async with upstream:
        port = upstream.sockets[0].getsockname()[1]
        sidecar = await start_command("serve", write_config(tmp_path, f"https://localhost:{port}"))
        answer = await ask(await sidecar.url(), "/x")
        told = await answer.body()
        line = await sidecar.logged("upstream failed")
    assert answer.status == 502
    assert "certificate verify failed" in line["detail"]
    assert b"certificate verify failed" not in told
