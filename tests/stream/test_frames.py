"""The bridge's language: what clients may say, what they are told when they may not, and what an event
becomes.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import BadFrame
from proxy.stream import frames
from proxy.stream.cursor import MAX_SEQ_DIGITS
from proxy.stream.frames import (
    MAX_NAME,
    MAX_TAKEN_APART,
    QUOTED,
    TYPES,
    Cancel,
    Command,
    Framing,
    Ping,
    Resume,
    Start,
    as_json,
    end_frame,
    gap_frame,
    parse,
    told,
)
from proxy.stream.log import Reason, Terminal
from proxy.stream.numbering import Ids, Numbering, with_retry
from proxy.stream.sse import Parser
from proxy.stream.websocket import header_at
from tests.stream.byte_streams import BOM, END_OF_LINE, cut, cuts, streams
from tests.stream.whatwg import interpret

STREAM = "abcdefghijklmnopqrstuv"


def texts_in(wire: bytes) -> list[bytes]:
    """Return what text frames of a server say; anything else among them fails the test."""
    texts = []
    while wire:
        header = header_at(wire)
        assert header is not None
        assert (header.first, header.key) == (0x81, None), "one whole text frame, unmasked"
        assert len(wire) >= header.length + header.size
        texts.append(wire[header.length : header.length + header.size])
        wire = wire[header.length + header.size :]
    return texts


def strictly(text: bytes) -> Any:
    """Return what JSON says to a page: UTF-8, and nothing that is not in the grammar."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text.decode(), parse_constant=refuse)


def said_in(wire: bytes) -> list[Any]:
    """Return what the frames say to a page."""
    return [strictly(text) for text in texts_in(wire)]


# ── what a client says ──────────────────────────────────────────────────────────────────────────────────

#: A provider's request body, as an SDK writes it.
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi \\u00e9 \xc3\xa9"}], "temperature": 1.0}'


@pytest.mark.parametrize(
    ("text", "command"),
    [
        # an object without a type is a body, byte for byte
        (BODY, Start(BODY)),
        (b"{}", Start(b"{}")),
        (b' {"prompt":\t"x"}\r\n', Start(b' {"prompt":\t"x"}\r\n')),
        (b'{"a":1,"a":2}', Start(b'{"a":1,"a":2}')),
        (b'{"type":null,"prompt":"x"}', Start(b'{"type":null,"prompt":"x"}')),
        (b'{"Type":"ping"}', Start(b'{"Type":"ping"}')),
        (b'{"body":{"type":"ping"}}', Start(b'{"body":{"type":"ping"}}')),
        # start: what stands under body, byte for byte
        (b'{"type":"start","body":' + BODY + b"}", Start(BODY)),
        (b'{"body" : {"a" : 1E+2} , "type" : "start"}', Start(b'{"a" : 1E+2}')),
        (b'{"type":"start"}', Start(None)),
        (b'{"type":"start","body":{}}', Start(b"{}")),
        (b'{"type":"start","body":null}', Start(None)),
        (b'{"type":"start","body":[1,"x"]}', Start(b'[1,"x"]')),
        (b'{"type":"start","body":1e999}', Start(b"1e999")),
        (b'{"type":"start","body":"x","extra":true}', Start(b'"x"')),
        (b'{"type":"ping","type":"start","body":1,"body":2}', Start(b"2")),
        # chat: the rest is the body, each member as it was written
        (b'{"type":"chat"}', Start(b"{}")),
        (b'{"type":"chat","prompt":"x","n":1.0}', Start(b'{"prompt":"x","n":1.0}')),
        (b'{"prompt": "x", "type": "chat", "body": 5}', Start(b'{"prompt":"x","body":5}')),
        (b'{"type":"chat","big":123456789012345678901234567890}',
         Start(b'{"big":123456789012345678901234567890}')),
        (b'{"type":"chat","a\\"\\n\xc3\xa9":1}', Start(b'{"a\\"\\n\\u00e9":1}')),
        # cancel
        (b'{"type":"cancel"}', Cancel(None)),
        (b'{"type":"cancel","stream":null}', Cancel(None)),
        (b'{"type":"cancel","stream":"S"}', Cancel("S")),
        # resume
        (b'{"type":"resume","last_event_id":"S.5"}', Resume(None, None, "S.5")),
        (b'{"type":"resume","stream":"S"}', Resume("S", None, None)),
        (b'{"type":"resume","stream":"S","after":5}', Resume("S", "5", None)),
        (b'{"type":"resume","stream":"S","after":0}', Resume("S", "0", None)),
        (b'{"type":"resume","stream":"S","after":-0}', Resume("S", "0", None)),
        (b'{"type":"resume","stream":"S","after":"5"}', Resume("S", "5", None)),
        (b'{"type":"resume","stream":"S","after":"now"}', Resume("S", "now", None)),
        (b'{"type":"resume","stream":"S","after":null,"last_event_id":null}', Resume("S", None, None)),
        (b'{"type":"resume","stream":"S","after":' + b"9" * MAX_SEQ_DIGITS + b"}",
         Resume("S", "9" * MAX_SEQ_DIGITS, None)),
        (b'{"type":"resume","stream":"","last_event_id":""}', Resume("", None, "")),
        # ping, and words that are written in another way
        (b'{"type":"ping"}', Ping()),
        (b'{"type":"ping","id":7}', Ping()),
        (b'{"\\u0074ype":"p\\u0069ng"}', Ping()),
    ],
)  # fmt: skip
def test_what_a_client_may_say(text: bytes, command: Command) -> None:
    """Each command, in each of its forms."""
    assert parse(text) == command


MALFORMED = "this frame is not JSON: JSON is malformed:"
KNOWN = f"expected one of {', '.join(TYPES)}, or an object without a type, which is a request's body"
NOWHERE = "resume names no stream: expected last_event_id, or stream and after"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # no JSON
        (b"", "this frame is not JSON: Input data was truncated; got ''"),
        (b"hello", f"{MALFORMED} invalid character (byte 0); got 'hello'"),
        (b'{"type":"ping"',
         "this frame is not JSON: Input data was truncated; got '{\"type\":\"ping\"'"),
        (b'{"type":"ping"}}', f"{MALFORMED} trailing characters (byte 16); got '{{\"type\":\"ping\"}}}}'"),
        (b'{"a":NaN}', f"{MALFORMED} invalid character (byte 5); got '{{\"a\":NaN}}'"),
        (b'{"a":"\t"}', f"{MALFORMED} invalid character (byte 6); got '{{\"a\":\"\\t\"}}'"),
        (b'{"a":1}\0', f"{MALFORMED} trailing characters (byte 8); got '{{\"a\":1}}\\x00'"),
        (b'"\\ud83d"', "this frame is not JSON: Input data was truncated; got '\"\\\\ud83d\"'"),
        (BOM + b"{}", f"{MALFORMED} invalid character (byte 0); got '\\ufeff{{}}'"),
        # JSON, and no object
        (b'["start"]', "expected a JSON object, got '[\"start\"]'"),
        (b'"ping"', "expected a JSON object, got '\"ping\"'"),
        (b"5", "expected a JSON object, got '5'"),
        (b"null", "expected a JSON object, got 'null'"),
        (b"[" * 50, "expected a JSON object, got '" + "[" * QUOTED + "'"),
        # an unknown type
        (b'{"type":"stop"}', f"unknown type 'stop'; {KNOWN}"),
        (b'{"type":"PING"}', f"unknown type 'PING'; {KNOWN}"),
        (b'{"type":""}', f"unknown type ''; {KNOWN}"),
        (b'{"type":"\\u0000' + b"x" * 50 + b'"}', f"unknown type '\\x00{'x' * (QUOTED - 1)}'; {KNOWN}"),
        (b'{"type":5}', "type: expected a string, got '5'"),
        (b'{"type":["start"]}', "type: expected a string, got '[\"start\"]'"),
        (b'{"type":{},"prompt":"x"}', "type: expected a string, got '{}'"),
        # what is no value to us
        (b'{"type":1e999}', "type: expected a string, got '1e999'"),
        (b'{"type":"cancel","stream":-1e999}', "stream: expected a string, got '-1e999'"),
        (b'{"type":"cancel","stream":"\\ud83d"}', "stream: expected a string, got '\"\\\\ud83d\"'"),
        (b'{"type":"cancel","stream":' + b"9" * 5000 + b"}",
         "stream: expected a string, got '" + "9" * QUOTED + "'"),
        # cancel and resume
        (b'{"type":"cancel","stream":7}', "stream: expected a string, got '7'"),
        (b'{"type":"cancel","stream":false}', "stream: expected a string, got 'false'"),
        (b'{"type":"resume"}', NOWHERE),
        (b'{"type":"resume","after":5}', NOWHERE),
        (b'{"type":"resume","last_event_id":5}', "last_event_id: expected a string, got '5'"),
        *[
            (b'{"type":"resume","stream":"S","after":%b}' % after,
             f"after: expected a number of blocks (0, 1, 2, …) or 'now', got '{after.decode()[:QUOTED]}'")
            for after in (b"-1", b"1.5", b"1.0", b"true", b"[]", b"1e999", b"9" * 5000, b"1" + b"0" * 18)
        ],
    ],
)  # fmt: skip
def test_what_a_client_must_not_say(text: bytes, told: str) -> None:
    """Who debugs a client reads what came and what was expected."""
    with pytest.raises(BadFrame) as refused:
        parse(text)
    assert str(refused.value) == told
    assert (refused.value.status, refused.value.kind) == (400, "bad-frame")


@pytest.mark.parametrize("depth", [100, 5_000, 100_000])
@pytest.mark.parametrize("bracket", [b"[", b'{"a":'], ids=["lists", "objects"])
def test_deep_json(depth: int, bracket: bytes) -> None:
    """The attack: brackets for which a parser goes down until its stack is used up. The shallow pass."""
    closing = {b"[": b"]"}.get(bracket, b"}")
    body = bracket * depth + b"1" + closing * depth
    for text in (b'{"type":"start","body":%b}' % body, b'{"type":"start","x":"\\ud83d","body":%b}' % body):
        if depth == 100:
            assert parse(text) == Start(body)
        else:
            with pytest.raises(BadFrame, match="this frame is not JSON"):
                parse(text)


# Half a surrogate pair: what a page sends that cuts a text in the middle of an emoji


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (b'{"prompt":"cut \\ud83d"}', Start(b'{"prompt":"cut \\ud83d"}')),
        (b'{"type":"start","body":{"a":"\\uDE00 cut", "n" : 1.0}}', Start(b'{"a":"\\ude00 cut","n":1.0}')),
        (b' {\n"a" : [1, {"b":"}"}] ,\r"type"\t:"start","body"  :  -12  , "c":"\\udbff"}', Start(b"-12")),
        (b'{"body":1,"type":"start","body": "\xc3\xa9\\ud83d" }', Start(b'"\\u00e9\\ud83d"')),
        (b'{"type":"start","a":"\\ud83d"}', Start(None)),
        (b'{"type":"chat","a":1.50,"\\ud83d":"\\ud83d"}', Start(b'{"a":1.5,"\\ud83d":"\\ud83d"}')),
        (b'{"type":"chat","\\"":"\\\\","x":"\\ud83d"}', Start(b'{"\\"":"\\\\","x":"\\ud83d"}')),
        (b'{"type":"ping","x":"\\ud83d"}', Ping()),
        (b'{"type":"resume","stream":"S","after":7,"x":"\\ud83d"}', Resume("S", "7", None)),
    ],
)  # fmt: skip
def test_half_an_emoji(text: bytes, command: Command) -> None:
    r"""``JSON.stringify`` writes it as ``\ud83d``, the grammar has it, and over HTTP the body would pass."""
    assert parse(text) == command


@pytest.mark.parametrize(
    "text",
    [
        rb'{"a":"\ud83d"',
        rb'{"a":"\ud83d"}}',
        rb'{"a":"\ud83d",}',
        rb'{"a":"\ud83d","b":NaN}',
        rb'{"a":"\ud83d" "b":1}',
        rb'{"a":"\ud8","b":1}',
        rb'{"a":"\ud83d","b":01}',
        b'{"a":"\\ud83d","b":"\t"}',
        b'{"a":"\\ud83d","b":"\xff"}',
        b'{"a":"\\ud83d",\xc2\xa0"b":1}',
    ],
)
def test_half_an_emoji_excuses_nothing_else(text: bytes) -> None:
    """What is no JSON is none, and is told as before."""
    with pytest.raises(BadFrame, match="this frame is not JSON"):
        parse(text)


def test_half_an_emoji_in_too_much() -> None:
    """The attack: brackets beside it, for which the second look takes much more memory than they do."""
    room = MAX_TAKEN_APART - len(rb'{"a":"\ud83d"}')
    assert parse(rb'{"a":"\ud83d%b"}' % (b"x" * room)) == Start(rb'{"a":"\ud83d%b"}' % (b"x" * room))
    with pytest.raises(BadFrame, match="this frame is not JSON"):
        parse(rb'{"a":"\ud83d%b"}' % (b"x" * (room + 1)))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from([*TYPES, "stop", "", "S", "S.5", "now", "\ud83d", "\0"])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Return an object such as clients send, or nearly, written in one of the ways in which JSON can be."""
    names = st.sampled_from(["type", "body", "stream", "after", "last_event_id", "prompt", "\ud83d"])
    members = draw(st.dictionaries(names, WORDS | JSON_VALUES | st.integers(-2, 10**20), max_size=5))
    if draw(st.booleans()):
        members = {"type": draw(st.sampled_from(TYPES)), **members}
    text = json.dumps(
        members, indent=draw(st.sampled_from([None, None, 1])), ensure_ascii=draw(st.booleans())
    )
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=800)
@given(
    st.binary(max_size=40) | objects(),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), max_size=2),
)
@example(b'{"type":1e999}', [])
@example(b'{"type":"\xff"}', [])
@example(b'{"\xff":1}', [])
@example(b'{"\\ud83d":"\xff"}', [])
def test_whatever_comes_is_a_command_or_a_bad_frame(text: bytes, damage: list[tuple[int, bytes]]) -> None:
    """Nothing else is ever raised; and what is refused can be told, in a frame."""
    for at, noise in damage:
        text = text[:at] + noise + text[at + len(noise) :]
    refusal = ""
    try:
        assert isinstance(parse(text), Command)
    except BadFrame as error:
        refusal = str(error)
    assert len(refusal) < 250
    assert said_in(told("error", message=refusal)) == [{"type": "error", "message": refusal}]


@settings(max_examples=400)
@given(objects())
def test_a_body_arrives_as_it_was_written(text: bytes) -> None:
    """Under ``body``, in the rest of a chat, or bare: every value is what it was, to the last digit."""
    try:
        said = json.loads(text)
        command = parse(text)
    except (BadFrame, UnicodeDecodeError):
        return
    kind = said.get("type")
    if kind is None:
        assert command == Start(text)
    elif kind == "start":
        body = command.body if isinstance(command, Start) else b"?"
        assert (body is None) is (said.get("body") is None)
        assert body is None or json.loads(body) == said["body"]
    elif kind == "chat":
        assert isinstance(command, Start)
        assert command.body is not None
        assert json.loads(command.body) == {name: said[name] for name in said if name != "type"}


# ── what the sidecar says ───────────────────────────────────────────────────────────────────────────────


def test_frames_of_the_sidecars_own() -> None:
    """Compact, the type first, and in the order in which they are told."""
    assert texts_in(told("pong")) == [b'{"type":"pong"}']
    assert texts_in(told("open", stream="S", status=200)) == [b'{"type":"open","stream":"S","status":200}']
    raw = msgspec.Raw(b'{"a": 1.0}')
    assert texts_in(told("error", body=raw)) == [b'{"type":"error","body":{"a": 1.0}}']


def test_what_a_peer_wrote_in_no_known_encoding() -> None:
    """A reason phrase in Latin-1 comes as surrogates, which no UTF-8 can hold: it is told with ``?``."""
    message = b"the upstream answered 404 Non trouv\xe9".decode("utf-8", "surrogateescape")
    assert said_in(told("error", message=message, status=404, body=msgspec.Raw(b"{}"))) == [
        {"type": "error", "message": "the upstream answered 404 Non trouv?", "status": 404, "body": {}}
    ]
    assert said_in(end_frame("S", Terminal(Reason.UPSTREAM_ERROR, "\udcff")))[0]["message"] == "?"


@pytest.mark.parametrize("reason", Reason)
def test_the_end(reason: Reason) -> None:
    """A reason, in the words of the contract; a message where there is one."""
    assert said_in(end_frame("S", Terminal(reason))) == [
        {"type": "end", "stream": "S", "reason": reason.value},
    ]
    assert said_in(end_frame(None, Terminal(reason, "why"))) == [
        {"type": "end", "stream": None, "reason": reason.value, "message": "why"},
    ]


def test_a_gap() -> None:
    """An event whose id is that of the last one lost: whoever resumes there gets what is left."""
    assert said_in(gap_frame(STREAM, 3, 17)) == [
        {"type": "event", "id": f"{STREAM}.17", "event": "stream-gap", "data": {"from": 3, "to": 17}}
    ]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": 1.0}', b'{"a": 1.0}'),
        (b"[1, 2]", b"[1, 2]"),
        (b"plain", b'"plain"'),
        (b"", b'""'),
        (b"5", b'"5"'),
        (b'"x"', b'"\\"x\\""'),
        (b"null", b'"null"'),
        (b"{broken", b'"{broken"'),
        (b"\xff", '"\ufffd"'.encode()),
        (b'{"a":"\xff"}', '{"a":"\ufffd"}'.encode()),
    ],
)
def test_an_answer_as_json(data: bytes, value: bytes) -> None:
    """An answer that is no stream, and the body of an error, are told as an event's data is."""
    assert bytes(as_json(data)) == value


# Events


def event(seq: int, data: Any, name: str = "message", **more: str) -> dict[str, Any]:
    """Return what an event's frame says."""
    return {"type": "event", "id": f"{STREAM}.{seq}", "event": name, **more, "data": data}


def entry(lines: bytes, seq: int | None = 7) -> bytes:
    """Return a log entry: an id of ours, unless ``seq`` is None, and these lines."""
    return lines + b"\n\n" if seq is None else b"id: %b.%d\n%b\n\n" % (STREAM.encode(), seq, lines)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"data: x", event(7, "x")),
        (b"data:x", event(7, "x")),
        (b"data:  x ", event(7, " x ")),
        (b"data: ", event(7, "")),
        (b"data:", event(7, "")),
        (b"data", event(7, "")),
        (b"data: [DONE]", event(7, "[DONE]")),
        (b"data: id: 1", event(7, "id: 1")),
        (b"data: a\0b\x7f\"\\", event(7, 'a\0b\x7f"\\')),
        ("data: é\u2028😀".encode(), event(7, "é\u2028😀")),
        (b"data: a\xffb\xe2\x80", event(7, "a\ufffdb\ufffd")),
        (b"data: " + BOM + b"{}", event(7, "\ufeff{}")),
        # more lines
        (b"data: a\ndata: b", event(7, "a\nb")),
        (b"data\ndata", event(7, "\n")),
        (b"data: [1,\ndata: 2]", event(7, [1, 2])),
        (b"data: {\"a\":\ndata:\"b\"}", event(7, {"a": "b"})),
        (b": comment\ndata: x\nunknown: y", event(7, "x")),
        (b"retry: 5\ndata: x", event(7, "x")),
        (b":\ndata: x", event(7, "x")),
        # names
        (b"event: ping\ndata: x", event(7, "x", "ping")),
        (b"event:ping\ndata:x", event(7, "x", "ping")),
        (b"data: x\nevent: ping", event(7, "x", "ping")),
        (b"event: a\nevent: b\ndata: x", event(7, "x", "b")),
        (b"event: a\nevent:\ndata: x", event(7, "x")),
        (b"event: \ndata: x", event(7, "x")),
        (b"event\ndata: x", event(7, "x")),
        (b"event: a\ndata: x\ndata: y", event(7, "x\ny", "a")),
        (b'event: "\\\0\ndata: x', event(7, "x", '"\\\0')),
        ("event: é😀\ndata: x".encode(), event(7, "x", "é😀")),
        (b"event: \xff\xc3\ndata: x", event(7, "x", "\ufffd\ufffd")),
        (b"event: data: y\ndata: x", event(7, "x", "data: y")),
        (b"event: %b\ndata: x" % (b"n" * MAX_NAME * 2), event(7, "x", "n" * MAX_NAME * 2)),
        # values
        (b'data: {"a":1}', event(7, {"a": 1})),
        (b'data:{"a":1}', event(7, {"a": 1})),
        (b'data:  {"a":1} \t', event(7, {"a": 1})),
        (b"data: []", event(7, [])),
        ('data: {"é":"😀"}'.encode(), event(7, {"é": "😀"})),
        (b'data: {"a":"\xff"}', event(7, {"a": "\ufffd"})),
        (b'data: {"a":1}x', event(7, '{"a":1}x')),
        (b'data: {"a":1}{"b":2}', event(7, '{"a":1}{"b":2}')),
        (b'data: {"a":1', event(7, '{"a":1')),
        (b"data: {a:1}", event(7, "{a:1}")),
        (b"data: [NaN]", event(7, "[NaN]")),
        (b"data: [01]", event(7, "[01]")),
        (b'data: ["\t"]', event(7, '["\t"]')),
        (b"data: [1]\x0b", event(7, "[1]\x0b")),
        (b'data: "x"', event(7, '"x"')),
        (b"data: 5", event(7, "5")),
        (b"data: true", event(7, "true")),
        (b"data: null", event(7, "null")),
        (b"data: [1e999]", event(7, [math.inf])),
        (b"data: [" + b"9" * 5000 + b"]", None),
        (b'data: ["\\ud83d"]', event(7, ["\ud83d"])),
        (b'data: ["\\ud83d", NaN]', event(7, '["\\ud83d", NaN]')),
        (b'data: ["\\ud8"]', event(7, '["\\ud8"]')),
        (b"data: " + b"[" * 100_000, event(7, "[" * 100_000)),
        (b'data: ["\\ud83d",' + b"[" * 100_000, event(7, '["\\ud83d",' + "[" * 100_000)),
        (b"data: " + b"[" * 100_000 + b"]" * 100_000, event(7, "[" * 100_000 + "]" * 100_000)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seq", [7, None], ids=["our id", "no id"])
def test_an_event(lines: bytes, said: dict[str, Any] | None, seq: int | None) -> None:
    """What an EventSource would dispatch; an object or array as itself, anything else as text."""
    (text,) = texts_in(Framing(STREAM).event(7, entry(lines, seq)))
    if said is None:
        assert text.endswith(b'"data":%b}' % lines.removeprefix(b"data: ")), "a number as it was written"
    else:
        assert strictly(text) == said


def test_data_is_spliced_in_as_it_is() -> None:
    """Not a byte of JSON is written anew: numbers keep their digits, members their order."""
    data = b'{"b" : 1.0, "a":1e2,"b":"\\u00e9\xc3\xa9\\/" }'
    framing = Framing(STREAM)
    for lines in (b"data: " + data, b"data:" + data, b"event: x\ndata: " + data):
        assert texts_in(framing.event(1, entry(lines, 1)))[0].endswith(b'"data":' + data + b"}")


def test_what_python_would_take_for_utf16() -> None:
    r"""Data whose bytes are JSON in UTF-16, and hold ``\u``, are a text full of NULs to everybody else."""
    data = '{"a":"\u755c"}'.encode("utf-16-le")
    assert b"\\u" in data
    assert said_in(Framing(STREAM).event(1, entry(b"data: " + data, 1))) == [event(1, data.decode())]


def test_the_upstreams_ids() -> None:
    """The frame's id is ours, with which a client can resume; the upstream's stands beside it."""
    framing = Framing(STREAM)
    assert said_in(framing.event(7, b"id: abc\ndata: x\n\n")) == [event(7, "x", upstream_id="abc")]
    assert said_in(framing.event(7, b"data: x\nid:\n\n")) == [event(7, "x", upstream_id="")]
    assert said_in(framing.event(7, b"id: a\0\ndata: x\n\n")) == [event(7, "x")]
    assert said_in(framing.event(7, b'id: "\xff\ndata: x\n\n')) == [event(7, "x", upstream_id='"\ufffd')]
    assert said_in(framing.event(7, b"event: e\nid: 1\ndata: x\n\n")) == [event(7, "x", "e", upstream_id="1")]
    assert said_in(framing.event(7, entry(b"retry: 5\ndata: x", 7))) == [event(7, "x")]
    other = b"id: zyxwvutsrqponmlkjihgfe.3\ndata: x\n\n"
    assert said_in(framing.event(7, other)) == [event(7, "x", upstream_id="zyxwvutsrqponmlkjihgfe.3")]


def test_blocks_that_stand_before_the_event() -> None:
    """Under the upstream's ids an entry may begin with blocks without data: an id among them counts, the last
    one; an event's name among them does not.
    """
    framing = Framing(STREAM)
    before = b"id: a\nevent: lost\n\nid: b\nretry: 5\n\n"
    assert said_in(framing.event(7, before + b"data: x\n\n")) == [event(7, "x", upstream_id="b")]
    assert said_in(framing.event(7, before + b"id: c\ndata: x\n\n")) == [event(7, "x", upstream_id="c")]
    assert said_in(framing.event(7, b"retry: 5\n\ndata: x\n\n")) == [event(7, "x")]
    assert said_in(framing.event(7, b"event: lost\n\ndata: x\n\n")) == [event(7, "x")]


def test_several_events() -> None:
    """One frame each, numbered on."""
    wire = Framing(STREAM).events(9, [entry(b"data: a", 9), entry(b"event: e\ndata: {}", 10)])
    assert said_in(wire) == [event(9, "a"), event(10, {}, "e")]
    assert Framing(STREAM).events(1, []) == b""


def test_long_names_are_not_remembered() -> None:
    """The attack: events each of which has another name, of megabytes."""
    frames._known_name.cache_clear()
    framing = Framing(STREAM)
    for number in range(300):
        framing.event(1, entry(b"event: %d%b\ndata: x" % (number, b"n" * MAX_NAME), 1))
    assert frames._known_name.cache_info().currsize == 0
    framing.event(1, entry(b"event: %b\ndata: x" % (b"n" * MAX_NAME), 1))
    assert frames._known_name.cache_info().currsize == 1


# Any stream

#: Lines of data that are JSON, or nearly.
JSON_LINES = st.one_of(
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda value, at, noise: json.dumps(value).encode()[: at % 40] + noise,
        JSON_VALUES,
        st.integers(0, 39),
        st.sampled_from(
            [b"", b"}", b"]", b" ", b"\xff", b"\\ud83d", b'"', b"NaN", b"\0", b"\xe2\x80", b"\x0b"]
        ),
    ),
    JSON_VALUES.map(lambda value: b' {"text": "\\ud83d", "value":' + json.dumps(value).encode() + b"}"),
)
NAMES = st.sampled_from(
    [b"", b"event: e\n", b"event:\n", b'event: "\xff\n', b"id: 5\n", b"retry: 7\n", b": c\n"]
)
JSON_STREAMS = st.lists(
    st.builds(
        lambda name, data, newline: (name + b"data: " + data).replace(b"\n", newline) + newline * 2,
        NAMES,
        st.lists(JSON_LINES, min_size=1, max_size=2).map(b"\ndata:".join),
        END_OF_LINE,
    ),
    max_size=5,
).map(b"".join)


def value_of(data: str) -> Any:
    """Return what an event's data is in a frame: an object or array as itself, anything else as the text."""

    def refuse(constant: str) -> None:
        raise ValueError

    if data.strip(" \t\n\r").startswith(("{", "[")):
        try:
            return json.loads(data, parse_constant=refuse)
        except ValueError:
            pass
    return data


def entries_of(reads: list[bytes], ids: Ids, *, follow: bool) -> list[bytes]:
    """Return the log of a stream that comes in these reads."""
    parser, numbering = Parser(), Numbering(STREAM, ids, follow=follow)
    return [entry for data in reads for entry in numbering.number(parser.feed(data)).entries]


@settings(max_examples=800)
@given(streams() | JSON_STREAMS, cuts(), st.sampled_from(Ids), st.booleans())
@example(b"id: 1\n\ndata: a\n\n" + BOM + b"data: b\n\nid\n\nid: 2\n\ndata\n\n", [], Ids.UPSTREAM, False)
@example(b"retry: 7\n\ndata: a\n\nid: 5\ndata: [1]\n\n", [9], Ids.OWN, True)
def test_any_stream_says_what_it_said(stream: bytes, at: list[int], ids: Ids, follow: bool) -> None:
    """Whoever numbers it, and in whatever reads it came: each frame is the event that an EventSource would
    have dispatched, its id resumes behind it, and the upstream's last id is known where that is the client's.
    """
    entries = entries_of(cut(stream, at), ids, follow=follow)
    said = said_in(Framing(STREAM).events(1, entries))
    dispatched = interpret(stream).messages
    assert [(frame["event"], frame["data"]) for frame in said] == [
        (message.type, value_of(message.data)) for message in dispatched
    ]
    assert [frame["id"] for frame in said] == [f"{STREAM}.{seq}" for seq in range(1, len(said) + 1)]
    last_id = ""
    for frame, message in zip(said, dispatched, strict=True):
        last_id = frame.get("upstream_id", last_id)
        if ids is Ids.UPSTREAM or follow:
            assert last_id == message.last_event_id
        else:
            assert "upstream_id" not in frame
    one_by_one = b"".join(Framing(STREAM).event(seq, entry) for seq, entry in enumerate(entries, 1))
    assert said_in(one_by_one) == said


@given(JSON_STREAMS, st.sampled_from(Ids))
def test_a_retry_that_is_due_changes_no_frame(stream: bytes, ids: Ids) -> None:
    """An SSE reader's first block carries one; a frame says nothing of it."""
    framing = Framing(STREAM)
    for seq, logged in enumerate(entries_of([stream], ids, follow=False), 1):
        assert said_in(framing.event(seq, with_retry(logged, 3000))) == said_in(framing.event(seq, logged))
