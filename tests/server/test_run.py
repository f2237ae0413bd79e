"""A sidecar as a process: its signals, its listeners, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.conftest import StartCommand, StartOrigin, eventually
from tests.support.client import Answer, Truncated, ask, read_answer, send
from tests.support.command import Command
from tests.support.origin import PATIENCE, Connection, response
from tests.support.script import holds, streams

#: Long enough that no test waits for it.
NEVER = "1h"

CHUNKED = b"POST /up HTTP/1.1\r\nHost: sidecar\r\nTransfer-Encoding: chunked\r\n\r\n"


def write_config(directory: Path, upstream: str, **top: Any) -> Path:
    """Write a configuration with one upstream for everything, on free ports."""
    document = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "upstreams": {"origin": {"url": upstream}},
        "routes": [{"name": "all", "path": "/{tail:.*}", "upstream": "origin"}],
        **top,
    }
    file = directory / "sidecar.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def one_block(number: int = 1) -> bytes:
    """One block."""
    return b"data: %d\n\n" % number


async def status_of(url: str, path: str) -> int:
    """Ask on a connection of its own."""
    answer = await ask(url, path, headers={"Connection": "close"})
    return answer.status


async def refused(url: str) -> bool:
    """Whether nobody listens there."""
    try:
        (await ask(url, "/")).close()
    except ConnectionError:
        return True
    return False


async def draining(command: Command) -> None:
    """Ask the process to end, and wait until it has begun to."""
    command.signal(signal.SIGTERM)
    await command.logged("draining")


async def truncated(answer: Answer) -> bytes:
    """Return the rest of a body whose last chunk never comes."""
    data = b""
    while True:
        try:
            piece = await answer.chunk()
        except Truncated:
            return data
        assert piece, f"the body ended as if it were whole: …{data[-200:]!r}"
        data += piece


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_drain_lets_running_streams_end(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand, number: signal.Signals
) -> None:
    """While a stream runs on, the sidecar is not ready and takes no connection; it ends after the stream."""
    origin = await start_origin(holds(one_block(1)))
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, drain=NEVER))
    url, admin = await sidecar.url(), await sidecar.admin_url()
    assert await status_of(admin, "/readyz") == 200
    stream = await ask(url, "/chat")
    await stream.block()

    sidecar.signal(number)
    await sidecar.logged("draining")

    assert await status_of(admin, "/readyz") == 503
    assert await status_of(admin, "/healthz") == 200
    assert await refused(url)
    connection = await origin.request()
    await connection.chunk(one_block(2))
    assert b"data: 2" in await stream.block()
    assert sidecar.running
    await connection.end()
    assert await stream.rest() == b""
    assert await sidecar.ended() == 0
    assert sidecar.log("stream")[0]["reason"] == "complete"


async def test_streams_that_do_not_end_are_closed_between_blocks(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """After ``drain`` each reader gets a ``retry:`` line of its own length, and no last chunk."""
    origin = await start_origin(holds(one_block(1)))
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, drain="100ms"))
    url = await sidecar.url()
    readers = [await ask(url, "/chat") for _ in range(8)]
    for reader in readers:
        await reader.block()

    sidecar.signal(signal.SIGTERM)
    last = [await truncated(reader) for reader in readers]

    assert sidecar.log("drain is over; readers were closed")[0]["readers"] == len(readers)
    matches = [re.fullmatch(rb"retry: (\d+)\n", line) for line in last]
    assert all(matches), last
    waits = [int(match[1]) for match in matches if match]
    assert len(set(waits)) > 1
    assert all(500 <= wait <= 1500 for wait in waits)
    assert await sidecar.ended() == 0
    assert [line["reason"] for line in sidecar.log("stream")] == ["producer_lost"] * len(readers)
    for request in origin.requests:
        await request.gone()


async def test_half_a_block_is_not_written_at_the_end(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """What the upstream has begun to say when the drain is over reaches nobody."""
    origin = await start_origin(holds(one_block(1) + b"data: half"))
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, drain="100ms"))
    stream = await ask(await sidecar.url(), "/chat")
    await stream.block()
    sidecar.signal(signal.SIGTERM)
    assert re.fullmatch(rb"retry: \d+\n", await truncated(stream))


async def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """Nobody waits for a drain of an hour twice; readers are closed between two blocks even then."""
    origin = await start_origin(holds(one_block(1)))
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, drain=NEVER))
    stream = await ask(await sidecar.url(), "/chat")
    await stream.block()
    await draining(sidecar)
    sidecar.signal(signal.SIGTERM)
    assert re.fullmatch(rb"retry: \d+\n", await truncated(stream))
    assert await sidecar.ended() == 0


async def test_a_request_without_an_answer_does_not_outlast_the_drain(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """An upstream that never answers cannot keep the process."""

    async def silent(connection: Connection) -> None:
        await connection.gone()

    origin = await start_origin(silent)
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, drain="100ms"))
    reader, _ = await send(await sidecar.url(), b"GET / HTTP/1.1\r\nHost: sidecar\r\n\r\n")
    await origin.request()
    sidecar.signal(signal.SIGTERM)
    assert await sidecar.ended() == 0
    async with asyncio.timeout(PATIENCE):
        assert b" 200 " not in await reader.read()


async def test_idle_connections_are_closed_first(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """A balancer's kept connection does not carry new requests to a sidecar that is leaving."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        if connection.target == "/slow":
            await release.wait()
        await connection.send(response(body=b"hello"))

    origin = await start_origin(script)
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, drain=NEVER))
    url = await sidecar.url()
    idle = await ask(url, "/fast")
    assert await idle.body() == b"hello"
    assert idle.header("Connection") is None
    reader, writer = await send(url, b"GET /slow HTTP/1.1\r\nHost: sidecar\r\n\r\n")
    await origin.request(2)

    await draining(sidecar)

    assert await idle.closed()
    release.set()
    last = await read_answer(reader, writer)
    assert last.header("Connection") == "close"
    assert await last.body() == b"hello"
    assert await last.closed()
    assert await sidecar.ended() == 0


async def test_an_upload_goes_on_while_draining(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """The rest of a request that has begun is read, and answered."""

    async def script(connection: Connection) -> None:
        assert await connection.reader.readexactly(len(b"5\r\nfirst\r\n")) == b"5\r\nfirst\r\n"
        begun.set()
        assert await connection.reader.readuntil(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"
        await connection.send(response(body=b"taken"))

    begun = asyncio.Event()
    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, drain=NEVER))
    reader, writer = await send(await sidecar.url(), CHUNKED + b"5\r\nfirst\r\n")
    await begun.wait()
    await draining(sidecar)
    writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
    answer = await read_answer(reader, writer)
    assert (answer.status, await answer.body()) == (200, b"taken")
    assert await sidecar.ended() == 0


async def test_a_reader_of_a_finished_stream_is_dismissed_too(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """A client that is slow to take an old stream's rest gets whole blocks, and no end like a real one."""
    blocks, size = 256, 64 * 1024  # more than the sockets on the way hold
    origin = await start_origin(streams(b"data: %b\n\n" % (b"x" * size) * blocks))
    config = write_config(tmp_path, origin.url, drain="100ms", defaults={"replay": {"max_bytes": "64MiB"}})
    sidecar = await start_command("serve", config)
    url = await sidecar.url()
    whole = await ask(url, "/chat")
    assert (await whole.rest()).count(b"\n\n") == blocks
    late = await ask(url, f"/_streams/{whole.header('stream-id')}")
    late.stall()
    sidecar.signal(signal.SIGTERM)
    assert (await sidecar.logged("drain is over; readers were closed"))["readers"] == 1
    late.go_on()
    assert (await truncated(late)).count(b"\n\n") < blocks
    assert await sidecar.ended() == 0


# Reload


async def test_sighup_reads_the_file_again(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """After SIGHUP requests are answered by what the file says then."""
    first = await start_origin(holds(one_block(1)))
    second = await start_origin(holds(one_block(2)))
    sidecar = await start_command("serve", write_config(tmp_path, first.url))
    url = await sidecar.url()
    assert b"data: 1" in await (await ask(url, "/")).block()
    write_config(tmp_path, second.url)
    sidecar.signal(signal.SIGHUP)
    await sidecar.logged("configuration loaded")
    assert b"data: 2" in await (await ask(url, "/")).block()


async def test_a_changed_file_is_read_without_a_signal(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """A bad file is told, with its line, and changes nothing; the next good one is taken."""
    origin = await start_origin(holds(one_block(1)))
    file = write_config(tmp_path, origin.url)
    sidecar = await start_command("serve", file)
    url = await sidecar.url()
    good = file.read_text()

    file.write_text(good.replace("upstream: origin", "upstream: nobody"))
    refused = await sidecar.logged("configuration refused; the old one stays in force")
    assert refused["level"] == "error"
    assert [problem for problem in refused["problems"] if "nobody" in problem and "line " in problem]
    assert b"data: 1" in await (await ask(url, "/")).block()

    file.write_text(good)
    await sidecar.logged("configuration loaded")
    metrics = await (await ask(await sidecar.admin_url(), "/metrics")).body()
    assert b'sidecar_config_reloads_total{outcome="refused"} 1.0\n' in metrics
    assert b'sidecar_config_reloads_total{outcome="loaded"} 1.0\n' in metrics


# Listeners


async def test_a_taken_port_is_told_on_one_line(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """Who cannot listen says where and why, and ends with 1."""
    origin = await start_origin(holds())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for listeners in ({"listen": address}, {"admin": {"listen": address}}):
            sidecar = await start_command("serve", write_config(tmp_path, origin.url, **listeners))
            assert await sidecar.ended() == 1
            assert sidecar.errors == f"sse-sidecar: {address}: cannot listen here: Address already in use\n"


async def test_an_address_that_is_not_ours_is_told(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """So is an address of another machine."""
    origin = await start_origin(holds())
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, listen="192.0.2.1:8080"))
    assert await sidecar.ended() == 1
    assert sidecar.errors == (
        "sse-sidecar: 192.0.2.1:8080: cannot listen here: Cannot assign requested address\n"
    )


async def test_unix_sockets(tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand) -> None:
    """Both listeners can be Unix sockets; one that a dead process left behind is no obstacle."""
    origin = await start_origin(holds(one_block(1)))
    data, admin = tmp_path / "data.sock", tmp_path / "admin.sock"
    config = write_config(tmp_path, origin.url, listen=f"unix:{data}", admin={"listen": f"unix:{admin}"})
    for _ in range(2):
        sidecar = await start_command("serve", config)
        line = await sidecar.logged("listening")
        assert (line["on"], line["admin"]) == ([f"unix:{data}"], [f"unix:{admin}"])
        assert b"ok\n" in await over_unix(admin, b"GET /healthz HTTP/1.0\r\n\r\n", b"ok\n")
        assert b"data: 1\n\n" in await over_unix(data, b"GET /chat HTTP/1.0\r\n\r\n", b"\n\n")
        assert (await origin.request(len(origin.requests))).header("X-Forwarded-For") is None
        sidecar.signal(signal.SIGKILL)
        await sidecar.ended()


async def over_unix(path: Path, request: bytes, until: bytes) -> bytes:
    """Send a request to a Unix socket; return the body up to ``until``."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        data = await reader.readuntil(until)
        writer.close()
        await writer.wait_closed()
    return data


async def test_tls(tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand) -> None:
    """With a certificate the data plane speaks TLS, and streams over it; upstreams hear so."""
    origin = await start_origin(holds(one_block(1)))
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(key)
    for part in certificate.cert_chain_pems:
        part.write_to_path(chain, append=True)
    tls = {"cert": str(chain), "key": str(key)}
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, tls=tls))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    port = int((await sidecar.url()).rpartition(":")[2])
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname="localhost"
        )
        writer.write(b"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await read_answer(reader, writer)
        assert b"data: 1" in await answer.block()
        writer.close()
    assert (await origin.request()).header("X-Forwarded-Proto") == "https"


async def test_a_certificate_that_cannot_be_used_is_told(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """The line names the files; OpenSSL's own message does not."""
    origin = await start_origin(holds())
    cert, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    config = write_config(tmp_path, origin.url, tls={"cert": str(cert), "key": str(key)})
    missing = await start_command("serve", config)
    assert await missing.ended() == 1
    assert missing.errors == (
        f"sse-sidecar: {cert}, {key}: cannot serve TLS with these: No such file or directory\n"
    )
    cert.write_text("this is no certificate\n")
    key.write_text("this is no key\n")
    unreadable = await start_command("serve", config)
    assert await unreadable.ended() == 1
    assert unreadable.errors.startswith(f"sse-sidecar: {cert}, {key}: cannot serve TLS with these: ")
    assert unreadable.errors.count("\n") == 1


async def test_nothing_is_left_behind_by_a_start_that_failed(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """A taken admin port frees the data plane's port again."""
    origin = await start_origin(holds())
    with socket.create_server(("127.0.0.1", 0)) as spare:
        free = spare.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        config = write_config(tmp_path, origin.url, listen=f"127.0.0.1:{free}", admin=admin)
        assert await (await start_command("serve", config)).ended() == 1
    sidecar = await start_command("serve", config)
    assert await sidecar.url() == f"http://127.0.0.1:{free}"
    await eventually(lambda: sidecar.running)


async def test_a_unix_socket_in_use_is_not_taken_away(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """A second sidecar is refused while the first one lives; what a killed one left behind is replaced."""
    origin = await start_origin(holds(one_block(1)))
    path = tmp_path / "data"
    config = write_config(tmp_path, origin.url, listen=f"unix:{path}")
    first = await start_command("serve", config)
    await first.logged("listening")
    second = await start_command("serve", config)
    assert await second.ended() == 1
    assert "Address already in use" in second.errors
    request = b"GET /chat HTTP/1.0\r\n\r\n"
    assert b"data: 1\n\n" in await over_unix(path, request, b"\n\n")
    first.signal(signal.SIGKILL)
    await first.ended()
    assert path.is_socket()
    third = await start_command("serve", config)
    await third.logged("listening")
    assert b"data: 1\n\n" in await over_unix(path, request, b"\n\n")
