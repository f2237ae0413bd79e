"""AWS event stream messages; botocore's own reader is the authority."""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Any
from uuid import UUID

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from proxy.stream.event_message import MAX_HEADERS_BYTES, EventMessages, read_headers
from proxy.stream.sse import Parser, decode
from tests.stream.byte_streams import cut, cuts, every_way
from tests.stream.event_messages import Typed, event, exception, framed, header, message
from tests.stream.framings import frame

START = event("messageStart", b'{"role":"assistant"}')
START_BLOCK = b'event: messageStart\ndata: {"role":"assistant"}'
THROTTLED = exception("throttlingException", b'{"message":"Too many tokens"}')
THROTTLED_BLOCK = b'event: throttlingException\ndata: {"message":"Too many tokens"}'
ERROR = message(
    {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Grüße\n"}, b""
)
ERROR_BLOCK = b'event: error\ndata: {"code":"InternalFailure","message":"Gr\\u00fc\\u00dfe\\n"}'
ANY_HEADERS: dict[str, Typed | str] = {
    "yes": (0, True),
    "no": (1, False),
    "byte": (2, -128),
    "short": (3, -2),
    "integer": (4, 1 << 30),
    "long": (5, -(1 << 62)),
    "bytes": (6, b"\xff\0"),
    "timestamp": (8, 1_763_000_000_000),
    "uuid": (9, UUID("a1b2c3d4-0000-4000-8000-00000000000f")),
    ":message-type": "event",
    ":event-type": "x",
}

CASES: dict[str, tuple[bytes, list[bytes]]] = {
    "nothing": (b"", []),
    "one event": (START, [START_BLOCK]),
    "two events": (START + START, [START_BLOCK, START_BLOCK]),
    "an exception": (START + THROTTLED, [START_BLOCK, THROTTLED_BLOCK]),
    "an error": (ERROR, [ERROR_BLOCK]),
    "no payload": (event("ping", b""), [b"event: ping\ndata: "]),
    "a payload of several lines": (
        event("e", b"{\r\n}\r1\n"),
        [b"event: e\ndata: {\ndata: }\ndata: 1\ndata: "],
    ),
    "UTF-8": (event("e", '"é😀"'.encode()), ['event: e\ndata: "é😀"'.encode()]),
    "headers of all types": (message(ANY_HEADERS), [b"event: x\ndata: {}"]),
}


@pytest.mark.parametrize(("body", "blocks"), CASES.values(), ids=CASES)
def test_cases(body: bytes, blocks: list[bytes]) -> None:
    """Each body has these blocks when it comes whole, byte by byte, and cut anywhere."""
    for reads in every_way(body):
        found, messages = frame(EventMessages, reads)
        assert (found, messages.overflowed, messages.broken) == (blocks, 0, ""), reads


def test_an_event_leaves_with_its_last_byte() -> None:
    """It does not wait for the next message."""
    messages = EventMessages()
    assert messages.feed(START[:-1]) == []
    assert messages.feed(START[-1:] + START[:5]) == [START_BLOCK]


def turned(body: bytes, at: int) -> bytes:
    """Return a body with one bit of one byte turned."""
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def prelude(length: int, headers_length: int) -> bytes:
    """Return a prelude that announces these lengths."""
    lengths = struct.pack(">II", length, headers_length)
    return lengths + struct.pack(">I", crc32(lengths))


TWICE = framed(header(":message-type", 7, "event") * 2)
EVENT_TYPE = header(":message-type", 7, "event") + header(":event-type", 7, "e")

BROKEN: dict[str, tuple[bytes, str]] = {
    "an error page": (b"<html><body>", "at byte 0: the prelude's CRC 6f64793e came: 71429e58 was expected"),
    "a prelude's bit": (turned(START, 3), "at byte 0: the prelude's CRC "),
    "a payload's bit": (START + turned(START, len(START) - 5), f"at byte {len(START)}: the message's CRC "),
    "too short": (prelude(15, 0), "a length of 15 came with 0 bytes of headers: at least 16 was expected"),
    "shorter than its headers": (
        prelude(30, 20),
        "a length of 30 came with 20 bytes of headers: at least 36",
    ),
    "too many headers": (
        prelude(MAX_HEADERS_BYTES + 17, MAX_HEADERS_BYTES + 1),
        "131073 bytes of headers came: at most 131072 are allowed",
    ),
    "no message type": (message({}), "the :message-type None came: event, exception or error was expected"),
    "another message type": (message({":message-type": "x"}), "the :message-type 'x' came"),
    "no event type": (message({":message-type": "event"}), "the :event-type None came: a name was expected"),
    "an event type with a line break": (
        message({":message-type": "event", ":event-type": "a\ndata: x"}),
        "the :event-type 'a\\ndata: x' came",
    ),
    "an exception type that is no text": (
        message({":message-type": "exception", ":exception-type": (4, 7)}),
        "the :exception-type 7 came",
    ),
    "a header twice": (TWICE, "the header ':message-type' came twice, again at byte 34"),
    "a header that ends early": (framed(EVENT_TYPE[:-1]), "the header at byte 34 is not whole"),
    "a header without a value": (framed(b"\x01a"), "the header at byte 12 is not whole"),
    "a header with half a number": (framed(b"\x01a\x04\0"), "the header at byte 12 is not whole"),
    "a header's name that is no UTF-8": (framed(b"\x01\xff\x00"), "the header at byte 12 is not whole"),
    "a header's text that is no UTF-8": (
        framed(b"\x01a\x07\0\x01\xff"),
        "the header at byte 12 is not whole",
    ),
    "a header of an unknown type": (framed(b"\x01a\x0a"), "a header of type 10 came at byte 14"),
    "a payload that is no UTF-8": (
        framed(EVENT_TYPE, b'"\xff"'),
        f"b'\\xff' came at its byte {12 + len(EVENT_TYPE) + 1}: UTF-8 was expected",
    ),
    "a message that was cut": (
        START + START[:50],
        f"the body ended after 50 bytes of the message that begins at byte {len(START)}: "
        f"at least {len(START)} were expected",
    ),
    "a prelude that was cut": (
        START[:5],
        "after 5 bytes of the message that begins at byte 0: at least 12 were",
    ),
}


@pytest.mark.parametrize(("body", "told"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_message_is_told(body: bytes, told: str) -> None:
    """What came, what was expected, and at which byte; messages that were whole before it count."""
    blocks = [START_BLOCK] if body.startswith(START) else []
    for reads in every_way(body):
        found, messages = frame(EventMessages, reads)
        assert found == blocks, reads
        assert told in messages.broken
        assert messages.feed(START) == []


@pytest.mark.parametrize(
    ("body", "limit", "blocks", "overflowed"),
    [
        (START, len(START), [START_BLOCK], 0),
        (START, len(START) - 1, [], len(START)),
        (event("e") + START, len(START) - 1, [b"event: e\ndata: {}"], len(START)),
        (prelude(1 << 31, 0), 1 << 20, [], 1 << 31),
        (event("e", b"\n" * 99), 300, [], 8 + 1 + 6 + 99 * 7),
    ],
)
def test_a_message_is_bounded(body: bytes, limit: int, blocks: list[bytes], overflowed: int) -> None:
    """A message that announces gigabytes is refused at once; so is a block that grows beyond its message."""
    for reads in every_way(body):
        found, messages = frame(EventMessages, reads, limit)
        assert (found, messages.overflowed, messages.broken) == (blocks, overflowed, ""), reads
        assert not overflowed or messages.feed(START) == []


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Return signed numbers of so many bits."""
    return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


HEADER_VALUES: st.SearchStrategy[Typed] = st.one_of(
    st.just((0, True)),
    st.just((1, False)),
    *(st.tuples(st.just(kind), numbers(bits)) for kind, bits in ((2, 8), (3, 16), (4, 32), (5, 64), (8, 64))),
    st.tuples(st.just(6), st.binary(max_size=9)),
    st.tuples(st.just(7), st.text(max_size=9)),
    st.tuples(st.just(9), st.uuids()),
)
HEADERS = st.dictionaries(st.text(max_size=9), HEADER_VALUES, max_size=6)


def as_botocore_reads(body: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """Return the headers and the payload of each message."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(message.headers, message.payload) for message in buffer]


@given(HEADERS)
def test_headers_are_read_as_botocore_reads_them(headers: dict[str, Typed]) -> None:
    """Names, values and types are the same."""
    raw = b"".join(header(name, *value) for name, value in headers.items())
    [(theirs, _)] = as_botocore_reads(framed(raw))
    assert read_headers(raw) == theirs


MESSAGES = st.one_of(
    st.builds(event, st.sampled_from(["e", "messageStop"]), st.text(max_size=9).map(str.encode)),
    st.builds(exception, st.just("throttlingException"), st.just(b"{}")),
    st.builds(message, HEADERS.map(lambda some: some | {":message-type": "event", ":event-type": "e"})),
    st.builds(framed, st.binary(max_size=6), st.binary(max_size=3)),
    st.binary(max_size=14),
    st.just(prelude(40, 12)),
)


@given(st.lists(MESSAGES, max_size=5).map(b"".join), cuts(), st.integers(16, 120))
def test_any_body_cut_anywhere(body: bytes, at: list[int], limit: int) -> None:
    """Any bytes, cut anywhere, give the same blocks and the same fault as when they come whole."""
    whole, one = frame(EventMessages, [body], limit)
    found, many = frame(EventMessages, cut(body, at), limit)
    assert (found, many.broken, many.overflowed) == (whole, one.broken, one.overflowed)
    assert max(map(len, whole), default=0) <= limit
    assert all(Parser().feed(block + b"\n\n") == [block] for block in whole)


@given(st.lists(MESSAGES, max_size=5).map(b"".join), st.integers(0, 400))
def test_what_botocore_takes_is_taken(body: bytes, turn: int) -> None:
    """Whole messages that botocore reads, with a bit turned or not, and no others become blocks."""
    body = turned(body, turn) if turn < len(body) else body
    try:
        theirs = [payload for headers, payload in as_botocore_reads(body)]
    except (ParserError, UnicodeDecodeError, KeyError, struct.error):
        assert frame(EventMessages, [body])[1].broken
        return
    blocks, messages = frame(EventMessages, [body])
    if not messages.broken:
        assert len(blocks) == len(theirs)
    assert [decode(block).data for block in blocks] == [as_data(payload) for payload in theirs[: len(blocks)]]


def as_data(payload: bytes) -> str:
    """Return a payload as an event's data says it, its line ends LF."""
    return payload.decode().replace("\r\n", "\n").replace("\r", "\n")


def test_a_flood_is_read_once() -> None:
    """A message that comes in very many small reads costs no more than its bytes."""
    body = event("e", b" " * 200_000)
    blocks, _ = frame(EventMessages, (body[at : at + 1] for at in range(len(body))))
    assert len(blocks) == 1
