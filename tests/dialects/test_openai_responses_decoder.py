"""What the events of OpenAI's responses say, one by one. Whole streams are in tests/transcripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.openai_responses_decoder import OpenAIResponsesDecoder
from proxy.dialects.part import (
    Citation,
    End,
    Error,
    File,
    Finish,
    Part,
    Raw,
    Refusal,
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
    """An event of the response's family."""
    return named(f"response.{kind}", **fields)


def named(kind: str, **fields: Any) -> bytes:
    """An event of this type."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}".encode()


def said(*blocks: bytes) -> list[Part]:
    """What a new decoder finds in events."""
    decoder = DIALECTS["openai-responses"].decoder("salt")
    assert isinstance(decoder, OpenAIResponsesDecoder)
    return [part for block in blocks for part in decoder.decode(block)]


def added(item: dict[str, Any], index: int = 0) -> bytes:
    """An item is announced."""
    return event("output_item.added", output_index=index, item=item)


def done(item: dict[str, Any], index: int = 0) -> bytes:
    """An item is told whole."""
    return event("output_item.done", output_index=index, item=item)


def whole(status: str = "completed", **fields: Any) -> bytes:
    """The last event, with the response."""
    return event(status, response={"id": "r", "model": "m", **fields})


FUNCTION = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": ""}


def test_the_start() -> None:
    """Once, whichever of its first events comes."""
    response = {"id": "r", "model": "m", "created_at": 17.0}
    events = [event(kind, response=response) for kind in ("queued", "created", "in_progress")]
    assert said(*events) == [Start("r", "m", 17)]


@pytest.mark.parametrize("time", [float("nan"), float("inf")])
def test_a_time_that_is_none(time: float) -> None:
    """It is not told."""
    assert said(whole(created_at=time))[0] == Start("r", "m", None)


def test_each_place_is_a_block() -> None:
    """Of reasoning, of its summary's parts, of text and of a refusal: each has another number."""
    assert said(
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a"),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="b"),
        event("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="c"),
        event("reasoning_text.delta", output_index=1, content_index=0, delta="d"),
        event("output_text.delta", output_index=2, content_index=0, delta="e"),
        event("output_text.delta", output_index=2, content_index=0, delta=""),
        event("refusal.delta", output_index=2, content_index=1, delta="f"),
    ) == [
        Thinking("a"),
        Thinking("b"),
        Thinking("c", 1),
        Thinking("d", 2),
        Text("e", 3),
        Refusal("f", 4),
    ]


def test_reasoning_that_only_openai_can_read() -> None:
    """It belongs to the block that was told of it, or is one of its own."""
    item = {"type": "reasoning", "encrypted_content": "xx"}
    summary = event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a")
    assert said(added(item), summary, done(item)) == [Thinking("a"), Thinking("", 0, redacted="xx")]
    assert said(summary, done(item, 1)) == [Thinking("a"), Thinking("", 1, redacted="xx")]
    assert said(done({"type": "reasoning"})) == []


def test_repetitions() -> None:
    """What was said in pieces is not said again."""
    kinds = ("output_text.done", "content_part.added", "content_part.done", "reasoning_summary_text.done")
    assert said(*(event(kind, text="a", part={}) for kind in kinds), done({"type": "message"})) == []


def test_a_function_call() -> None:
    """Its start, its fragments, and the whole when its item is done."""
    assert said(
        added(FUNCTION, 1),
        event("function_call_arguments.delta", output_index=1, delta='{"a"'),
        event("function_call_arguments.delta", output_index=1, delta=":1}"),
        event("function_call_arguments.done", output_index=1, arguments='{"a":1}'),
        done({**FUNCTION, "arguments": '{"a":1}'}, 1),
    ) == [
        ToolStart(0, "c", "f"),
        ToolDelta(0, "c", '{"a"'),
        ToolDelta(0, "c", ":1}"),
        ToolCall(0, "c", "f", {"a": 1}, '{"a":1}'),
    ]


CALL = ToolCall(0, "c", "f", {"a": 1}, '{"a":1}')


@pytest.mark.parametrize(
    "blocks",
    [
        [added(FUNCTION), event("function_call_arguments.done", arguments='{"a":1}'), done(FUNCTION)],
        [added(FUNCTION), done({**FUNCTION, "arguments": '{"a":1}'})],
        [done({**FUNCTION, "arguments": '{"a":1}'})],
        [added(FUNCTION), event("function_call_arguments.done", arguments='{"a":1}'), whole()],
    ],
    ids=["told when the arguments are done", "or the item", "which was not announced", "or never done"],
)
def test_arguments_in_one_piece(blocks: list[bytes]) -> None:
    """They count wherever they are told first, and once."""
    parts = said(*blocks)
    assert [part for part in parts if isinstance(part, ToolDelta)] == [ToolDelta(0, "c", '{"a":1}')]
    assert [part for part in parts if isinstance(part, ToolCall)] == [CALL]


def test_arguments_that_end_early() -> None:
    """The call can not be made, whether its item was done or not."""
    fragment = event("function_call_arguments.delta", delta='{"a')
    for blocks in ([done(FUNCTION)], [whole("incomplete")]):
        parts = said(added(FUNCTION), fragment, *blocks)
        assert sum(isinstance(part, ToolFault) for part in parts) == 1


def test_a_fragment_of_no_call() -> None:
    """It says nothing."""
    assert said(event("function_call_arguments.delta", output_index=9, delta="{")) == []


def test_a_custom_call() -> None:
    """Its input is any text: as JSON, a string."""
    item = {"type": "custom_tool_call", "id": "x", "call_id": "c", "name": "f", "input": ""}
    parts = said(
        added(item),
        event("custom_tool_call_input.delta", delta='say "'),
        event("custom_tool_call_input.delta", delta='\n"'),
        done({**item, "input": 'say "\n"'}),
    )
    assert parts == [
        ToolStart(0, "c", "f"),
        ToolDelta(0, "c", '"say \\"'),
        ToolDelta(0, "c", '\\n\\"'),
        ToolDelta(0, "c", '"'),
        ToolCall(0, "c", "f", 'say "\n"', '"say \\"\\n\\""'),
    ]
    assert said(done(item))[-1] == ToolCall(0, "c", "f", "", '""')


@pytest.mark.parametrize(
    ("item", "name", "arguments", "output", "failed"),
    [
        ({"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
         "web_search", {"action": {"type": "search"}}, {"status": "completed"}, False),
        ({"type": "file_search_call", "status": "failed", "queries": ["q"], "results": None},
         "file_search", {"queries": ["q"]}, {"status": "failed"}, True),
        ({"type": "code_interpreter_call", "status": "completed", "container_id": "k", "code": "1",
          "outputs": [{"type": "logs", "logs": "1"}]},
         "code_interpreter", {"container_id": "k", "code": "1"},
         {"status": "completed", "outputs": [{"type": "logs", "logs": "1"}]}, False),
        ({"type": "mcp_call", "name": "ask", "arguments": '{"q":1}', "output": "42", "error": None},
         "ask", {"q": 1}, "42", False),
        ({"type": "mcp_call", "name": "ask", "arguments": "", "error": "no"}, "ask", {}, "no", True),
    ],
)  # fmt: skip
def test_calls_that_openai_makes(
    item: dict[str, Any], name: str, arguments: Any, output: Any, failed: bool
) -> None:
    """A call that is executed, and its result, both from one item."""
    parts = said(done({"id": "i", **item}))
    call, result = parts[-2:]
    assert parts[0] == ToolStart(0, "i", name, executed=True)
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.arguments, call.executed) == ("i", name, arguments, True)
    assert result == ToolResult("i", name, output, failed)


def test_an_image() -> None:
    """The file comes behind its call; a partial one is raw."""
    item = {"type": "image_generation_call", "id": "i", "status": "completed"}
    partial = event("image_generation_call.partial_image", partial_image_b64="AA")
    parts = said(added(item), partial, done({**item, "result": "AAAA", "output_format": "webp"}))
    assert isinstance(parts[1], Raw)
    assert parts[-2:] == [
        ToolResult("i", "image_generation", {"status": "completed"}),
        File("image/webp", "AAAA"),
    ]
    assert said(done({**item, "result": "AAAA"}))[-1] == File("image/png", "AAAA")


@pytest.mark.parametrize(
    ("item", "name", "arguments", "executed"),
    [
        ({"type": "computer_call", "action": {"type": "wait"}, "pending_safety_checks": []},
         "computer", {"action": {"type": "wait"}, "pending_safety_checks": []}, False),
        ({"type": "local_shell_call", "action": {"command": ["ls"]}},
         "local_shell", {"action": {"command": ["ls"]}}, False),
        ({"type": "shell_call", "action": {"commands": ["ls"]}, "environment": None},
         "shell", {"action": {"commands": ["ls"]}}, False),
        ({"type": "shell_call", "action": {}, "environment": {"type": "container_reference"}},
         "shell", {"action": {}, "environment": {"type": "container_reference"}}, True),
        ({"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
         "apply_patch", {"operation": {"type": "delete_file", "path": "a"}}, False),
        ({"type": "tool_search_call", "execution": "server", "arguments": {"q": 1}},
         "tool_search", {"q": 1}, True),
        ({"type": "tool_search_call", "execution": "client", "arguments": None}, "tool_search", {}, False),
    ],
)  # fmt: skip
def test_calls_whose_results_are_items_of_their_own(
    item: dict[str, Any], name: str, arguments: Any, executed: bool
) -> None:
    """Most of them are the client's to answer, and the response ends for that."""
    *_, call, _, finish, end = said(done({"id": "i", "call_id": "c", **item}), whole())
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.arguments, call.executed) == ("c", name, arguments, executed)
    assert finish == Finish("stop" if executed else "tool_calls", "completed")
    assert end == End()


@pytest.mark.parametrize(
    ("item", "result"),
    [
        ({"type": "shell_call_output", "call_id": "c", "output": [1]}, ToolResult("c", "shell", [1])),
        ({"type": "apply_patch_call_output", "call_id": "c", "status": "failed"},
         ToolResult("c", "apply_patch", None, failed=True)),
        ({"type": "tool_search_output", "call_id": None, "id": "i", "tools": [2]},
         ToolResult("i", "tool_search", [2])),
        ({"type": "function_call_output", "call_id": "c", "name": "f", "output": "3"},
         ToolResult("c", "f", "3")),
    ],
)  # fmt: skip
def test_results_that_are_items(item: dict[str, Any], result: ToolResult) -> None:
    """They name their call, and are told once."""
    assert said(added(item), done(item)) == [result]


@pytest.mark.parametrize(
    ("annotation", "part"),
    [
        ({"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 1, "end_index": 2},
         Citation(url="https://a.example", title="A", start=1, end=2)),
        ({"type": "file_citation", "file_id": "f", "filename": "a.pdf", "index": 3},
         Citation(document="a.pdf")),
        ({"type": "container_file_citation", "file_id": "f", "filename": "b.csv", "start_index": 0,
          "end_index": 4}, Citation(document="b.csv", start=0, end=4)),
        ({"type": "file_path", "file_id": "f", "index": 3}, Citation(document="f")),
        (None, Citation()),
    ],
)  # fmt: skip
def test_citations(annotation: Any, part: Citation) -> None:
    """They belong to the block of text that they stand in."""
    text = event("output_text.delta", output_index=2, content_index=0, delta="a")
    cited = event("output_text.annotation.added", output_index=2, content_index=0, annotation=annotation)
    fields = {name: getattr(part, name) for name in ("url", "title", "document", "start", "end")}
    assert said(text, cited) == [Text("a"), Citation(**fields, source=annotation)]


def test_the_end() -> None:
    """Figures, the reason, the marker; whoever begins here learns the model, too."""
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    assert said(whole(usage=usage)) == [
        Start("r", "m"),
        Usage(9, 5, 4, 2, 3),
        Finish("stop", "completed"),
        End(),
    ]
    assert said(whole(output=[{"type": "function_call"}]))[1] == Finish("tool_calls", "completed")


@pytest.mark.parametrize(
    ("native", "reason"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("steered", "other")],
)
def test_an_incomplete_response(native: str, reason: Any) -> None:
    """It is as whole as it was let be."""
    parts = said(whole("incomplete", incomplete_details={"reason": native}))
    assert parts[1:] == [Finish(reason, native), End()]
    assert said(whole("incomplete"))[1] == Finish("other", "incomplete")


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (whole("failed", error={"code": "server_error", "message": "no"}), Error("no", "server_error", 500)),
        (whole("failed", error={"code": "rate_limit_exceeded", "message": "slow"}),
         Error("slow", "rate_limit_exceeded", 429)),
        (whole("failed", error={"code": "invalid_prompt", "message": "no"}),
         Error("no", "invalid_prompt", 400)),
        (named("error", code="server_error", message="no", param=None), Error("no", "server_error", 500)),
        (named("error", error={"type": "invalid_request_error", "code": None, "message": "bad"}),
         Error("bad", "invalid_request_error", 400)),
        (b'data: {"error":{"code":"x","message":"no"}}', Error("no", "x", 500)),
        (b"event: error\ndata: it broke", Error("it broke", "server_error", 500)),
    ],
)  # fmt: skip
def test_errors(block: bytes, error: Error) -> None:
    """A response that failed, or an event: flat, as it is documented, or with an object."""
    assert said(block)[-1] == error


def test_events_without_names() -> None:
    """Their type says what they are, and [DONE] that there are no more."""
    delta = b'data: {"type":"response.output_text.delta","delta":"a"}'
    assert said(delta, b"data: [DONE]") == [Text("a"), End()]


@pytest.mark.parametrize(
    "block",
    [
        event("web_search_call.searching", output_index=0),
        event("audio.delta", delta="AA"),
        added({"type": "mcp_list_tools", "id": "l"}),
        done({"type": "compaction", "id": "c"}),
        event("output_item.done", item=None),
        b"event: response.new\ndata: no JSON",
    ],
    ids=["progress", "audio", "a list", "compaction", "no item", "no JSON"],
)
def test_what_has_no_other_place(block: bytes) -> None:
    """It is raw, whole, under its event's name."""
    name, _, data = block.decode().partition("\n")
    assert said(block) == [Raw(name.removeprefix("event: "), data.removeprefix("data: "))]


def test_log_probabilities() -> None:
    """They are raw, behind their text."""
    delta = event("output_text.delta", delta="a", logprobs=[{"token": "a"}])
    assert said(delta) == [Text("a"), Raw("logprobs", '{"block":0,"logprobs":[{"token":"a"}]}')]
