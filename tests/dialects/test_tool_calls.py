"""Tool calls out of fragments: once, whole, in order, and never a broken one as if it were whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import tool_calls
from proxy.dialects.part import ToolCall, ToolDelta, ToolFault, ToolStart
from proxy.dialects.tool_calls import ToolCalls


def test_a_call_in_fragments() -> None:
    """Each fragment passes on as it comes; the call comes once, parsed, when it ends."""
    calls = ToolCalls("s")
    assert calls.start("k", "weather", "call_1") == [ToolStart(0, "call_1", "weather")]
    assert calls.add("k", '{"city":') == [ToolDelta(0, "call_1", '{"city":')]
    assert calls.add("k", '"Paris"}') == [ToolDelta(0, "call_1", '"Paris"}')]
    whole = ToolCall(0, "call_1", "weather", {"city": "Paris"}, '{"city":"Paris"}')
    assert calls.end("k") == [whole]
    assert calls.end("k") == []


def test_several_calls_at_once() -> None:
    """Fragments of one call may come between those of another; they end in the order they began."""
    calls = ToolCalls("s")
    calls.start("a", "f", "1")
    calls.start("b", "g", "2")
    calls.add("b", '{"y":')
    calls.add("a", '{"x":1}')
    calls.add("b", "2}")
    assert calls.end_all() == [
        ToolCall(0, "1", "f", {"x": 1}, '{"x":1}'),
        ToolCall(1, "2", "g", {"y": 2}, '{"y":2}'),
    ]


@pytest.mark.parametrize("source", ["", " ", "\n"])
def test_no_arguments_are_an_empty_object(source: str) -> None:
    """A tool without parameters is called with ``{}``, whatever the provider leaves out."""
    calls = ToolCalls("s")
    calls.start("k", "now", "1")
    calls.add("k", source)
    (call,) = calls.end("k")
    assert isinstance(call, ToolCall)
    assert call.arguments == {}


NO_JSON = ['{"city":"Pa', "{", "[1,", '{"a":1}}', "nonsense", '{"a":NaN}', '{"a":1e999}', "[-Infinity]"]


@pytest.mark.parametrize("source", [*NO_JSON, "[" * 100_000, "[" * 257 + "]" * 257])
def test_arguments_that_are_no_whole_json(source: str) -> None:
    """They are a fault that keeps what came: never a call with less than was meant."""
    calls = ToolCalls("s")
    calls.start("k", "weather", "1")
    calls.add("k", source)
    (fault,) = calls.end("k")
    assert isinstance(fault, ToolFault)
    assert fault.source == source
    assert fault.message.startswith("the arguments of weather are no whole JSON: ")


def test_half_an_emoji_in_arguments_is_kept() -> None:
    """Python's JSON takes lone surrogates, as the SDKs do."""
    calls = ToolCalls("s")
    calls.start("k", "say", "1")
    calls.add("k", r'{"text":"\ud83d"}')
    (call,) = calls.end("k")
    assert isinstance(call, ToolCall)
    assert call.arguments == {"text": "\ud83d"}


def test_a_name_that_begins_again_ends_the_call_before() -> None:
    """Servers that count all their calls 0 send the next one when the last is whole."""
    calls = ToolCalls("s")
    calls.start(0, "f", "1")
    calls.add(0, "{}")
    assert calls.start(0, "g", "2") == [ToolCall(0, "1", "f", {}, "{}"), ToolStart(1, "2", "g")]


def test_calls_without_an_id_get_one_each() -> None:
    """It is another one for each call and for each stream."""
    ids = [
        part.id
        for salt in ("one", "two")
        for calls in [ToolCalls(salt)]
        for _ in range(2)
        for part in calls.whole("f", {"a": 1})
        if isinstance(part, ToolCall)
    ]
    assert len(set(ids)) == 4


def test_calls_are_counted_by_choice() -> None:
    """The index of a call counts within its answer."""
    calls = ToolCalls("s")
    starts = [*calls.start("a", "f", "1"), *calls.start("b", "f", "2", choice=1), *calls.start("c", "f", "3")]
    assert [part.index for part in starts if isinstance(part, ToolStart)] == [0, 0, 1]
    assert [part.id for part in calls.end_all(choice=0) if isinstance(part, ToolCall)] == ["1", "3"]
    assert "b" in calls


def test_fragments_of_no_call_are_dropped() -> None:
    """Whoever reads a stream from its middle sees fragments without a beginning."""
    assert ToolCalls("s").add("k", '{"a":') == []


def test_arguments_told_whole_count_where_no_fragment_came() -> None:
    """Some providers tell them in pieces and once more whole, some only so."""
    calls = ToolCalls("s")
    calls.start("k", "f", "1")
    assert calls.supply("k", '{"a":1}') == [ToolDelta(0, "1", '{"a":1}')]
    assert calls.supply("k", '{"a":1}') == []
    assert calls.supply("other", "{}") == []
    assert calls.end("k") == [ToolCall(0, "1", "f", {"a": 1}, '{"a":1}')]


def test_an_emoji_in_halves() -> None:
    """Fragments pass on as they come; in the whole call the halves are one character."""
    calls = ToolCalls("s")
    calls.start("k", "f", "1")
    assert calls.add("k", '{"a":"\ud83d') == [ToolDelta(0, "1", '{"a":"\ud83d')]
    calls.add("k", '\ude00"}')
    assert calls.end("k") == [ToolCall(0, "1", "f", {"a": "😀"}, '{"a":"😀"}')]


def test_arguments_without_an_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that never ends a call fills no memory: the call is a fault, and its fragments pass on."""
    monkeypatch.setattr(tool_calls, "MAX_ARGUMENTS", 12)
    calls = ToolCalls("s")
    calls.start("k", "f", "1")
    assert all(calls.add("k", '"aaaa') == [ToolDelta(0, "1", '"aaaa')] for _ in range(5))
    (fault,) = calls.end("k")
    assert isinstance(fault, ToolFault)
    assert fault.source == '"aaaa"aaaa'
    assert fault.message == "the arguments are over 12 characters"


def test_calls_without_an_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are the calls themselves: those beyond are told as faults, so that nobody takes the rest for all."""
    monkeypatch.setattr(tool_calls, "MAX_CALLS", 2)
    calls = ToolCalls("s")
    assert [len(calls.start(key, "f")) for key in range(2)] == [1, 1]
    start, fault = calls.start(2, "f")
    assert isinstance(start, ToolStart)
    assert isinstance(fault, ToolFault)
    assert (fault.index, fault.id, fault.message) == (2, start.id, "more than 2 tool calls came")
    assert len(calls.end_all()) == 2


def test_names_without_an_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take of the same room as the arguments."""
    monkeypatch.setattr(tool_calls, "MAX_ARGUMENTS", 10)
    calls = ToolCalls("s")
    _, fault = calls.start("k", "f", "1" * 10)
    assert isinstance(fault, ToolFault)
    assert "k" not in calls


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.data())
def test_whatever_the_cuts_are(value: object, data: st.DataObject) -> None:
    """Arguments mean the same however they were cut."""
    source = json.dumps({"value": value})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(source)), max_size=5)))
    calls = ToolCalls("s")
    calls.start("k", "f", "1")
    for start, end in zip([0, *cuts], [*cuts, len(source)], strict=True):
        calls.add("k", source[start:end])
    assert calls.end("k") == [ToolCall(0, "1", "f", {"value": value}, source)]
