"""Cohere's chat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects import DIALECTS, Failure, Verdict
from proxy.dialects.base import Decoder
from proxy.dialects.part import (
    Citation,
    End,
    Error,
    Finish,
    Part,
    Raw,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    ToolFault,
    ToolStart,
    Usage,
)

COHERE = DIALECTS["cohere"]


def block(kind: str, **fields: Any) -> bytes:
    """An event, as a block."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}".encode()


def adds(kind: str, index: int = 0, **message: Any) -> bytes:
    """An event that adds to the message."""
    return block(kind, index=index, delta={"message": message})


def end(reason: str | None = "COMPLETE", **more: Any) -> bytes:
    """The last event."""
    return block("message-end", delta={"finish_reason": reason, **more})


def started() -> Decoder:
    """A decoder that has seen the first event."""
    decoder = COHERE.decoder("salt")
    assert decoder is not None
    decoder.decode(block("message-start", id="c1", delta={"message": {"content": [], "tool_calls": []}}))
    return decoder


def told(*blocks: bytes) -> list[Part]:
    """What events say after the first one."""
    decoder = started()
    return [part for each in blocks for part in decoder.decode(each)]


@pytest.mark.parametrize(
    ("tail", "verdict"),
    [
        ([adds("content-delta", content={"text": "Hi"})], Verdict.OPEN),
        ([block("content-end", index=0)], Verdict.OPEN),
        ([end()], Verdict.COMPLETE),
        ([end(), b"data: [DONE]"], Verdict.COMPLETE),
        ([end("MAX_TOKENS")], Verdict.COMPLETE),
        ([end("ERROR")], Verdict.ERROR),
        ([end("TIMEOUT")], Verdict.ERROR),
        ([end(None, error="it broke")], Verdict.ERROR),
    ],
)
def test_verdict(tail: list[bytes], verdict: Verdict) -> None:
    """The end of the message ends the stream, and tells an error where there was one."""
    assert COHERE.verdict(tail) is verdict


def test_nothing_is_injected() -> None:
    """The SDK raises on no event: only a broken connection tells it."""
    assert COHERE.failure_block(Failure("truncated", "cut")) is None


def test_it_begins_with_an_id_and_without_a_model() -> None:
    """The API does not say which model answers; a second start is none."""
    decoder = COHERE.decoder("salt")
    assert decoder is not None
    first = block("message-start", id="c1", delta={"message": {"content": []}})
    assert decoder.decode(first) == [Start("c1")]
    assert decoder.decode(first) == []


def test_text_and_thinking_keep_their_blocks() -> None:
    """The index of a block of content is told; what a block begins with counts too."""
    assert told(
        adds("content-start", 0, content={"type": "thinking", "thinking": "Hm"}),
        adds("content-delta", 0, content={"thinking": "m."}),
        block("content-end", index=0),
        adds("content-start", 1, content={"type": "text", "text": ""}),
        adds("content-delta", 1, content={"text": "Hi"}),
    ) == [Thinking("Hm", 0), Thinking("m.", 0), Text("Hi", 1)]


def test_a_plan_is_thinking() -> None:
    """What the model says it will do with its tools is no part of the answer."""
    assert told(adds("tool-plan-delta", tool_plan="I will look.")) == [Thinking("I will look.")]


def test_a_call_is_put_together() -> None:
    """Its fragments are told as they come, the whole at its end."""
    begun = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert told(
        adds("tool-call-start", 0, tool_calls=begun),
        adds("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"city":'}}),
        adds("tool-call-delta", 0, tool_calls={"function": {"arguments": '"Rom"}'}}),
        block("tool-call-end", index=0),
    ) == [
        ToolStart(0, "t1", "weather"),
        ToolDelta(0, "t1", '{"city":'),
        ToolDelta(0, "t1", '"Rom"}'),
        ToolCall(0, "t1", "weather", {"city": "Rom"}, '{"city":"Rom"}'),
    ]


def test_a_call_that_the_message_ends_in_is_a_fault() -> None:
    """Arguments that stop in the middle cannot be used."""
    begun = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}
    fault, finish, _ = told(adds("tool-call-start", 0, tool_calls=begun), end("MAX_TOKENS"))[2:]
    assert isinstance(fault, ToolFault)
    assert finish == Finish("length", "MAX_TOKENS")


def test_a_citation_for_each_source() -> None:
    """A document's title and address are told, a tool's output by its name; the place is in the answer."""
    document = {"type": "document", "id": "d1", "document": {"title": "T", "url": "https://example.com/"}}
    tool = {"type": "tool", "id": "x:2", "tool_output": {"n": 1}}
    cited = {"start": 2, "end": 5, "text": "abc", "type": "TEXT_CONTENT"}
    assert told(adds("citation-start", citations={**cited, "sources": [document, tool]})) == [
        Citation("https://example.com/", "T", "abc", "d1", 2, 5, source={**cited, "sources": [document]}),
        Citation("", "", "abc", "x:2", 2, 5, source={**cited, "sources": [tool]}),
    ]


def test_a_plans_citation_has_no_place_in_the_answer() -> None:
    """Its figures count in the plan."""
    cited = {"start": 2, "end": 5, "text": "abc", "sources": [], "type": "PLAN"}
    assert told(adds("citation-start", citations=cited)) == [Citation(text="abc", source=cited)]


def test_the_end_tells_the_figures_and_the_reason() -> None:
    """Figures come as floats; what is billed has no part of its own, and passes raw."""
    usage = {"tokens": {"input_tokens": 7.0, "output_tokens": 3.0}, "cached_tokens": 2.0}
    assert told(end(usage=usage)) == [Usage(7, 3, 2), Finish("stop", "COMPLETE"), End()]
    _, raw, *_ = told(end(usage={**usage, "billed_units": {"input_tokens": 5}}))
    assert isinstance(raw, Raw)
    assert "billed_units" in raw.data


@pytest.mark.parametrize("figure", ["1e999", "NaN", "-Infinity", '"many"', "[]"])
def test_a_figure_that_is_none_does_not_raise(figure: str) -> None:
    """The attack: numbers that no integer can hold. The message ends all the same, or passes raw."""
    data = b'data: {"type":"message-end","delta":{"usage":{"tokens":{"input_tokens":%b}}}}' % figure.encode()
    parts = started().decode(data)
    assert parts
    assert not any(isinstance(part, Usage) and part.input_tokens is not None for part in parts)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP_SEQUENCE", Finish("stop", "STOP_SEQUENCE")),
        ("TOOL_CALL", Finish("tool_calls", "TOOL_CALL")),
        ("NEW_REASON", Finish("other", "NEW_REASON")),
        (None, Finish("other", "")),
    ],
)
def test_reasons(reason: str | None, finish: Finish) -> None:
    """The provider's word stands beside ours."""
    assert told(end(reason)) == [finish, End()]


def test_an_error_ends_it() -> None:
    """With the provider's words, or with its reason alone."""
    assert told(end("ERROR", error="it broke")) == [Error("it broke", "ERROR", 500)]
    assert told(end("TIMEOUT")) == [Error("the provider told an error without a word", "TIMEOUT", 504)]


def test_what_nobody_knows_passes_raw() -> None:
    """New events, and probabilities, have no part of their own."""
    assert told(block("debug", prompt="x")) == [Raw("debug", '{"type": "debug", "prompt": "x"}')]
    text, raw = told(
        block("content-delta", index=0, delta={"message": {"content": {"text": "Hi"}}}, logprobs={})
    )
    assert text == Text("Hi")
    assert isinstance(raw, Raw)
