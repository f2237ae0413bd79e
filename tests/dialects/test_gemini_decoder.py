"""What Gemini's chunks say, one by one. Whole streams are in tests/transcripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects import DIALECTS, gemini_arguments
from proxy.dialects.gemini_decoder import MAX_CANDIDATES, GeminiDecoder
from proxy.dialects.part import (
    Citation,
    Error,
    File,
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


def data(value: Any) -> bytes:
    """An event without a name."""
    return b"data: " + json.dumps(value).encode()


def candidate(*parts: dict[str, Any], **fields: Any) -> bytes:
    """A chunk with one candidate."""
    return data({"candidates": [{"content": {"parts": list(parts)}, **fields}]})


def said(*blocks: bytes, ended: bool = False) -> list[Part]:
    """What a new decoder finds in chunks, after the start."""
    decoder = DIALECTS["gemini"].decoder("salt")
    assert isinstance(decoder, GeminiDecoder)
    parts = [part for block in blocks for part in decoder.decode(block)]
    return [part for part in parts if not isinstance(part, Start)] + (decoder.finish() if ended else [])


def test_the_start() -> None:
    """Once, with the id and the model that every chunk repeats."""
    decoder = GeminiDecoder("salt")
    chunk = data({"responseId": "r", "modelVersion": "m", "candidates": []})
    assert decoder.decode(chunk) == [Start("r", "m")]
    assert decoder.decode(chunk) == []


def test_text_and_thoughts() -> None:
    """Of each candidate; a signature stands on a thought, or comes before the part that it stands on."""
    assert said(
        candidate({"text": "hm", "thought": True, "thoughtSignature": "s"}),
        candidate({"text": "a"}, {"text": ""}, {"text": "b", "thoughtSignature": "t"}),
        candidate({"text": "c"}, index=1),
        candidate({}, {"text": "", "thoughtSignature": "u"}),
    ) == [
        Thinking("hm", signature="s"),
        Text("a"),
        Thinking(signature="t"),
        Text("b"),
        Text("c", choice=1),
        Thinking(signature="u"),
    ]


def test_a_function_call() -> None:
    """Whole as it comes; without an id it gets one, without arguments it has none."""
    assert said(
        candidate({"functionCall": {"id": "1", "name": "f", "args": {"é": [1]}}}),
        candidate({"functionCall": {"name": "g"}}),
    ) == [
        ToolStart(0, "1", "f"),
        ToolDelta(0, "1", '{"é":[1]}'),
        ToolCall(0, "1", "f", {"é": [1]}, '{"é":[1]}'),
        ToolStart(1, "call_salt_2", "g"),
        ToolDelta(1, "call_salt_2", "{}"),
        ToolCall(1, "call_salt_2", "g", {}, "{}"),
    ]


def streamed(path: str, goes_on: bool = True, **value: Any) -> bytes:
    """A chunk with a piece of a call's arguments."""
    call = {"partialArgs": [{"jsonPath": path, **value}], "willContinue": goes_on}
    return candidate({"functionCall": call})


BEGUN = candidate({"functionCall": {"name": "f", "id": "1", "willContinue": True}})


def test_streamed_arguments() -> None:
    """Leaf by leaf, each at its path; a text comes in pieces."""
    parts = said(
        BEGUN,
        streamed("$.a", stringValue="x"),
        streamed("$.a", stringValue="y"),
        streamed("$.b[1].c", numberValue=2),
        streamed("$.b[0]", boolValue=False),
        streamed("$['d e']", goes_on=False, nullValue="NULL_VALUE"),
    )
    arguments = {"a": "xy", "b": [False, {"c": 2}], "d e": None}
    assert parts[0] == ToolStart(0, "1", "f")
    assert isinstance(parts[-1], ToolCall)
    assert (len(parts), parts[-1].arguments) == (3, arguments)


def test_a_streamed_call_that_another_one_follows() -> None:
    """The first is whole when the second begins."""
    whole = candidate({"functionCall": {"name": "g", "args": {"b": 2}}})
    parts = said(BEGUN, streamed("$.a", numberValue=1.5), BEGUN, whole)
    calls = [part.arguments for part in parts if isinstance(part, ToolCall)]
    assert calls == [{"a": 1.5}, {}, {"b": 2}]


def test_the_rest_of_a_call_that_was_not_seen() -> None:
    """Whoever begins to read in the middle makes no call of it."""
    rest = candidate({"functionCall": {}}, finishReason="STOP")
    assert said(streamed("$.a", numberValue=1), rest, ended=True) == [Finish("tool_calls", "STOP")]


def sent(*pieces: bytes) -> Part:
    """What becomes of a call whose arguments come in these pieces, all of them."""
    return said(BEGUN, *pieces, candidate({"functionCall": {}}))[-1]


@pytest.mark.parametrize("path", ["", "a", "$", "$.", "$..a", "$.a[", "$.a['b", "$" + ".a" * 33])
def test_paths_that_lead_nowhere(path: str) -> None:
    """The call can not be made: an argument of it is missing."""
    fault = sent(streamed("$.a", stringValue="x"), streamed(path, stringValue="y"))
    assert isinstance(fault, ToolFault)
    assert fault.source == '{"a":"x"'


@pytest.mark.parametrize(("first", "second"), [("$.a", "$.a.b"), ("$.c[0]", "$.c")])
def test_paths_that_contradict_each_other(first: str, second: str) -> None:
    """Nor can one of which two pieces belong to the same place."""
    assert isinstance(sent(streamed(first, stringValue="x"), streamed(second, stringValue="y")), ToolFault)


def test_a_list_without_its_beginning() -> None:
    """An index that is out of reach takes no memory."""
    call = sent(streamed("$.c[900000000]", numberValue=1))
    assert isinstance(call, ToolCall)
    assert call.arguments == {"c": [1]}


def test_streamed_arguments_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call with more of them than there is room for is a fault, and not one with fewer."""
    monkeypatch.setattr(gemini_arguments, "MAX_ARGUMENTS", 1000)
    pieces = [streamed("$.a", stringValue="x" * 100)] * 20
    assert isinstance(sent(*pieces), ToolFault)


def test_a_streamed_call_that_does_not_end() -> None:
    """It is whole, or not, when the stream ends."""
    parts = said(BEGUN, streamed("$.a", stringValue="x"), candidate(finishReason="MAX_TOKENS"), ended=True)
    assert isinstance(parts[-2], ToolFault)
    assert parts[-2].source == '{"a":"x"'
    assert parts[-1] == Finish("length", "MAX_TOKENS")


def test_code_that_was_run() -> None:
    """A call and a result; a result without an id is that of the newest code."""
    code = candidate({"executableCode": {"language": "PYTHON", "code": "1/0"}})
    result = candidate({"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "no"}})
    call, failed = said(code, result)[-2:]
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.executed) == ("call_salt_1", "code_execution", True)
    output = {"outcome": "OUTCOME_FAILED", "output": "no"}
    assert failed == ToolResult("call_salt_1", "code_execution", output, failed=True)


def test_tools_that_google_runs() -> None:
    """By their type."""
    call = {"toolCall": {"id": "t", "toolType": "GOOGLE_SEARCH_WEB", "args": {"q": 1}}}
    result = {"toolResponse": {"id": "t", "toolType": "GOOGLE_SEARCH_WEB", "response": {"r": 2}}}
    assert said(candidate(call, result))[-2:] == [
        ToolCall(0, "t", "google_search_web", {"q": 1}, '{"q":1}', executed=True),
        ToolResult("t", "google_search_web", {"r": 2}),
    ]


def test_files() -> None:
    """In the chunk, or at an address."""
    assert said(
        candidate({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
        candidate({"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/o"}}, index=1),
    ) == [File("image/png", "AAAA"), File("video/mp4", url="gs://b/o", choice=1)]


def test_drafts() -> None:
    """An image that is a thought is no file that the model made."""
    draft = {"thought": True, "inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    told = '{"index":0,"inlineData":{"mimeType":"image/png","data":"AAAA"}}'
    assert said(candidate(draft, {"thought": True, "text": ""})) == [Raw("thought", told)]


CHUNKS = [{"web": {"uri": "https://a.example", "title": "A"}}]


def grounded(start: int, end: int, text: str) -> bytes:
    """A chunk whose first source supports a segment of the answer, of bytes."""
    segment = {"startIndex": start, "endIndex": end, "text": text}
    metadata = {
        "groundingChunks": CHUNKS,
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0, 7]}],
    }
    return candidate(groundingMetadata=metadata)


def test_grounding() -> None:
    """A segment's place is told in bytes, and told on in characters; nothing is told twice."""
    (text, citation) = said(candidate({"text": "é世 yes"}), grounded(6, 9, "yes"), grounded(6, 9, "yes"))
    assert text == Text("é世 yes")
    assert isinstance(citation, Citation)
    assert (citation.url, citation.title, citation.text) == ("https://a.example", "A", "yes")
    assert (citation.start, citation.end, citation.source["chunk"]) == (3, 6, CHUNKS[0])


@pytest.mark.parametrize(("start", "end"), [(0, 3), (6, 99), (-3, 2), (7, 6)])
def test_a_place_that_is_not_that_of_the_segment(start: int, end: int) -> None:
    """It is not told."""
    citation = said(candidate({"text": "é世 yes"}), grounded(start, end, "yes"))[-1]
    assert isinstance(citation, Citation)
    assert (citation.start, citation.end, citation.text) == (None, None, "yes")


def test_sources_that_support_no_segment() -> None:
    """They are told without a place: a page, a document, a place on a map."""
    chunks = [
        {"retrievedContext": {"documentName": "d", "title": "D", "text": "words"}},
        {"maps": {"uri": "https://maps.example", "title": "M"}},
        {},
        None,
    ]
    metadata = {"groundingChunks": chunks, "webSearchQueries": ["q"]}
    assert said(candidate(groundingMetadata=metadata)) == [
        Citation("", "D", "words", "d", source={"chunk": chunks[0]}),
        Citation("https://maps.example", "M", source={"chunk": chunks[1]}),
        Raw("candidate", '{"index":0,"webSearchQueries":["q"]}'),
    ]


@pytest.mark.parametrize("name", ["citations", "citationSources"])
def test_what_was_recited(name: str) -> None:
    """In both spellings; a start of 0 is left out."""
    told = {"endIndex": 2, "uri": "https://a.example", "license": "mit"}
    parts = said(candidate({"text": "éa"}, citationMetadata={name: [told]}))
    assert parts[-1] == Citation("https://a.example", start=0, end=1, source=told)


def test_figures() -> None:
    """Thoughts are output, what tools were sent is input; what is told again is not told again."""
    usage = {
        "promptTokenCount": 5,
        "toolUsePromptTokenCount": 2,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 40,
        "cachedContentTokenCount": 4,
    }
    told = Usage(7, 43, 4, None, 40)
    assert said(data({"usageMetadata": usage}), data({"usageMetadata": usage})) == [told]
    assert said(data({"usageMetadata": {"promptTokenCount": 5}})) == [Usage(input_tokens=5)]


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "other"),
        ("A_NEW_ONE", "other"),
    ],
)
def test_reasons(native: str, reason: Any) -> None:
    """Told at the end, once, whatever the chunks before it said."""
    chunk = candidate({"text": "a"}, finishReason=native)
    assert said(chunk, chunk, ended=True) == [Text("a"), Text("a"), Finish(reason, native)]


def test_each_candidate_has_its_reason() -> None:
    """One that calls a function stops for that."""
    call = candidate({"functionCall": {"name": "f"}}, index=1, finishReason="STOP")
    ends = said(call, candidate({"text": "a"}, finishReason="STOP"), ended=True)[-2:]
    assert ends == [Finish("stop", "STOP"), Finish("tool_calls", "STOP", 1)]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}},
         Error("Busy", "UNAVAILABLE", 503)),
        ({"error": {"code": 429, "message": "Slow"}}, Error("Slow", "429", 429)),
        ({"error": "no"}, Error("no", "INTERNAL", 500)),
        ({"error": {"code": 3, "message": "Bad"}}, Error("Bad", "3", 500)),
        ({"promptFeedback": {"blockReason": "SAFETY"}},
         Error("the prompt was blocked: SAFETY", "SAFETY", 400)),
        ({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "No."}},
         Error("No.", "OTHER", 400)),
    ],
)  # fmt: skip
def test_errors(value: Any, part: Error) -> None:
    """Google's error object; and a prompt that was blocked, which gets no answer."""
    assert said(data(value)) == [part]


def test_what_has_no_other_place() -> None:
    """Parts of other kinds, ratings, and objects that are no chunks."""
    assert said(
        candidate({"audioTranscription": {"t": 1}}),
        candidate(finishMessage="why", safetyRatings=[1]),
        data({"something": "else"}),
        b"event: note\ndata: no JSON",
    ) == [
        Raw("part", '{"audioTranscription":{"t":1}}'),
        Raw("candidate", '{"index":0,"finishMessage":"why","safetyRatings":[1]}'),
        Raw("message", '{"something": "else"}'),
        Raw("message", "no JSON"),
    ]


def test_feedback_without_a_block() -> None:
    """It says nothing that a reader needs."""
    assert said(data({"promptFeedback": {"safetyRatings": []}})) == []


@pytest.mark.parametrize("index", [MAX_CANDIDATES, -1])
def test_too_many_candidates(index: int) -> None:
    """A server that counts without end, in whichever direction, fills no memory."""
    assert said(candidate({"text": "a"}, index=index, finishReason="STOP"), ended=True) == []


def test_many_unknown_parts_take_one_more_reading() -> None:
    """And not one each, which for a chunk of some kilobytes would be seconds."""
    chunk = candidate(*({"magic": number} for number in range(3)))
    with pytest.MonkeyPatch.context() as patch:
        readings: list[Any] = []
        loads = json.loads
        patch.setattr(json, "loads", lambda text: readings.append(text) or loads(text))
        assert len(said(chunk, chunk)) == 6
    assert len(readings) == 2


@pytest.mark.parametrize(
    "parts", [[5, {"newKind": {}}], ["x", {"text": "a"}, {"newKind": {}}], [[], {"newKind": {}}]]
)
def test_parts_that_are_no_objects_among_unknown_ones(parts: list[Any]) -> None:
    """What does not fit is left out, and nothing raises where a part of an unknown kind is looked for."""
    block = b"data: " + json.dumps({"candidates": [{"content": {"parts": parts}}]}).encode()
    told = GeminiDecoder("salt").decode(block)
    assert [part.content for part in told if isinstance(part, Text)] == ["a"] * ({"text": "a"} in parts)
