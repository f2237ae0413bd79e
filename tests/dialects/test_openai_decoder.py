"""What OpenAI's chat completions say, and the servers that speak nearly the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects.base import Decoder
from proxy.dialects.openai_decoder import OpenAIDecoder
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
    ToolStart,
    Usage,
)
from proxy.dialects.summary import MOST_CHOICES

DONE = b"data: [DONE]"


def chunk(delta: Any = None, finish: Any = None, **fields: Any) -> bytes:
    """A chunk with one choice, of a stream that has begun."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return data({"object": "chat.completion.chunk", "choices": [choice], **fields})


def data(value: Any) -> bytes:
    """A block with this JSON."""
    return b"data: " + json.dumps(value).encode()


def said(*blocks: bytes, decoder: Decoder | None = None) -> list[Part]:
    """What blocks say, behind the beginning of a stream."""
    reader = decoder or OpenAIDecoder("salt")
    reader.decode(chunk({"role": "assistant", "content": ""}))
    return [part for block in blocks for part in reader.decode(block)]


def test_the_beginning() -> None:
    """The first chunk names the answer and the model; what it says itself follows."""
    decoder = OpenAIDecoder("salt")
    first = chunk({"role": "assistant", "content": "Hi"}, id="chatcmpl-1", created=5, model="gpt-5")
    assert decoder.decode(first) == [Start("chatcmpl-1", "gpt-5", 5), Text("Hi")]
    assert decoder.decode(first) == [Text("Hi")]


def test_azure_s_filter_speaks_first() -> None:
    """Its verdict on the prompt names no model, and is no beginning."""
    decoder = OpenAIDecoder("salt")
    verdict = {"choices": [], "model": "", "id": "", "prompt_filter_results": [{"prompt_index": 0}]}
    assert decoder.decode(data(verdict)) == [Raw("message", json.dumps(verdict))]
    assert decoder.decode(chunk({"content": "Hi"}, model="gpt-5")) == [Start("", "gpt-5"), Text("Hi")]


def test_several_choices() -> None:
    """Each part says whose it is."""
    choices = [{"index": n, "delta": {"content": word}} for n, word in enumerate("ab")]
    assert said(data({"choices": choices})) == [Text("a"), Text("b", 0, 1)]


def test_too_many_choices() -> None:
    """Each may say what it likes; of a server that counts without end, the last reasons are not kept."""
    decoder = OpenAIDecoder("salt")
    for index in range(MOST_CHOICES + 9):
        choice = {"index": index, "delta": {"content": "a"}, "finish_reason": "stop"}
        assert Text("a", 0, index) in decoder.decode(data({"choices": [choice]}))
    assert len(decoder.finish()) == MOST_CHOICES


def test_a_finish_reason_waits_for_the_end() -> None:
    """Some servers put one on every chunk; the last one counts."""
    parts = said(chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "length"), DONE)
    assert parts == [Text("a"), Text("b"), Finish("length", "length"), End()]


def test_a_server_without_a_marker() -> None:
    """What waited for the end is told when the body has ended well."""
    decoder = OpenAIDecoder("salt")
    assert said(chunk({"content": "a"}, "eos"), decoder=decoder) == [Text("a")]
    assert decoder.finish() == [Finish("other", "eos")]


@pytest.mark.parametrize(
    ("figures", "usage"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14,
             "prompt_tokens_details": {"cached_tokens": 4},
             "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(9, 5, 4, None, 3),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 8}, Usage(9, 5, 8)),
        ({"prompt_tokens": 9}, Usage(9)),
        ("many", Usage()),
        ({"prompt_tokens": "\ud83d"}, Usage()),
    ],
)  # fmt: skip
def test_usage(figures: Any, usage: Usage) -> None:
    """OpenAI's, DeepSeek's, less of it, and nonsense."""
    assert said(data({"choices": [], "usage": figures})) == [usage]


def test_usage_in_other_places() -> None:
    """Groq tells it in a field of its own, Moonshot in the choice."""
    figures = {"prompt_tokens": 1, "completion_tokens": 2}
    assert said(chunk(x_groq={"usage": figures})) == [Usage(1, 2)]
    moonshot = {"choices": [{"index": 0, "delta": {}, "usage": figures}]}
    assert said(data(moonshot)) == [Usage(1, 2)]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning(key: str) -> None:
    """Two keys are in use, beside the text or in its place."""
    assert said(chunk({key: "hm", "content": None})) == [Thinking("hm")]
    assert said(chunk({key: "hm", "content": "a"})) == [Thinking("hm"), Text("a")]


def test_reasoning_in_both_keys_is_told_once() -> None:
    """Who sends both says the same in both."""
    assert said(chunk({"reasoning": "hm", "reasoning_content": "hm"})) == [Thinking("hm")]


def test_mistral_s_pieces() -> None:
    """Its thinking models send a list as content."""
    thinking = {
        "type": "thinking",
        "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}],
    }
    reference = {"type": "reference", "reference_ids": [1]}
    parts = said(chunk({"content": [thinking, {"type": "text", "text": "a"}, reference]}))
    assert parts[:2] == [Thinking("hm"), Text("a")]
    assert parts[2:] == [Raw("content", '{"choice":0,"content":{"type":"reference","reference_ids":[1]}}')]


def test_a_refusal() -> None:
    """It stands in the place of text."""
    assert said(chunk({"refusal": "I can't"})) == [Refusal("I can't")]


def call(index: int | None = 0, arguments: Any = None, **fields: Any) -> bytes:
    """A chunk with one fragment of a tool call."""
    function = {"name": fields.pop("name", None), "arguments": arguments}
    return chunk({"tool_calls": [{"index": index, "function": function, **fields}]})


def calls(parts: list[Part]) -> list[tuple[str, str, Any]]:
    """The whole calls among some parts."""
    return [(part.id, part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]


def test_calls_at_once_with_text_between_them() -> None:
    """Everything keeps its place; the calls come whole at the end, before the reason."""
    parts = said(
        call(0, "", id="a", name="f"),
        call(0, '{"x":'),
        call(1, "", id="b", name="g"),
        chunk({"content": "wait"}),
        call(1, "{}"),
        call(0, "1}"),
        chunk(finish="tool_calls"),
        DONE,
    )
    assert parts == [
        ToolStart(0, "a", "f"),
        ToolDelta(0, "a", '{"x":'),
        ToolStart(1, "b", "g"),
        Text("wait"),
        ToolDelta(1, "b", "{}"),
        ToolDelta(0, "a", "1}"),
        ToolCall(0, "a", "f", {"x": 1}, '{"x":1}'),
        ToolCall(1, "b", "g", {}, "{}"),
        Finish("tool_calls", "tool_calls"),
        End(),
    ]


def test_whole_calls_that_are_all_counted_0() -> None:
    """Another id is another call."""
    parts = said(call(0, '{"x":1}', id="a", name="f"), call(0, '{"y":2}', id="b", name="g"), DONE)
    assert calls(parts) == [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]


def test_calls_that_are_not_counted() -> None:
    """They are told by their ids; a fragment without one is the last one's."""
    parts = said(
        call(None, '{"x":', id="a", name="f"), call(None, "1}"), call(None, "{}", id="b", name="g"), DONE
    )
    assert calls(parts) == [("a", "f", {"x": 1}), ("b", "g", {})]


def test_a_server_that_repeats_id_and_name() -> None:
    """The same id is the same call."""
    parts = said(call(0, '{"x":', id="a", name="f"), call(0, "1}", id="a", name="f"), DONE)
    assert calls(parts) == [("a", "f", {"x": 1})]


def test_arguments_that_are_an_object() -> None:
    """Some servers send them parsed."""
    assert calls(said(call(0, {"x": 1}, id="a", name="f"), DONE)) == [("a", "f", {"x": 1})]


def test_the_old_function_call() -> None:
    """It has no id: it gets one."""
    parts = said(
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"x":1}'}}),
        chunk(finish="function_call"),
        DONE,
    )
    assert calls(parts) == [("call_salt_1", "f", {"x": 1})]
    assert Finish("tool_calls", "function_call") in parts


def test_arguments_that_end_early() -> None:
    """A call cut by the token limit is a fault."""
    parts = said(call(0, '{"x":', id="a", name="f"), chunk(finish="length"), DONE)
    assert [type(part) for part in parts] == [ToolStart, ToolDelta, ToolFault, Finish, End]


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (data({"error": {"message": "busy", "type": "rate_limit_error", "code": "slow_down"}}),
         Error("busy", "slow_down", 429)),
        (data({"error": {"message": "bad", "type": "invalid_request_error", "code": None}}),
         Error("bad", "invalid_request_error", 400)),
        (data({"error": {"message": "gone", "code": 502}, "choices": []}), Error("gone", "502", 502)),
        (data({"error": "it broke"}), Error("it broke", "error", 500)),
        (data({"object": "error", "message": "old vLLM", "type": "BadRequestError", "code": 400}),
         Error("old vLLM", "BadRequestError", 400)),
        (b'event: error\ndata: {"message":"flat","code":"x"}', Error("flat", "x", 500)),
        (b"event: error\ndata: no JSON", Error("no JSON", "error", 500)),
        (data({"error": {"reason": "odd"}}), Error('{"reason":"odd"}', "error", 500)),
        (b'event: error\ndata: ""', Error("the provider told an error without a word", "error", 500)),
    ],
)  # fmt: skip
def test_errors(block: bytes, error: Error) -> None:
    """Servers have many forms for them."""
    assert said(block) == [error]


def test_citations() -> None:
    """OpenAI's and OpenRouter's annotations."""
    cited = {"url": "https://a.example", "title": "A", "start_index": 1, "end_index": 4, "content": "words"}
    note = {"type": "url_citation", "url_citation": cited}
    (part,) = said(chunk({"annotations": [note]}))
    assert part == Citation("https://a.example", "A", "words", start=1, end=4, source=note)


def test_images() -> None:
    """OpenRouter's, as data URLs or addresses."""
    urls = ["data:image/png;base64,AAAA", "https://a.example/i.png", ""]
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    assert said(chunk({"images": images})) == [
        File("image/png", data="AAAA"),
        File("image/*", url="https://a.example/i.png"),
    ]


def test_what_has_no_other_place() -> None:
    """Log probabilities and audio are raw."""
    parts = said(
        data({"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": []}}]}),
        chunk({"audio": {"transcript": "hi"}}),
    )
    assert parts == [
        Text("a"),
        Raw("logprobs", '{"choice":0,"logprobs":{"content":[]}}'),
        Raw("audio", '{"choice":0,"audio":{"transcript":"hi"}}'),
    ]


@pytest.mark.parametrize(
    "block",
    [b"data: {", b"data: nonsense", b"data: 5", b"data: [[[[", b"event: x\ndata: {}", b"data: {\ndata: }",
     b"data: " + b"[" * 100_000, b'data: {"choices":{"a":1}}', b'data: {"choices":[{"delta":5}]}',
     b"data: \xff"],
)  # fmt: skip
def test_nonsense_is_raw(block: bytes) -> None:
    """It is never a reason to fail, and nothing of it is lost."""
    assert all(isinstance(part, Raw) for part in said(block))


def test_half_an_emoji() -> None:
    """Tokens that cut a character in two pass; Python's JSON reads them."""
    assert said(b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}') == [Text("\ud83d")]


def test_an_event_of_several_lines() -> None:
    """Ids, names and pretty-printed JSON are no obstacle."""
    assert said(b'id: 1\nevent: message\ndata: {"choices":\ndata: [{"delta":{"content":"a"}}]}') == [
        Text("a")
    ]
