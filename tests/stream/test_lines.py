"""Lines of JSON: each becomes a block, however they are split over reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.stream.lines import Lines
from proxy.stream.sse import Parser, decode
from tests.stream.byte_streams import BOM, cut, cuts, every_way
from tests.stream.framings import frame

CASES: dict[str, tuple[bytes, list[bytes]]] = {
    "nothing": (b"", []),
    "one line": (b'{"a":1}\n', [b'data: {"a":1}']),
    "two lines": (b'{"a":1}\n{"b":2}\n', [b'data: {"a":1}', b'data: {"b":2}']),
    "CRLF": (b'{"a":1}\r\n{"b":2}\r\n', [b'data: {"a":1}', b'data: {"b":2}']),
    "blank lines": (b'\n\r\n  \n{"a":1}\n\t\n', [b'data: {"a":1}']),
    "blank lines only": (b"\n\r\n \n", []),
    "white space around": (b'  {"a":1}\t \n', [b'data: {"a":1}']),
    "the last line without its end": (b'{"a":1}\n{"b":2}', [b'data: {"a":1}', b'data: {"b":2}']),
    "a last number without its end": (b"17", [b"data: 17"]),
    "a last surrogate without its end": (b'"\\ud83d"', [b'data: "\\ud83d"']),
    "a last NaN without its end": (b'{"a":NaN}', [b'data: {"a":NaN}']),
    "values of every kind": (
        b'[1]\n"a"\n-1\n0\ntrue\nfalse\nnull\n',
        [b"data: [1]", b'data: "a"', b"data: -1", b"data: 0", b"data: true", b"data: false", b"data: null"],
    ),
    "a BOM": (BOM + b'{"a":1}\n', [b'data: {"a":1}']),
    "a CR between two tokens": (b'{"a":\r1}\n', [b'data: {"a": 1}']),
    "UTF-8": ('{"a":"é😀\u2028"}\n'.encode(), ['data: {"a":"é😀\u2028"}'.encode()]),
}


@pytest.mark.parametrize(("body", "blocks"), CASES.values(), ids=CASES)
def test_cases(body: bytes, blocks: list[bytes]) -> None:
    """Each body has these blocks when it comes whole, byte by byte, and cut anywhere."""
    for reads in every_way(body):
        found, lines = frame(Lines, reads)
        assert (found, lines.overflowed, lines.broken) == (blocks, 0, ""), reads


BROKEN: dict[str, tuple[bytes, list[bytes], str]] = {
    "an error page": (
        b"<html>\n",
        [],
        "b'<' came in the line at byte 0: a JSON value was expected",
    ),
    "an event stream": (
        b'{"a":1}\ndata: {"b":2}\n\n',
        [b'data: {"a":1}'],
        "b'd' came in the line at byte 8: a JSON value was expected",
    ),
    "an error page without a line's end": (
        b"\n<html>",
        [],
        "b'<' came in the line at byte 1: a JSON value was expected",
    ),
    "a last line that was cut": (
        b'{"a":1}\n{"b":',
        [b'data: {"a":1}'],
        "the body ended after 5 bytes of a line of JSON that began at byte 8: "
        "the rest of its value was expected",
    ),
}


@pytest.mark.parametrize(("body", "blocks", "broken"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_json_is_told(body: bytes, blocks: list[bytes], broken: str) -> None:
    """What came, what was expected, and at which byte; what was whole before it counts."""
    for reads in every_way(body):
        found, lines = frame(Lines, reads)
        assert (found, lines.broken) == (blocks, broken), reads
        assert lines.feed(b'{"a":1}\n') == []


def test_a_last_line_nested_too_deep_is_not_whole() -> None:
    """A line that no reader can take does not raise: half a megabyte of opening brackets."""
    blocks, lines = frame(Lines, [b"[" * 500_000])
    assert blocks == []
    assert lines.broken.startswith("the body ended after 500000 bytes of a line of JSON")


@pytest.mark.parametrize(
    ("body", "blocks", "overflowed"),
    [
        (b'"89"\n', [b'data: "89"'], False),
        (b'"890"\n', [], True),
        (b'"8901', [], True),
        (b'1\n"890"\n2\n', [b"data: 1"], True),
        (b" " * 5, [], True),
        (b"1\n2\n" * 9, [b"data: 1", b"data: 2"] * 9, False),
    ],
)
def test_a_line_is_bounded(body: bytes, blocks: list[bytes], overflowed: bool) -> None:
    """A peer that never ends its line can not fill the memory: a line that is too long is the last."""
    for reads in every_way(body):
        found, lines = frame(Lines, reads, limit=10)
        assert (found, lines.overflowed > 10) == (blocks, overflowed), reads
        assert lines.broken == ""
        assert not overflowed or lines.feed(b"1\n") == []


PIECES = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
    st.sampled_from([b"\n", b"\n", b"\r\n", b"\r", b" ", b"", b"<", BOM, b'"', b"\xff"]),
)


@given(st.lists(PIECES, max_size=12).map(b"".join), cuts(), st.integers(8, 40))
def test_any_body_cut_anywhere(body: bytes, at: list[int], limit: int) -> None:
    """Any bytes, cut anywhere, give the same blocks and the same fault as when they come whole."""
    whole, one = frame(Lines, [body], limit)
    found, many = frame(Lines, cut(body, at), limit)
    assert (found, many.broken, bool(many.overflowed)) == (whole, one.broken, bool(one.overflowed))
    assert max(map(len, whole), default=0) <= limit


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_a_block_is_one_event(body: bytes) -> None:
    """Whatever came, a block is one line of data and nothing else: no line of a peer's becomes a field."""
    for block in frame(Lines, [body])[0]:
        assert Parser().feed(block + b"\n\n") == [block]
        assert decode(block).data == block.removeprefix(b"data: ").decode("utf-8", "replace")


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9)), max_size=6), cuts())
def test_what_was_written_is_read(values: list[dict[str, str]], at: list[int]) -> None:
    """The data of each block is the value of its line."""
    body = b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)
    assert [json.loads(decode(block).data or "") for block in frame(Lines, cut(body, at))[0]] == values
