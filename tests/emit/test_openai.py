"""Chunks of a chat completion: what each part becomes, and what the openai SDKs hear of every transcript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from proxy.dialects import DIALECTS
from proxy.dialects.part import (
    Citation,
    End,
    Error,
    File,
    Finish,
    Part,
    Raw,
    Reason,
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
from proxy.emit import EMITS
from proxy.emit.openai import MAX_CITATIONS
from tests.emit.telling import heard_in_node, one_string, shelf_of, told
from tests.support.shelf import Shelf
from tests.transcripts import TRANSCRIPTS, Call, Transcript

PROMPT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]

#: OpenAI's own leave as they came.
ROWS = {name: row for name, row in TRANSCRIPTS.items() if row.dialect != "openai"}
WHOLE = [pytest.param(row, id=name) for name, row in ROWS.items() if row.whole]
BROKEN = [pytest.param(row, id=name) for name, row in ROWS.items() if not row.whole]


# ── parts and chunks ────────────────────────────────────────────────────────────────────────────────────


def deltas(*parts: Part, choice: int = 0) -> list[dict[str, Any]]:
    """Return the deltas of a stream's choice between its first chunk and its last."""
    chunks = [chunk for chunk in told("openai", *parts) if isinstance(chunk, dict) and "choices" in chunk]
    choices = [each for chunk in chunks for each in chunk["choices"] if each["index"] == choice]
    return [each["delta"] for each in choices[1:] if each["finish_reason"] is None]


def ends(*parts: Part) -> list[Any]:
    """Return the finish reason of each choice, and what follows."""
    chunks = told("openai", *parts)
    first = next(at for at, chunk in enumerate(chunks) if chunk["choices"][0]["finish_reason"])
    return [
        chunk["choices"][0]["finish_reason"] if isinstance(chunk, dict) and chunk["choices"] else chunk
        for chunk in chunks[first:]
    ]


def call(arguments: str, *, index: int = 0, choice: int = 0) -> list[Part]:
    """A whole call of the tool ``look``."""
    name = f"call_{choice}{index}"
    return [
        ToolStart(index, name, "look", choice),
        *([ToolDelta(index, name, arguments, choice)] if arguments else []),
        ToolCall(index, name, "look", json.loads(arguments or "{}"), arguments, choice),
    ]


def test_an_answer() -> None:
    """The role first, then the text, the reason, and the marker; each chunk names answer and model."""
    head = {"id": "msg_1", "object": "chat.completion.chunk", "created": 7, "model": "m"}

    def chunk(delta: dict[str, str], reason: str | None = None, **more: str) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, **more}
        return {**head, "choices": [choice]}

    said = told("openai", Start("msg_1", "m", 7), Text("Hé"), Text("llo"), Finish("stop", "end_turn"), End())
    assert said == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hé"}),
        chunk({"content": "llo"}),
        chunk({}, "stop", native_finish_reason="end_turn"),
        "[DONE]",
    ]


def test_a_stream_that_says_nothing_of_itself() -> None:
    """Where the provider names neither id nor time nor model nor reason, the chunks are whole."""
    first, *_, last, done = told("openai", Text("hi"))
    assert (first["id"], first["created"], first["model"]) == ("chatcmpl-salt", 0, "")
    assert last["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


def test_a_refusal_and_reasoning() -> None:
    """Each has a key of its own; what proves the reasoning, or hides it, is a numbered detail."""
    thought = Thinking("Hm", signature="s")
    assert deltas(thought, Thinking(redacted="x"), Refusal("No.")) == [
        {"reasoning_content": "Hm"},
        {"reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "", "signature": "s"}]},
        {"reasoning_details": [{"index": 1, "type": "reasoning.encrypted", "data": "x"}]},
        {"refusal": "No."},
    ]


def test_tool_calls() -> None:
    """Fragments by index: id, type and name first, then the arguments; text may come between."""
    begun = [ToolStart(0, "a", "look"), ToolDelta(0, "a", '{"at"'), Text("."), ToolStart(1, "b", "go")]
    rest = [ToolDelta(0, "a", ":1}"), ToolCall(0, "a", "look", {"at": 1}, '{"at":1}')]
    assert deltas(*begun, *rest) == [
        {
            "tool_calls": [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"at"'}}]},
        {"content": "."},
        {
            "tool_calls": [
                {"index": 1, "id": "b", "type": "function", "function": {"name": "go", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
    ]


def test_empty_arguments() -> None:
    """A call without arguments has an empty object: clients parse them."""
    assert deltas(*call(""))[1:] == [{"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}]


def test_a_providers_own_tools_are_not_the_clients_to_call() -> None:
    """Nothing is told of them, and the calls that are told are counted without a gap."""
    own = [
        ToolStart(0, "w", "web_search", executed=True),
        ToolDelta(0, "w", "{}"),
        ToolCall(0, "w", "web_search", {}, "{}", executed=True),
        ToolResult("w", "web_search", ["found"]),
    ]
    assert deltas(*own) == []
    (first, *_) = deltas(*own, *call("{}", index=1))
    assert first["tool_calls"][0]["index"] == 0
    assert ends(*own, Finish("tool_calls", "tool_use"))[0] == "stop"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
        ("other", "length"),
    ],
)
def test_finish_reasons_of_text(reason: Reason, expected: str) -> None:
    """A reason that OpenAI has no word for is an answer cut short, not a natural end."""
    assert ends(Text("hi"), Finish(reason, "native"))[0] == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "tool_calls"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("other", "length"),
    ],
)
def test_finish_reasons_of_calls(reason: Reason, expected: str) -> None:
    """Providers that say ``stop`` after a tool call (Gemini, Ollama) mean ``tool_calls``."""
    assert ends(*call("{}"), Finish(reason, "native"))[0] == expected


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "other"])
def test_a_call_that_ended_early_is_never_made(reason: Reason) -> None:
    """Whatever the provider says, its choice was cut short: no client makes the calls of such a one."""
    cut = [ToolStart(0, "a", "look"), ToolDelta(0, "a", '{"at'), ToolFault(0, "a", "look", '{"at', "cut")]
    assert ends(*cut, Finish(reason, "native")) == ["length", "[DONE]"]


def test_a_call_that_never_ended_is_never_made() -> None:
    """A call of which the stream's good end says nothing is none."""
    assert ends(ToolStart(0, "a", "look"), Finish("tool_calls", "tool_use")) == ["length", "[DONE]"]


def test_several_choices() -> None:
    """Each has its role, its text, its calls from 0, and its reason, in the order of their numbers."""
    chunks = told("openai", Start(), Text("a"), Text("b", choice=1), *call("{}", choice=1), Text("c"), End())
    heard = [(each["index"], each["delta"]) for chunk in chunks[:-1] for each in chunk["choices"]]
    role = {"role": "assistant", "content": ""}
    assert heard[:4] == [(0, role), (0, {"content": "a"}), (1, role), (1, {"content": "b"})]
    assert heard[4][1]["tool_calls"][0]["index"] == 0
    assert heard[6:] == [(0, {"content": "c"}), (0, {}), (1, {})]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-3:-1]] == ["stop", "tool_calls"]


def test_usage() -> None:
    """One chunk of its own, without choices; what was not told is not made up."""
    first, second = Usage(input_tokens=9, cached_input_tokens=4), Usage(output_tokens=5, reasoning_tokens=2)
    *_, chunk, done = told("openai", Text("hi"), first, second)
    assert chunk["choices"] == []
    assert chunk["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert done == "[DONE]"


def test_no_usage() -> None:
    """Where the provider tells no figure there is no such chunk."""
    assert ends(Text("hi")) == ["stop", "[DONE]"]


def test_citations() -> None:
    """All in one delta, placed in the whole text; one without a place covers its block of text."""
    parts: list[Part] = [
        Text("One. "),
        Text("Two", block=1),
        Citation("http://a", "A", text="two", block=1),
        Text("!", block=1),
        Citation(document="a.pdf", block=1),
        Text(" Three.", block=2),
        Citation("http://b", start=1, end=6, block=2),
    ]
    *_, (delta) = deltas(*parts)
    cited = {"start_index": 5, "end_index": 9, "url": "http://a", "title": "A", "content": "two"}
    also = {"start_index": 10, "end_index": 15, "url": "http://b", "title": ""}
    assert delta == {
        "annotations": [
            {"index": 0, "type": "url_citation", "url_citation": cited},
            {"index": 1, "type": "url_citation", "url_citation": also},
        ]
    }


def test_more_citations_than_are_kept_leave_earlier() -> None:
    """The memory that a stream's citations take is bounded, and none is lost."""
    long = "http://a/" + "a" * (MAX_CITATIONS // 2)
    heard = deltas(Text("a"), Citation(long), Citation(long), Text("b"), Citation("http://b"))
    assert [list(delta) for delta in heard] == [["content"], ["annotations"], ["content"], ["annotations"]]
    assert [each["index"] for delta in heard for each in delta.get("annotations", [])] == [0, 1, 2]


def test_images() -> None:
    """An image has the place that OpenRouter gave it; other files, and other events, have none."""
    heard = deltas(File("image/png", data="QQ=="), File("audio/wav", data="QQ=="), Raw("event", "{}"))
    url = {"url": "data:image/png;base64,QQ=="}
    assert heard == [{"images": [{"index": 0, "type": "image_url", "image_url": url}]}]


def test_an_error() -> None:
    """It is told as OpenAI does, behind what was kept back. No reason, no usage and no marker follow."""
    *_, citation, error = told(
        "openai",
        Text("hi"),
        Citation("http://a"),
        Finish("stop", "stop"),
        Error("too many", "overloaded_error", 429),
    )
    assert citation["choices"][0]["delta"]["annotations"][0]["url_citation"]["url"] == "http://a"
    assert error == {
        "error": {
            "message": "too many",
            "type": "rate_limit_error",
            "param": None,
            "code": "overloaded_error",
        }
    }


def test_an_error_alone() -> None:
    """A provider that failed before it began has told nothing but that."""
    (error,) = told("openai", Error("down", "api_error"))
    assert error["error"]["message"] == "down"


def test_calls_without_end_are_bounded() -> None:
    """A hostile provider that only begins calls fills no memory, and its answer is not whole."""
    starts = [ToolStart(index, f"c{index}", "look") for index in range(MAX_CALLS + 10)]
    assert len(deltas(*starts)) == MAX_CALLS
    assert ends(*starts) == ["length", "[DONE]"]


def test_choices_without_end_are_bounded() -> None:
    """So is one that makes up choices; their text is told all the same."""
    texts = [Text("hi", choice=choice) for choice in range(MOST_CHOICES + 10)]
    heard = [each for chunk in told("openai", *texts)[:-1] for each in chunk["choices"]]
    assert sum(each["delta"].get("content") == "hi" for each in heard) == len(texts)
    assert sum(each["finish_reason"] is not None for each in heard) == MOST_CHOICES


def test_openais_own_accumulator_joins_all_lists() -> None:
    """openai-python raises at a list in a delta that it can not join."""
    parts = [
        Thinking("Hm", signature="s"),
        Thinking(redacted="x"),
        *call('{"at":1}'),
        *call("", index=1),
        Citation("http://a"),
        Citation("http://" + "b" * MAX_CITATIONS),
        Citation("http://c"),
        File("image/png", data="QQ=="),
        File("image/png", data="Qg=="),
    ]
    state = ChatCompletionStreamState()
    for chunk in told("openai", *parts)[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    message = state.get_final_completion().choices[0].message.model_dump()
    assert [each["function"]["arguments"] for each in message["tool_calls"]] == ['{"at":1}', "{}"]
    joined = {name: len(message[name]) for name in ("reasoning_details", "annotations", "images")}
    assert joined == {"reasoning_details": 2, "annotations": 3, "images": 2}


def test_blocks_of_openais_leave_as_they_came() -> None:
    """Only chat completions are of this form already."""
    spoken = [name for name, dialect in DIALECTS.items() if EMITS["openai"].speaks(dialect)]
    assert spoken == ["openai"]


def test_an_error_before_the_stream() -> None:
    """Its body is OpenAI's."""
    body = json.loads(EMITS["openai"].error_body(429, "capacity", "full") or b"")
    assert body["error"] == {
        "message": "full", "type": "rate_limit_error", "param": None, "code": "capacity"
    }  # fmt: skip


# ── transcripts, as the SDKs hear them ──────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    """Every transcript of another dialect as chunks, as the sidecar sends them."""
    with shelf_of("openai", ROWS) as shelf:
        yield shelf


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    """OpenAI's client for Python."""
    with openai.OpenAI(api_key="not-a-key", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def in_node(shelf: Shelf) -> dict[str, Any]:
    """What OpenAI's client for Node heard of each."""
    return heard_in_node("openai.mjs", shelf)


def heard_in_python(client: openai.OpenAI) -> dict[str, Any]:
    """Return what a loop over the chunks hears, in the shape that ``openai.mjs`` tells it in."""
    heard: dict[str, Any] = {
        "text": {}, "thinking": "", "refusal": "", "calls": {}, "finish": {}, "native": {}, "citations": [],
        "usage": None, "error": None,
    }  # fmt: skip
    try:
        for chunk in client.chat.completions.create(model="m", messages=PROMPT, stream=True):
            heard["usage"] = chunk.usage.model_dump(exclude_none=True) if chunk.usage else heard["usage"]
            for choice in chunk.choices:
                hear(heard, choice.model_dump())
    except openai.APIError as error:
        heard["error"] = {"name": type(error).__name__, "code": error.code, "message": error.message}
    return heard


def hear(heard: dict[str, Any], choice: dict[str, Any]) -> None:
    """Take in one chunk of one choice."""
    index, delta = str(choice["index"]), choice["delta"]
    heard["text"][index] = heard["text"].get(index, "") + (delta["content"] or "")
    heard["thinking"] += delta.get("reasoning_content") or ""
    heard["refusal"] += delta["refusal"] or ""
    for fragment in delta["tool_calls"] or []:
        function = fragment["function"]
        begun = {"id": fragment["id"], "name": function["name"], "arguments": ""}
        joined = heard["calls"].setdefault(f"{index}.{fragment['index']}", begun)
        joined["arguments"] += function["arguments"] or ""
    heard["citations"] += [each["url_citation"]["url"] for each in delta.get("annotations") or []]
    if choice["finish_reason"]:
        heard["finish"][index] = choice["finish_reason"]
    if choice.get("native_finish_reason"):
        heard["native"][index] = choice["native_finish_reason"]


def assert_said(heard: dict[str, Any], row: Transcript) -> None:
    """What a client heard of an answer is what the transcript says."""
    texts = [heard["text"].get(str(choice), "") for choice in range(1 + len(row.others))]
    assert [*map(one_string, texts)] == [*map(one_string, [row.text, *row.others])]
    assert heard["thinking"] == row.thinking
    assert heard["refusal"] == row.refusal
    assert heard["citations"] == [cited for cited in row.citations if cited.startswith("http")]
    calls = [made for made in row.calls if not made.executed]
    assert len(heard["calls"]) == len(calls)
    for found, made in zip(in_order(heard["calls"]), in_order(named(calls)), strict=True):
        assert_called(found, made)


def named(calls: list[Call]) -> dict[str, Call]:
    """Return calls by choice and index."""
    counts: dict[int, int] = {}
    found = {}
    for made in calls:
        found[f"{made.choice}.{counts.setdefault(made.choice, 0)}"] = made
        counts[made.choice] += 1
    return found


def in_order(calls: dict[str, Any]) -> list[Any]:
    """Return calls by choice, then by index."""
    return [each for _, each in sorted(calls.items(), key=lambda item: [*map(int, item[0].split("."))])]


def assert_called(found: dict[str, Any], made: Call) -> None:
    """One call is the one that the transcript names."""
    assert found["name"] == made.name
    assert found["id"] == made.id if made.id else found["id"]
    if made.source is None:
        assert json.loads(one_string(found["arguments"])) == made.arguments
    else:
        assert found["arguments"] == made.source


def assert_ended(heard: dict[str, Any], row: Transcript) -> None:
    """The reason and the figures are the transcript's."""
    assert heard["error"] is None
    assert heard["finish"]["0"] == reason_of(row)
    assert heard["native"].get("0", "") == row.native
    usage, told = row.usage, heard["usage"] or {}
    assert told.get("prompt_tokens") == usage.input_tokens
    assert told.get("completion_tokens") == usage.output_tokens
    assert told.get("prompt_tokens_details", {}).get("cached_tokens") == usage.cached_input_tokens
    assert told.get("completion_tokens_details", {}).get("reasoning_tokens") == usage.reasoning_tokens


def reason_of(row: Transcript) -> str:
    """Return the finish reason of a transcript's first choice, as OpenAI would say it."""
    calls = [made for made in row.calls if not made.executed and made.choice == 0]
    if row.finish == "other" or (row.finish != "content_filter" and any(made.source for made in calls)):
        return "length"
    return "tool_calls" if calls and row.finish == "stop" else row.finish or "stop"


def assert_broke_off(heard: dict[str, Any], row: Transcript) -> None:
    """The SDK raised with the provider's code, or the sidecar's; no choice has a reason to be finished."""
    assert heard["finish"] == {}
    code = row.error.code if row.error else "truncated"
    assert heard["error"]["code"] == code
    if row.error:
        assert heard["error"]["message"] == row.error.message


@pytest.mark.parametrize("row", WHOLE)
def test_python_hears_an_answer(row: Transcript, client: openai.OpenAI, shelf: Shelf) -> None:
    """A loop over the chunks hears all that the form can hold."""
    heard = heard_in_python(client.with_options(base_url=shelf.url(row.id)))
    assert_said(heard, row)
    assert_ended(heard, row)


@pytest.mark.parametrize("row", WHOLE)
def test_node_hears_an_answer(row: Transcript, in_node: dict[str, Any]) -> None:
    """So does one in Node."""
    assert_said(in_node[row.id], row)
    assert_ended(in_node[row.id], row)


@pytest.mark.parametrize("row", BROKEN)
def test_python_raises(row: Transcript, client: openai.OpenAI, shelf: Shelf) -> None:
    """Errors and truncated streams are never a short answer: what came is heard, then the SDK raises."""
    heard = heard_in_python(client.with_options(base_url=shelf.url(row.id)))
    assert_broke_off(heard, row)
    assert one_string(heard["text"].get("0", "")) == one_string(row.text)


@pytest.mark.parametrize("row", BROKEN)
def test_node_raises(row: Transcript, in_node: dict[str, Any]) -> None:
    """Nor are they in Node, where the client's own accumulator rejects as well."""
    assert_broke_off(in_node[row.id], row)
    assert one_string(in_node[row.id]["text"].get("0", "")) == one_string(row.text)
    assert in_node[row.id]["completion"]["code"] == in_node[row.id]["error"]["code"]


@pytest.mark.parametrize("row", WHOLE)
def test_python_puts_the_completion_together(
    row: Transcript, client: openai.OpenAI, shelf: Shelf, in_node: dict[str, Any]
) -> None:
    """The SDK's accumulator makes a completion of it, and refuses one that was cut short, as OpenAI's."""
    completion = put_together(client.with_options(base_url=shelf.url(row.id)))
    if completion is None:
        assert {"length", "content_filter"} & {*in_node[row.id]["finish"].values()}
        return
    message = completion.choices[0].message
    assert (message.content or "") == row.text
    calls = [made for made in row.calls if not made.executed and made.choice == 0]
    found = [each.function for each in message.tool_calls or [] if each.type == "function"]
    assert [(each.name, json.loads(one_string(each.arguments))) for each in found] == [
        (made.name, made.arguments) for made in calls
    ]


def put_together(client: openai.OpenAI) -> ChatCompletion | None:
    """Return the completion that the SDK makes of a stream; None where it says that it was cut short."""
    with client.chat.completions.stream(model="m", messages=PROMPT) as events:
        try:
            return events.get_final_completion()
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
            return None


@pytest.mark.parametrize("row", WHOLE)
def test_node_puts_the_completion_together(row: Transcript, in_node: dict[str, Any]) -> None:
    """So does the one in Node."""
    first = in_node[row.id]["completion"][0]
    assert one_string(first["content"] or "") == one_string(row.text)
    assert first["finish_reason"] == reason_of(row)
