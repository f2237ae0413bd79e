"""One JSON array, cut into its elements as they arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.stream.json_array import JsonArray
from proxy.stream.sse import Parser, decode
from tests.stream.byte_streams import cut, cuts, every_way
from tests.stream.framings import frame

CASES: dict[str, tuple[bytes, list[bytes]]] = {
    "an empty array": (b"[]", []),
    "an empty array with space": (b" [\r\n]\n", []),
    "one element": (b'[{"a":1}]', [b'data: {"a":1}']),
    "two elements": (b'[{"a":1},{"b":2}]', [b'data: {"a":1}', b'data: {"b":2}']),
    "as Gemini sends it": (b'[{"a":1}\n,\r\n{"b":2}\n]\n', [b'data: {"a":1}', b'data: {"b":2}']),
    "a bare object": (b'{"error":{"code":503}}\n', [b'data: {"error":{"code":503}}']),
    "a bare object of several lines": (b'{\n  "error": {}\n}\n', [b'data: {  "error": {}}']),
    "line breaks between tokens": (b'[{\r\n  "a": [\n1,\r2]\n}]', [b'data: {  "a": [1,2]}']),
    "nested": (b'[{"a":[{"b":[[]]},{}]},{}]', [b'data: {"a":[{"b":[[]]},{}]}', b"data: {}"]),
    "brackets in a string": (b'[{"]}[{":"}]"}]', [b'data: {"]}[{":"}]"}']),
    "quotes in a string": (b'[{"a":"\\"}]\\\\"},{}]', [b'data: {"a":"\\"}]\\\\"}', b"data: {}"]),
    "a string that ends in a backslash": (b'[{"a":"\\\\"},{}]', [b'data: {"a":"\\\\"}', b"data: {}"]),
    "UTF-8": ('[{"a":"é😀\u2028"}]'.encode(), ['data: {"a":"é😀\u2028"}'.encode()]),
}


@pytest.mark.parametrize(("body", "blocks"), CASES.values(), ids=CASES)
def test_cases(body: bytes, blocks: list[bytes]) -> None:
    """Each body has these blocks when it comes whole, byte by byte, and cut anywhere."""
    for reads in every_way(body):
        found, array = frame(JsonArray, reads)
        assert (found, array.overflowed, array.broken) == (blocks, 0, ""), reads


def test_an_element_does_not_wait_for_the_next() -> None:
    """It leaves with the bracket that ends it, before the comma after it has come."""
    array = JsonArray()
    assert array.feed(b'[{"a":1}') == [b'data: {"a":1}']
    assert array.feed(b',{"b":2') == []
    assert array.feed(b"}") == [b'data: {"b":2}']


BROKEN: dict[str, tuple[bytes, list[bytes], str]] = {
    "nothing": (b"", [], "the body ended at byte 0: a JSON array was expected"),
    "an error page": (b"\n<html>", [], "b'<' came at byte 1: a JSON array was expected"),
    "no closing bracket": (
        b'[{"a":1}',
        [b'data: {"a":1}'],
        "the body ended at byte 8: a comma, or the array's end was expected",
    ),
    "an element that was cut": (
        b'[{"a":1},{"b',
        [b'data: {"a":1}'],
        "the body ended at byte 12: the rest of an object was expected",
    ),
    "a comma and no element": (b"[{},", [b"data: {}"], "the body ended at byte 4: an object was expected"),
    "a comma before the end": (b"[{},]", [b"data: {}"], "b']' came at byte 4: an object was expected"),
    "no comma": (b"[{}{}]", [b"data: {}"], "b'{' came at byte 3: a comma, or the array's end was expected"),
    "an element that is no object": (
        b"[1]",
        [],
        "b'1' came at byte 1: an object, or the array's end was expected",
    ),
    "a second array": (b"[{}]\n[", [b"data: {}"], "b'[' came at byte 5: nothing more was expected"),
    "a second object": (b"{}{", [b"data: {}"], "b'{' came at byte 2: nothing more was expected"),
}


@pytest.mark.parametrize(("body", "blocks", "broken"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_array_is_told(body: bytes, blocks: list[bytes], broken: str) -> None:
    """What came, what was expected, and at which byte; elements that were whole before it count."""
    for reads in every_way(body):
        found, array = frame(JsonArray, reads)
        assert (found, array.broken) == (blocks, broken), reads
        assert array.feed(b",{}") == [] or not body


@pytest.mark.parametrize(
    ("body", "blocks", "overflowed"),
    [
        (b'[{"a":1}]', [b'data: {"a":1}'], False),
        (b'[{"a":12}]', [], True),
        (b'[{"a":123', [], True),
        (b'[{},{"a":12},{}]', [b"data: {}"], True),
        (b'[{"a":"[[[[[[[[', [], True),
        (b"[{" + b" " * 6, [], False),
        (b"[" + b" " * 99 + b"{}]", [b"data: {}"], False),
    ],
)
def test_an_element_is_bounded(body: bytes, blocks: list[bytes], overflowed: bool) -> None:
    """A peer that never ends an element can not fill the memory, whatever it nests."""
    for reads in every_way(body):
        found, array = frame(JsonArray, reads, limit=13)
        assert (found, array.overflowed > 13) == (blocks, overflowed), reads
        assert not overflowed or (array.broken, array.feed(b"{}")) == ("", [])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["}]", '\\"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=3)


@given(
    st.lists(OBJECTS, max_size=5),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\r"]),
    cuts(),
)
def test_what_was_written_is_read(
    values: list[dict[str, Any]], indent: int | None, ascii_only: bool, newline: str, at: list[int]
) -> None:
    """The data of the blocks are the elements, as Python's own reader reads the whole of it."""
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).replace("\n", newline).encode()
    blocks, array = frame(JsonArray, cut(body, at))
    assert [json.loads(decode(block).data or "") for block in blocks] == json.loads(body) == values
    assert array.broken == ""


PIECES = st.one_of(
    st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b" ", b"\r\n", b"\n", b"x"]),
    OBJECTS.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=3),
)


@given(st.lists(PIECES, max_size=12).map(b"".join), cuts(), st.integers(8, 40))
def test_any_body_cut_anywhere(body: bytes, at: list[int], limit: int) -> None:
    """Any bytes, cut anywhere, give the same blocks and the same fault as when they come whole."""
    for text in (body, b"[" + body, b"[{" + body):
        whole, one = frame(JsonArray, [text], limit)
        found, many = frame(JsonArray, cut(text, at), limit)
        assert (found, many.broken, bool(many.overflowed)) == (whole, one.broken, bool(one.overflowed))
        assert max(map(len, whole), default=0) <= limit
        assert all(Parser().feed(block + b"\n\n") == [block] for block in whole)


@pytest.mark.parametrize("read", [b"[", b"{", b'"', b"\\", b"x", b'"x', b'\\"'])
def test_a_flood_is_read_once(read: bytes) -> None:
    """Very many small reads, of whatever the scanner looks for, are read as fast as they come.

    The attack is work that grows with the square of what came: what an element has so far is not looked at
    again with each read. This would not come to an end then.
    """
    array = JsonArray()
    array.feed(b'[{"a":')
    for _ in range(100_000):
        assert array.feed(read) == []
    assert not array.broken
