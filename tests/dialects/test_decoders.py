"""What all decoders have in common: nothing that comes makes them raise, or keeps them from going on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects import DIALECTS
from proxy.dialects.part import Part, Text, ToolCall
from proxy.dialects.tool_calls import MAX_DEPTH
from proxy.emit import EMITS, emit_for, translation
from proxy.stream.sse import decode
from tests.transcripts import TRANSCRIPTS, Transcript
from tests.transcripts.translated import blocks_of, framing_of

NAMED = {name: dialect for name, dialect in DIALECTS.items() if dialect.decoder("") is not None}
each = pytest.mark.parametrize("name", NAMED)

#: What a server may put in the place of any value.
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.just(10**30),
    st.sampled_from([0.5, float("nan"), float("inf")]),
    st.text(max_size=3),
    st.sampled_from(["\ud83d", "error", "[DONE]", "{}", "tool_use", "server_tool_use", "response.completed"]),
    st.lists(st.none() | st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["type", "text", "id", "error", "x"]), st.none() | st.text(), max_size=2),
)


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in a JSON value: the container, and the key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places_in(inner)


def blocks_in(row: Transcript) -> list[bytes]:
    """The blocks of a recorded stream."""
    return [block for blocks in blocks_of(framing_of(row), row.body) for block in blocks]


def spoken(name: str) -> list[bytes]:
    """The blocks of a recorded stream of this dialect that has a text; for an app's text, a piece of one."""
    rows = (row for row in TRANSCRIPTS.values() if row.dialect == name and row.text)
    return next((blocks_in(row) for row in rows), [b"data: hello"])


def distorted(block: bytes, data: st.DataObject) -> bytes:
    """Return a block, another value somewhere in its data."""
    event = decode(block)
    try:
        value = json.loads(event.data or "")
    except ValueError:
        return block
    places = list(places_in(value))
    if not places:
        return block
    container, key = data.draw(st.sampled_from(places))
    container[key] = data.draw(STRANGE)
    name = b"" if event.event == "message" else b"event: " + event.event.encode() + b"\n"
    return name + b"data: " + json.dumps(value).encode()


def is_json(data: str | None) -> bool:
    """Whether an event's data is what every JSON reader takes; or the marker of OpenAI's end."""
    if data == "[DONE]":
        return True
    json.loads(data or "", parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return True


@settings(max_examples=300)
@given(row=st.sampled_from(list(TRANSCRIPTS.values())), data=st.data())
def test_no_value_makes_any_form_raise(row: Transcript, data: st.DataObject) -> None:
    """A stream with any value in the place of any other is told to its end in every form."""
    dialect = DIALECTS[row.dialect]
    blocks = blocks_in(row)
    number = data.draw(st.integers(0, len(blocks) - 1))
    blocks[number] = distorted(blocks[number], data)
    for form in EMITS:
        emit = emit_for(form, dialect)
        if emit is not None:
            told = translation(emit, dialect, "salt", 0.0, raw=True, keep=16)
            said = told.feed(blocks, 1.0) + told.close(1.0)
            assert said
            assert all(block.isascii() and is_json(decode(block).data) for block in said), said


@each
@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"data",
        b": a comment",
        b"retry: 3000",
        b"data: {",
        b"data: []",
        b"data: null",
        b'data: "error"',
        b"data: \xff\xfe",
        b'data: {"error": {}}',
        b"event: error\ndata: it broke",
        b"event: error",
        b"event: \xff\ndata: {}",
        b"data: " + b"[" * 100_000,
        b'data: {"choices":' * 2000,
        b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"args":' + b'{"a":' * 5000,
    ],
    ids=[
        "nothing",
        "empty data",
        "comment",
        "retry",
        "half an object",
        "a list",
        "null",
        "a text",
        "no UTF-8",
        "an empty error",
        "an error that is no JSON",
        "an error without data",
        "a name that is no UTF-8",
        "deep lists",
        "deep objects",
        "deep arguments",
    ],
)
def test_no_block_makes_a_decoder_raise(name: str, block: bytes) -> None:
    """What a decoder cannot read is raw, an error, or nothing; and what comes after it is read as ever."""
    decoder = NAMED[name].decoder("salt")
    assert decoder is not None
    parts = [*decoder.decode(block), *decoder.finish()]
    assert all(isinstance(part, Part) for part in parts)
    after = [part for each in spoken(name) for part in decoder.decode(each)]
    assert any(isinstance(part, Text) for part in after)


#: A call in each dialect: OBJECT stands where the arguments are an object, TEXT where they are a JSON text.
CALLS = {
    "anthropic": (
        'event: content_block_start\ndata: {"content_block":{"type":"tool_use","name":"f","input":OBJECT}}',
        "event: content_block_stop\ndata: {}",
    ),
    "bedrock": (
        'event: contentBlockStart\ndata: {"start":{"toolUse":{"name":"f"}}}',
        'event: contentBlockDelta\ndata: {"delta":{"toolUse":{"input":TEXT}}}',
        "event: contentBlockStop\ndata: {}",
    ),
    "cohere": (
        'data: {"type":"tool-call-start","delta":{"message":{"tool_calls":{"function":{"arguments":TEXT}}}}}',
        'data: {"type":"tool-call-end"}',
    ),
    "gemini": ('data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":OBJECT}}]}}]}',),
    "ollama": ('data: {"message":{"tool_calls":[{"function":{"name":"f","arguments":OBJECT}}]}}',),
    "openai": ('data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":TEXT}}]}}]}',),
    "openai-responses": (
        'event: response.output_item.done\ndata: {"item":{"type":"function_call","arguments":TEXT}}',
    ),
}


def deep_call(name: str, depth: int) -> list[bytes]:
    """Return the blocks of a call whose arguments are nested so deep."""
    deep = '{"a":' * depth + "1" + "}" * depth
    blocks = (block.replace("OBJECT", deep).replace("TEXT", json.dumps(deep)) for block in CALLS[name])
    return [block.encode() for block in blocks]


def test_all_dialects_with_calls_are_tried() -> None:
    """The table has those that the recorded streams have."""
    assert {row.dialect for row in TRANSCRIPTS.values() if row.calls} == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("depth", [1, MAX_DEPTH, MAX_DEPTH + 1, 950, 100_000])
def test_deep_arguments_make_no_form_raise(name: str, depth: int) -> None:
    """A call with as many levels as may be is made, one with more is not; every form tells its stream."""
    dialect, blocks = NAMED[name], deep_call(name, depth)
    decoder = dialect.decoder("salt")
    assert decoder is not None
    parts = [part for block in blocks for part in decoder.decode(block)] + decoder.finish()
    assert any(isinstance(part, ToolCall) for part in parts) == (depth <= MAX_DEPTH)
    for form in EMITS:
        emit = emit_for(form, dialect)
        if emit is not None:
            told = translation(emit, dialect, "salt", 0.0, raw=True, keep=16)
            said = told.feed(blocks, 1.0) + told.close(1.0)
            assert said
            assert all(block.isascii() and is_json(decode(block).data) for block in said), said
