"""How long a stream lives, what ends it, and how its readers learn of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Answer, Truncated, ask, send
from tests.support.origin import Connection, Script
from tests.support.script import holds, streams


async def begin(sidecar: Sidecar, target: str = "/x", method: str = "POST") -> Answer:
    """Begin a stream, of no provider's dialect unless ``target`` says so."""
    return await ask(sidecar.url, target, method=method, body=b"{}" if method == "POST" else None)


async def state_of(sidecar: Sidecar, answer: Answer) -> dict[str, Any]:
    """What the stream's address tells of its state."""
    state = await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")
    document: dict[str, Any] = await state.json()
    return document


async def ended(sidecar: Sidecar, answer: Answer) -> str:
    """Wait for the stream's end and return its reason, which state, log and metrics tell alike."""
    await eventually(lambda: not sidecar.hub.running, "the stream ended")
    state = await state_of(sidecar, answer)
    assert state["state"] == "finished"
    metrics = (await (await ask(sidecar.admin_url, "/metrics")).body()).decode()
    assert f'sidecar_streams_ended_total{{reason="{state["reason"]}",route="all"}} 1.0\n' in metrics
    assert 'sidecar_active_streams{route="all"} 0.0\n' in metrics
    return str(state["reason"])


# linger


async def test_an_abandoned_stream_is_cancelled_after_linger_and_not_before(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The origin sees its request closed when nobody has read for ``linger``."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "250ms"})
    answer = await begin(sidecar)
    await answer.block()
    left = sidecar.hub.loop.time()
    answer.abort()
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert sidecar.hub.loop.time() - left >= 0.24
    assert await ended(sidecar, answer) == "cancelled"
    assert sidecar.telemetry.route("all").cancels == {"linger": 1}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_linger_the_upstream_goes_with_its_last_reader(
    start_origin: StartOrigin, start_sidecar: StartSidecar, method: str
) -> None:
    """``linger: 0s``: cancelled at once."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "0s"})
    answer = await begin(sidecar, method=method)
    await answer.block()
    answer.abort()
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert await ended(sidecar, answer) == "cancelled"
    assert sidecar.telemetry.route("all").cancels == {"disconnect": 1}


async def test_what_cannot_be_resumed_does_not_linger(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``replay: off``: nobody could come back to it."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": "off", "linger": "forever"})
    answer = await begin(sidecar)
    await answer.block()
    answer.abort()
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")


async def test_a_stream_may_linger_for_ever(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``linger: forever``: it goes on to its own end, and is whole when its client comes back."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "forever"})
    answer = await begin(sidecar)
    await answer.block()
    answer.abort()
    await eventually(lambda: not sidecar.hub.readers, "the reader was counted out")
    upstream = await origin.request()
    await upstream.chunk(b"data: b\n\n")
    await upstream.end()
    assert await ended(sidecar, answer) == "complete"
    again = await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}?after=1")
    assert (await again.rest()).endswith(b"data: b\n\n")


async def test_a_returning_reader_stops_the_linger(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Heartbeats count the time: long after the linger is over the stream still runs."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "1s", "heartbeat": "50ms"})
    first = await begin(sidecar)
    await first.block()
    first.abort()
    await eventually(lambda: not sidecar.hub.readers, "the reader was counted out")
    again = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}?after=1")
    await again.until(b": ping\n" * 25)
    await (await origin.request()).chunk(b"data: b\n\n")
    assert (await again.block()).endswith(b"data: b\n\n")


async def test_one_of_two_readers_may_leave(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Even without linger: the stream is the other one's too, until that leaves as well."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "0s"})
    first = await begin(sidecar)
    second = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}")
    await second.block()
    first.abort()
    await eventually(lambda: sidecar.hub.readers == 1, "the first reader was counted out")
    upstream = await origin.request()
    await upstream.chunk(b"data: b\n\n")
    assert (await second.block()).endswith(b"data: b\n\n")
    second.abort()
    await eventually(upstream.peer_closed.is_set, "the upstream request was closed")
    assert sidecar.telemetry.route("all").readers == 0


async def test_a_client_gone_before_the_headers_is_not_paid_for(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It has no id to come back with, so nothing lingers for it."""

    async def silent(connection: Connection) -> None:
        await connection.gone()

    origin = await start_origin(silent)
    sidecar = await start_sidecar(origin.url, route={"linger": "forever"})
    _, writer = await send(sidecar.url, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    upstream = await origin.request()
    writer.transport.abort()
    await eventually(upstream.peer_closed.is_set, "the upstream request was closed")
    assert not sidecar.gateway.in_flight


# keep


async def test_a_finished_stream_is_kept_and_then_only_remembered(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its log is dropped ``keep`` after its end, not before; all that stays is a tombstone."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": {"keep": "500ms"}})
    began = sidecar.hub.loop.time()
    answer = await begin(sidecar)
    await answer.rest()
    store = sidecar.hub.store
    assert (len(store), store.bytes > 0, store.tombstones) == (1, True, 0)
    await eventually(lambda: store.tombstones == 1, "the log was dropped")
    assert sidecar.hub.loop.time() - began >= 0.49
    assert (len(store), store.bytes) == (0, 0)
    assert len(sidecar.hub.wheel) == 0
    answer = await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")
    assert answer.status == 410


async def test_a_reader_that_is_replaying_is_not_cut_when_keep_is_over(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It takes its time, and gets everything all the same; only then the log is dropped."""
    blocks = [b"data: %b\n\n" % (b"%d" % (number % 10) * 100_000) for number in range(80)]
    origin = await start_origin(streams(*blocks))
    route = {"replay": {"keep": "20ms", "max_bytes": "16MiB"}}
    sidecar = await start_sidecar(origin.url, route=route)
    answer = await begin(sidecar)
    answer.stall()
    await eventually(lambda: not sidecar.hub.running, "the stream ended")
    finished = sidecar.hub.loop.time()
    await eventually(lambda: sidecar.hub.loop.time() > finished + 0.1, "keep is over")
    assert sidecar.hub.store.tombstones == 0  # if it drops now, it can still come back
    answer.go_on()
    assert (await answer.rest()).count(b"\n\n") == 80
    await eventually(lambda: sidecar.hub.store.tombstones == 1, "the log was dropped")


# cancel


async def test_a_cancelled_stream_stays_readable(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream is closed at once, not after linger; what was logged can be had until ``keep`` is over."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route={"linger": "forever"})
    answer = await begin(sidecar)
    await answer.blocks(2)
    target = f"/_streams/{answer.header('stream-id')}"
    assert (await ask(sidecar.url, f"{target}/cancel", method="POST")).status == 202
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    again = await ask(sidecar.url, f"{target}?after=1")
    assert again.header("stream-closed") == "true"
    assert (await again.block()).endswith(b"data: b\n\n")
    assert await ended(sidecar, answer) == "cancelled"


# timeouts


async def test_a_silent_upstream_is_given_up(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``timeouts.idle``: so long without a byte from upstream, whatever heartbeats the reader got."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "30ms", "timeouts": {"idle": "200ms"}})
    began = sidecar.hub.loop.time()
    answer = await begin(sidecar)
    assert (await answer.until(b": ping\n")).endswith(b"data: a\n\n: ping\n")
    with pytest.raises(Truncated):
        await answer.rest()
    assert sidecar.hub.loop.time() - began >= 0.19
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert await ended(sidecar, answer) == "idle_timeout"


async def test_an_upstreams_heartbeat_is_a_sign_of_life(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its comments are not events, but they keep the stream from being idle."""

    async def comments(connection: Connection) -> None:
        await connection.start_stream()
        for _ in range(6):
            await connection.chunk(b": still here\n\n")
            await asyncio.sleep(0.2)  # more than the idle limit in all, but never that long without a byte
        await connection.chunk(b"data: a\n\n")
        await connection.end()

    origin = await start_origin(comments)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"idle": "800ms"}})
    answer = await begin(sidecar)
    assert (await answer.rest()).endswith(b"data: a\n\n")
    assert await ended(sidecar, answer) == "complete"


async def test_a_feed_has_no_idle_limit_unless_its_own_route_names_one(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A feed is quiet for hours and healthy: what ``defaults`` says is not meant for it."""
    origin = await start_origin(holds(b"data: a\n\n"))
    quiet = await start_sidecar(
        origin.url, defaults={"timeouts": {"idle": "50ms"}}, route={"heartbeat": "30ms"}
    )
    answer = await begin(quiet, method="GET")
    await answer.until(b": ping\n" * 8)
    assert (await state_of(quiet, answer))["state"] == "live"
    limited = await start_sidecar(origin.url, route={"timeouts": {"idle": "250ms"}})
    answer = await begin(limited, method="GET")
    assert await ended(limited, answer) == "idle_timeout"


async def test_a_stream_ends_when_its_time_is_over(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``timeouts.total``: however lively it is."""

    async def lively(connection: Connection) -> None:
        await connection.start_stream()
        while True:
            await connection.chunk(b"data: a\n\n")
            await asyncio.sleep(0.01)

    origin = await start_origin(lively)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"total": "200ms"}})
    began = sidecar.hub.loop.time()
    answer = await begin(sidecar)
    with pytest.raises(Truncated):
        await answer.rest()
    assert sidecar.hub.loop.time() - began >= 0.19
    assert await ended(sidecar, answer) == "total_timeout"


async def test_total_time_covers_an_upstream_that_has_not_answered(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream opened early is as bounded as any other."""

    async def silent(connection: Connection) -> None:
        await connection.gone()

    origin = await start_origin(silent)
    route = {"open_after": "10ms", "timeouts": {"total": "250ms"}}
    sidecar = await start_sidecar(origin.url, route=route)
    answer = await ask(sidecar.url, "/x", headers={"Accept": "text/event-stream"})
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert await ended(sidecar, answer) == "total_timeout"


async def test_silence_does_not_count_while_the_upstream_is_not_read(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The reader is slow, so the upstream is paused: that is not its fault, and it is not given up."""
    block = b"data: %b\n\n" % (b"x" * 100_000)
    sent = asyncio.Event()

    async def flood(connection: Connection) -> None:
        await connection.start_stream()
        for _ in range(200):
            await connection.chunk(block)
        await connection.end()
        sent.set()

    origin = await start_origin(flood)
    route = {"replay": {"max_bytes": "1MiB"}, "timeouts": {"idle": "1200ms"}}
    sidecar = await start_sidecar(origin.url, route=route)
    answer = await begin(sidecar)
    answer.stall()
    (relay,) = sidecar.hub.running
    await eventually(lambda: relay.paused, "the upstream is not read")
    paused = sidecar.hub.loop.time()
    await eventually(lambda: sidecar.hub.loop.time() > paused + 1.5, "the idle limit has passed")
    assert not sent.is_set()
    assert not relay.finished
    answer.go_on()
    assert (await answer.rest()).count(block) == 200
    assert await ended(sidecar, answer) == "complete"
    assert relay.tally.pauses >= 1


# overflow


async def test_a_block_beyond_the_bound_ends_the_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: an event that never ends, to fill the memory. What came before it was delivered."""
    origin = await start_origin(holds(b"data: a\n\n", b"data: " + b"x" * 2000))
    sidecar = await start_sidecar(origin.url, route={"max_event_bytes": "1KiB"})
    answer = await begin(sidecar)
    assert (await answer.block()).endswith(b"data: a\n\n")
    with pytest.raises(Truncated):
        await answer.rest()
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert await ended(sidecar, answer) == "overflow"
    assert "1024" in (await state_of(sidecar, answer))["message"]


# truncation, told as each provider's SDK raises


@dataclass(frozen=True, slots=True)
class Speech:
    """How one provider streams: a request, a first block, an end, and where the end leaves no doubt.

    ``finish`` gives the reason why the model stopped, ``marker`` what may only follow it; either is empty
    where the provider has none.
    """

    target: str
    begin: bytes
    finish: bytes
    marker: bytes


def data(**value: Any) -> bytes:
    """A data-only block."""
    return b"data: %b\n\n" % json.dumps(value).encode()


def event(name: str, **value: Any) -> bytes:
    """A named block whose data says its name too."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **value})}\n\n".encode()


SPEECHES = {
    "openai": Speech(
        "/v1/chat/completions",
        data(object="chat.completion.chunk", choices=[{"index": 0, "delta": {"content": "Hi"}}]),
        data(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        b"data: [DONE]\n\n",
    ),
    "openai-responses": Speech(
        "/v1/responses",
        event("response.created", sequence_number=0),
        b"",
        event("response.completed", sequence_number=1, response={}),
    ),
    "anthropic": Speech(
        "/v1/messages",
        event("message_start", message={}),
        event("message_delta", delta={"stop_reason": "end_turn"}),
        event("message_stop"),
    ),
    "gemini": Speech(
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        data(candidates=[{"content": {"parts": [{"text": "Hi"}]}}]),
        data(candidates=[{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}]),
        b"",
    ),
    "generic": Speech("/chat", b"data: Hi\n\n", b"", b""),
}

every_dialect = pytest.mark.parametrize("dialect", list(SPEECHES))
every_provider = pytest.mark.parametrize("dialect", [name for name in SPEECHES if name != "generic"])


def told(dialect: str, block: bytes, reason: str, status: int) -> None:
    """Check that a block tells a failure as the provider's SDK expects it."""
    lines = block.decode().rstrip("\n").split("\n")
    said = json.loads(lines[-1].removeprefix("data: "))
    named = [line for line in lines if line.startswith("event: ")]
    if dialect == "openai":
        assert named == []
        assert {"message", "type", "code"} <= set(said["error"])
        assert said["error"]["code"] == reason
    elif dialect == "openai-responses":
        assert named == ["event: error"]
        assert (said["type"], said["code"], said["sequence_number"]) == ("error", reason, 1)
        assert said["error"]["message"] == said["message"]
    elif dialect == "anthropic":
        assert named == ["event: error"]
        assert said["type"] == "error"
        assert said["error"]["type"].endswith("_error")
    else:
        assert dialect == "gemini"
        assert len(lines) == 1
        assert said["error"]["code"] == status
        assert {"message", "status"} <= set(said["error"])


def drops(*chunks: bytes) -> Script:
    """Send the chunks and close the connection in the middle of the body."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        for chunk in chunks:
            await connection.chunk(chunk)
        await connection.close()

    return script


@every_dialect
async def test_a_connection_that_breaks_off_is_told(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str
) -> None:
    """In the provider's words; where none are known, by a body that does not end. No block is made up."""
    speech = SPEECHES[dialect]
    origin = await start_origin(drops(speech.begin, b'data: {"half'))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar, speech.target)
    assert (await answer.block()).endswith(speech.begin)
    if dialect == "generic":
        with pytest.raises(Truncated):
            await answer.rest()
    else:
        told(dialect, await answer.block(), "truncated", 502)
        assert await answer.rest() == b""
    assert await ended(sidecar, answer) == "truncated"


@every_provider
async def test_a_clean_close_without_the_providers_end_is_told(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str
) -> None:
    """A dead upstream must not look like a short answer."""
    speech = SPEECHES[dialect]
    origin = await start_origin(streams(speech.begin))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar, speech.target)
    await answer.block()
    told(dialect, await answer.block(), "truncated", 502)
    assert await answer.rest() == b""
    assert await ended(sidecar, answer) == "truncated"


async def test_a_clean_close_of_an_apps_stream_is_its_end(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nothing is known of its marker, so its word is taken."""
    origin = await start_origin(streams(b"data: Hi\n\n"))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar)
    assert (await answer.rest()).endswith(b"data: Hi\n\n")
    assert await ended(sidecar, answer) == "complete"


@every_provider
async def test_a_finish_reason_and_a_clean_close_are_complete(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str
) -> None:
    """Many servers leave the marker out; none is made up for them."""
    speech = SPEECHES[dialect]
    end = speech.finish or speech.marker
    origin = await start_origin(streams(speech.begin, end))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar, speech.target)
    await answer.block()
    assert (await answer.block()).endswith(end)
    assert await answer.rest() == b""
    assert await ended(sidecar, answer) == "complete"


@pytest.mark.parametrize("dialect", [name for name in SPEECHES if SPEECHES[name].finish])
async def test_a_finish_reason_and_a_broken_connection_are_not(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str
) -> None:
    """What would have followed (usage, the marker) was lost, and nobody knows what else."""
    speech = SPEECHES[dialect]
    origin = await start_origin(drops(speech.begin, speech.finish))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar, speech.target)
    await answer.blocks(2)
    told(dialect, await answer.block(), "truncated", 502)
    assert await ended(sidecar, answer) == "truncated"


@pytest.mark.parametrize("dialect", [name for name in SPEECHES if SPEECHES[name].marker])
@pytest.mark.parametrize("hangs", [True, False])
async def test_what_happens_after_the_marker_takes_nothing_back(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str, hangs: bool
) -> None:
    """``[DONE]``, and then the upstream hangs or breaks: the answer is whole, and ends as such."""
    speech = SPEECHES[dialect]
    chunks = (speech.begin, speech.finish + speech.marker)
    origin = await start_origin(holds(*chunks) if hangs else drops(*chunks))
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"idle": "250ms"}})
    answer = await begin(sidecar, speech.target)
    await answer.until(speech.marker)
    assert await answer.rest() == b""
    assert await ended(sidecar, answer) == "complete"


async def test_a_client_that_leaves_after_the_marker_had_everything(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """SDKs close at ``[DONE]``; a hanging upstream is then closed, and the stream was whole."""
    speech = SPEECHES["openai"]
    origin = await start_origin(holds(speech.begin, speech.marker))
    sidecar = await start_sidecar(origin.url, route={"linger": "0s"})
    answer = await begin(sidecar, speech.target)
    await answer.until(speech.marker)
    answer.abort()
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert await ended(sidecar, answer) == "complete"


@every_provider
async def test_a_providers_own_error_is_passed_and_nothing_added(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str
) -> None:
    """It says what went wrong better than we could."""
    speech = SPEECHES[dialect]
    error = {
        "openai": data(error={"message": "overloaded", "type": "server_error", "code": None}),
        "openai-responses": event("error", message="overloaded", code=None, sequence_number=1),
        "anthropic": event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
        "gemini": data(error={"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}),
    }[dialect]
    origin = await start_origin(drops(speech.begin, error))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar, speech.target)
    await answer.block()
    assert (await answer.block()).endswith(error)
    assert await answer.rest() == b""
    assert await ended(sidecar, answer) == "upstream_error"


@every_dialect
async def test_a_cancel_is_told_to_whoever_reads(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str
) -> None:
    """Another tab pressed stop: this reader must not take what it has for the whole."""
    speech = SPEECHES[dialect]
    origin = await start_origin(holds(speech.begin))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar, speech.target)
    await answer.block()
    await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}", method="DELETE")
    if dialect == "generic":
        with pytest.raises(Truncated):
            await answer.rest()
    else:
        told(dialect, await answer.block(), "cancelled", 499)
        assert await answer.rest() == b""
    assert await ended(sidecar, answer) == "cancelled"


@every_provider
async def test_an_idle_timeout_is_told_as_one(
    start_origin: StartOrigin, start_sidecar: StartSidecar, dialect: str
) -> None:
    """With the status that would have said it before the stream began."""
    speech = SPEECHES[dialect]
    origin = await start_origin(holds(speech.begin))
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"idle": "250ms"}})
    answer = await begin(sidecar, speech.target)
    await answer.block()
    told(dialect, await answer.block(), "idle_timeout", 504)
    assert await ended(sidecar, answer) == "idle_timeout"


async def test_what_told_the_failure_is_replayed_like_any_block(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A client that was away when the stream broke learns of it too, and has everything after it."""
    speech = SPEECHES["openai"]
    origin = await start_origin(drops(speech.begin))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, speech.target)
    whole = await first.rest()
    target = f"/_streams/{first.header('stream-id')}"
    again = await ask(sidecar.url, f"{target}?after=1")
    block = (await again.rest()).replace(b"retry: 3000\n", b"")
    assert block == whole[whole.index(b"id: ", 5) :]
    told("openai", block, "truncated", 502)
    assert (await ask(sidecar.url, f"{target}?after=2")).status == 204
    assert len(origin.requests) == 1


async def test_a_stopped_sidecar_tells_its_readers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``producer_lost``: the process ends, and no reader takes that for the end of its answer."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    answer = await begin(sidecar)
    await answer.block()
    await sidecar.stop()
    with pytest.raises(Truncated):
        await answer.rest()
    assert sidecar.telemetry.route("all").ends == {"producer_lost": 1}
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
