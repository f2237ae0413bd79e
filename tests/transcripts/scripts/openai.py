"""OpenAI chat completions, and the servers that speak nearly the same."""

from __future__ import annotations

from typing import Any

from proxy.dialects.part import Error, Usage
from tests.transcripts.scripts.event import data
from tests.transcripts.transcript import Call, Script, Transcript

ID = "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG"
MODEL = "gpt-4.1-2025-04-14"
DONE = b"data: [DONE]\n\n"

Chunk = dict[str, Any]


def chunk(*choices: dict[str, Any], **more: Any) -> Chunk:
    """A ``chat.completion.chunk``."""
    head = {"id": ID, "object": "chat.completion.chunk", "created": 1741570283, "model": MODEL}
    own = {"service_tier": "default", "system_fingerprint": "fp_44added55e"}
    return {**head, **own, "choices": choices, **more}


def plain(*choices: dict[str, Any], **more: Any) -> Chunk:
    """A chunk as other servers send it, without OpenAI's own members."""
    head = {"id": ID, "object": "chat.completion.chunk", "created": 1741570283, "model": MODEL}
    return {**head, "choices": choices, **more}


def choice(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """One choice of a chunk."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **more}


def call(index: int, arguments: str = "", call_id: str = "", name: str = "") -> dict[str, Any]:
    """A delta with a fragment of a tool call; with a name, the call's first."""
    head = {"id": call_id, "type": "function"} if name else {}
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


def body(*chunks: Chunk, end: bytes = DONE) -> bytes:
    """A stream of chunks, and its end."""
    return b"".join(map(data, chunks)) + end


def said(*pieces: str, index: int = 0) -> list[Chunk]:
    """Chunks of text."""
    return [chunk(choice({"content": piece}, index=index)) for piece in pieces]


def usage(sent: int, made: int, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """Figures, as OpenAI tells them."""
    return {
        "prompt_tokens": sent,
        "completion_tokens": made,
        "total_tokens": sent + made,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }


def figures(sent: int, made: int, cached: int = 0, reasoning: int = 0) -> Usage:
    """The same, as the part tells them."""
    return Usage(
        input_tokens=sent, output_tokens=made, cached_input_tokens=cached, reasoning_tokens=reasoning
    )


ROLE = chunk(choice({"role": "assistant", "content": "", "refusal": None}))
STOP = chunk(choice({}, "stop"))
USAGE = chunk(usage=usage(19, 10))
CALLED = chunk(choice({}, "tool_calls"))


def row(name: str, **says: Any) -> Transcript:
    """A row of this dialect; most have the same id, model and end."""
    usual = {"message_id": ID, "model": MODEL, "finish": "stop"}
    return Transcript("openai", name, **{**usual, "native": says.get("finish", "stop") or "", **says})


def broken_off(name: str, **says: Any) -> Transcript:
    """A row of a stream that stops short."""
    return row(name, finish=None, truncated=True, **says)


OPENAI = (
    Script(
        row("text", text="Hello! How can I help?", usage=figures(19, 10)),
        body(ROLE, *said("Hello", "!", " How can", " I help?"), STOP, USAGE),
    ),
    Script(
        row("usage-cached", text="As before.", usage=figures(2006, 300, 1920, 256)),
        body(ROLE, *said("As", " before."), STOP, chunk(usage=usage(2006, 300, 1920, 256))),
    ),
    Script(
        row(
            "tool-call-empty-arguments",
            calls=(Call("call_t1", "get_time", {}),),
            finish="tool_calls",
        ),
        body(ROLE, chunk(choice(call(0, call_id="call_t1", name="get_time"))), CALLED),
    ),
    Script(
        row(
            "tool-calls-parallel",
            calls=(
                Call("call_5f1", "get_weather", {"city": "Paris"}),
                Call("call_5f2", "get_weather", {"city": "東京", "unit": "c"}),
            ),
            finish="tool_calls",
        ),
        body(
            ROLE,
            chunk(choice(call(0, call_id="call_5f1", name="get_weather"))),
            chunk(choice(call(0, '{"city":"Pa'))),
            chunk(choice(call(0, 'ris"}'))),
            chunk(choice(call(1, call_id="call_5f2", name="get_weather"))),
            chunk(choice(call(1, '{"city":"東'))),
            chunk(choice(call(1, '京","unit":"c"}'))),
            CALLED,
        ),
    ),
    Script(
        row(
            "tool-calls-interleaved",
            text="Let me look. And the time.",
            calls=(Call("call_i1", "get_weather", {"city": "Oslo"}), Call("call_i2", "get_time", {"tz": 2})),
            finish="tool_calls",
        ),
        body(
            ROLE,
            *said("Let me", " look."),
            chunk(choice(call(0, call_id="call_i1", name="get_weather"))),
            chunk(choice(call(0, '{"ci'))),
            chunk(choice(call(1, '{"t', call_id="call_i2", name="get_time"))),
            *said(" And the time."),
            chunk(choice(call(0, 'ty": "Oslo"}'))),
            chunk(choice(call(1, 'z": 2}'))),
            CALLED,
        ),
    ),
    Script(
        row(
            "tool-call-cut-by-length",
            calls=(Call("call_l1", "write_file", source='{"path":"a.txt","text":"Once up'),),
            finish="length",
        ),
        body(
            ROLE,
            chunk(choice(call(0, call_id="call_l1", name="write_file"))),
            chunk(choice(call(0, '{"path":"a.txt",'))),
            chunk(choice(call(0, '"text":"Once up'))),
            chunk(choice({}, "length")),
        ),
    ),
    Script(
        row("refusal", refusal="I'm sorry, I can't help with that."),
        body(
            chunk(choice({"role": "assistant", "content": None, "refusal": ""})),
            chunk(choice({"refusal": "I'm sorry,"})),
            chunk(choice({"refusal": " I can't help with that."})),
            STOP,
        ),
    ),
    Script(
        row("content-filter", text="Once upon a", finish="content_filter"),
        body(ROLE, *said("Once", " upon a"), chunk(choice({}, "content_filter"))),
    ),
    Script(
        row("unicode", text="Grüße, 世界 👩🏽\u200d🚀\u2028 مرحبا\x85 \x1e\ud83d\ude00 \ud83d. \n\n<é>"),
        body(
            ROLE,
            *said("Grüße, ", "世界 ", "👩🏽\u200d", "🚀\u2028 ", "مرحبا\x85 \x1e", "\ud83d", "\ude00 "),
            *said("\ud83d", ". \n\n<é>"),
            STOP,
        ),
    ),
    Script(
        row("several-choices", text="Heads.", others=("Tails.", "The edge")),
        body(
            *(chunk(choice({"role": "assistant", "content": ""}, index=index)) for index in range(3)),
            *said("Hea", index=0),
            *said("Tai", index=1),
            *said("ds.", index=0),
            *said("The", index=2),
            *said("ls.", index=1),
            chunk(choice({}, "stop", 0)),
            *said(" edge", index=2),
            chunk(choice({}, "length", 2)),
            chunk(choice({}, "stop", 1)),
        ),
    ),
    Script(
        row("logprobs", text="Yes"),
        body(
            ROLE,
            chunk(
                choice(
                    {"content": "Yes"},
                    logprobs={
                        "content": [{"token": "Yes", "logprob": -0.1, "bytes": [89], "top_logprobs": []}],
                        "refusal": None,
                    },
                )
            ),
            STOP,
        ),
    ),
    Script(broken_off("cut-in-text", text="Hello! How"), body(ROLE, *said("Hello", "!", " How"), end=b"")),
    Script(
        broken_off("cut-in-tool-call"),
        body(
            ROLE,
            chunk(choice(call(0, call_id="call_c1", name="get_weather"))),
            chunk(choice(call(0, '{"city":"Pa'))),
            end=b'data: {"id":"chatcmpl-B9MHDb',
        ),
    ),
)

FILTERED = {"hate": {"filtered": False, "severity": "safe"}}

#: What servers send that are not OpenAI.
OTHERS = (
    Script(  # the verdict on the prompt comes first, for no model; those on the answer with empty deltas
        row("azure", text="Hello there."),
        body(
            chunk(
                id="",
                object="",
                created=0,
                model="",
                prompt_filter_results=[{"prompt_index": 0, "content_filter_results": FILTERED}],
            ),
            ROLE,
            chunk(choice({"content": "Hello"}, content_filter_results=FILTERED)),
            chunk(choice({"content": " there."}, content_filter_results=FILTERED)),
            STOP,
            chunk(choice({}, content_filter_offsets={"check_offset": 35, "start_offset": 35})),
        ),
    ),
    Script(  # DeepSeek; vLLM, too
        row(
            "reasoning-content",
            thinking="9.11 has two decimals.",
            text="9.8 is greater.",
            usage=figures(26, 310, 16, 280),
        ),
        body(
            plain(choice({"role": "assistant", "content": None, "reasoning_content": ""})),
            plain(choice({"content": None, "reasoning_content": "9.11 has"})),
            plain(choice({"content": None, "reasoning_content": " two decimals."})),
            plain(choice({"content": "9.8 is", "reasoning_content": None})),
            plain(choice({"content": " greater.", "reasoning_content": None})),
            plain(
                choice({"content": "", "reasoning_content": None}, "stop"),
                usage={
                    "prompt_tokens": 26,
                    "completion_tokens": 310,
                    "total_tokens": 336,
                    "completion_tokens_details": {"reasoning_tokens": 280},
                    "prompt_cache_hit_tokens": 16,
                    "prompt_cache_miss_tokens": 10,
                },
            ),
        ),
    ),
    Script(  # OpenRouter: comments while it waits, a provider, the reasoning under another key, annotations
        row(
            "openrouter",
            thinking="Look it up.",
            text="It is 4.2.",
            citations=("https://example.com/a",),
            usage=figures(14, 9, 0, 4),
        ),
        b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"
        + body(
            plain(choice({"role": "assistant", "content": "", "reasoning": "Look "}), provider="Example"),
            plain(choice({"role": "assistant", "content": "", "reasoning": "it up."}), provider="Example"),
            plain(choice({"role": "assistant", "content": "It is 4.2."}), provider="Example"),
            plain(
                choice(
                    {
                        "role": "assistant",
                        "content": "",
                        "annotations": [
                            {
                                "type": "url_citation",
                                "url_citation": {
                                    "url": "https://example.com/a",
                                    "title": "A",
                                    "content": "4.2",
                                    "start_index": 6,
                                    "end_index": 9,
                                },
                            }
                        ],
                    },
                    "stop",
                    native_finish_reason="completed",
                ),
                provider="Example",
            ),
            plain(choice({"role": "assistant", "content": ""}), provider="Example", usage=usage(14, 9, 0, 4)),
        ),
    ),
    Script(  # Mistral: calls whole, in one chunk with the reason
        row(
            "mistral-tool-calls",
            calls=(Call("D681PevKs", "get_weather", {"city": "Lyon"}), Call("a82Kx0pQ1", "get_time", {})),
            finish="tool_calls",
            usage=Usage(input_tokens=94, output_tokens=31),
        ),
        body(
            plain(choice({"role": "assistant", "content": ""})),
            plain(
                choice(
                    {
                        "content": "",
                        "tool_calls": [
                            {
                                "id": "D681PevKs",
                                "function": {"name": "get_weather", "arguments": '{"city": "Lyon"}'},
                                "index": 0,
                            },
                            {
                                "id": "a82Kx0pQ1",
                                "function": {"name": "get_time", "arguments": "{}"},
                                "index": 1,
                            },
                        ],
                    },
                    "tool_calls",
                ),
                usage={"prompt_tokens": 94, "completion_tokens": 31, "total_tokens": 125},
            ),
        ),
    ),
    Script(  # Groq: usage in a place of its own, besides the usual one
        row("groq", text="Fast.", usage=Usage(input_tokens=12, output_tokens=3)),
        body(
            plain(choice({"role": "assistant", "content": ""}), x_groq={"id": "req_01j"}),
            plain(choice({"content": "Fast."})),
            plain(
                choice({}, "stop"),
                x_groq={
                    "id": "req_01j",
                    "usage": {
                        "queue_time": 0.02,
                        "prompt_tokens": 12,
                        "completion_tokens": 3,
                        "total_tokens": 15,
                    },
                },
            ),
        ),
    ),
    Script(  # Gemini's compatible endpoint: whole calls, all with index 0, an id each, usage in every chunk
        row(
            "gemini-tool-calls",
            calls=(
                Call("function-call-1", "get_weather", {"city": "Rome"}),
                Call("function-call-2", "get_weather", {"city": "Bari"}),
            ),
            finish="tool_calls",
            usage=Usage(input_tokens=50, output_tokens=20),
        ),
        body(
            plain(
                choice({"role": "assistant", **call(0, '{"city":"Rome"}', "function-call-1", "get_weather")}),
                usage={"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60},
            ),
            plain(
                choice(
                    {"role": "assistant", **call(0, '{"city":"Bari"}', "function-call-2", "get_weather")},
                    "tool_calls",
                ),
                usage={"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
            ),
        ),
    ),
    Script(  # gateways that leave the calls' index out
        row(
            "tool-calls-without-index",
            calls=(Call("call_w1", "get_weather", {"city": "Graz"}), Call("call_w2", "get_time", {"tz": 1})),
            finish="tool_calls",
        ),
        body(
            plain(choice({"role": "assistant", "content": None})),
            *(
                plain(
                    choice(
                        {
                            "tool_calls": [
                                {
                                    "id": call_id,
                                    "type": "function",
                                    "function": {"name": name, "arguments": arguments},
                                }
                            ]
                        }
                    )
                )
                for call_id, name, arguments in (
                    ("call_w1", "get_weather", '{"city":"Graz"}'),
                    ("call_w2", "get_time", '{"tz":1}'),
                )
            ),
            plain(choice({}, "tool_calls")),
        ),
    ),
    Script(  # no marker, but a reason and a clean close
        row("no-done", text="That is all."),
        body(plain(choice({"role": "assistant", "content": "That is"})), *said(" all."), STOP, end=b""),
    ),
    Script(  # a reason in every chunk, and figures that grow
        row("finish-on-every-chunk", text="One two three", usage=Usage(input_tokens=5, output_tokens=3)),
        body(
            *(
                plain(
                    choice({"role": "assistant", "content": word}, "stop"),
                    usage={"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count},
                )
                for count, word in enumerate(("One", " two", " three"), start=1)
            )
        ),
    ),
    Script(  # lines that end in CRLF, a byte order mark, spaces in the JSON
        row("line-ends", text="Carriage returns"),
        (
            b"\xef\xbb\xbf"
            + b"".join(data(each, spaced=True) for each in (ROLE, *said("Carriage", " returns"), STOP))
            + DONE
        ).replace(b"\n", b"\r\n"),
    ),
    Script(  # OpenRouter: a chunk that is an error, too
        row(
            "error-in-the-middle",
            text="So far",
            error=Error("Provider disconnected unexpectedly", "502", 502),
            finish=None,
        ),
        body(
            plain(choice({"role": "assistant", "content": "So"})),
            plain(choice({"content": " far"})),
            plain(
                choice({"content": ""}, "error"),
                error={"code": 502, "message": "Provider disconnected unexpectedly"},
            ),
        ),
    ),
    Script(  # OpenAI itself, and most gateways
        row(
            "error-alone",
            message_id="",
            model="",
            error=Error("The server had an error processing your request.", "server_error", 500),
            finish=None,
        ),
        body(
            {
                "error": {
                    "message": "The server had an error processing your request.",
                    "type": "server_error",
                    "param": None,
                    "code": None,
                }
            },
            end=b"",
        ),
    ),
)

SCRIPTS = OPENAI + OTHERS
