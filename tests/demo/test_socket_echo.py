"""The plain echo, and what every WebSocket of the provider has in common."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from proxy.demo import Record, Running, State
from proxy.demo.voice import FAILURE
from proxy.demo.websocket import NO_CLOSE_FRAME, NO_CODE

from .sockets import joined
from .wire import READ_TIMEOUT, Wire, connect, get

#: A request for an upgrade, without an extension.
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
)


async def ended(running: Running) -> Record:
    """The only record, once its request is over."""
    (record,) = running.requests
    await running.ledger.until(lambda: not record.running)
    return record


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame, whose mask is all zeros."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def upgraded(wire: Wire, target: str = "/api/socket") -> None:
    """Ask for an upgrade, and read the answer."""
    wire.send(get(target, *HANDSHAKE))
    status, _ = await wire.head()
    assert status == 101


@pytest.mark.parametrize("message", ["grüezi 🌊", b"\x00\xff", "", b"", '{"some":"json"}'])
async def test_a_message_comes_back_as_it_came(running: Running, message: str | bytes) -> None:
    """Text as text, bytes as bytes."""
    async with joined(running, "/api/socket") as peer:
        await peer.send(message)
        assert await peer.receive() == message


async def test_sixteen_mebibytes_come_back(running: Running) -> None:
    """The largest message that a route lets through by default."""
    message = bytes(range(256)) * (16 * 1024 * 1024 // 256)
    async with joined(running, "/api/socket") as peer:
        await peer.send(message)
        assert await peer.receive() == message


async def test_the_first_subprotocol_offered_is_chosen(running: Running) -> None:
    """Whichever it is; none where none is offered."""
    async with joined(running, "/api/socket", protocols=["one.v1", "two.v2"]) as peer:
        assert peer.connection.subprotocol == "one.v1"
    async with joined(running, "/api/socket") as peer:
        assert peer.connection.subprotocol is None


@pytest.mark.parametrize(
    ("target", "extensions"), [("/api/socket", []), ("/api/socket?deflate=1", ["permessage-deflate"])]
)
async def test_messages_are_compressed_only_when_asked_for(
    running: Running, target: str, extensions: list[str]
) -> None:
    """A client that offers permessage-deflate gets it under ``deflate=1``."""
    url = running.url.replace("http", "ws", 1) + target
    async with ws_connect(url) as connection:
        assert [each.name for each in connection.protocol.extensions] == extensions
        await connection.send("a" * 1000)
        assert await connection.recv() == "a" * 1000


async def test_the_provider_closes_as_it_is_told(running: Running) -> None:
    """With that code and reason, and the ledger has them from the client's answer."""
    async with joined(running, "/api/socket") as peer:
        await peer.send_json(do="close", code=4001, reason="genug")
        assert await peer.closing() == (4001, "genug")
    record = await ended(running)
    assert (record.state, record.close_code) == (State.FINISHED, 4001)


async def test_the_provider_sends_as_much_as_it_is_told(running: Running) -> None:
    """Each byte tells the number of its message."""
    async with joined(running, "/api/socket") as peer:
        await peer.send_json(do="send", count=3, bytes=70_000)
        assert [await peer.receive() for _ in range(3)] == [bytes([n]) * 70_000 for n in range(3)]


async def test_the_provider_reads_nothing_while_it_pauses(running: Running) -> None:
    """A ping goes unanswered for that long."""
    async with joined(running, "/api/socket") as peer:
        clock = asyncio.get_running_loop().time
        began = clock()
        await peer.send_json(do="pause", seconds=0.1)
        await asyncio.wait_for(await peer.connection.ping(), READ_TIMEOUT)
        assert clock() - began >= 0.1


@pytest.mark.parametrize("command", ['{"do":"close","code":99}', '{"do":"sing"}', '{"do":"send","count":-1}'])
async def test_what_is_no_command_is_a_message(running: Running, command: str) -> None:
    """It comes back."""
    async with joined(running, "/api/socket") as peer:
        await peer.send(command)
        assert await peer.receive() == command


async def test_the_client_reads_its_own_code_and_reason_in_the_ledger(running: Running) -> None:
    """A close by the client is answered with the same code."""
    async with joined(running, "/api/socket") as peer:
        await peer.connection.close(4123, "bye")
        assert peer.connection.close_code == 4123
    record = await ended(running)
    assert (record.state, record.close_code, record.close_reason) == (State.FINISHED, 4123, "bye")
    assert record.as_json()["close_reason"] == "bye"


async def test_a_close_without_a_code_is_answered_by_another(running: Running) -> None:
    """The client's frame is empty, and so is the provider's; 1005 stands for none."""
    async with connect(running) as wire:
        await upgraded(wire)
        wire.send(masked(8, b""))
        assert await wire.rest() == b"\x88\x00"
    assert (await ended(running)).close_code == NO_CODE


async def test_a_client_that_vanishes_is_gone(running: Running) -> None:
    """Without a close frame the request ends as one whose client left; 1006 stands for no frame."""
    async with connect(running) as wire:
        await upgraded(wire)
        await running.ledger.until(lambda: running.ledger.open_streams == 1)
        assert running.requests[0].running
        wire.hang_up()
        record = await ended(running)
    assert (record.state, record.close_code) == (State.CLIENT_GONE, NO_CLOSE_FRAME)
    assert running.ledger.open_streams == 0


async def test_a_client_that_breaks_the_protocol_is_closed(running: Running) -> None:
    """A frame of an opcode that does not exist: 1002."""
    async with connect(running) as wire:
        await upgraded(wire)
        wire.send(masked(3, b"?"))
        assert await wire.rest() == b"\x88\x02" + (1002).to_bytes(2, "big")
    record = await ended(running)
    assert (record.state, record.close_code) == (State.FINISHED, NO_CLOSE_FRAME)


async def test_a_plain_request_is_told_to_upgrade(running: Running) -> None:
    """426 says what the URL is for."""
    async with connect(running) as wire:
        wire.send(get("/api/socket"))
        status, headers = await wire.head()
    assert (status, headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(("wrong", "status"), [("status=429", 429), ("sttus=429", 400)])
async def test_a_refusal_comes_before_the_upgrade(running: Running, wrong: str, status: int) -> None:
    """As HTTP, in the API's own form."""
    with pytest.raises(InvalidStatus) as refused:
        async with joined(running, f"/api/socket?{wrong}"):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["status"] == status


async def test_an_error_can_come_in_the_middle(running: Running) -> None:
    """``error_at``: so many messages, the app's error, a close with 1011."""
    async with joined(running, "/api/socket?error_at=1") as peer:
        await peer.send("one")
        await peer.send("two")
        assert await peer.receive() == "one"
        assert await peer.receive_json() == {"type": "error", "message": FAILURE}
        assert await peer.closing() == (1011, FAILURE)
    assert (await ended(running)).state is State.MISBEHAVED


async def test_a_socket_can_close_in_the_middle(running: Running) -> None:
    """``truncate_at``: so many messages, then a close as if all was said."""
    async with joined(running, "/api/socket?truncate_at=1") as peer:
        await peer.send_json(do="send", count=3)
        assert await peer.receive() == b""
        assert await peer.closing() == (1000, "")
    record = await ended(running)
    assert (record.state, record.events) == (State.MISBEHAVED, 1)


async def test_a_socket_can_be_dropped_in_the_middle_of_a_frame(running: Running) -> None:
    """``drop_at``: so many messages, half a frame, and no close."""
    async with connect(running) as wire:
        await upgraded(wire, "/api/socket?drop_at=1")
        wire.send(masked(1, b"abcd") + masked(1, b"abcd"))
        assert await wire.rest() == b"\x81\x04abcd" + b"\x81\x04a"
    record = await ended(running)
    assert (record.state, record.close_code) == (State.MISBEHAVED, NO_CLOSE_FRAME)


@pytest.mark.parametrize(
    ("size", "length"), [(200, b"\x7e\x00\xc8"), (70_000, b"\x7f\0\0\0\0\0\x01\x11\x70")]
)
async def test_a_large_frame_is_dropped_in_its_middle_too(running: Running, size: int, length: bytes) -> None:
    """The head of the frame promises all of it."""
    async with connect(running) as wire:
        await upgraded(wire, "/api/socket?drop_at=0")
        wire.send(masked(1, b'{"do":"send","bytes":%d}' % size))
        frame = b"\x82" + length + bytes(size)
        assert await wire.rest() == frame[: len(frame) // 2]


async def test_a_lost_drop_is_an_error_to_a_client(running: Running) -> None:
    """No close frame came."""
    async with joined(running, "/api/socket?drop_at=0") as peer:
        await peer.send("x")
        with pytest.raises(ConnectionClosedError) as lost:
            await peer.receive()
    assert lost.value.rcvd is None


async def test_a_socket_can_hang(running: Running) -> None:
    """``hang_at``: so many messages, then none; the client's close is still answered."""
    async with joined(running, "/api/socket?hang_at=1") as peer:
        await peer.send("one")
        await peer.send("two")
        assert await peer.receive() == "one"
        await asyncio.wait_for(await peer.connection.ping(), READ_TIMEOUT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.connection.recv(), 0.05)
        assert running.requests[0].running
        await peer.connection.close(4000)
        with pytest.raises(ConnectionClosed):
            await peer.receive()
    assert (await ended(running)).close_code == 4000


async def test_a_socket_can_pause_and_pad(running: Running) -> None:
    """``pause_at`` holds a message back, ``size`` fills JSON with spaces."""
    async with joined(running, "/api/socket?pause_at=1&pause=0.05&size=50") as peer:
        clock = asyncio.get_running_loop().time
        began = clock()
        await peer.send('{"a":1}')
        await peer.send("no JSON")
        assert await peer.receive() == '{"a":1}' + 43 * " "
        assert await peer.receive() == "no JSON"
        assert clock() - began >= 0.05
