"""Other people's clients at the bridge: streams begun, stopped, lost and found again."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.demo import State, expected_text
from tests.peers.conftest import SetStage, Stage
from tests.support.client import ask
from tests.support.origin import PATIENCE

#: How streams are read from the upstream is nothing to a client.
pytestmark = pytest.mark.parametrize("start_sidecar", [True], indirect=True, ids=["bridge"])

PROMPT = {"prompt": "hi"}
QUICK = "/api/chat?interval=0"
ENDLESS = "/api/chat?endless=1&interval=0.005"


def words(heard: list[Any]) -> str:
    """What the token events say."""
    return "".join(frame["data"]["text"] for frame in heard if frame.get("event") == "token")


def ids(heard: list[Any]) -> list[str]:
    """The ids of the events."""
    return [frame["id"] for frame in heard if frame["type"] == "event"]


async def test_a_stream_comes_whole(stage: Stage) -> None:
    """Opened, forty tokens and the app's own end, each once, in order and numbered, and the end."""
    peer = await stage.connect(QUICK)
    await peer.say("start", body=PROMPT)
    heard = await peer.hear_until("end")
    stream = heard[0]["stream"]
    assert heard[0] == {"type": "open", "stream": stream, "status": 200}
    assert ids(heard) == [f"{stream}.{seq}" for seq in range(1, 42)]
    assert words(heard) == expected_text()
    assert heard[-2]["event"] == "done"
    assert heard[-1] == {"type": "end", "stream": stream, "reason": "complete"}


async def test_one_connection_serves_one_stream_after_another(stage: Stage) -> None:
    """A start, a chat, a bare body: three requests, three streams, and a ping in between."""
    peer = await stage.connect(QUICK)
    await peer.say("start", body=PROMPT)
    streams = [(await peer.hear_until("end"))[-1]["stream"]]
    await peer.say("ping")
    assert await peer.hear() == {"type": "pong"}
    await peer.say("chat", **PROMPT)
    streams.append((await peer.hear_until("end"))[-1]["stream"])
    await peer.send('{"prompt":"hi"}')
    heard = await peer.hear_until("end")
    assert words(heard) == expected_text()
    assert len({*streams, heard[-1]["stream"]}) == 3
    assert [record.method for record in stage.provider.requests] == ["POST"] * 3


async def test_a_cancel_arrives_while_tokens_flow(stage: Stage) -> None:
    """The end says so, the provider is let go at once, and the connection is ready for the next stream."""
    peer = await stage.connect(ENDLESS)
    await peer.say("start", body=PROMPT)
    assert (await peer.hear())["type"] == "open"
    await peer.hear_until("event")
    await peer.say("cancel")
    end = (await peer.hear_until("end"))[-1]
    assert end["reason"] == "cancelled"
    assert (await stage.ended()).state is State.CLIENT_GONE
    await peer.say("start", body=PROMPT)
    assert (await peer.hear())["type"] == "open"


async def test_a_stream_is_resumed_from_another_connection(stage: Stage) -> None:
    """Dropped without a word after ten events; what follows, and nothing else, comes over the next one."""
    target = "/api/chat?tokens=200&interval=0.002"
    lost = await stage.connect(target)
    await lost.say("start", body=PROMPT)
    before = [await lost.hear() for _ in range(11)]
    stream = before[0]["stream"]
    await lost.drop()

    found = await stage.connect(target)
    await found.say("resume", last_event_id=before[-1]["id"])
    after = await found.hear_until("end")
    assert after[0] == {"type": "open", "stream": stream, "status": 200, "resumed_from": 10}
    assert ids(before + after) == [f"{stream}.{seq}" for seq in range(1, 202)]
    assert words(before + after) == expected_text(200)
    assert len(stage.provider.requests) == 1


async def test_a_stream_begun_over_sse_is_followed_and_stopped(stage: Stage) -> None:
    """The id in the answer's header is all that it takes."""
    answer = await ask(stage.sidecar.url, ENDLESS, method="POST", body=b'{"prompt":"hi"}')
    stream = answer.header("stream-id")
    await answer.blocks(3)
    peer = await stage.connect()
    await peer.say("resume", stream=stream, after=1)
    assert (await peer.hear())["resumed_from"] == 1
    assert (await peer.hear())["id"] == f"{stream}.2"
    await peer.say("cancel", stream=stream)
    assert (await peer.hear_until("end"))[-1]["reason"] == "cancelled"
    assert (await stage.ended()).state is State.CLIENT_GONE


async def test_a_token_among_the_subprotocols_goes_upstream_as_a_bearer(stage: Stage) -> None:
    """As a page has to send it: it is not chosen, not told, and not passed on as a subprotocol."""
    peer = await stage.connect(QUICK, subprotocols=("sse-sidecar.v1", "bearer.s3cret"))
    assert peer.subprotocol == "sse-sidecar.v1"
    await peer.say("start", body=PROMPT)
    await peer.hear_until("end")
    (record,) = stage.provider.requests
    assert record.header("Authorization") == "Bearer s3cret"
    assert record.header("Sec-WebSocket-Protocol") is None


async def test_compression_is_declined(stage: Stage) -> None:
    """A client that offers it speaks on without."""
    peer = await stage.connect(QUICK, deflate=True)
    assert peer.extensions == ""
    await peer.say("start", body={"prompt": "hi" * 10_000})
    assert words(await peer.hear_until("end")) == expected_text()


async def test_what_is_no_command_is_told_and_does_no_harm(stage: Stage) -> None:
    """Binary, no JSON, an unknown type, a second start: an error each, and the stream goes on."""
    peer = await stage.connect(ENDLESS)
    await peer.say("start", body=PROMPT)
    await peer.hear_until("event")
    for wrong in (b"\0\1", "{", '{"type":"sing"}', '{"type":"start"}'):
        await peer.send(wrong)
        error = (await peer.hear_until("error"))[-1]
        assert error["message"]
    assert (await peer.hear_until("event"))[-1]["event"] == "token"


async def test_a_refusal_upstream_is_an_error_with_its_status_and_body(stage: Stage) -> None:
    """What the provider said comes as it said it."""
    peer = await stage.connect("/api/chat?status=429")
    await peer.say("start", body=PROMPT)
    error = await peer.hear()
    assert (error["type"], error["status"], error["recoverable"]) == ("error", 429, True)
    assert error["body"]["status"] == 429


async def test_a_goodbye_is_answered_with_its_code(stage: Stage) -> None:
    """Whoever closes hears its own code back."""
    peer = await stage.connect(QUICK)
    await peer.close(1000, "done")
    assert (await peer.ended())[0] == 1000


async def test_a_message_that_is_too_large_ends_the_connection(set_stage: SetStage) -> None:
    """1009, and the reason says how much is allowed."""
    stage = await set_stage(max_message="64KiB")
    peer = await stage.connect(QUICK)
    await peer.send("x" * 70_000)
    code, reason = await peer.ended()
    assert code == 1009
    assert "65536" in reason


async def test_a_drain_is_told(set_stage: SetStage) -> None:
    """1001: connect again; what was running can be resumed there."""
    stage = await set_stage(top={"drain": "50ms"})
    peer = await stage.connect(ENDLESS)
    await peer.say("start", body=PROMPT)
    await peer.hear_until("event")
    await stage.sidecar.drain()
    assert (await peer.ended())[0] == 1001


async def test_a_peer_that_is_pinged_stays(set_stage: SetStage) -> None:
    """The library answers pings by itself, so a quiet connection outlives many heartbeats."""
    stage = await set_stage(heartbeat="150ms")
    peer = await stage.connect("/api/chat?interval=0&first_delay=0.9")
    await peer.say("start", body=PROMPT)
    heard = await peer.hear_until("end")
    assert words(heard) == expected_text()
    (relay,) = stage.sidecar.hub.store
    assert relay.tally.heartbeats > 4


async def test_who_leaves_without_a_word_lingers_like_any_reader(set_stage: SetStage) -> None:
    """The upstream goes on for ``linger``, and is let go then."""
    stage = await set_stage(linger="100ms")
    peer = await stage.connect(ENDLESS)
    await peer.say("start", body=PROMPT)
    await peer.hear_until("event")
    await peer.drop()
    assert (await stage.ended()).state is State.CLIENT_GONE
    await stage.provider.ledger.until(lambda: not stage.provider.ledger.open_streams, timeout=PATIENCE)
    assert stage.sidecar.telemetry.route("all").cancels["linger"] == 1
