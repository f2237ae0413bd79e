"""What Anthropic's events say, one by one. Whole streams are in tests/transcripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.anthropic_decoder import AnthropicDecoder
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
    ToolResult,
    ToolStart,
    Usage,
)


def event(kind: str, **fields: Any) -> bytes:
    """An event of this type."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}".encode()


def said(*blocks: bytes) -> list[Part]:
    """What a new decoder finds in events."""
    decoder = DIALECTS["anthropic"].decoder("salt")
    assert isinstance(decoder, AnthropicDecoder)
    return [part for block in blocks for part in decoder.decode(block)]


def begun(content: dict[str, Any], index: int = 0) -> bytes:
    """A content block's start."""
    return event("content_block_start", index=index, content_block=content)


def delta(index: int = 0, **fields: Any) -> bytes:
    """A piece of a content block."""
    return event("content_block_delta", index=index, delta=fields)


def stopped(index: int = 0) -> bytes:
    """A content block's stop."""
    return event("content_block_stop", index=index)


def ended(usage: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """A message_delta."""
    return event("message_delta", delta=fields, **({} if usage is None else {"usage": usage}))


STOP = event("message_stop")


def test_a_message_starts_once() -> None:
    """Its id, its model, and the figures of what was sent."""
    start = event("message_start", message={"id": "m", "model": "c", "usage": {"input_tokens": 3}})
    assert said(start, start) == [Start("m", "c"), Usage(input_tokens=3), Usage(input_tokens=3)]


def test_each_block_has_its_number() -> None:
    """Text and thinking of two blocks are two; what is empty says nothing."""
    assert said(
        begun({"type": "thinking", "thinking": "", "signature": ""}),
        delta(type="thinking_delta", thinking="hm"),
        delta(type="signature_delta", signature="s"),
        begun({"type": "text", "text": ""}, 1),
        delta(1, type="text_delta", text=""),
        delta(1, type="text_delta", text="a"),
    ) == [Thinking("hm"), Thinking(signature="s"), Text("a", 1)]


def test_what_a_block_begins_with() -> None:
    """Some servers put text, thinking or citations into the start of a block."""
    cited = {"cited_text": "w", "document_title": "D"}
    assert said(
        begun({"type": "text", "text": "a", "citations": [cited]}),
        begun({"type": "thinking", "thinking": "hm", "signature": "s"}, 1),
        begun({"type": "redacted_thinking", "data": "xx"}, 2),
    ) == [
        Text("a"),
        Citation(title="D", text="w", document="D", source=cited),
        Thinking("hm", 1, signature="s"),
        Thinking("", 2, redacted="xx"),
    ]


def test_a_tool_call() -> None:
    """Its start, its fragments, and the whole when its block stops."""
    assert said(
        begun({"type": "tool_use", "id": "t", "name": "f", "input": {}}, 1),
        delta(1, type="input_json_delta", partial_json=""),
        delta(1, type="input_json_delta", partial_json='{"a":'),
        delta(1, type="input_json_delta", partial_json="1}"),
        stopped(1),
    ) == [
        ToolStart(0, "t", "f"),
        ToolDelta(0, "t", '{"a":'),
        ToolDelta(0, "t", "1}"),
        ToolCall(0, "t", "f", {"a": 1}, '{"a":1}'),
    ]


def test_arguments_that_come_with_the_start() -> None:
    """They count where no fragment comes; where some do, the fragments do."""
    start = begun({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}})
    assert said(start, stopped())[-1] == ToolCall(0, "t", "f", {"a": 1}, '{"a":1}')
    fragment = delta(type="input_json_delta", partial_json='{"b":2}')
    assert said(start, fragment, stopped())[-1] == ToolCall(0, "t", "f", {"b": 2}, '{"b":2}')


def test_a_call_whose_block_never_stops() -> None:
    """It is whole, or not, when the message stops: before the reason."""
    parts = said(
        begun({"type": "tool_use", "id": "t", "name": "f"}),
        delta(type="input_json_delta", partial_json='{"a'),
        ended(stop_reason="max_tokens"),
        STOP,
    )
    assert isinstance(parts[-3], ToolFault)
    assert parts[-2:] == [Finish("length", "max_tokens"), End()]


@pytest.mark.parametrize(
    ("kind", "content", "more", "name", "failed"),
    [
        ("web_search_tool_result", [{"type": "web_search_result"}], {}, "find", False),
        ("web_search_tool_result", {"type": "web_search_tool_result_error"}, {}, "find", True),
        ("mcp_tool_result", [{"type": "text", "text": "no"}], {"is_error": True}, "find", True),
    ],
)
def test_a_result_has_the_name_of_its_call(
    kind: str, content: Any, more: dict[str, Any], name: str, failed: bool
) -> None:
    """And says whether the tool failed."""
    parts = said(
        begun({"type": "server_tool_use", "id": "s", "name": name}),
        stopped(),
        begun({"type": kind, "tool_use_id": "s", "content": content, **more}, 1),
    )
    assert parts == [
        ToolStart(0, "s", name, executed=True),
        ToolCall(0, "s", name, {}, "", executed=True),
        ToolResult("s", name, content, failed),
    ]


def test_a_result_whose_call_was_not_seen() -> None:
    """It has the name of its kind."""
    result = begun({"type": "web_fetch_tool_result", "tool_use_id": "s", "content": None})
    assert said(result) == [ToolResult("s", "web_fetch", None)]


@pytest.mark.parametrize(
    ("citation", "part"),
    [
        ({"type": "char_location", "cited_text": "w", "document_index": 0, "document_title": "D"},
         Citation(title="D", text="w", document="D")),
        ({"type": "page_location", "cited_text": "w", "document_index": 2, "document_title": None},
         Citation(text="w", document="2")),
        ({"type": "content_block_location", "document_index": 0, "file_id": "file_1"},
         Citation(document="file_1")),
        ({"type": "web_search_result_location", "cited_text": "w", "url": "https://a.example", "title": "A"},
         Citation(url="https://a.example", title="A", text="w")),
        ({"type": "search_result_location", "source": "https://b.example", "title": None},
         Citation(url="https://b.example")),
        ("odd", Citation()),
    ],
)  # fmt: skip
def test_citations(citation: Any, part: Citation) -> None:
    """What is cited, and the words; the places are in the document, so only the source has them."""
    (found,) = said(delta(3, type="citations_delta", citation=citation))
    assert isinstance(found, Citation)
    fields = {name: getattr(part, name) for name in ("url", "title", "text", "document")}
    assert found == Citation(**fields, block=3, source=citation)


def test_figures_are_totals() -> None:
    """What is read from a cache and written to it was sent, too; what is not told again stays."""
    start = event(
        "message_start",
        message={
            "usage": {"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 300}
        },
    )
    end = ended({"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}})
    assert said(start, end)[1:] == [
        Usage(321, None, 20, 300),
        Usage(321, 9, 20, 300, 4),
    ]
    assert said(start, ended({"input_tokens": 5, "output_tokens": 9}))[2] == Usage(325, 9, 20, 300)
    assert said(ended({"output_tokens": 9})) == [Usage(output_tokens=9)]


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "other"),
        ("a_new_one", "other"),
    ],
)
def test_reasons(native: str, reason: Any) -> None:
    """In our words, with Anthropic's own; told when the message stops."""
    assert said(ended(stop_reason=native)) == []
    assert said(ended(stop_reason=native), STOP) == [Finish(reason, native), End()]


def test_a_reason_without_the_last_event() -> None:
    """It is told when the stream has ended well."""
    decoder = AnthropicDecoder("salt")
    assert decoder.decode(ended(stop_reason="end_turn")) == []
    assert (decoder.finish(), decoder.finish()) == ([Finish("stop", "end_turn")], [])


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ('{"type":"error","error":{"type":"overloaded_error","message":"Busy"}}',
         Error("Busy", "overloaded_error", 529)),
        ('{"type":"error","error":{"type":"rate_limit_error","message":"Slow"}}',
         Error("Slow", "rate_limit_error", 429)),
        ('{"type":"error","error":{"type":"new_error","message":"?"}}', Error("?", "new_error", 500)),
        ("upstream timed out", Error("upstream timed out", "api_error", 500)),
        ('{"type":"error","error":"no"}', Error('{"type":"error","error":"no"}', "api_error", 500)),
        ("", Error("the provider told an error without a word", "api_error", 500)),
    ],
)  # fmt: skip
def test_errors(data: str, part: Error) -> None:
    """Their type is the code, and stands for a status; one that cannot be read is an error all the same."""
    assert said(f"event: error\ndata: {data}".encode()) == [part]


@pytest.mark.parametrize(
    "block",
    [
        ended(stop_reason=None, stop_sequence="###"),
        ended(stop_reason=None, stop_details={"type": "refusal", "category": "cyber"}),
        event("message_delta", delta={}, context_management={"applied_edits": []}),
        begun({"type": "container_upload", "file_id": "f"}),
        delta(type="compaction_delta", content="c"),
        event("content_block_delta", delta=5),
        event("something_new"),
        b'data: {"type":"message_stop"}',
    ],
    ids=["stop sequence", "refusal", "edits", "upload", "new delta", "no delta", "new event", "no name"],
)
def test_what_has_no_other_place(block: bytes) -> None:
    """It is raw, whole, under its event's name."""
    (part,) = said(block)
    name, _, data = block.decode().rpartition("\n")
    assert part == Raw(name.removeprefix("event: ") or "message", data.removeprefix("data: "))


@pytest.mark.parametrize("block", [event("ping"), b": comment", b"event: ping", b"retry: 1"])
def test_what_says_nothing(block: bytes) -> None:
    """Keep-alives, and blocks without data."""
    assert said(block) == []


def test_an_event_with_an_id() -> None:
    """A log's blocks have ids; and data may stand in several lines."""
    block = b'id: s.1\nevent: content_block_delta\ndata: {"delta":\ndata: {"type":"text_delta","text":"a"}}'
    assert said(block) == [Text("a")]
