"""The AI SDK's UI message stream: what each part becomes, and what the SDK's chat hears of transcripts."""

from __future__ import annotations

from typing import Any

import pytest

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
from proxy.dialects.tool_calls import MAX_CALLS
from proxy.emit import EMITS
from proxy.emit.ai_sdk import MAX_CITATIONS, REASONS
from tests.emit.telling import heard_in_node, one_string, shelf_of, told
from tests.support.command import PROJECT
from tests.transcripts import TRANSCRIPTS, Transcript

REACT = PROJECT / "tests" / "react"

WHOLE = [pytest.param(row, id=name) for name, row in TRANSCRIPTS.items() if row.whole]
BROKEN = [pytest.param(row, id=name) for name, row in TRANSCRIPTS.items() if not row.whole]


# ── parts and chunks ────────────────────────────────────────────────────────────────────────────────────


def inside(*parts: Part, raw: bool = False) -> list[Any]:
    """Return the chunks of a message between its first two and its last three."""
    chunks = told("ai-sdk", *parts, raw=raw)
    assert chunks[:2] == [{"type": "start"}, {"type": "start-step"}]
    assert chunks[-3] == {"type": "finish-step"}
    return chunks[2:-3]


def types(*parts: Part, raw: bool = False) -> list[str]:
    """Return the types of those chunks."""
    return [str(chunk["type"]) for chunk in inside(*parts, raw=raw)]


def test_an_answer() -> None:
    """One step, and in the end the reason, and what the answer was, as the message's metadata."""
    parts = (Start("msg_1", "m", 7), Text("Hel"), Text("lo"), Usage(3, 2), Finish("stop", "end_turn"), End())
    assert told("ai-sdk", *parts) == [
        {"type": "start"},
        {"type": "start-step"},
        {"type": "text-start", "id": "1"},
        {"type": "text-delta", "id": "1", "delta": "Hel"},
        {"type": "text-delta", "id": "1", "delta": "lo"},
        {"type": "text-end", "id": "1"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "stop",
            "messageMetadata": {
                "model": "m",
                "responseId": "msg_1",
                "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
                "rawFinishReason": "end_turn",
            },
        },
        "[DONE]",
    ]


def test_a_stream_that_says_nothing_of_itself() -> None:
    """No reason is made up, and no metadata: an app's schema is not asked about nothing."""
    assert told("ai-sdk", Text("a"))[-2:] == [{"type": "finish"}, "[DONE]"]


def test_usage_has_the_sdks_own_names() -> None:
    """Each figure stands where ``LanguageModelUsage`` has it; one that was not told is absent."""
    finish = told("ai-sdk", Usage(9, 5, 4, 2, 3))[-2]
    assert finish["messageMetadata"]["usage"] == {
        "inputTokens": 9,
        "inputTokenDetails": {"cacheReadTokens": 4, "cacheWriteTokens": 2},
        "outputTokens": 5,
        "outputTokenDetails": {"reasoningTokens": 3},
        "totalTokens": 14,
    }
    assert told("ai-sdk", Usage(input_tokens=9))[-2]["messageMetadata"] == {"usage": {"inputTokens": 9}}


@pytest.mark.parametrize(("reason", "expected"), REASONS.items(), ids=REASONS)
def test_finish_reasons(reason: Any, expected: str) -> None:
    """In the protocol's words."""
    assert told("ai-sdk", Finish(reason, "native"))[-2]["finishReason"] == expected


def test_texts_are_told_apart() -> None:
    """By the provider's own blocks, and by what comes between them: a part stands where it began."""
    first, second = Text("a"), Text("b", block=1)
    assert types(first, second) == ["text-start", "text-delta", "text-end"] * 2
    call = ToolCall(0, "1", "look", {}, "{}")
    assert types(first, ToolStart(0, "1", "look"), first, call) == [
        *("text-start", "text-delta", "text-end"),
        "tool-input-start",
        *("text-start", "text-delta"),
        "tool-input-available",
        "text-end",
    ]


def test_an_empty_text_begins_nothing() -> None:
    """Providers begin with one."""
    assert inside(Text(""), Thinking(), Refusal("")) == []


def test_a_refusal() -> None:
    """Whoever does not look for it shows it as text; text beside it is another part."""
    metadata = {"providerMetadata": {"sidecar": {"refusal": True}}}
    assert inside(Text("a"), Refusal("no"), Text("b"))[3:7] == [
        {"type": "text-start", "id": "2", **metadata},
        {"type": "text-delta", "id": "2", "delta": "no"},
        {"type": "text-end", "id": "2"},
        {"type": "text-start", "id": "3"},
    ]


def test_thinking() -> None:
    """What a later turn has to send back stands in its metadata, where the message keeps it."""
    thinking = (Thinking("Hm"), Thinking(signature="sig"), Thinking(block=1, redacted="xx"))
    assert inside(*thinking) == [
        {"type": "reasoning-start", "id": "1"},
        {"type": "reasoning-delta", "id": "1", "delta": "Hm"},
        {
            "type": "reasoning-delta",
            "id": "1",
            "delta": "",
            "providerMetadata": {"sidecar": {"signature": "sig"}},
        },
        {"type": "reasoning-end", "id": "1"},
        {"type": "reasoning-start", "id": "2"},
        {
            "type": "reasoning-delta",
            "id": "2",
            "delta": "",
            "providerMetadata": {"sidecar": {"redacted": "xx"}},
        },
        {"type": "reasoning-end", "id": "2"},
    ]


def test_tool_calls() -> None:
    """Fragments as they come, several calls at once, and each call once with its input parsed."""
    assert inside(
        ToolStart(0, "1", "look"),
        ToolStart(1, "2", "see"),
        ToolDelta(0, "1", '{"a":'),
        ToolDelta(1, "2", "{}"),
        ToolDelta(0, "1", "1}"),
        ToolCall(0, "1", "look", {"a": 1}, '{"a":1}'),
        ToolCall(1, "2", "see", {}, "{}"),
    ) == [
        {"type": "tool-input-start", "toolCallId": "1", "toolName": "look"},
        {"type": "tool-input-start", "toolCallId": "2", "toolName": "see"},
        {"type": "tool-input-delta", "toolCallId": "1", "inputTextDelta": '{"a":'},
        {"type": "tool-input-delta", "toolCallId": "2", "inputTextDelta": "{}"},
        {"type": "tool-input-delta", "toolCallId": "1", "inputTextDelta": "1}"},
        {"type": "tool-input-available", "toolCallId": "1", "toolName": "look", "input": {"a": 1}},
        {"type": "tool-input-available", "toolCallId": "2", "toolName": "see", "input": {}},
    ]


def test_a_call_that_can_not_be_made() -> None:
    """It is an error of its own, with what came; so is one that never came to its end."""
    fault = ToolFault(0, "1", "look", '{"a":', "cut")
    assert inside(ToolStart(0, "1", "look"), fault, ToolStart(1, "2", "see"))[1:] == [
        {
            "type": "tool-input-error",
            "toolCallId": "1",
            "toolName": "look",
            "input": '{"a":',
            "errorText": "cut",
        },
        {"type": "tool-input-start", "toolCallId": "2", "toolName": "see"},
        {
            "type": "tool-input-error",
            "toolCallId": "2",
            "toolName": "see",
            "input": "",
            "errorText": "the call did not come to its end",
        },
    ]


def test_a_tool_that_the_provider_runs() -> None:
    """No page is asked to run it; its result, or what went wrong, is told."""
    started = ToolStart(0, "1", "search", executed=True)
    call = ToolCall(0, "1", "search", {}, "{}", executed=True)
    chunks = inside(
        started, call, ToolResult("1", "search", [1]), ToolResult("1", "search", {"a": 1}, failed=True)
    )
    assert all(chunk["providerExecuted"] for chunk in chunks)
    assert chunks[2:] == [
        {"type": "tool-output-available", "toolCallId": "1", "output": [1], "providerExecuted": True},
        {"type": "tool-output-error", "toolCallId": "1", "errorText": '{"a":1}', "providerExecuted": True},
    ]


def test_a_result_of_an_earlier_answers_call() -> None:
    """A client would end the stream at a result of a call that it does not know."""
    assert types(ToolResult("1", "search", "found")) == ["tool-input-available", "tool-output-available"]


def test_calls_without_end_are_bounded() -> None:
    """Those beyond are told to be too many, and nothing is held for them."""
    starts = [ToolStart(each, str(each), "look") for each in range(MAX_CALLS + 1)]
    chunks = inside(*starts, ToolDelta(MAX_CALLS, str(MAX_CALLS), "{}"))
    assert chunks[MAX_CALLS]["errorText"] == f"this answer has more than {MAX_CALLS} tool calls"
    assert [chunk["type"] for chunk in chunks[MAX_CALLS + 1 :]] == ["tool-input-error"] * MAX_CALLS


def test_citations() -> None:
    """A source at once, and at the end of the text which part of the text it is for."""
    parts = (
        Text("a"),
        Citation(url="https://a.example/", title="A", text="aa", start=0, end=1, source={"x": 1}),
        Citation(document="b.pdf", start=-1),
        Text("b"),
    )
    where = {"sidecar": {"text": "aa", "start": 0, "end": 1}}
    assert inside(*parts)[2:] == [
        {
            "type": "source-url",
            "sourceId": "salt-1",
            "url": "https://a.example/",
            "title": "A",
            "providerMetadata": where,
        },
        {
            "type": "source-document",
            "sourceId": "salt-2",
            "mediaType": "application/octet-stream",
            "title": "b.pdf",
            "providerMetadata": {"sidecar": {"start": -1}},
        },
        {"type": "text-delta", "id": "1", "delta": "b"},
        {
            "type": "text-end",
            "id": "1",
            "citations": [
                {
                    "source": {
                        "type": "source",
                        "id": "salt-1",
                        "sourceType": "url",
                        "url": "https://a.example/",
                        "title": "A",
                    },
                    "startIndex": 0,
                    "endIndex": 1,
                    "citedText": "aa",
                },
                {
                    "source": {
                        "type": "source",
                        "id": "salt-2",
                        "sourceType": "document",
                        "mediaType": "application/octet-stream",
                        "title": "b.pdf",
                    }
                },
            ],
        },
    ]


def test_citations_without_end_are_bounded() -> None:
    """Each is a source; so many are told again."""
    chunks = inside(Text("a"), *[Citation(url="https://a.example/")] * (MAX_CITATIONS + 1))
    assert len(chunks[-1]["citations"]) == MAX_CITATIONS
    assert sum(chunk["type"] == "source-url" for chunk in chunks) == MAX_CITATIONS + 1


def test_files() -> None:
    """By their address, or whole."""
    assert inside(File("image/png", data="aaaa"), File("image/png", url="https://a.example/")) == [
        {"type": "file", "url": "data:image/png;base64,aaaa", "mediaType": "image/png"},
        {"type": "file", "url": "https://a.example/", "mediaType": "image/png"},
    ]


def test_what_has_no_place_is_told_where_it_is_wanted() -> None:
    """As transient data, which the app hears of and the message does not keep."""
    parts = (Raw("odd", "{}"), Text("b", choice=1), ToolDelta(0, "1", "{", choice=1))
    assert inside(*parts) == []
    assert inside(*parts, raw=True) == [
        {"type": "data-raw", "data": {"event": "odd", "data": "{}"}, "transient": True},
        {
            "type": "data-choice",
            "data": {"type": "Text", "content": "b", "block": 0, "choice": 1},
            "transient": True,
        },
        {
            "type": "data-choice",
            "data": {"type": "ToolDelta", "index": 0, "id": "1", "arguments": "{", "choice": 1},
            "transient": True,
        },
    ]
    cited = inside(Citation(url="https://a.example/", source={"x": 1}), raw=True)
    assert cited[0]["providerMetadata"] == {"sidecar": {"source": {"x": 1}}}


def test_an_error() -> None:
    """Nothing follows it: no end of the text, no finish, no marker. What was taken stands before it."""
    chunks = told("ai-sdk", Start("", "m"), Text("a"), Usage(3), Error("Overloaded", "overloaded_error", 529))
    assert chunks[-2:] == [
        {
            "type": "message-metadata",
            "messageMetadata": {
                "model": "m",
                "usage": {"inputTokens": 3},
                "error": {"code": "overloaded_error", "recoverable": True},
            },
        },
        {"type": "error", "errorText": "Overloaded"},
    ]
    assert [chunk["type"] for chunk in chunks[2:-2]] == ["text-start", "text-delta"]


def test_an_error_alone() -> None:
    """It begins no message."""
    assert told("ai-sdk", Error("", "bad_thing")) == [{"type": "error", "errorText": "bad_thing"}]


def test_a_stream_that_somebody_stopped() -> None:
    """The protocol has a word for it."""
    chunks = told("ai-sdk", Text("a"), Error("cancelled by the client", "cancelled", 499))
    assert chunks[-1] == {"type": "abort", "reason": "cancelled by the client"}
    assert all(chunk["type"] not in ("error", "finish", "message-metadata") for chunk in chunks)


def test_what_clients_look_for_in_an_answers_head() -> None:
    """The header that names the protocol and its version."""
    assert dict(EMITS["ai-sdk"].headers) == {"x-vercel-ai-ui-message-stream": "v1"}


# ── transcripts ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def in_node() -> dict[str, Any]:
    """What the SDK's chat heard of each, behind ids and heartbeats, and what its reader made of it."""
    with shelf_of("ai-sdk", TRANSCRIPTS) as shelf:
        return heard_in_node("transcripts.mjs", shelf, REACT)


def parts_of(heard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of the one message that a chat has heard."""
    (message,) = heard["messages"]
    parts: list[dict[str, Any]] = message["parts"]
    assert parts[0] == {"type": "step-start"}
    return parts[1:]


def joined(parts: list[dict[str, Any]], kind: str, *, refusal: bool = False) -> str:
    """Return the texts of a kind as one."""
    texts = [each for each in parts if each["type"] == kind]
    wanted = [each for each in texts if beside(each).get("refusal", False) is refusal]
    return one_string("".join(each["text"] for each in wanted))


def beside(part: dict[str, Any]) -> dict[str, Any]:
    """Return what a part says beside the protocol's own fields."""
    said: dict[str, Any] = part.get("providerMetadata", {}).get("sidecar", {})
    return said


def last(parts: list[dict[str, Any]], name: str) -> str:
    """Return the last thing of a name that stands beside a part."""
    return next((beside(each)[name] for each in reversed(parts) if name in beside(each)), "")


@pytest.mark.parametrize("row", WHOLE)
def test_an_answer_comes_whole(row: Transcript, in_node: dict[str, Any]) -> None:
    """All that the row says, in the parts of one message."""
    heard = in_node[row.id]["chat"]
    parts = parts_of(heard)
    assert (heard["status"], heard["error"], heard["raw"]) == ("ready", None, [])
    assert joined(parts, "text") == one_string(row.text)
    assert joined(parts, "text", refusal=True) == row.refusal
    assert joined(parts, "reasoning") == row.thinking
    assert (last(parts, "signature"), last(parts, "redacted")) == (row.signature, row.redacted)
    sources = [each for each in parts if each["type"].startswith("source-")]
    assert [each.get("url") or each.get("filename") or each["title"] for each in sources] == list(
        row.citations
    )
    assert [each["mediaType"] for each in parts if each["type"] == "file"] == list(row.files)
    assert not [each for each in parts if each.get("state") in ("streaming", "input-streaming")]


@pytest.mark.parametrize("row", WHOLE)
def test_its_tool_calls_come_once_and_whole(row: Transcript, in_node: dict[str, Any]) -> None:
    """Parsed, or as the error that they are; the app is asked to run those that are its own."""
    heard = in_node[row.id]["chat"]
    shown = [each for each in parts_of(heard) if each["type"].startswith("tool-")]
    calls = {each.id or str(number): each for number, each in enumerate(row.calls) if not each.choice}
    assert len(shown) == len(calls)
    for part, (name, call) in zip(shown, calls.items(), strict=True):
        assert part["type"] == f"tool-{call.name}"
        assert not call.id or part["toolCallId"] == name
        assert part.get("providerExecuted", False) is call.executed
        if call.source is None:
            assert part["input"] == call.arguments
        else:
            assert (part["state"], part["input"]) == ("output-error", call.source)
    ready = [each["toolCallId"] for each, call in zip(shown, calls.values(), strict=True) if own(call)]
    assert sorted(heard["called"]) == sorted(ready)
    with_result = [
        each for each in shown if each.get("providerExecuted") and each["state"].startswith("output-")
    ]
    assert [each["type"] for each in with_result] == [f"tool-{name}" for name in row.results]


def own(call: Any) -> bool:
    """Whether a call is the app's to make."""
    return call.source is None and not call.executed


@pytest.mark.parametrize("row", WHOLE)
def test_its_end_tells_why_and_what_it_took(row: Transcript, in_node: dict[str, Any]) -> None:
    """The reason in the SDK's word and the provider's, the model, and the tokens."""
    heard = in_node[row.id]["chat"]
    (message,) = heard["messages"]
    metadata = message.get("metadata", {})
    usage, told_usage = row.usage, metadata.get("usage", {})
    assert heard["finish"].get("finishReason") == (row.finish and REASONS[row.finish])
    assert metadata.get("rawFinishReason", "") == row.native
    assert (metadata.get("model", ""), metadata.get("responseId", "")) == (row.model, row.message_id)
    assert (told_usage.get("inputTokens"), told_usage.get("outputTokens")) == (
        usage.input_tokens,
        usage.output_tokens,
    )
    inputs, outputs = told_usage.get("inputTokenDetails", {}), told_usage.get("outputTokenDetails", {})
    assert inputs.get("cacheReadTokens") == usage.cached_input_tokens
    assert inputs.get("cacheWriteTokens") == usage.cache_write_input_tokens
    assert outputs.get("reasoningTokens") == usage.reasoning_tokens


@pytest.mark.parametrize("row", BROKEN)
def test_what_breaks_is_an_error(row: Transcript, in_node: dict[str, Any]) -> None:
    """In the provider's words where it has some; what came before it is still shown."""
    heard = in_node[row.id]["chat"]
    assert (heard["status"], heard["finish"]["isError"]) == ("error", True)
    assert heard["error"]
    assert row.error is None or heard["error"] == row.error.message
    parts = [part for message in heard["messages"] for part in message["parts"]]
    assert joined(parts, "text") == one_string(row.text)
    assert joined(parts, "reasoning") == row.thinking
    assert "finishReason" not in heard["finish"]


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_sdks_reader_makes_the_same_of_it(name: str, in_node: dict[str, Any]) -> None:
    """``readUIMessageStream``, and no chunk that the schema does not know."""
    heard, read = in_node[name]["chat"], in_node[name]["stream"]
    assert read["error"] == heard["error"]
    assert read["parts"] == [part for message in heard["messages"] for part in message["parts"]]
    assert all(chunk["type"] for chunk in read["chunks"])
