"""Other people's clients joined to the provider's socket: what they agree on and say is theirs."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo import State
from tests.peers.conftest import SetStage, Stage
from tests.peers.peer import Rejected

#: How streams are read from the upstream is nothing to a tunnel.
pytestmark = pytest.mark.parametrize("start_sidecar", [True], indirect=True, ids=["tunnel"])

SOCKET = "/api/socket"
MIB = 1 << 20


@pytest.mark.parametrize("message", ["grüezi 🌊", "", b"", bytes(range(256)), b"x" * 70_000])
async def test_a_message_comes_back_as_it_went(stage: Stage, message: str | bytes) -> None:
    """Text as text, bytes as bytes."""
    peer = await stage.connect(SOCKET)
    await peer.send(message)
    assert await peer.receive() == message


async def test_sixteen_mebibytes_pass_both_ways(stage: Stage) -> None:
    """The largest message that a route lets through by default."""
    message = bytes(range(251)) * (16 * MIB // 251) + b"ends here"[: 16 * MIB % 251]
    peer = await stage.connect(SOCKET)
    await peer.send(message)
    assert await peer.receive() == message


async def test_one_byte_more_ends_both_connections(stage: Stage) -> None:
    """The sender hears 1009, the provider 1001."""
    peer = await stage.connect(SOCKET)
    await peer.send(bytes(16 * MIB + 1))
    assert (await peer.ended())[0] == 1009
    assert (await stage.ended()).close_code == 1001


async def test_the_upstream_chooses_the_subprotocol(stage: Stage) -> None:
    """What is offered goes upstream, with the client's own header fields, and the choice comes back."""
    peer = await stage.connect(
        SOCKET, subprotocols=("app.v2", "app.v1"), headers={"Authorization": "Bearer s3cret"}
    )
    assert peer.subprotocol == "app.v2"
    (record,) = stage.provider.requests
    assert record.header("Authorization") == "Bearer s3cret"
    offered = (record.header("Sec-WebSocket-Protocol") or "").split(",")
    assert [name.strip() for name in offered] == ["app.v2", "app.v1"]


async def test_compression_that_both_want_is_theirs(stage: Stage) -> None:
    """Agreed on end to end: a megabyte of one letter passes as a few kilobytes, and comes back whole."""
    peer = await stage.connect(f"{SOCKET}?deflate=1", deflate=True)
    assert peer.extensions.startswith("permessage-deflate")
    await peer.send("a" * MIB)
    assert await peer.receive() == "a" * MIB
    stage.sidecar.hub._settle()
    passed = stage.sidecar.telemetry.route("socket").websocket_bytes
    assert 0 < passed["to_upstream"] < MIB // 100
    assert 0 < passed["to_client"] < MIB // 100


async def test_compression_that_only_one_wants_is_not_added(stage: Stage) -> None:
    """The provider declines, and so it is declined."""
    peer = await stage.connect(SOCKET, deflate=True)
    assert peer.extensions == ""
    await peer.send("a" * MIB)
    assert await peer.receive() == "a" * MIB


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (4001, "grüezi"), (3000, "")])
async def test_a_clients_goodbye_reaches_the_provider(stage: Stage, code: int, reason: str) -> None:
    """Code and reason as they were said, and the provider's answer comes back."""
    peer = await stage.connect(SOCKET)
    await peer.close(code, reason)
    record = await stage.ended()
    assert (record.close_code, record.close_reason) == (code, reason)
    assert await peer.ended() == (code, reason)


async def test_a_providers_goodbye_reaches_the_client(stage: Stage) -> None:
    """Code and reason as they were said."""
    peer = await stage.connect(SOCKET)
    await peer.send('{"do":"close","code":4002,"reason":"genug für heute"}')
    assert await peer.ended() == (4002, "genug für heute")
    assert (await stage.ended()).state is State.FINISHED


async def test_a_refusal_is_answered_as_it_is(stage: Stage) -> None:
    """The handshake's answer has the provider's status."""
    with pytest.raises(Rejected) as rejected:
        await stage.connect(f"{SOCKET}?status=403")
    assert rejected.value.status == 403


async def test_who_leaves_without_a_word_is_gone_for_the_provider(stage: Stage) -> None:
    """Nothing was said, and nothing is made up."""
    peer = await stage.connect(SOCKET)
    await peer.send("a")
    await peer.receive()
    await peer.drop()
    assert (await stage.ended()).close_code == 1006


async def test_a_provider_that_drops_is_gone_for_the_client(stage: Stage) -> None:
    """In the middle of a frame: there is no place left for a goodbye."""
    peer = await stage.connect(f"{SOCKET}?drop_at=1")
    await peer.send("a")
    assert await peer.receive() == "a"
    await peer.send("b" * 1000)
    assert (await peer.ended())[0] == 1006


async def test_a_hundred_messages_each_way_at_once(stage: Stage) -> None:
    """Nothing is lost, doubled or out of order."""
    peer = await stage.connect(SOCKET)
    messages = [bytes([number]) * (number * 997 % 65_536) for number in range(100)]
    for message in messages:
        await peer.send(message)
    assert [await peer.receive() for _ in messages] == messages


async def test_a_drain_is_told_to_both(set_stage: SetStage) -> None:
    """1001: connect again."""
    stage = await set_stage(top={"drain": "50ms"})
    peer = await stage.connect(SOCKET)
    await stage.sidecar.drain()
    assert (await peer.ended())[0] == 1001
    assert (await stage.ended()).close_code == 1001


async def test_a_quiet_peer_is_pinged_and_stays(set_stage: SetStage) -> None:
    """Libraries answer the sidecar's pings by themselves; who does not is given up after three."""
    stage = await set_stage(top={"defaults": {"heartbeat": "200ms"}})
    peer = await stage.connect(SOCKET)
    await asyncio.sleep(0.9)  # four heartbeats of silence, of which three would be too many
    await peer.send("still here")
    assert await peer.receive() == "still here"
    await peer.send('{"do":"pause","seconds":60}')
    assert (await peer.ended())[0] == 1006
