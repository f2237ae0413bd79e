"""AG-UI's events: what each part becomes, and what the protocol's own client hears of every transcript."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ag_ui.core import Event
from pydantic import TypeAdapter

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
from proxy.dialects.summary import MOST_CHOICES
from proxy.dialects.tool_calls import MAX_CALLS
from tests.emit.telling import heard_in_node, one_string, shelf_of, told
from tests.transcripts import TRANSCRIPTS, Transcript

WHOLE = [pytest.param(row, id=name) for name, row in TRANSCRIPTS.items() if row.whole]
BROKEN = [pytest.param(row, id=name) for name, row in TRANSCRIPTS.items() if not row.whole]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)


# ── parts and events ────────────────────────────────────────────────────────────────────────────────────


def events(*parts: Part, raw: bool = False) -> list[dict[str, Any]]:
    """Return the events of a stream, each of which AG-UI's models for Python know, to the last field."""
    payloads = told("ag-ui", *parts, raw=raw)
    for each in payloads:
        assert not EVENT.validate_python(each).model_extra
    return payloads


def inside(*parts: Part, raw: bool = False) -> list[dict[str, Any]]:
    """Return the events between the run's first and last."""
    return events(*parts, raw=raw)[1:-1]


def types(*parts: Part) -> list[str]:
    """Return the types of a stream's events."""
    return [str(each["type"]) for each in events(*parts)]


def call(arguments: str, name: str = "c", *, executed: bool = False) -> list[Part]:
    """A whole call of the tool ``look``."""
    return [
        ToolStart(0, name, "look", executed=executed),
        *([ToolDelta(0, name, arguments)] if arguments else []),
        ToolCall(0, name, "look", json.loads(arguments or "{}"), arguments, executed=executed),
    ]


def test_an_answer() -> None:
    """A run of one message: the run is the provider's answer, the thread and the message are made up."""
    run = {"threadId": "thread_salt", "runId": "msg_1"}
    usage = Usage(input_tokens=9, output_tokens=5, cache_write_input_tokens=2)
    parts = [Start("msg_1", "m", 7), Text("Hé"), Text("llo"), usage, Finish("stop", "end_turn"), End()]
    assert events(*parts) == [
        {
            "type": "RUN_STARTED", **run, "protocolVersion": "1.0", "metadata": {"model": "m"},
            "timestamp": 7000,
        },
        {"type": "TEXT_MESSAGE_START", "messageId": "msg_salt_1", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "msg_salt_1", "delta": "Hé"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "msg_salt_1", "delta": "llo"},
        {"type": "TEXT_MESSAGE_END", "messageId": "msg_salt_1"},
        {
            "type": "RUN_FINISHED", **run,
            "result": {"finishReason": "stop", "nativeFinishReason": "end_turn"},
            "usage": [
                {
                    "model": "m", "inputTokens": 9, "outputTokens": 5, "totalTokens": 14,
                    "cacheWriteInputTokens": 2,
                }
            ],
        },
    ]  # fmt: skip


def test_a_stream_that_says_nothing_of_itself() -> None:
    """A provider that names nothing makes a run all the same."""
    run = {"threadId": "thread_salt", "runId": "run_salt"}
    assert events(End()) == [
        {"type": "RUN_STARTED", **run, "protocolVersion": "1.0"},
        {"type": "RUN_FINISHED", **run, "result": {"finishReason": "stop"}},
    ]


def test_an_empty_piece_is_not_told() -> None:
    """Clients before 1.0 fail at an empty delta."""
    assert types(Text(""), Refusal(""), Thinking(), ToolDelta(0, "c", "")) == ["RUN_STARTED", "RUN_FINISHED"]


def test_blocks_of_text_are_one_message() -> None:
    """Anthropic cuts a text in blocks where it cites: no interface should show these as bubbles."""
    assert types(Text("One"), Text(" two.", block=1)).count("TEXT_MESSAGE_START") == 1


def test_reasoning() -> None:
    """A span and a message for each block, with what the provider wants back as its encrypted value."""
    assert inside(Thinking("Hm"), Thinking(signature="s"), Thinking(redacted="x", block=1)) == [
        {"type": "REASONING_START", "messageId": "msg_salt_1"},
        {"type": "REASONING_MESSAGE_START", "messageId": "msg_salt_1", "role": "reasoning"},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": "msg_salt_1", "delta": "Hm"},
        {
            "type": "REASONING_ENCRYPTED_VALUE", "subtype": "message", "entityId": "msg_salt_1",
            "encryptedValue": "s",
        },
        {"type": "REASONING_MESSAGE_END", "messageId": "msg_salt_1"},
        {"type": "REASONING_END", "messageId": "msg_salt_1"},
        {"type": "REASONING_START", "messageId": "msg_salt_2"},
        {"type": "REASONING_MESSAGE_START", "messageId": "msg_salt_2", "role": "reasoning"},
        {
            "type": "REASONING_ENCRYPTED_VALUE", "subtype": "message", "entityId": "msg_salt_2",
            "encryptedValue": "x",
        },
        {"type": "REASONING_MESSAGE_END", "messageId": "msg_salt_2"},
        {"type": "REASONING_END", "messageId": "msg_salt_2"},
    ]  # fmt: skip


def test_a_signature_in_the_midst_of_a_text() -> None:
    """It belongs to the text, and cuts it no more than it does at the provider."""
    told = inside(Text("One"), Thinking(signature="s"), Text(" two."))
    assert [each.get("messageId", each.get("entityId")) for each in told] == ["msg_salt_1"] * 5
    assert told[2]["encryptedValue"] == "s"


def test_a_refusal() -> None:
    """A message of its own that says so."""
    start, *_ = inside(Refusal("No."))
    assert start["metadata"] == {"refusal": True}


def test_a_tool_call() -> None:
    """It belongs to the message before it, which ends, and waits for the application."""
    told = events(Text("Let me look."), *call('{"at":1}'), Finish("tool_calls", "tool_use"))
    assert told[4:] == [
        {
            "type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "look",
            "parentMessageId": "msg_salt_1",
        },
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": '{"at":1}'},
        {"type": "TOOL_CALL_END", "toolCallId": "c"},
        {
            "type": "RUN_FINISHED", "threadId": "thread_salt", "runId": "run_salt",
            "result": {"finishReason": "tool_calls", "nativeFinishReason": "tool_use"},
            "outcome": {"type": "success", "pendingToolCallIds": ["c"]},
        },
    ]  # fmt: skip
    assert told[3] == {"type": "TEXT_MESSAGE_END", "messageId": "msg_salt_1"}


def test_calls_without_a_text_share_a_message() -> None:
    """One that is made up; text behind them is another."""
    told = inside(*call("{}", "a"), *call("{}", "b"), Text("Done."))
    assert {each["parentMessageId"] for each in told if "parentMessageId" in each} == {"msg_salt_1"}
    assert told[-1]["messageId"] == "msg_salt_2"


def test_empty_arguments() -> None:
    """A call without arguments has an empty object: applications parse them."""
    assert [each.get("delta") for each in inside(*call(""))] == [None, "{}", None]


def test_a_providers_own_tool() -> None:
    """Its result comes with it: nobody waits, and the answer goes on in another message."""
    result = ToolResult("c", "look", {"found": ["é"]}, failed=True)
    told = events(Text("a"), *call("{}", executed=True), result, *call("{}", "d"))
    assert told[7] == {
        "type": "TOOL_CALL_RESULT", "messageId": "msg_salt_2", "toolCallId": "c", "role": "tool",
        "content": '{"found": ["é"]}', "metadata": {"failed": True},
    }  # fmt: skip
    assert told[8]["parentMessageId"] == "msg_salt_3"
    assert told[-1]["outcome"]["pendingToolCallIds"] == ["d"]


def test_a_providers_own_tool_without_a_result() -> None:
    """A call without a result would be the application's to make: it gets an empty one."""
    *_, result, finished = events(*call("{}", executed=True), Text("a"))
    assert (result["type"], result["toolCallId"], result["content"]) == ("TOOL_CALL_RESULT", "c", "")
    assert "outcome" not in finished


def test_a_call_that_ended_early() -> None:
    """It never ends, since a client would take ``{}`` for its arguments; and the run has failed."""
    cut = [ToolStart(0, "c", "look"), ToolDelta(0, "c", '{"at'), ToolFault(0, "c", "look", '{"at', "cut")]
    *told, error = events(Text("a"), *cut, Finish("length", "max_tokens"), Usage(output_tokens=5))
    assert "TOOL_CALL_END" not in [each["type"] for each in told]
    assert error == {
        "type": "RUN_ERROR", "message": "cut", "code": "invalid_tool_arguments",
        "usage": [{"outputTokens": 5}],
    }  # fmt: skip


def test_a_call_that_never_ended() -> None:
    """Nor does a run succeed that began a call and told no more of it."""
    *_, error = events(ToolStart(0, "c", "look"), Finish("stop", "stop"))
    assert error["type"] == "RUN_ERROR"
    assert error["message"] == "the arguments of look never ended"


def test_several_choices() -> None:
    """Each has its messages, which are open side by side, and its reason."""
    parts = [Text("a"), Text("b", choice=1), Text("c"), Finish("stop", "stop"), Finish("length", "l", 1)]
    told = events(*parts)
    contents = [(each["messageId"], each["delta"]) for each in told if "delta" in each]
    assert contents == [("msg_salt_1", "a"), ("msg_salt_2", "b"), ("msg_salt_1", "c")]
    assert [each.get("metadata") for each in told if each["type"] == "TEXT_MESSAGE_START"] == [
        None,
        {"choice": 1},
    ]
    assert told[-1]["result"]["choices"] == [
        {"index": 0, "finishReason": "stop", "nativeFinishReason": "stop"},
        {"index": 1, "finishReason": "length", "nativeFinishReason": "l"},
    ]


def test_citations_and_files() -> None:
    """Events of names that the documentation gives, without what says nothing."""
    cited = Citation("http://a", "A", start=0, end=1, source={"type": "x"}, block=3)
    told = inside(Text("a"), cited, File("image/png", data="QQ=="))
    customs = [(each["name"], each["value"]) for each in told if each["type"] == "CUSTOM"]
    citation = {"url": "http://a", "title": "A", "start": 0, "end": 1, "source": {"type": "x"}}
    assert customs == [
        ("citation", {"messageId": "msg_salt_1", **citation}),
        ("file", {"mediaType": "image/png", "data": "QQ=="}),
    ]


def test_places_of_citations() -> None:
    """Providers count in a block of text; a client has the message."""
    parts = [Text("One. "), Text("Two. Three.", block=1), Citation("http://a", start=5, end=10, block=1)]
    (cited,) = [each["value"] for each in inside(*parts) if each["type"] == "CUSTOM"]
    assert "One. Two. Three."[cited["start"] : cited["end"]] == "Three"


def test_raw_events() -> None:
    """Where they are wanted, with their data as it came."""
    event = Raw("other", '{"a":NaN}')
    assert inside(event) == []
    assert inside(event, raw=True) == [
        {"type": "RAW", "event": {"event": "other", "data": '{"a":NaN}'}},
    ]


def test_an_error() -> None:
    """What was open stays open: an end would say that it is whole."""
    assert types(Text("a"), Error("too many", "overloaded_error")) == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "RUN_ERROR",
    ]


def test_an_error_alone() -> None:
    """A run that failed before it began has begun all the same."""
    started, error = events(Error("down", "api_error"))
    assert started["type"] == "RUN_STARTED"
    assert error == {"type": "RUN_ERROR", "message": "down", "code": "api_error"}


@pytest.mark.parametrize("figure", [-1, 2**53])
def test_figures_that_the_protocol_can_not_hold(figure: int) -> None:
    """They are left out: a client would refuse the run's last event, and lose the answer."""
    started, finished = events(Start(created=figure), Usage(input_tokens=figure))
    assert "timestamp" not in started
    assert "usage" not in finished


def test_calls_without_end_are_bounded() -> None:
    """A hostile provider that only begins calls fills no memory, and its run fails."""
    told = events(*[ToolStart(index, f"c{index}", "look") for index in range(MAX_CALLS + 10)])
    assert len(told) == MAX_CALLS + 2
    assert told[-1]["type"] == "RUN_ERROR"


def test_choices_without_end_are_bounded() -> None:
    """So is one that makes up choices; their text is told all the same."""
    told = types(*[Text("hi", choice=choice) for choice in range(-10, MOST_CHOICES + 10)])
    assert told.count("TEXT_MESSAGE_CONTENT") == MOST_CHOICES + 20
    assert told.count("TEXT_MESSAGE_END") == MOST_CHOICES + 1


# ── transcripts, as AG-UI's client hears them ───────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def in_node() -> dict[str, Any]:
    """What AG-UI's client heard of each."""
    with shelf_of("ag-ui", TRANSCRIPTS) as shelf:
        return heard_in_node("ag_ui.mjs", shelf)


def fails(row: Transcript) -> bool:
    """Whether a transcript that ends well is a run that failed: one of its calls can not be made."""
    return any(made.source is not None for made in row.calls)


def contents(heard: dict[str, Any], role: str) -> list[str]:
    """Return the texts of a role's messages, in order."""
    return [each["content"] for each in heard["messages"] if each["role"] == role and each.get("content")]


def assert_said(heard: dict[str, Any], row: Transcript) -> None:
    """What the client put together is what the transcript says, without a word of complaint."""
    assert heard["warnings"] == []
    assert heard["failed"] is None
    assert "".join(contents(heard, "reasoning")) == row.thinking
    said = contents(heard, "assistant")
    if row.others:
        assert sorted(said) == sorted([row.text, *row.others])
    else:
        assert one_string("".join(said)) == one_string(row.text + row.refusal)
    secrets = [each.get("encryptedValue") for each in heard["messages"]]
    assert not row.signature or row.signature in secrets


def assert_called(heard: dict[str, Any], row: Transcript) -> None:
    """The calls are the transcript's; those that wait are the application's to make."""
    found = [each for message in heard["messages"] for each in message.get("toolCalls", [])]
    assert len(found) == len(row.calls)
    for each, made in zip(found, row.calls, strict=True):
        assert each["function"]["name"] == made.name
        assert each["id"] == made.id if made.id else each["id"]
        if made.source is None:
            assert json.loads(each["function"]["arguments"]) == made.arguments
        else:
            assert each["function"]["arguments"] == made.source


@pytest.mark.parametrize("row", WHOLE)
def test_the_client_hears_an_answer(row: Transcript, in_node: dict[str, Any]) -> None:
    """Its messages, its calls, its citations and its files."""
    heard = in_node[row.id]
    assert_said(heard, row)
    assert_called(heard, row)
    customs = [(each["name"], each["value"]) for each in heard["custom"]]
    cited = [value.get("url") or value.get("document") for name, value in customs if name == "citation"]
    assert cited == list(row.citations)
    assert [value["mediaType"] for name, value in customs if name == "file"] == list(row.files)


@pytest.mark.parametrize("row", WHOLE)
def test_the_client_hears_the_end(row: Transcript, in_node: dict[str, Any]) -> None:
    """The reason, the figures, and the calls that wait; a call that can not be made has failed the run."""
    heard = in_node[row.id]
    if fails(row):
        assert heard["error"]["code"] == "invalid_tool_arguments"
        assert heard["pending"] is None
        return
    assert heard["error"] is None
    assert heard["result"]["finishReason"] == (row.finish or "stop")
    assert heard["result"].get("nativeFinishReason", "") == row.native
    waiting = [made for made in row.calls if not made.executed]
    assert len(heard["pending"]) == len(waiting)
    assert [each for each in heard["pending"] if each in [made.id for made in waiting]] == [
        made.id for made in waiting if made.id
    ]
    assert_cost(heard, row)


def assert_cost(heard: dict[str, Any], row: Transcript) -> None:
    """The figures are the transcript's."""
    (told,) = heard["usage"] or [{}]
    names = {
        "inputTokens": row.usage.input_tokens,
        "outputTokens": row.usage.output_tokens,
        "reasoningTokens": row.usage.reasoning_tokens,
        "cachedInputTokens": row.usage.cached_input_tokens,
        "cacheWriteInputTokens": row.usage.cache_write_input_tokens,
    }
    assert {name: told.get(name) for name in names} == names


@pytest.mark.parametrize("row", BROKEN)
def test_the_client_hears_the_error(row: Transcript, in_node: dict[str, Any]) -> None:
    """Errors and truncated streams are never a short answer: the run has failed, with the provider's code."""
    heard = in_node[row.id]
    assert_said(heard, row)
    assert heard["result"] is None
    assert heard["error"]["code"] == (row.error.code if row.error else "truncated")
    if row.error:
        assert heard["error"]["message"] == row.error.message
