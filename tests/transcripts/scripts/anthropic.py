"""Anthropic messages."""

from __future__ import annotations

from typing import Any

from proxy.dialects.part import Error, Usage
from tests.transcripts.scripts.event import named
from tests.transcripts.transcript import Call, Script, Transcript

ID = "msg_01XFDUDYJgAACzvnptvVoYEL"
MODEL = "claude-sonnet-4-5-20250929"

Event = dict[str, Any]


def start(**usage: Any) -> Event:
    """The first event. The model has begun to speak: it counts one token."""
    message = {
        "id": ID,
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 1, **usage},
    }
    return {"type": "message_start", "message": message}


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[Event]:
    """A content block from its start to its stop."""
    at = {"index": index}
    return [
        {"type": "content_block_start", **at, "content_block": content},
        *({"type": "content_block_delta", **at, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", **at},
    ]


def text(index: int, *pieces: str, citations: tuple[dict[str, Any], ...] = ()) -> list[Event]:
    """A block of text, its citations behind it."""
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    cited = [{"type": "citations_delta", "citation": citation} for citation in citations]
    return block(index, {"type": "text", "text": ""}, *deltas, *cited)


def thinking(index: int, *pieces: str, signature: str = "") -> list[Event]:
    """A block of thinking, with its signature at the end."""
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    signed = [{"type": "signature_delta", "signature": signature}] if signature else []
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas, *signed)


def tool(index: int, kind: str, call_id: str, name: str, *pieces: str, **more: Any) -> list[Event]:
    """A block that is a tool call. The first fragment is always an empty one."""
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces))
    return block(index, {"type": kind, "id": call_id, "name": name, "input": {}, **more}, *deltas)


def result(index: int, kind: str, call_id: str, content: Any, **more: Any) -> list[Event]:
    """A block that is a tool's result."""
    return block(index, {"type": kind, "tool_use_id": call_id, "content": content, **more})


def end(reason: str = "end_turn", stop_sequence: str | None = None, **usage: Any) -> list[Event]:
    """The last two events."""
    return ended({"stop_reason": reason, "stop_sequence": stop_sequence}, **usage)


def ended(delta: dict[str, Any], **usage: Any) -> list[Event]:
    """The last two events, with more to say."""
    return [
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 15, **usage}},
        {"type": "message_stop"},
    ]


def body(*events: Event) -> bytes:
    """A stream of events."""
    return b"".join(map(named, events))


def row(name: str, **says: Any) -> Transcript:
    """A row of this dialect; most have the same id, model, figures and end."""
    usual = {"message_id": ID, "model": MODEL, "finish": "stop", "native": "end_turn"}
    usage = Usage(input_tokens=25, output_tokens=15)
    return Transcript("anthropic", name, **{**usual, "usage": usage, **says})


def broken_off(name: str, **says: Any) -> Transcript:
    """A row of a stream that stops short, or with an error."""
    usage = Usage(input_tokens=25, output_tokens=1)
    return row(
        name, **{"finish": None, "native": "", "usage": usage, "truncated": "error" not in says, **says}
    )


PING = {"type": "ping"}
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"
PAGE = {
    "type": "web_search_result",
    "title": "Jupiter",
    "url": "https://example.com/jupiter",
    "encrypted_content": "EoAB",
    "page_age": "May 1, 2026",
}

SCRIPTS = (
    Script(
        row("text", text="Hello! I'm fine."),
        body(start(), PING, *text(0, "Hello", "!", " I'm", " fine."), *end()),
    ),
    Script(
        row(
            "thinking",
            thinking="27 is 3 cubed. So",
            signature=SIGNATURE,
            redacted="EmwKAhgBEgy3va3pzix",
            text="It is 3.",
            usage=Usage(input_tokens=25, output_tokens=90, reasoning_tokens=72),
        ),
        body(
            start(),
            *thinking(0, "27 is", " 3 cubed.", " So", signature=SIGNATURE),
            *block(1, {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}),
            *text(2, "It", " is 3."),
            *end(output_tokens=90, output_tokens_details={"thinking_tokens": 72}),
        ),
    ),
    Script(
        row(
            "tool-use-cached",
            text="I'll look.",
            calls=(Call("toolu_01A", "get_weather", {"location": "San Francisco, CA", "unit": None}),),
            finish="tool_calls",
            native="tool_use",
            usage=Usage(
                input_tokens=2373, output_tokens=61, cached_input_tokens=2048, cache_write_input_tokens=300
            ),
        ),
        body(
            start(cache_creation_input_tokens=300, cache_read_input_tokens=2048),
            PING,
            *text(0, "I'll", " look."),
            *tool(
                1,
                "tool_use",
                "toolu_01A",
                "get_weather",
                '{"location":',
                ' "San Franc',
                'isco, CA",',
                ' "unit": null}',
            ),
            *end("tool_use", output_tokens=61),
        ),
    ),
    Script(
        row(
            "tool-uses-parallel",
            calls=(
                Call("toolu_01B", "get_time", {}),
                Call("toolu_01C", "get_weather", {"city": "Kyōto 京都"}),
            ),
            finish="tool_calls",
            native="tool_use",
        ),
        body(
            start(),
            *tool(0, "tool_use", "toolu_01B", "get_time"),
            *tool(1, "tool_use", "toolu_01C", "get_weather", '{"city": "Kyō', "to 京", '都"}'),
            *end("tool_use"),
        ),
    ),
    Script(
        row(
            "tool-use-cut-by-length",
            calls=(Call("toolu_01D", "write_file", source='{"text": "Once upon'),),
            finish="length",
            native="max_tokens",
        ),
        body(
            start(),
            *tool(0, "tool_use", "toolu_01D", "write_file", '{"text": ', '"Once upon'),
            *end("max_tokens"),
        ),
    ),
    Script(
        row("refusal", text="I can't", finish="content_filter", native="refusal"),
        body(
            start(),
            *text(0, "I", " can't"),
            *ended(
                {
                    "stop_reason": "refusal",
                    "stop_sequence": None,
                    "stop_details": {
                        "type": "refusal",
                        "category": "cyber",
                        "explanation": "It could enable harm.",
                    },
                }
            ),
        ),
    ),
    Script(
        row("stop-sequence", text="1, 2, ", native="stop_sequence"),
        body(start(), *text(0, "1, ", "2, "), *end("stop_sequence", "3")),
    ),
    Script(
        row("unicode", text="Grüße, 世界 👩🏽\u200d🚀\u2028 \x85\ud83d. \n\nمرحبا"),
        body(
            start(),
            *text(0, "Grüße, ", "世界 ", "👩🏽\u200d", "🚀\u2028 \x85", "\ud83d", ". \n\nمرحبا"),
            *end(),
        ),
    ),
    Script(
        row(
            "web-search",
            text="I'll search. Jupiter has 97 moons.",
            calls=(Call("srvtoolu_01E", "web_search", {"query": "moons of Jupiter"}, executed=True),),
            results=("web_search",),
            citations=("https://example.com/jupiter",),
        ),
        body(
            start(),
            *text(0, "I'll search."),
            *tool(
                1,
                "server_tool_use",
                "srvtoolu_01E",
                "web_search",
                '{"query": "moons',
                ' of Jupiter"}',
            ),
            *result(2, "web_search_tool_result", "srvtoolu_01E", [PAGE]),
            *text(
                3,
                " Jupiter has",
                " 97 moons.",
                citations=(
                    {
                        "type": "web_search_result_location",
                        "cited_text": "Jupiter has 97 known moons",
                        "url": "https://example.com/jupiter",
                        "title": "Jupiter",
                        "encrypted_index": "Eo8BCioI",
                    },
                ),
            ),
            *end(server_tool_use={"web_search_requests": 1, "web_fetch_requests": 0}),
        ),
    ),
    Script(
        row(
            "citations",
            text="The grass is green and the sky is blue. So it is.",
            citations=("Colours", "1", "Colours", "https://example.com/faq"),
        ),
        body(
            start(),
            *text(
                0,
                "The grass is green",
                " and the sky is blue.",
                citations=(
                    {
                        "type": "char_location",
                        "cited_text": "The grass is green.",
                        "document_index": 0,
                        "document_title": "Colours",
                        "start_char_index": 0,
                        "end_char_index": 20,
                    },
                    {
                        "type": "page_location",
                        "cited_text": "The sky is blue.",
                        "document_index": 1,
                        "document_title": None,
                        "start_page_number": 5,
                        "end_page_number": 6,
                    },
                ),
            ),
            *text(
                1,
                " So it is.",
                citations=(
                    {
                        "type": "content_block_location",
                        "cited_text": "Grass.",
                        "document_index": 0,
                        "document_title": "Colours",
                        "start_block_index": 0,
                        "end_block_index": 1,
                    },
                    {
                        "type": "search_result_location",
                        "cited_text": "Blue.",
                        "search_result_index": 0,
                        "source": "https://example.com/faq",
                        "title": "FAQ",
                        "start_block_index": 0,
                        "end_block_index": 1,
                    },
                ),
            ),
            *end(),
        ),
    ),
    Script(
        row(
            "code-execution",
            text="That failed.",
            calls=(
                Call("srvtoolu_01F", "bash_code_execution", {"command": "ls"}, executed=True),
                Call("srvtoolu_01G", "bash_code_execution", {"command": "rm x"}, executed=True),
            ),
            results=("bash_code_execution", "bash_code_execution"),
        ),
        body(
            start(),
            *tool(0, "server_tool_use", "srvtoolu_01F", "bash_code_execution", '{"command": "ls"}'),
            *result(
                1,
                "bash_code_execution_tool_result",
                "srvtoolu_01F",
                {
                    "type": "bash_code_execution_result",
                    "stdout": "a\nb\n",
                    "stderr": "",
                    "return_code": 0,
                    "content": [],
                },
            ),
            *tool(2, "server_tool_use", "srvtoolu_01G", "bash_code_execution", '{"command": "rm x"}'),
            *result(
                3,
                "bash_code_execution_tool_result",
                "srvtoolu_01G",
                {"type": "bash_code_execution_tool_result_error", "error_code": "unavailable"},
            ),
            *text(4, "That failed."),
            *end(),
        ),
    ),
    Script(
        row(
            "mcp",
            text="Done.",
            calls=(Call("mcptoolu_01H", "echo", {"param1": "value1"}, executed=True),),
            results=("echo",),
        ),
        body(
            start(),
            *tool(
                0,
                "mcp_tool_use",
                "mcptoolu_01H",
                "echo",
                '{"param1": "value1"}',
                server_name="example",
            ),
            *result(
                1,
                "mcp_tool_result",
                "mcptoolu_01H",
                [{"type": "text", "text": "Hello"}],
                is_error=False,
            ),
            *text(2, "Done."),
            *end(),
        ),
    ),
    Script(
        row(
            "pause-turn",
            calls=(Call("srvtoolu_01I", "web_search", {"query": "x"}, executed=True),),
            finish="other",
            native="pause_turn",
        ),
        body(
            start(),
            *tool(0, "server_tool_use", "srvtoolu_01I", "web_search", '{"query": "x"}'),
            *end("pause_turn"),
        ),
    ),
    Script(row("no-message-stop", text="Whole."), body(start(), *text(0, "Whole."), end()[0])),
    Script(
        broken_off("overloaded", text="So far", error=Error("Overloaded", "overloaded_error", 529)),
        body(
            start(),
            *text(0, "So", " far")[:-1],
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ),
    ),
    Script(
        broken_off("cut-in-thinking", thinking="27 is 3"),
        body(start(), *thinking(0, "27 is", " 3")[:-1]) + b"event: content_block_delta\ndata: {",
    ),
    Script(
        broken_off("cut-in-tool-use", text="I'll look."),
        body(
            start(),
            *text(0, "I'll look."),
            *tool(1, "tool_use", "toolu_01J", "get_weather", '{"location":')[:-1],
        ),
    ),
)
