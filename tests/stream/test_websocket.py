"""WebSocket frames: RFC 6455 §5 rule by rule, in any cut; and a proxy that touches none of them.

The tests write frames with a builder of their own and read them with a parser of their own, which know only
the RFC; where the RFC leaves nothing open, the ``websockets`` library has to agree.
"""

from __future__ import annotations

import itertools
import operator
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame as LibraryFrame
from websockets.protocol import Protocol, Side

from proxy.stream import websocket
from proxy.stream.websocket import (
    MAX_CONTROL,
    MAX_REASON,
    SENDABLE,
    CloseCode,
    Header,
    Message,
    Messages,
    Opcode,
    Passage,
    close_code,
    close_payload,
    frame,
    header_at,
    mask,
)
from tests.stream.byte_streams import cut, cuts, every_way

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: The masking key of the RFC's own examples (§5.7).
KEY = bytes.fromhex("37fa213d")

TOKEN = b"token-01"

NO_LIMIT = 1 << 62


def raw(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = KEY,
    form: int = 0,
    size: int | None = None,
) -> bytes:
    """Return one frame, right or wrong.

    ``form`` is the least length form (0, 126 or 127), and ``size`` what the header announces.
    """
    size = len(payload) if size is None else size
    masked = 0 if key is None else 128
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size > 0xFFFF or form == 127:
        head += struct.pack("!BQ", masked | 127, size)
    elif size > 125 or form == 126:
        head += struct.pack("!BH", masked | 126, size)
    else:
        head += bytes([masked | size])
    return head + payload if key is None else head + key + masked_with(payload, key)


def masked_with(payload: bytes, key: bytes) -> bytes:
    """§5.3: "octet i of the transformed data is the XOR of octet i of the original data with octet at index
    i modulo 4 of the masking key".
    """
    return bytes(map(operator.xor, payload, itertools.cycle(key)))


@dataclass(frozen=True)
class Seen:
    """A frame as a receiver sees it. ``whole``: its payload has come."""

    fin: bool
    opcode: int
    size: int
    payload: bytes
    wire: bytes
    head: int
    whole: bool


def frames_in(data: bytes) -> Iterator[Seen]:
    """Take bytes apart as §5.2 draws them; a header that is not whole is no frame."""
    while len(data) >= 2:
        size, head = data[1] & 127, 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[2:head], "big")
        key = data[head : head + 4] if data[1] & 128 else b""
        head += 4 if data[1] & 128 else 0
        if len(data) < head:
            return
        payload = data[head : head + size]
        yield Seen(
            fin=data[0] >= 128,
            opcode=data[0] & 15,
            size=size,
            payload=masked_with(payload, key) if key else payload,
            wire=data[: head + size],
            head=head,
            whole=len(payload) == size,
        )
        data = data[head + size :]


def messages_of(reads: list[bytes], limit: int = NO_LIMIT) -> tuple[list[Message], int]:
    """Return what a server takes from these reads: messages, and the code with which it closes, or 0."""
    messages = Messages(limit)
    taken = [message for data in reads for message in messages.feed(data)]
    return taken, 0 if messages.violation is None else messages.violation.code


# ── what is written ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 0xFFFF, 0x10000, 70_000])
@pytest.mark.parametrize("key", [None, KEY], ids=["a server's", "a client's"])
def test_a_frame_is_written_in_its_shortest_form(size: int, key: bytes | None) -> None:
    """§5.2: "the minimal number of bytes MUST be used to encode the length"."""
    payload = bytes(index % 251 for index in range(size))
    assert frame(Opcode.BINARY, payload, key) == raw(BINARY, payload, key=key)


def test_the_examples_of_the_rfc() -> None:
    """§5.7."""
    assert frame(Opcode.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert frame(Opcode.TEXT, b"Hello", KEY) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert frame(Opcode.PONG, b"Hello", KEY) == bytes.fromhex("8a8537fa213d7f9f4d5158")
    assert frame(Opcode.BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert frame(Opcode.BINARY, bytes(65536))[:10] == bytes.fromhex("827f0000000000010000")


@given(st.binary(max_size=70), st.binary(min_size=4, max_size=4))
def test_masking(payload: bytes, key: bytes) -> None:
    """Twice is not at all, and once is what the RFC says."""
    assert mask(payload, key) == masked_with(payload, key)
    assert mask(mask(payload, key), key) == payload


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("", b""),
        ("going", b"going"),
        ("x" * MAX_REASON, b"x" * MAX_REASON),
        ("x" * 200, b"x" * MAX_REASON),
        ("x" * (MAX_REASON - 1) + "é", b"x" * (MAX_REASON - 1)),
        ("😀" * 100, "😀".encode() * 30),
    ],
)
def test_what_a_close_frame_says(reason: str, told: bytes) -> None:
    """A code, and of the reason what fits into a control frame, cut between two characters."""
    payload = close_payload(1001, reason)
    assert payload == b"\x03\xe9" + told
    assert len(payload) <= MAX_CONTROL
    assert close_code(payload) == 1001


@pytest.mark.parametrize("payload", [b"", b"\x03"])
def test_a_close_frame_without_a_code(payload: bytes) -> None:
    """§7.1.5: then it "is considered to be 1005"."""
    assert close_code(payload) == CloseCode.NO_STATUS


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize("size", [0, 125, 126, 0xFFFF, 0x10000, 1 << 63])
def test_a_header_is_whole_or_not_there(size: int, key: bytes | None) -> None:
    """Every cut of it, at the beginning and in the middle of what came."""
    wire = raw(TEXT, size=size, key=key)
    for end in range(len(wire)):
        assert header_at(wire[:end]) is None
        assert header_at(b"before" + wire[:end], 6) is None
    header = header_at(b"before" + wire + b"behind", 6)
    assert header == (0x81, size, key, len(wire))


# ── a server's side: what is right ──────────────────────────────────────────────────────────────────────


def test_the_examples_of_the_rfc_are_understood() -> None:
    """§5.7, those of a client."""
    wire = bytes.fromhex("818537fa213d7f9f4d5158 8a8537fa213d7f9f4d5158")
    assert messages_of([wire]) == ([(Opcode.TEXT, b"Hello"), (Opcode.PONG, b"Hello")], 0)


#: What a client says, and the messages that it is.
RIGHT: list[tuple[list[bytes], list[tuple[int, bytes]]]] = [
    ([raw(TEXT, b"Hello")], [(TEXT, b"Hello")]),
    ([raw(BINARY, b"\xff\0")], [(BINARY, b"\xff\0")]),
    ([raw(TEXT), raw(BINARY)], [(TEXT, b""), (BINARY, b"")]),
    ([raw(TEXT, "é😀\0".encode())], [(TEXT, "é😀\0".encode())]),
    ([raw(TEXT, b"a" * 125), raw(TEXT, b"b" * 126)], [(TEXT, b"a" * 125), (TEXT, b"b" * 126)]),
    # a length that could be shorter: the RFC binds who writes it, and nothing hangs on it
    ([raw(TEXT, b"a", form=126), raw(BINARY, b"b", form=127)], [(TEXT, b"a"), (BINARY, b"b")]),
    ([raw(PING, b"p", form=127)], [(PING, b"p")]),
    # another key with every frame
    ([raw(TEXT, b"Hello", key=bytes(4)), raw(TEXT, b"Hello", key=b"\xff" * 4)], [(TEXT, b"Hello")] * 2),
    # fragments
    ([raw(TEXT, b"Hel", fin=False), raw(CONTINUATION, b"lo")], [(TEXT, b"Hello")]),
    (
        [raw(BINARY, b"a", fin=False), raw(CONTINUATION, b"b", fin=False), raw(CONTINUATION, b"c")],
        [(BINARY, b"abc")],
    ),
    ([raw(TEXT, fin=False), raw(CONTINUATION, fin=False), raw(CONTINUATION)], [(TEXT, b"")]),
    # §8.1: "a particular text frame might include a partial UTF-8 sequence; however, the whole message MUST
    # contain valid UTF-8"
    ([raw(TEXT, b"\xf0\x9f", fin=False), raw(CONTINUATION, b"\x98\x80")], [(TEXT, "😀".encode())]),
    # §5.4: "Control frames MAY be injected in the middle of a fragmented message."
    (
        [raw(TEXT, b"a", fin=False), raw(PING, b"p"), raw(PONG), raw(CONTINUATION, b"b"), raw(PING)],
        [(PING, b"p"), (PONG, b""), (TEXT, b"ab"), (PING, b"")],
    ),
    ([raw(TEXT, b"a", fin=False), raw(CLOSE)], [(CLOSE, b"")]),
    ([raw(PING, b"x" * 125), raw(PONG, b"\xff" * 125)], [(PING, b"x" * 125), (PONG, b"\xff" * 125)]),
    # closing
    ([raw(CLOSE)], [(CLOSE, b"")]),
    ([raw(CLOSE, b"\x03\xe8")], [(CLOSE, b"\x03\xe8")]),
    ([raw(CLOSE, b"\x0b\xb8" + "é".encode())], [(CLOSE, b"\x0b\xb8" + "é".encode())]),
]


@pytest.mark.parametrize(("wire", "messages"), RIGHT)
def test_what_a_client_may_say(wire: list[bytes], messages: list[tuple[int, bytes]]) -> None:
    """Whole, byte by byte, and cut in two at every place."""
    for reads in every_way(b"".join(wire)):
        assert messages_of(reads) == (messages, 0)


def test_codes_that_may_be_sent() -> None:
    """§7.4: those defined for it, those registered since, libraries' and applications'; no others."""
    codes = [code for code in range(1 << 16) if messages_of([raw(CLOSE, struct.pack("!H", code))])[1] == 0]
    assert codes == [1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)]
    assert codes == sorted(SENDABLE)


def test_masks_are_taken_off_by_whom_one_likes() -> None:
    """The server has a faster way than the core; it is asked once a frame, of whatever kind."""
    asked: list[tuple[bytes, bytes]] = []

    def unmask(payload: bytes, key: bytes) -> bytes:
        asked.append((payload, key))
        return masked_with(payload, key)

    messages = Messages(NO_LIMIT, unmask)
    wire = raw(TEXT, b"Hel", fin=False) + raw(PING) + raw(CONTINUATION, b"lo", key=b"abcd")
    assert messages.feed(wire) == [(PING, b""), (TEXT, b"Hello")]
    assert asked == [(masked_with(b"Hel", KEY), KEY), (b"", KEY), (masked_with(b"lo", b"abcd"), b"abcd")]


# ── a server's side: what is wrong ──────────────────────────────────────────────────────────────────────

HELLO = raw(TEXT, b"Hello")

#: What a client says, what of it is still taken, and the code that it is told.
WRONG: list[tuple[list[bytes], list[tuple[int, bytes]], int]] = [
    # §5.1: "a server MUST close the connection upon receiving a frame that is not masked"
    ([raw(TEXT, b"Hello", key=None)], [], 1002),
    ([HELLO, raw(PING, key=None)], [(TEXT, b"Hello")], 1002),
    # §5.2: "MUST be 0 unless an extension is negotiated"
    *[([raw(opcode, rsv=rsv)], [], 1002) for rsv in (1, 2, 4, 7) for opcode in (TEXT, PING)],
    ([raw(TEXT, fin=False), raw(CONTINUATION, rsv=4)], [], 1002),
    # §5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_."
    *[([HELLO, raw(opcode, b"x")], [(TEXT, b"Hello")], 1002) for opcode in (3, 4, 5, 6, 7, *range(11, 16))],
    # §5.4: a fragmented message, and no other one in its middle
    ([raw(CONTINUATION, b"x")], [], 1002),
    ([raw(CONTINUATION, b"x", fin=False)], [], 1002),
    ([HELLO, raw(CONTINUATION)], [(TEXT, b"Hello")], 1002),
    ([raw(TEXT, b"a", fin=False), raw(TEXT, b"b")], [], 1002),
    ([raw(TEXT, b"a", fin=False), raw(BINARY, b"b", fin=False)], [], 1002),
    ([raw(TEXT, b"a", fin=False), raw(PING), raw(TEXT)], [(PING, b"")], 1002),
    # §5.5: "MUST have a payload length of 125 bytes or less and MUST NOT be fragmented"
    *[([raw(opcode, b"x" * 126)], [], 1002) for opcode in (CLOSE, PING, PONG)],
    *[([raw(opcode, fin=False)], [], 1002) for opcode in (CLOSE, PING, PONG)],
    ([raw(PING, size=1 << 63)], [], 1002),
    # §5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer"
    ([raw(CLOSE, b"\x03")], [], 1002),
    # "Following the 2-byte integer, the body MAY contain UTF-8-encoded data"
    ([raw(CLOSE, b"\x03\xe8\xff")], [], 1007),
    ([raw(CLOSE, b"\x03\xe8" + "é".encode()[:1])], [], 1007),
    # §5.6 and §8.1: text is UTF-8
    *[
        ([HELLO, raw(TEXT, wrong)], [(TEXT, b"Hello")], 1007)
        for wrong in (b"\xff", b"a\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "😀".encode()[:3])
    ],
    ([raw(TEXT, b"\xf0\x9f", fin=False), raw(CONTINUATION, b"\x98")], [], 1007),
    ([raw(TEXT, b"\xff", fin=False), raw(PING), raw(CONTINUATION)], [(PING, b"")], 1007),
]


@pytest.mark.parametrize(("wire", "taken", "code"), WRONG)
def test_what_a_client_must_not_say(wire: list[bytes], taken: list[tuple[int, bytes]], code: int) -> None:
    """What was right before it is taken; nothing is that follows. In any cut."""
    for reads in every_way(b"".join(wire)):
        messages = Messages(NO_LIMIT)
        assert [message for data in reads for message in messages.feed(data)] == taken
        assert messages.violation is not None
        assert messages.violation.code == code
        assert messages.feed(HELLO) == []
        assert 0 < len(messages.violation.reason.encode()) <= MAX_REASON


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_codes_that_must_not_be_sent(code: int) -> None:
    """§7.4.1: "MUST NOT be set as a status code in a Close control frame by an endpoint"."""
    assert messages_of([raw(CLOSE, struct.pack("!H", code))]) == ([], 1002)


def test_what_is_wrong_is_told_with_numbers() -> None:
    """Who debugs a client reads it in the close frame."""
    messages = Messages(10)
    messages.feed(raw(TEXT, b"x" * 11))
    assert messages.violation is not None
    assert messages.violation.reason == "a message of 11 bytes or more; at most 10"
    messages = Messages(10)
    messages.feed(raw(5))
    assert messages.violation is not None
    assert messages.violation.reason == "unknown opcode 5"


# ── a server's side: what is too much ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_limit_is_inclusive(opcode: int) -> None:
    """A message of exactly so many bytes is taken, also one in fragments; one byte more is not."""
    for fragments in ([b"x" * 100], [b"x" * 99, b"x"], [b"", b"x" * 100, b""], [b"x"] * 100):
        wire = b"".join(fragmented(opcode, fragments))
        assert messages_of([wire], limit=100) == ([(opcode, b"x" * 100)], 0)
        assert messages_of([wire], limit=99) == ([], 1009)


def fragmented(opcode: int, fragments: list[bytes]) -> Iterator[bytes]:
    """Return a message as frames."""
    for index, fragment in enumerate(fragments):
        yield raw(opcode if index == 0 else CONTINUATION, fragment, fin=index == len(fragments) - 1)


def test_the_limit_is_each_messages_own() -> None:
    """What is whole does not count any more, and control frames never do."""
    one = [*fragmented(TEXT, [b"x" * 60, b"x" * 40])]
    wire = b"".join([*one, *one, raw(TEXT, b"x" * 100), one[0], raw(PING, b"p" * 125), one[1]])
    taken, code = messages_of([wire], limit=100)
    assert [message.data for message in taken] == [b"x" * 100] * 3 + [b"p" * 125, b"x" * 100]
    assert code == 0


@pytest.mark.parametrize("size", [101, 126, 0x10000, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_a_message_that_is_announced_as_too_big_is_not_waited_for(size: int) -> None:
    """The attack: a header that says 16 EiB. It is refused for what it says, before a byte of it comes."""
    assert messages_of([raw(BINARY, size=size)], limit=100) == ([], 1009)
    assert messages_of([raw(TEXT, b"x", fin=False), raw(CONTINUATION, size=size)], limit=100) == ([], 1009)


def held_by(reads: Iterator[bytes], limit: int = NO_LIMIT) -> tuple[int, Messages]:
    """Return how many bytes of memory a server takes for these reads, after the last of them."""
    messages = Messages(limit)
    tracemalloc.start()
    try:
        for data in reads:
            assert messages.feed(data) == []
        return tracemalloc.get_traced_memory()[0], messages
    finally:
        tracemalloc.stop()


def test_what_is_announced_takes_no_memory() -> None:
    """The attack: ten thousand connections that announce the largest message there may be, and stop."""
    held, messages = held_by(iter([raw(BINARY, size=16 << 20)]), limit=16 << 20)
    assert held < 4096
    assert messages.violation is None


def test_empty_fragments_cost_nothing() -> None:
    """The attack: a message that never ends, of fragments without a byte, which no limit on bytes stops."""
    many = b"".join([raw(CONTINUATION, fin=False)] * 1000)
    held, messages = held_by(itertools.chain([raw(TEXT, fin=False)], itertools.repeat(many, 50)))
    assert held < 4096, "after fifty thousand"
    assert messages.feed(raw(CONTINUATION, b"x")) == [(TEXT, b"x")]


def test_what_is_refused_is_let_go() -> None:
    """Nothing of a message that became too big stays with the connection while it is closed."""
    half = raw(TEXT, b"x" * 50_000, fin=False)
    held, messages = held_by(iter([half, raw(CONTINUATION, size=50_001)]), limit=100_000)
    assert messages.violation is not None
    assert held < 4096


def test_a_large_frame_in_small_reads_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack: 16 MiB a byte at a time, each of which has the server look at all before it again."""
    looks: list[int] = []

    def looking(data: bytes, at: int = 0) -> Header | None:
        looks.append(len(data))
        return header_at(data, at)

    monkeypatch.setattr(websocket, "header_at", looking)
    wire = raw(BINARY, bytes(50_000))
    assert messages_of([bytes([octet]) for octet in wire]) == ([(BINARY, bytes(50_000))], 0)
    assert len(looks) <= 9, "once a byte of the header, and once for the whole"
    assert sum(looks) <= 2 * len(wire)


# ── a server's side: in any cut, and as another library has it ──────────────────────────────────────────

PAYLOAD = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=8).map(str.encode),
    st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", b"\x0f\xa0" + "é".encode(), TOKEN]),
    st.sampled_from([b"x" * 125, b"x" * 126, b"y" * 300]),
)
KEYS = st.one_of(st.just(KEY), st.binary(min_size=4, max_size=4))
CONTROL = st.builds(raw, st.sampled_from([PING, PONG]), st.binary(max_size=5) | st.just(b"p" * 125), key=KEYS)


@st.composite
def conversation(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, bytes]]]:
    """Return messages as frames, fragmented anyhow, with control frames between; and the messages."""
    wire: list[bytes] = []
    said: list[tuple[int, bytes]] = []

    def interject() -> None:
        for control in draw(st.lists(CONTROL, max_size=2)):
            (seen,) = frames_in(control)
            said.append((seen.opcode, seen.payload))
            wire.append(control)

    for _ in range(draw(st.integers(0, 4))):
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(PAYLOAD if opcode == BINARY else st.text(max_size=20).map(str.encode))
        fragments = cut(payload, draw(st.lists(st.integers(0, 300), max_size=4)))
        for index, fragment in enumerate(fragments):
            interject()
            kind, last = opcode if index == 0 else CONTINUATION, index == len(fragments) - 1
            wire.append(
                raw(kind, fragment, fin=last, key=draw(KEYS), form=draw(st.sampled_from([0, 126, 127])))
            )
        said.append((opcode, payload))
    return wire, said


@settings(max_examples=200)
@given(conversation(), cuts())
def test_any_conversation_is_understood(
    conversation: tuple[list[bytes], list[tuple[int, bytes]]], at: list[int]
) -> None:
    """However messages are fragmented and cut: the same messages, in their order."""
    wire, said = conversation
    assert messages_of(cut(b"".join(wire), at)) == (said, 0)
    assert messages_of(wire) == (said, 0)


#: Frames of which most are right, in any order.
FRAMES = st.one_of(
    CONTROL,
    st.builds(raw, st.sampled_from([TEXT, BINARY, CONTINUATION]), PAYLOAD, fin=st.booleans(), key=KEYS),
    st.builds(raw, st.just(CLOSE), PAYLOAD, key=KEYS),
    st.builds(
        raw,
        st.integers(0, 15),
        PAYLOAD,
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 1, 2, 4]),
        key=st.sampled_from([KEY, KEY, None]),
        form=st.sampled_from([0, 126, 127]),
    ),
)


def as_the_library_has_it(wire: bytes, limit: int | None = None) -> tuple[list[tuple[int, bytes]], int]:
    """Return what ``websockets`` takes from a client that says this: messages, and the code or 0.

    It leaves the decoding of text to others, so that is done here.
    """
    protocol = Protocol(Side.SERVER, max_size=limit)
    protocol.receive_data(wire)
    taken: list[tuple[int, bytes]] = []
    begun: tuple[int, bytes] | None = None
    for came in protocol.events_received():
        assert isinstance(came, LibraryFrame)
        opcode, payload = int(came.opcode), bytes(came.data)
        if opcode >= 8:
            taken.append((opcode, payload))
            continue
        begun = (opcode, payload) if begun is None else (begun[0], begun[1] + payload)
        if came.fin:
            if begun[0] == TEXT and not is_utf8(begun[1]):
                return taken, 1007
            taken.append(begun)
            begun = None
    failure = protocol.parser_exc
    codes: dict[type[Any], int] = {ProtocolError: 1002, PayloadTooBig: 1009, UnicodeDecodeError: 1007}
    return taken, 0 if failure is None else codes[type(failure)]


def is_utf8(data: bytes) -> bool:
    """Whether a text may say this."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=400)
@given(st.lists(FRAMES, max_size=6), cuts())
@example([raw(CLOSE, b"\x03\xed"), raw(TEXT)], [])
@example([raw(TEXT, b"a", fin=False), raw(PING), raw(CONTINUATION, b"\xff")], [3])
def test_another_library_agrees(frames: list[bytes], at: list[int]) -> None:
    """Of any frames, right or wrong, the same messages are taken, and the same code ends them.

    Three differences are known. ``websockets`` takes nothing that follows a close frame; it refuses one in
    the middle of a fragmented message, which §5.4 allows ("Control frames … MAY be injected"); and of a
    close frame whose code and reason are both wrong it names the reason first.
    """
    wire = b"".join(frames)
    taken, code = messages_of(cut(wire, at))
    theirs, their_code = as_the_library_has_it(wire)
    closing = [int(message.opcode) for message in taken].index(CLOSE) if CLOSE in dict(taken) else None
    if closing is not None:
        taken, code = taken[: closing + 1], 0
        if their_code == 1002 and theirs == taken[:-1]:
            return
    assert taken == theirs
    assert code == their_code or {code, their_code} == {1002, 1007}
    if code != their_code:
        closes = [seen.payload for seen in frames_in(wire) if seen.opcode == CLOSE]
        assert any(not is_utf8(payload[2:]) and close_code(payload) not in SENDABLE for payload in closes)


@settings(max_examples=200)
@given(conversation(), st.integers(125, 400), cuts())
def test_another_library_has_the_same_limit(
    conversation: tuple[list[bytes], list[tuple[int, bytes]]], limit: int, at: list[int]
) -> None:
    """What is too big to one is too big to the other. (There, pings count as well: so none.)"""
    wire = b"".join(data for data in conversation[0] if next(frames_in(data)).opcode < 8)
    assert messages_of(cut(wire, at), limit) == as_the_library_has_it(wire, limit)


@settings(max_examples=300)
@given(st.lists(FRAMES | st.binary(max_size=20), max_size=6).map(b"".join), st.integers(0, 200), cuts())
def test_any_bytes_mean_the_same_in_any_cut(wire: bytes, limit: int, at: list[int]) -> None:
    """Noise too. What is kept of it is never more than a message and a frame, and their headers."""
    messages = Messages(limit)
    taken = []
    for data in cut(wire, at):
        taken += messages.feed(data)
        assert len(messages._pending) < 14 + max(limit, MAX_CONTROL)  # no public figure tells
        assert len(messages._fragments) <= limit
    assert (taken, messages.violation.code if messages.violation else 0) == messages_of([wire], limit)


# ── a proxy's side ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Passed:
    """What a reference makes of a direction: slow, and with all of it at hand."""

    out: bytes = b""
    messages: int = 0
    bytes: int = 0
    too_big: int = 0
    closed: int | None = None
    finished: bool = False


def passed(wire: bytes, limit: int) -> Passed:
    """Return what a proxy must have done when it has seen all of ``wire``."""
    result, size = Passed(), 0
    for seen in frames_in(wire):
        if seen.opcode >= 8 and seen.size <= MAX_CONTROL:
            if not seen.whole:
                break
            if seen.opcode == CLOSE and not result.finished:
                result.finished = True
                result.closed = None if result.too_big else close_code(seen.payload)
            if not result.too_big and (seen.opcode, seen.payload) != (PONG, TOKEN):
                result.out += seen.wire
            continue
        data = seen.opcode < 8
        size = seen.size + (size if seen.opcode == CONTINUATION else 0) if data else size
        announced = size if data else seen.size
        if announced > limit and not result.too_big:
            result.too_big = announced
        if result.too_big:
            continue
        result.out += seen.wire
        if data:
            result.bytes += seen.size
            result.messages += seen.fin
            size = 0 if seen.fin else size
    return result


def missing(wire: bytes) -> int:
    """How many bytes a receiver of this still expects of the frame that has begun. (No header is cut.)"""
    seen = list(frames_in(wire))
    assert sum(len(frame.wire) for frame in seen) == len(wire)
    return seen[-1].size - (len(seen[-1].wire) - seen[-1].head) if seen else 0


def summary(passage: Passage, out: bytes) -> Passed:
    """Return what a proxy has done."""
    return Passed(out, passage.messages, passage.bytes, passage.too_big, passage.closed, passage.finished)


#: What peers say to each other, masked or not, and what they should not.
TRAFFIC = st.one_of(
    FRAMES,
    FRAMES,
    st.builds(raw, st.sampled_from([TEXT, BINARY]), PAYLOAD, key=st.sampled_from([None, KEY])),
    st.builds(raw, st.sampled_from([PING, PONG]), st.just(TOKEN), key=st.sampled_from([None, KEY])),
    st.builds(raw, st.integers(0, 15), fin=st.booleans(), size=st.sampled_from([5, 126, 400, 1 << 40])),
    st.binary(max_size=12),
)


@settings(max_examples=400)
@given(st.lists(TRAFFIC, max_size=8), st.sampled_from([0, 5, 130, 1000, NO_LIMIT]), cuts())
@example([raw(BINARY, b"x" * 6), raw(CLOSE, b"\x03\xe8")], 5, [3, 9])
@example([raw(BINARY, raw(CLOSE, b"\x03\xe8", key=None) * 2, key=None)], 5, [2])
@example([raw(TEXT, b"abc", fin=False), raw(PING, b"x" * 126), raw(CONTINUATION, b"abc")], 130, [])
@example([raw(TEXT, b"abc", fin=False), raw(PING, b"x" * 126), raw(CONTINUATION, b"x" * 128)], 130, [])
@example([raw(TEXT, b"x" * 3, fin=False), raw(TEXT, b"x" * 4), raw(CONTINUATION, b"x" * 3)], 5, [])
def test_any_traffic_passes_as_it_came(frames: list[bytes], limit: int, at: list[int]) -> None:
    """Whatever peers send, in whatever reads: it passes byte for byte, but for pongs that are ours and what
    is too big; and at every moment a frame of ours fits exactly where ``between_frames`` says so.
    """
    wire = b"".join(frames)
    expected = passed(wire, limit)
    for reads in (cut(wire, at), frames, [wire], [bytes([octet]) for octet in wire[:200]] + [wire[200:]]):
        passage, out = Passage(limit, TOKEN), b""
        for data in reads:
            out += passage.feed(data)
            assert passage.left == missing(out)
            assert passage.between_frames is (passage.left == 0)
            assert len(passage._held) < 14 + MAX_CONTROL
            assert passage.ended is bool(passage.too_big or passage.closed is not None)
        assert summary(passage, out) == expected


@settings(max_examples=200)
@given(conversation(), cuts())
def test_a_frame_of_ours_is_understood_where_it_is_put(
    conversation: tuple[list[bytes], list[tuple[int, bytes]]], at: list[int]
) -> None:
    """A ping of ours goes out wherever there is a place: the receiver gets all messages, and the pings."""
    wire, said = conversation
    passage, received, pings = Passage(NO_LIMIT, TOKEN), b"", 0
    for data in cut(b"".join(wire), at):
        received += passage.feed(data)
        if passage.between_frames:
            received += raw(PING, b"ours-" + TOKEN)
            pings += 1
    taken, code = as_the_library_has_it(received)
    assert code == 0
    assert taken.count((PING, b"ours-" + TOKEN)) == pings > 0
    assert [message for message in taken if message != (PING, b"ours-" + TOKEN)] == said


@given(st.lists(st.integers(0, 400), min_size=1, max_size=5), st.booleans(), st.integers(0, 300))
def test_whole_reads_are_the_same_as_halves(sizes: list[int], masked: bool, limit: int) -> None:
    """The short way, which nearly all reads take: one message a read. Not a byte or figure is different."""
    reads = [raw(BINARY, b"x" * size, key=KEY if masked else None) for size in sizes]
    short, long = Passage(limit, TOKEN), Passage(limit, TOKEN)
    taken = b"".join(map(short.feed, reads))
    halves = b"".join(long.feed(half) for data in reads for half in (data[:1], data[1:]))
    assert summary(short, taken) == summary(long, halves) == passed(b"".join(reads), limit)


def test_a_read_passes_uncopied() -> None:
    """What need not be looked into is not even copied: a whole message, and a piece of a large one."""
    passage = Passage(NO_LIMIT, TOKEN)
    for read in (raw(TEXT, b"Hello"), raw(TEXT, b"x" * 300), raw(BINARY, b"abc", size=10), b"defg", b"hij"):
        assert passage.feed(read) is read
    assert (passage.messages, passage.bytes) == (3, 315)


def test_nothing_is_fed() -> None:
    """An empty read is nothing, wherever it comes."""
    passage = Passage(NO_LIMIT, TOKEN)
    for data in (b"", raw(TEXT, b"ab")[:1], b"", raw(TEXT, b"ab")[1:-1], b"", raw(TEXT, b"ab")[-1:], b""):
        assert passage.feed(b"") == b""
        passage.feed(data)
    assert (passage.messages, passage.bytes, passage.between_frames) == (1, 2, True)


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
def test_our_pong_does_not_pass(key: bytes | None) -> None:
    """It answers a ping that the peer never sent; any other pong is the peers' own."""
    ours, other = raw(PONG, TOKEN, key=key), raw(PONG, TOKEN + b"x", key=key)
    for reads in every_way(HELLO + ours + other + raw(PING, TOKEN, key=key) + ours + HELLO):
        passage = Passage(NO_LIMIT, TOKEN)
        out = b"".join(map(passage.feed, reads))
        assert out == HELLO + other + raw(PING, TOKEN, key=key) + HELLO


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize(("payload", "code"), [(b"", 1005), (b"\x03\xe9bye", 1001), (b"\x03", 1005)])
def test_a_close_frame_passes_and_is_noted(key: bytes | None, payload: bytes, code: int) -> None:
    """Its code is told once it has come whole; the first one counts, and what follows passes too."""
    close = raw(CLOSE, payload, key=key)
    for reads in every_way(close):
        passage = Passage(NO_LIMIT, TOKEN)
        assert b"".join(map(passage.feed, reads[:-1])) == b""
        assert (passage.closed, passage.ended) == (None, False)
        assert passage.feed(reads[-1]) == close
        assert (passage.closed, passage.ended) == (code, True)
        assert passage.feed(raw(CLOSE, b"\x0f\xa0") + HELLO) == raw(CLOSE, b"\x0f\xa0") + HELLO
        assert passage.closed == code


def test_half_a_control_frame_waits() -> None:
    """It may be ours, and ours may go before it."""
    passage = Passage(NO_LIMIT, TOKEN)
    assert passage.feed(raw(PING, b"half")[:7]) == b""
    assert passage.between_frames
    assert passage.feed(raw(PING, b"half")[7:]) == raw(PING, b"half")


def test_a_control_frame_that_is_too_long_is_no_message() -> None:
    """The attack: between two fragments it would begin the message's size anew, and so pass the limit."""
    passage = Passage(200, TOKEN)
    long = raw(PING, b"x" * 126)
    assert (
        passage.feed(raw(BINARY, b"a" * 150, fin=False) + long) == raw(BINARY, b"a" * 150, fin=False) + long
    )
    assert (passage.messages, passage.bytes) == (0, 150)
    assert passage.feed(raw(CONTINUATION, b"b" * 100)) == b""
    assert passage.too_big == 250


def test_what_is_too_big_does_not_pass_from_its_header_on() -> None:
    """Before it everything does; behind it nothing, also not what in its payload looks like frames."""
    passage = Passage(100, TOKEN)
    inner = raw(CLOSE, b"\x03\xe8", key=None) + raw(PONG, TOKEN, key=None) + raw(TEXT, b"x", key=None)
    big = raw(BINARY, inner * 10, key=None)
    assert passage.feed(HELLO + big[:4]) == HELLO
    assert (passage.too_big, passage.ended, passage.closed) == (len(inner) * 10, True, None)
    assert passage.between_frames, "our close frame has its place"
    for octet in big[4:] + HELLO:
        assert passage.feed(bytes([octet])) == b""
        assert not passage.finished
    assert passage.feed(raw(CLOSE, b"\x03\xf1") + HELLO) == b""
    assert [passage.finished] == [True], "the peer's answer to ours, behind its message"
    assert passage.closed is None, "it has not passed"
    assert (passage.messages, passage.bytes, passage.between_frames) == (1, 5, True)


def test_what_is_too_big_in_one_read_with_its_sender_s_last_word() -> None:
    """The other peer has been told of nothing: whoever leads the two must still do it."""
    passage = Passage(3, TOKEN)
    assert passage.feed(HELLO + raw(CLOSE, b"\x03\xe8")) == b""
    assert (passage.too_big, passage.closed, passage.finished, passage.ended) == (5, None, True, True)


def test_a_message_of_eight_exbibytes_is_counted_down() -> None:
    """A length of 64 bits is a number like others: its beginning passes, and no frame begins in it."""
    passage = Passage((1 << 64) - 1, TOKEN)
    for size in (1 << 63, (1 << 64) - 1):
        passage = Passage(size, TOKEN)
        assert passage.feed(raw(BINARY, b"x", size=size)) == raw(BINARY, b"x", size=size)
        assert passage.feed(raw(CLOSE)) == raw(CLOSE)
        assert not passage.between_frames
        assert (passage.closed, passage.too_big, passage.bytes) == (None, 0, size)
