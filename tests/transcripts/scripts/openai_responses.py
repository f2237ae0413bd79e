"""OpenAI responses: items that are announced, told in pieces, and told whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.dialects.part import Error, Usage
from tests.transcripts.scripts.event import data, named
from tests.transcripts.transcript import Call, Script, Transcript

ID = "resp_67c9fdcecf488190bdd9a0409de3a1ec07b8b0ad4e5eb654"
MODEL = "gpt-5-2025-08-07"

Event = dict[str, Any]
Item = dict[str, Any]


def response(status: str, *output: Item, **more: Any) -> dict[str, Any]:
    """The response as a whole."""
    return {
        "id": ID,
        "object": "response",
        "created_at": 1741290958,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": MODEL,
        "output": list(output),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
        "metadata": {},
        **more,
    }


USAGE = {
    "input_tokens": 37,
    "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 4},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 6},
    "total_tokens": 48,
}
FIGURES = Usage(
    input_tokens=37,
    output_tokens=11,
    cached_input_tokens=16,
    cache_write_input_tokens=4,
    reasoning_tokens=6,
)


def event(kind: str, **fields: Any) -> Event:
    """An event of the ``response.`` family."""
    return {"type": f"response.{kind}", **fields}


BEGUN = [
    event("created", response=response("in_progress")),
    event("in_progress", response=response("in_progress")),
]


def item(index: int, added: Item, done: Item, *pieces: Event) -> list[Event]:
    """An item, announced, told in pieces, and told whole."""
    at = {"output_index": index}
    return [
        event("output_item.added", **at, item=added),
        *({**piece, **at, "item_id": added["id"]} for piece in pieces),
        event("output_item.done", **at, item=done),
    ]


def message(
    index: int, *pieces: str, annotations: Iterable[dict[str, Any]] = (), refuses: bool = False
) -> list[Event]:
    """A message of one part: of text, or of a refusal."""
    kind, member = ("refusal", "refusal") if refuses else ("output_text", "text")
    cited = list(annotations)
    empty = {"type": kind, member: "", **({} if refuses else {"annotations": []})}
    full = {"type": kind, member: "".join(pieces), **({} if refuses else {"annotations": cited})}
    own = {"id": f"msg_{index}", "type": "message", "role": "assistant"}
    at = {"content_index": 0}
    more = {} if refuses else {"logprobs": []}
    return item(
        index,
        {**own, "status": "in_progress", "content": []},
        {**own, "status": "completed", "content": [full]},
        event("content_part.added", **at, part=empty),
        *(event(f"{kind}.delta", **at, delta=piece, **more) for piece in pieces),
        *(
            event("output_text.annotation.added", **at, annotation_index=number, annotation=annotation)
            for number, annotation in enumerate(cited)
        ),
        event(f"{kind}.done", **at, **{member: "".join(pieces)}, **more),
        event("content_part.done", **at, part=full),
    )


def function(index: int, call_id: str, name: str, *pieces: str) -> list[Event]:
    """A function call."""
    own = {"id": f"fc_{index}", "type": "function_call", "call_id": call_id, "name": name}
    whole = "".join(pieces)
    return item(
        index,
        {**own, "status": "in_progress", "arguments": ""},
        {**own, "status": "completed", "arguments": whole},
        *(event("function_call_arguments.delta", delta=piece) for piece in pieces),
        event("function_call_arguments.done", name=name, arguments=whole),
    )


def hosted(
    index: int, kind: str, added: Item, done: Item, *pieces: Event, steps: Iterable[str]
) -> list[Event]:
    """A call of a tool that OpenAI runs itself; ``steps`` are how far it is."""
    own = {"id": f"{kind}_{index}", "type": kind}
    return item(
        index,
        {**own, "status": "in_progress", **added},
        {**own, "status": "completed", **done},
        event(f"{kind}.in_progress"),
        *pieces,
        *(event(f"{kind}.{step}") for step in steps),
        event(f"{kind}.completed"),
    )


def numbered(events: Iterable[Event]) -> list[Event]:
    """The events, each with its number."""
    return [{**each, "sequence_number": number} for number, each in enumerate(events)]


def body(*events: Event) -> bytes:
    """A stream of events."""
    return b"".join(map(named, numbered(events)))


def completed(*events: Event) -> bytes:
    """A stream of these events that ends well."""
    output = [each["item"] for each in events if each["type"] == "response.output_item.done"]
    return body(*BEGUN, *events, event("completed", response=response("completed", *output, usage=USAGE)))


def row(name: str, **says: Any) -> Transcript:
    """A row of this dialect; most have the same id, model, figures and end."""
    usual = {"message_id": ID, "model": MODEL, "finish": "stop", "native": "completed", "usage": FIGURES}
    return Transcript("openai-responses", name, **{**usual, **says})


def broken_off(name: str, **says: Any) -> Transcript:
    """A row of a stream that stops short, or with an error."""
    usual = {"finish": None, "native": "", "usage": Usage(), "truncated": "error" not in says}
    return row(name, **{**usual, **says})


def summary(part: int, *pieces: str) -> list[Event]:
    """One part of the summary of a reasoning."""
    at = {"summary_index": part}
    whole = "".join(pieces)
    return [
        event("reasoning_summary_part.added", **at, part={"type": "summary_text", "text": ""}),
        *(event("reasoning_summary_text.delta", **at, delta=piece) for piece in pieces),
        event("reasoning_summary_text.done", **at, text=whole),
        event("reasoning_summary_part.done", **at, part={"type": "summary_text", "text": whole}),
    ]


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
REASONING = {"id": "rs_0", "type": "reasoning", "summary": []}
CONTAINER = "cntr_682e0f"

SCRIPTS = (
    Script(row("text", text="Hi there!"), completed(*message(0, "Hi", " there", "!"))),
    Script(
        row("two-messages", text="First.Second."),
        completed(*message(0, "First", "."), *message(1, "Second.")),
    ),
    Script(
        row(
            "reasoning-summary",
            thinking="**Counting** One by one.**Checking** Twice.",
            redacted="gAAAAABpZq",
            text="Three.",
        ),
        completed(
            *item(
                0,
                REASONING,
                {
                    **REASONING,
                    "encrypted_content": "gAAAAABpZq",
                    "summary": [
                        {"type": "summary_text", "text": "**Counting** One by one."},
                        {"type": "summary_text", "text": "**Checking** Twice."},
                    ],
                },
                *summary(0, "**Counting** ", "One by one."),
                *summary(1, "**Checking**", " Twice."),
            ),
            *message(1, "Three", "."),
        ),
    ),
    Script(  # open models, as vLLM and others serve them
        row("reasoning-text", thinking="The user says hi.", text="Hi."),
        completed(
            *item(
                0,
                REASONING,
                {**REASONING, "content": [{"type": "reasoning_text", "text": "The user says hi."}]},
                event("reasoning_text.delta", content_index=0, delta="The user"),
                event("reasoning_text.delta", content_index=0, delta=" says hi."),
                event("reasoning_text.done", content_index=0, text="The user says hi."),
            ),
            *message(1, "Hi."),
        ),
    ),
    Script(
        row(
            "function-calls-parallel",
            text="Looking.",
            calls=(
                Call("call_r1", "get_weather", {"city": "Zürich 苏黎世"}),
                Call("call_r2", "get_time", {}),
            ),
            finish="tool_calls",
        ),
        completed(
            *message(0, "Look", "ing."),
            *function(1, "call_r1", "get_weather", '{"city":"Zür', "ich 苏", '黎世"}'),
            *function(2, "call_r2", "get_time", "{}"),
        ),
    ),
    Script(  # servers that tell a call in one piece, and some not even its empty arguments
        row(
            "function-calls-whole",
            calls=(Call("call_w1", "get_weather", {"city": "Ulm"}), Call("call_w2", "get_time", {})),
            finish="tool_calls",
        ),
        completed(
            *(
                each
                for each in function(0, "call_w1", "get_weather", '{"city":"Ulm"}')
                if not each["type"].endswith("delta")
            ),
            *function(1, "call_w2", "get_time"),
        ),
    ),
    Script(
        row(
            "function-call-cut-by-length",
            calls=(Call("call_l1", "write_file", source='{"text":"Once upon'),),
            finish="length",
            native="max_output_tokens",
        ),
        body(
            *BEGUN,
            *(
                {**each, **({"item": {**each["item"], "status": "incomplete"}} if "item" in each else {})}
                for each in function(0, "call_l1", "write_file", '{"text":', '"Once upon')
            ),
            event(
                "incomplete",
                response=response(
                    "incomplete", usage=USAGE, incomplete_details={"reason": "max_output_tokens"}
                ),
            ),
        ),
    ),
    Script(
        row(
            "custom-tool-call",
            calls=(Call("call_k1", "run_sql", 'SELECT "a"\nFROM b -- 🐘'),),
            finish="tool_calls",
        ),
        completed(
            *item(
                0,
                {
                    "id": "ctc_0",
                    "type": "custom_tool_call",
                    "call_id": "call_k1",
                    "name": "run_sql",
                    "input": "",
                },
                {
                    "id": "ctc_0",
                    "type": "custom_tool_call",
                    "call_id": "call_k1",
                    "name": "run_sql",
                    "input": 'SELECT "a"\nFROM b -- 🐘',
                },
                event("custom_tool_call_input.delta", delta='SELECT "a"'),
                event("custom_tool_call_input.delta", delta="\nFROM b -- \ud83d"),
                event("custom_tool_call_input.delta", delta="\udc18"),
                event("custom_tool_call_input.done", input='SELECT "a"\nFROM b -- 🐘'),
            )
        ),
    ),
    Script(
        row(
            "web-search",
            text="It rained (example.com).",
            calls=(
                Call(
                    "web_search_call_0",
                    "web_search",
                    {"action": {"type": "search", "query": "rain"}},
                    executed=True,
                ),
            ),
            results=("web_search",),
            citations=("https://example.com/rain",),
        ),
        completed(
            *hosted(
                0,
                "web_search_call",
                {"action": {"type": "search", "query": ""}},
                {"action": {"type": "search", "query": "rain"}},
                steps=("searching",),
            ),
            *message(
                1,
                "It rained",
                " (example.com).",
                annotations=[
                    {
                        "type": "url_citation",
                        "start_index": 10,
                        "end_index": 23,
                        "url": "https://example.com/rain",
                        "title": "Rain",
                    }
                ],
            ),
        ),
    ),
    Script(
        row(
            "file-search",
            text="See the manual.",
            calls=(Call("file_search_call_0", "file_search", {"queries": ["reset"]}, executed=True),),
            results=("file_search",),
            citations=("manual.pdf", "chart.csv"),
        ),
        completed(
            *hosted(
                0,
                "file_search_call",
                {"queries": []},
                {
                    "queries": ["reset"],
                    "results": [
                        {"file_id": "file-1", "filename": "manual.pdf", "score": 0.9, "text": "Press reset."}
                    ],
                },
                steps=("searching",),
            ),
            *message(
                1,
                "See the manual.",
                annotations=[
                    {"type": "file_citation", "index": 14, "file_id": "file-1", "filename": "manual.pdf"},
                    {
                        "type": "container_file_citation",
                        "container_id": CONTAINER,
                        "file_id": "cfile-2",
                        "filename": "chart.csv",
                        "start_index": 0,
                        "end_index": 3,
                    },
                ],
            ),
        ),
    ),
    Script(
        row(
            "code-interpreter",
            text="It is 4.",
            calls=(
                Call(
                    "code_interpreter_call_0",
                    "code_interpreter",
                    {"container_id": CONTAINER, "code": 'print("π", 2+2)'},
                    executed=True,
                ),
            ),
            results=("code_interpreter",),
        ),
        completed(
            *hosted(
                0,
                "code_interpreter_call",
                {"code": "", "container_id": CONTAINER, "outputs": None},
                {
                    "code": 'print("π", 2+2)',
                    "container_id": CONTAINER,
                    "outputs": [{"type": "logs", "logs": "π 4\n"}],
                },
                event("code_interpreter_call_code.delta", delta='print("π"'),
                event("code_interpreter_call_code.delta", delta=", 2+2)"),
                event("code_interpreter_call_code.done", code='print("π", 2+2)'),
                steps=("interpreting",),
            ),
            *message(1, "It is 4."),
        ),
    ),
    Script(
        row(
            "image-generation",
            text="There.",
            calls=(
                Call(
                    "image_generation_call_0",
                    "image_generation",
                    {"revised_prompt": "A cat", "size": "1024x1024", "output_format": "webp"},
                    executed=True,
                ),
            ),
            results=("image_generation",),
            files=("image/webp",),
        ),
        completed(
            *hosted(
                0,
                "image_generation_call",
                {},
                {"result": PIXEL, "revised_prompt": "A cat", "size": "1024x1024", "output_format": "webp"},
                event(
                    "image_generation_call.partial_image",
                    partial_image_index=0,
                    partial_image_b64=PIXEL,
                ),
                steps=("generating",),
            ),
            *message(1, "There."),
        ),
    ),
    Script(
        row(
            "mcp",
            text="It failed.",
            calls=(
                Call("mcp_1", "ask", {"q": "why?"}, executed=True),
                Call("mcp_2", "ask", {"q": "how?"}, executed=True),
            ),
            results=("ask", "ask"),
        ),
        completed(
            *item(
                0,
                {"id": "mcpl_0", "type": "mcp_list_tools", "server_label": "wiki", "tools": []},
                {
                    "id": "mcpl_0",
                    "type": "mcp_list_tools",
                    "server_label": "wiki",
                    "tools": [{"name": "ask", "input_schema": {"type": "object"}}],
                },
                event("mcp_list_tools.in_progress"),
                event("mcp_list_tools.completed"),
            ),
            *(
                each
                for index, question, outcome in (
                    (1, "why?", {"output": "Because."}),
                    (2, "how?", {"error": {"type": "mcp_protocol_error", "code": 500, "message": "no"}}),
                )
                for each in item(
                    index,
                    {
                        "id": f"mcp_{index}",
                        "type": "mcp_call",
                        "name": "ask",
                        "server_label": "wiki",
                        "arguments": "",
                    },
                    {
                        "id": f"mcp_{index}",
                        "type": "mcp_call",
                        "name": "ask",
                        "server_label": "wiki",
                        "arguments": f'{{"q":"{question}"}}',
                        **outcome,
                    },
                    event("mcp_call.in_progress"),
                    event("mcp_call_arguments.delta", delta=f'{{"q":"{question}"}}'),
                    event("mcp_call_arguments.done", arguments=f'{{"q":"{question}"}}'),
                    event("mcp_call.completed" if "output" in outcome else "mcp_call.failed"),
                )
            ),
            *message(3, "It failed."),
        ),
    ),
    Script(
        row("refusal", refusal="I can't help with that."),
        completed(*message(0, "I can't", " help with that.", refuses=True)),
    ),
    Script(
        row("unicode", text="Grüße, 世界 👩🏽\u200d🚀\u2028 \x85\ud83d. \n\nمرحبا"),
        completed(*message(0, "Grüße, ", "世界 ", "👩🏽\u200d", "🚀\u2028 \x85", "\ud83d", ". \n\nمرحبا")),
    ),
    Script(
        row("content-filter", text="Once", finish="content_filter", native="content_filter"),
        body(
            *BEGUN,
            *message(0, "Once"),
            event(
                "incomplete",
                response=response("incomplete", usage=USAGE, incomplete_details={"reason": "content_filter"}),
            ),
        ),
    ),
    Script(  # servers that leave the names out, and end as chat completions do
        row("without-names", text="Hello.", usage=Usage()),
        b"".join(
            map(
                data,
                numbered([*BEGUN, *message(0, "Hello."), event("completed", response=response("completed"))]),
            )
        )
        + b"data: [DONE]\n\n",
    ),
    Script(
        broken_off("failed", error=Error("Slow down.", "rate_limit_exceeded", 429)),
        body(
            *BEGUN,
            event(
                "failed",
                response=response("failed", error={"code": "rate_limit_exceeded", "message": "Slow down."}),
            ),
        ),
    ),
    Script(
        broken_off("error-in-the-middle", text="So far", error=Error("It broke.", "server_error", 500)),
        body(
            *BEGUN,
            *message(0, "So", " far")[:4],
            {"type": "error", "code": "server_error", "message": "It broke.", "param": None},
        ),
    ),
    Script(broken_off("cut-in-text", text="Hi there"), body(*BEGUN, *message(0, "Hi", " there")[:4])),
    Script(
        broken_off("cut-in-function-call"),
        body(*BEGUN, *function(0, "call_c1", "get_weather", '{"city":')[:2]) + b"event: response.func",
    ),
)
