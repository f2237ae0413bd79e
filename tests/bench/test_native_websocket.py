"""The WebSockets of the benchmark's upstream and load generator: no frame is miscounted, none made up."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pytest

from tests.bench.conftest import StartLoad
from tests.bench.program import (
    PATIENCE,
    SECOND,
    Listener,
    Program,
    Server,
    Upstream,
    event,
    eventually,
    lone,
    marks,
    needs_programs,
    receive_request,
    reset_when_closed,
)

pytestmark = needs_programs

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x01\x02\x03\x04"
NORMAL = b"\x03\xe8"

#: The handshake in RFC 6455, section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes = b"", rsv: int = 0) -> bytes:
    """A frame as it goes over the wire."""
    size = len(payload)
    octets, length = (0, size) if size < 126 else (2, 126) if size < 65536 else (8, 127)
    head = bytes([final << 7 | rsv << 4 | opcode, bool(mask) << 7 | length])
    head += size.to_bytes(octets, "big") if octets else b""
    return head + mask + (masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    """The payload with a mask on, or off again."""
    return bytes(octet ^ mask[at % 4] for at, octet in enumerate(payload))


@dataclass(frozen=True)
class Frame:
    """A frame that was read; the payload is unmasked."""

    opcode: int
    payload: bytes
    masked: bool = False
    final: bool = True


def read_frame(received: BinaryIO) -> Frame | None:
    """The next frame; None at the end of the connection."""
    if len(head := received.read(2)) < 2:
        return None
    length = head[1] & 0x7F
    if length > 125:
        length = int.from_bytes(received.read(2 if length == 126 else 8), "big")
    mask = received.read(4) if head[1] & 0x80 else b""
    payload = received.read(length)
    return Frame(head[0] & 0xF, masked(payload, mask) if mask else payload, bool(mask), bool(head[0] & 0x80))


def frames(received: BinaryIO) -> Iterator[Frame]:
    """All frames to the end of the connection."""
    while (read := read_frame(received)) is not None:
        yield read


# ---- The upstream


class Client:
    """A WebSocket to the upstream: its ``response`` head, and what it sends after it."""

    def __init__(self, upstream: Upstream, target: str, key: str = KEY) -> None:
        self.socket = upstream.connect()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = self.socket.makefile("rb")
        request = (
            f"GET {target} HTTP/1.1\r\nHost: u\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
        )
        self.socket.sendall(
            f"{request}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def response(self) -> list[str]:
        """The lines of the response's head."""
        return list(iter(lambda: self.received.readline().decode().strip(), ""))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.received.close()
        self.socket.close()


def test_an_upgrade_is_agreed_to(upstream: Upstream) -> None:
    """With the answer to the key that the RFC's own example has."""
    with Client(upstream, "/?n=1") as client:
        assert client.response() == [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {ACCEPT}",
        ]


@pytest.mark.parametrize(
    "query", ["n=1", "n=100", "n=45&burst=20", "n=3&size=65536", "n=30&rate=500&size=1920"]
)
def test_every_event_is_a_binary_message(upstream: Upstream, query: str) -> None:
    """Of the size that was asked for; [DONE] is another, and a close frame ends it."""
    n = int(query.partition("&")[0].removeprefix("n="))
    size = int(found[1]) if (found := re.search(r"size=(\d+)", query)) else 220
    with Client(upstream, f"/?{query}") as client:
        client.response()
        *events, done, close = (read_frame(client.received) for _ in range(n + 2))
        client.socket.sendall(frame(CLOSE, NORMAL, mask=MASK))
        assert read_frame(client.received) is None
    assert done == Frame(BINARY, b"data: [DONE]\n\n")
    assert close == Frame(CLOSE, NORMAL)
    assert {(each.opcode, each.masked, each.final, len(each.payload)) for each in events if each} == {
        (BINARY, False, True, size)
    }
    assert marks("".join(each.payload.decode() for each in events if each)) == list(range(1, n + 1))
    eventually(lambda: upstream.stats()["streams"] == 0)


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_the_upstream_hears_its_client(upstream: Upstream, step: int) -> None:
    """Masked frames, cut anywhere: a ping is answered, a message counted, a close answered with its code."""
    said = [
        frame(PING, b"are you there?", mask=MASK),
        frame(TEXT, b"a message ", final=False, mask=MASK),
        frame(PING, mask=MASK),
        frame(CONTINUATION, b"in two frames", mask=MASK),
        frame(BINARY, bytes(300), mask=MASK),
        frame(CLOSE, b"\x0f\x9fbye", mask=MASK),
    ]
    with Client(upstream, "/?n=1000&rate=1&first=60000") as client:
        client.response()
        for whole in said:
            for at in range(0, len(whole), step):
                client.socket.sendall(whole[at : at + step])
            if whole[0] & 0xF == PING:  # the answer to a later ping may stand for both
                assert read_frame(client.received) == Frame(PONG, whole[6:] and b"are you there?")
        assert list(frames(client.received)) == [Frame(CLOSE, b"\x0f\x9fbye")]
    assert upstream.stats()["messages"] == 2


def test_a_frame_behind_the_handshake_is_heard(upstream: Upstream) -> None:
    """A client may speak before it has been answered."""
    with Client(upstream, "/?n=1000&first=60000&rate=1") as client:
        client.socket.sendall(frame(PING, b"already", mask=MASK))
        client.response()
        assert read_frame(client.received) == Frame(PONG, b"already")


def test_a_pong_waits_for_the_frame_before_it(upstream: Upstream) -> None:
    """A full socket cuts a message in two; nothing comes between the halves."""
    with Client(upstream, "/?n=300&size=65536") as client:
        eventually(lambda: upstream.stats()["blocked"])
        client.socket.sendall(frame(PING, b"amid", mask=MASK))
        client.response()
        read = [next(frames(client.received)) for _ in range(303)]
    assert [each.payload for each in read if each.opcode == PONG] == [b"amid"]
    assert marks(b"".join(each.payload for each in read if each.opcode == BINARY).decode()) == list(
        range(1, 301)
    )


@pytest.mark.parametrize(
    "offence",
    [
        frame(PING, b"no mask"),
        frame(3, mask=MASK),
        frame(PING, b"x", final=False, mask=MASK),
        frame(PING, bytes(126), mask=MASK),
        frame(TEXT, b"x", rsv=4, mask=MASK),
        frame(CONTINUATION, b"of nothing", mask=MASK),
    ],
    ids=["unmasked", "opcode", "fragmented control", "long control", "reserved", "continuation"],
)
def test_a_client_that_breaks_the_protocol_is_left(upstream: Upstream, offence: bytes) -> None:
    """At once: a proxy that does so must not go unnoticed."""
    with Client(upstream, "/?n=1000&first=60000&rate=1") as client:
        client.response()
        client.socket.sendall(offence)
        assert list(frames(client.received)) == []


def test_a_handshake_without_a_key_is_refused(upstream: Upstream) -> None:
    """With a 400 that says so."""
    with Client(upstream, "/?n=1", key="short") as client:
        assert client.received.read().startswith(b"HTTP/1.1 400 ")


# ---- The load generator, and the upstream


@pytest.mark.parametrize(
    "query", ["n=1", "n=1000", "n=30&rate=200", "n=999&burst=20&rate=1000", "n=200&size=65536&burst=3"]
)
def test_every_message_counts(upstream: Upstream, start_load: StartLoad, query: str) -> None:
    """Paced or not, small or large, alone or in bursts: what was sent arrived."""
    n = int(query.partition("&")[0].removeprefix("n="))
    load = start_load(
        upstream.port, f"/?{query}", "--requests", 10, "--concurrency", 5, "--websocket", "messages"
    )
    final = lone(load)
    assert (final["done"], final["events"], final["error_kinds"]) == (10, 10 * n, {})
    assert final["latency_ns"]["n"] == 10 * n
    assert 0 < final["latency_ns"]["p50"] < SECOND
    assert upstream.stats()["events"] == 10 * n


def test_messages_are_answered(upstream: Upstream, start_load: StartLoad) -> None:
    """Each with one of so many octets."""
    load = start_load(
        upstream.port, "/?n=20&rate=200", "--requests", 3, "--websocket", "messages", "--answer", 1920
    )
    assert lone(load)["events"] == 60
    eventually(lambda: upstream.stats()["streams"] == 0)
    assert upstream.stats()["messages"] == 3 * 21  # [DONE] is one too


def test_an_answer_that_does_not_fit_is_an_error(start_peer: StartPeer, start_load: StartLoad) -> None:
    """The peer reads nothing, and the answer to its first message is never whole."""
    peer = start_peer(frame(BINARY, event(1)), frame(BINARY, event(2)), frame(CLOSE, NORMAL), HEAR)
    load = start_load(peer.port, "/?n=2", "--requests", 1, "--websocket", "messages", "--answer", 64_000_000)
    assert lone(load)["error_kinds"] == {"held_up": 1, "no_done": 1}


def test_messages_are_marked_in_windows(upstream: Upstream, start_load: StartLoad) -> None:
    """As events are."""
    load = start_load(upstream.port, "/?n=1000000&rate=100", "--streams", 5, "--websocket", "messages")
    assert load.told() == {"ready": True, "open": 5}
    windows = []
    eventually(lambda: windows.append(load.ask("mark")) or sum(each["events"] for each in windows) > 50)
    assert {each["errors"] for each in windows} == {0}
    assert load.ask("stop")["open"] == 5


# ---- The load generator, and servers that do it otherwise


HEAR = object()  # a frame of the client is awaited
Step = bytes | object | None


def agreement(key: str) -> bytes:
    """The head of a 101 that agrees."""
    accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept.decode()}\r\n\r\n"
    ).encode()


class Peer(Listener):
    """A WebSocket server that takes the same steps with every client, one write each, and then hangs up.

    A step is octets to write, HEAR, or None: a reset.
    """

    def __init__(self, *steps: Step, agrees: Callable[[str], bytes] = agreement) -> None:
        self.steps = steps
        self.agrees = agrees
        self.heard: list[Frame] = []
        super().__init__()

    def answer(self, connection: socket.socket) -> None:
        """Agree, and take the steps."""
        self.requests.append(request := receive_request(connection))
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", request)
        connection.sendall(self.agrees(key[1].decode() if key else ""))
        with connection.makefile("rb") as received:
            for step in self.steps:
                if step is None:
                    reset_when_closed(connection)
                    return
                if isinstance(step, bytes):
                    connection.sendall(step)
                elif (read := read_frame(received)) is not None:
                    self.heard.append(read)


StartPeer = Callable[..., Peer]


@pytest.fixture
def start_peer() -> Iterator[StartPeer]:
    """Start servers that take these steps."""
    with contextlib.ExitStack() as running:

        def start(*steps: Step, agrees: Callable[[str], bytes] = agreement) -> Peer:
            peer = Peer(*steps, agrees=agrees)
            running.callback(peer.close)
            return peer

        yield start


def compact(**members: object) -> bytes:
    """An object as the bridge writes it."""
    return json.dumps(members, separators=(",", ":")).encode()


def text(**members: object) -> bytes:
    """A text frame of the bridge."""
    return frame(TEXT, compact(**members))


def told(seq: int, **more: object) -> bytes:
    """What tells an event of the upstream."""
    data = json.loads(event(seq).decode().removeprefix("data: ")) | more
    return compact(type="event", id=f"abc.{seq}", event="message", data=data)


EVENTS = {seq: frame(TEXT, told(seq)) for seq in (1, 2, 3)}


OPEN = text(type="open", stream="abc", status=200)
DONE = text(type="event", id="abc.9", event="message", data="[DONE]")
END = text(type="end", stream="abc", reason="complete")


def bridge_stream(*seqs: int) -> bytes:
    """A whole stream with these events."""
    return b"".join([OPEN, *(frame(TEXT, told(seq)) for seq in seqs), DONE, END])


def over_bridge(start_load: StartLoad, port: int, *arguments: str | int, n: int = 3) -> Program:
    """A generator that asks for streams of ``n`` events."""
    return start_load(port, f"/chat?n={n}", "--websocket", "bridge", "--body", '{"model":"m"}', *arguments)


def test_a_stream_over_the_bridge(start_peer: StartPeer, start_load: StartLoad) -> None:
    """An upgrade without a body, then the body in a masked start; events count until the end."""
    peer = start_peer(HEAR, OPEN, EVENTS[1], EVENTS[2], EVENTS[3], DONE, END)
    final = lone(over_bridge(start_load, peer.port, "--requests", 1, "--header", "X-Key: 5"))
    assert (final["done"], final["events"], final["error_kinds"], final["open"]) == (1, 3, {}, 0)
    assert (final["ttfb_ns"]["n"], final["ttfe_ns"]["n"], final["latency_ns"]["n"]) == (1, 1, 3)
    head, _, rest = peer.requests[0].partition(b"\r\n\r\n")
    line, *fields = head.decode().splitlines()
    assert line == "GET /chat?n=3 HTTP/1.1"
    assert rest == b""
    values = dict(each.split(": ") for each in fields)
    assert len(base64.b64decode(values.pop("Sec-WebSocket-Key"))) == 16
    assert values == {
        "Host": f"127.0.0.1:{peer.port}", "X-Key": "5",
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    }  # fmt: skip
    (start,) = peer.heard
    assert (start.opcode, start.masked) == (TEXT, True)
    assert json.loads(start.payload) == {"type": "start", "body": {"model": "m"}}


def test_the_next_stream_goes_over_the_same_connection(start_peer: StartPeer, start_load: StartLoad) -> None:
    """Each start is answered by a stream of its own."""
    peer = start_peer(
        HEAR, bridge_stream(1, 2, 3), HEAR, bridge_stream(1, 2, 3), HEAR, bridge_stream(1, 2, 3)
    )
    final = lone(over_bridge(start_load, peer.port, "--requests", 3))
    assert (final["done"], final["events"], final["error_kinds"]) == (3, 9, {})
    assert (len(peer.requests), len(peer.heard)) == (1, 3)


@pytest.mark.parametrize("step", [1, 2, 7, 100])
def test_writes_may_cut_anywhere(start_peer: StartPeer, start_load: StartLoad, step: int) -> None:
    """In a frame's head, in its length of two octets, in a mark."""
    whole = bridge_stream(1, 2, 3)
    peer = start_peer(HEAR, *(whole[at : at + step] for at in range(0, len(whole), step)))
    final = lone(over_bridge(start_load, peer.port, "--requests", 1))
    assert (final["done"], final["events"], final["error_kinds"]) == (1, 3, {})


def test_a_message_may_come_with_the_handshake(start_peer: StartPeer, start_load: StartLoad) -> None:
    """What is behind the head in the same read belongs to the first frame."""
    messages = [frame(BINARY, event(1)), frame(BINARY, b"data: [DONE]\n\n"), frame(CLOSE, NORMAL)]
    peer = start_peer(HEAR, agrees=lambda key: agreement(key) + b"".join(messages))
    load = start_load(peer.port, "/?n=1", "--requests", 1, "--websocket", "messages")
    assert lone(load)["done"] == 1


def test_a_message_may_come_in_fragments(start_peer: StartPeer, start_load: StartLoad) -> None:
    """With a ping between them, which is answered with what it said."""
    payload = told(2)
    fragments = [
        frame(TEXT, payload[:9], final=False),
        frame(PING, b"still there?"),
        frame(CONTINUATION, payload[9:100], final=False),
        frame(CONTINUATION, payload[100:]),
    ]
    peer = start_peer(HEAR, OPEN, EVENTS[1], *fragments, HEAR, EVENTS[3], DONE, END)
    final = lone(over_bridge(start_load, peer.port, "--requests", 1))
    assert (final["done"], final["events"], final["error_kinds"]) == (1, 3, {})
    assert peer.heard[1] == Frame(PONG, b"still there?", masked=True)


def test_a_large_event_is_one_message(start_peer: StartPeer, start_load: StartLoad) -> None:
    """A length of eight octets."""
    peer = start_peer(HEAR, OPEN, frame(TEXT, told(1, more="x" * 100_000)), DONE, END)
    final = lone(over_bridge(start_load, peer.port, "--requests", 1, n=1))
    assert (final["done"], final["events"], final["error_kinds"]) == (1, 1, {})
    assert final["bytes"] > 100_000


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ([OPEN, EVENTS[1], EVENTS[3], DONE, END], {"gap": 1}),
        ([OPEN, EVENTS[1], EVENTS[2], EVENTS[2], EVENTS[3], DONE, END], {"repeat": 1}),
        ([OPEN, EVENTS[1], EVENTS[2], DONE, END], {"early_end": 1}),
        ([OPEN, EVENTS[1], text(type="end", stream="abc", reason="truncated")], {"early_end": 1}),
        ([OPEN, EVENTS[1]], {"early_end": 1}),
        ([OPEN, EVENTS[1][:50]], {"early_end": 1}),
        ([OPEN, EVENTS[1], frame(CLOSE, b"\x03\xe9")], {"early_end": 1}),
        ([OPEN, EVENTS[1], EVENTS[2], EVENTS[3], END], {"no_done": 1}),
        ([OPEN, EVENTS[1], None], {"reset": 1}),
        ([text(type="error", code="busy", message="m", recoverable=True)], {"message": 1}),
        ([OPEN, text(type="event", id="abc.1", event="message", data="no mark")], {"message": 1}),
        ([OPEN, OPEN], {"message": 1}),
        ([EVENTS[1]], {"message": 1}),
        ([OPEN, frame(TEXT, b"")], {"message": 1}),
        ([OPEN, frame(BINARY, told(1))], {"message": 1}),
        ([OPEN, frame(TEXT, told(1), mask=MASK)], {"framing": 1}),
        ([OPEN, frame(TEXT, told(1), rsv=4)], {"framing": 1}),
        ([OPEN, frame(3)], {"framing": 1}),
        ([OPEN, frame(PING, b"", final=False)], {"framing": 1}),
        ([OPEN, frame(CONTINUATION, b"of nothing")], {"framing": 1}),
        ([OPEN, frame(TEXT, b"{", final=False), EVENTS[1]], {"framing": 1}),
    ],
)
def test_what_is_wrong_over_the_bridge_is_found(
    start_peer: StartPeer, start_load: StartLoad, steps: list[Step], kinds: dict[str, int]
) -> None:
    """Each in its kind, and once."""
    peer = start_peer(HEAR, *steps)
    final = lone(over_bridge(start_load, peer.port, "--requests", 1))
    assert (final["error_kinds"], final["errors"], final["open"]) == (kinds, 1, 0)
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("agrees", "kind"),
    [
        (lambda key: agreement(KEY), "handshake"),
        (lambda key: agreement(key).replace(b"Sec-WebSocket-Accept", b"X-Accept"), "handshake"),
        (lambda key: agreement(key).replace(b"Upgrade: websocket\r\n", b""), "handshake"),
        (lambda key: agreement(key).replace(b"Connection: Upgrade\r\n", b""), "handshake"),
        (
            lambda key: agreement(key)[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            "handshake",
        ),
        (lambda key: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "status"),
        (lambda key: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "status"),
        (lambda key: b"220 ready\r\n\r\n", "head"),
        (lambda key: b"", "early_end"),
    ],
    ids=["accept", "no accept", "no upgrade", "no connection", "extension", "200", "403", "smtp", "nothing"],
)
def test_a_broken_handshake_is_found(
    start_peer: StartPeer, start_load: StartLoad, agrees: Callable[[str], bytes], kind: str
) -> None:
    """And nothing is sent after it."""
    peer = start_peer(agrees=agrees)
    assert lone(over_bridge(start_load, peer.port, "--requests", 1))["error_kinds"] == {kind: 1}
    assert peer.heard == []


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ([frame(BINARY, event(1)), frame(CLOSE, NORMAL)], {"early_end": 1}),
        ([frame(BINARY, event(1)), frame(BINARY, event(2)), frame(CLOSE, NORMAL)], {"no_done": 1}),
        ([frame(BINARY, event(1))], {"early_end": 1}),
        ([frame(TEXT, event(1))], {"message": 1}),
        ([frame(BINARY, b"no mark")], {"message": 1}),
    ],
)
def test_what_is_wrong_in_messages_is_found(
    start_peer: StartPeer, start_load: StartLoad, steps: list[Step], kinds: dict[str, int]
) -> None:
    """Each in its kind, and once."""
    peer = start_peer(*steps)
    load = start_load(peer.port, "/?n=2", "--requests", 1, "--websocket", "messages")
    assert lone(load)["error_kinds"] == kinds


def test_a_close_is_answered(start_peer: StartPeer, start_load: StartLoad) -> None:
    """With its code and reason, before the connection ends."""
    close = NORMAL + b"enough"
    peer = start_peer(frame(BINARY, event(1) + b"data: [DONE]\n\n"), frame(CLOSE, close), HEAR)
    assert lone(start_load(peer.port, "/?n=1", "--requests", 1, "--websocket", "messages"))["done"] == 1
    eventually(lambda: peer.heard)
    assert peer.heard == [Frame(CLOSE, close, masked=True)]


def test_idle_connections_are_held(start_peer: StartPeer, start_load: StartLoad) -> None:
    """Nothing is asked for; a ping is answered, and who hangs up is noticed."""
    peer = start_peer(frame(PING, b"1"), HEAR, frame(PING, b"2"), HEAR)
    load = start_load(peer.port, "/?n=3", "--streams", 1, "--websocket", "idle")
    assert load.told()["ready"]
    windows = []
    eventually(lambda: windows.append(load.ask("mark")) or windows[-1]["errors"])
    assert windows[-1]["error_kinds"] == {"early_end": 1}
    assert peer.heard == [Frame(PONG, b"1", masked=True), Frame(PONG, b"2", masked=True)]


def test_idle_connections_are_open(upstream: Upstream, start_load: StartLoad) -> None:
    """All of them, as long as the run lasts."""
    load = start_load(upstream.port, "/?n=1&first=60000", "--streams", 20, "--websocket", "idle")
    assert load.told() == {"ready": True, "open": 20}
    assert upstream.stats()["streams"] == 20
    assert load.ask("stop")["errors"] == 0


def test_nobody_speaks_websocket(start_load: StartLoad) -> None:
    """Where nobody listens, that is an error like any other."""
    server = Server()
    server.close()
    load = over_bridge(start_load, server.port, "--streams", 3)
    assert load.told() == {"ready": True, "open": 0}
    assert load.ask("stop")["error_kinds"] == {"refused": 3}


def test_a_bridge_needs_something_to_ask(binaries: object, start_load: StartLoad) -> None:
    """The command line says so."""
    load = start_load(1, "/", "--requests", 1, "--websocket", "bridge")
    assert load.process.wait(PATIENCE) == 2
