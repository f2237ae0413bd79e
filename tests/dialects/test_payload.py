"""JSON from providers and clients is read without ever raising, and written without ever breaking a line."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.payload import FORGIVING_BYTES, as_text, asks_to_stream, data_block, read, reader, write
from proxy.stream.sse import decode

DEEP = "[" * 100_000


class Chunk(msgspec.Struct):
    """A shape to read."""

    finish: Any = None
    index: int | None = 0


@pytest.mark.parametrize("source", ['{"finish": "stop"}', b'{"finish": "stop", "more": {"a": [1]}}'])
def test_read(source: str | bytes) -> None:
    """Text and bytes are read alike, and unknown keys are ignored."""
    assert read(source, Chunk) == Chunk(finish="stop")


@pytest.mark.parametrize(
    "source",
    [
        None,
        "",
        "[DONE]",
        "null",
        '"text"',
        "[]",
        '{"index": {}}',
        '{"finish": "stop"',
        b"\xff\xfe\xfd",
        b"\x1f\x8b\x08 gzip",
        '{"finish": ' + DEEP,
        '{"n": ' + "9" * 5000 + ', "x": NaN}',
        '{"x": NaN, "finish": ' + DEEP[:50_000],
    ],
)
def test_anything_else_reads_as_empty(source: str | bytes | None) -> None:
    """What is not a JSON object of the shape reads as one without content."""
    assert read(source, Chunk) == Chunk()


def test_numbers_may_be_strings() -> None:
    """A server that quotes its numbers is understood."""
    assert read('{"index": "3"}', Chunk).index == 3


@pytest.mark.parametrize("oddity", ['"\\ud83d"', "NaN", "[Infinity, -Infinity]"])
def test_what_the_sdks_accept_is_accepted(oddity: str) -> None:
    """A lone half of an emoji or a NaN beside the finish reason does not hide it."""
    assert read(f'{{"text": {oddity}, "finish": "stop"}}', Chunk).finish == "stop"


def test_large_almost_json_gets_no_second_reading() -> None:
    """Megabytes that only Python's slow parser would accept cannot be used to hold up the process."""
    padding = " " * FORGIVING_BYTES
    assert read(f'{{"text": NaN, "finish": "stop"}}{padding}', Chunk) == Chunk()


@given(st.text(), st.sampled_from(["", "error"]))
def test_a_written_message_comes_back_whole(message: str, event: str) -> None:
    """Whatever a message holds, its block has one data line for every way to split lines."""
    block = data_block({"message": message}, event=event)
    assert len(block.decode("ascii").splitlines()) == (2 if event else 1)
    decoded = decode(block)
    assert decoded.event == (event or "message")
    assert json.loads(decoded.data or "") == {"message": message}


def test_lone_surrogates_are_written_as_escapes() -> None:
    """A message made of undecodable bytes does not raise while an error is being told."""
    assert write({"message": "\udcff"}) == b'{"message":"\\udcff"}'


def test_what_is_no_json_is_written_as_null() -> None:
    """Python reads ``NaN``, and a page's ``JSON.parse`` does not: one such number would end its stream."""
    assert write({"a": [math.nan, math.inf, 1.5]}) == b'{"a":[null,null,1.5]}'


def test_what_is_nested_too_deep_is_written_as_far_as_it_goes() -> None:
    """The attack: a value that can just be read where the stack is lower."""
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"a": value}
    assert json.loads(write(value))["a"]["a"]


@pytest.mark.parametrize(
    "source",
    ['{"finish": "a", "index": "3"}', "[]", "{", b'{"finish": NaN}', '{"finish": "\\ud83d"}', DEEP, ""],
)
def test_a_reader_reads_as_read_does(source: str | bytes) -> None:
    """It is the same, made ready for one shape."""
    assert repr(reader(Chunk)(source)) == repr(read(source, Chunk))


def test_a_reader_takes_bytes_that_are_no_utf8() -> None:
    """They read as the standard's parser of event streams reads them."""
    assert reader(Chunk)(b'{"finish": "\xff"}') == Chunk(finish="\ufffd")
    assert as_text(b"\xffa") == "\ufffda"
    assert as_text("a") == "a"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model": "m", "stream": true}', True),
        (b' \n{"stream":true,"messages":[{"content":"\\ud83d"}]}', True),
        (b'{"stream": false}', False),
        (b'{"stream": "true"}', False),
        (b'{"stream": 1}', False),
        (b'{"stream": null}', False),
        (b'{"options": {"stream": true}}', False),
        (b'[{"stream": true}]', False),
        (b'{"stream": true', False),
        (b"", False),
    ],
)
def test_asks_to_stream(body: bytes, expected: bool) -> None:
    """Only the literal true of the top-level key asks for a stream."""
    assert asks_to_stream(body) is expected
