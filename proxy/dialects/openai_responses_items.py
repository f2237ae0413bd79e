"""The items of OpenAI's responses that are tool calls, and the results of some."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.dialects.json_value import source_of, word
from proxy.dialects.part import File, Part, ToolResult

#: Items that a client has to answer.
CLIENT_CALLS = frozenset(
    {"apply_patch_call", "computer_call", "custom_tool_call", "function_call", "local_shell_call"}
)

#: Calls whose items hold the arguments as members: which.
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "apply_patch_call": ("operation",),
    "code_interpreter_call": ("container_id", "code"),
    "computer_call": ("action", "actions", "pending_safety_checks"),
    "file_search_call": ("queries",),
    "image_generation_call": ("revised_prompt", "action", "size", "quality", "background", "output_format"),
    "local_shell_call": ("action",),
    "shell_call": ("action", "environment"),
    "web_search_call": ("action",),
}

#: Calls of tools that OpenAI runs itself, whose items hold the results, too: which members those are.
RESULTS: Mapping[str, tuple[str, ...]] = {
    "code_interpreter_call": ("status", "outputs"),
    "file_search_call": ("status", "results"),
    "image_generation_call": ("status", "error"),
    "web_search_call": ("status",),
}


class Call(msgspec.Struct, frozen=True):
    """A call, as its item tells it. ``source``: its arguments as a JSON text, as far as the item has them.

    Its fragments make a JSON text between ``opening`` and ``closing``; ``quoted``: they are the inside of a
    string there.
    """

    kind: str
    id: str
    name: str
    source: str
    executed: bool = False
    opening: str = ""
    closing: str = ""
    quoted: bool = False


def call_of(item: dict[str, Any]) -> Call | None:
    """Return the call that an item is."""
    kind = word(item.get("type"))
    own, name = word(item.get("id")), word(item.get("name"))
    call_id = word(item.get("call_id")) or own
    if kind == "function_call":
        return Call(kind, call_id, name, word(item.get("arguments")))
    if kind == "custom_tool_call":  # its input is any text
        source = source_of(word(item.get("input")))
        return Call(kind, call_id, name, source, opening='"', closing='"', quoted=True)
    if kind == "mcp_call":
        return Call(kind, own, name, word(item.get("arguments")), executed=True)
    if kind == "code_interpreter_call":
        return _code_interpreter(item, own)
    if kind == "tool_search_call":
        executed = item.get("execution") != "client"
        return Call(kind, call_id, "tool_search", source_of(item.get("arguments") or {}), executed=executed)
    if kind in MEMBERS:
        executed = kind in RESULTS or _runs_in_container(item)
        source = source_of(_members(item, MEMBERS[kind]))
        return Call(kind, call_id, kind.removesuffix("_call"), source, executed=executed)
    return None


def results_of(item: dict[str, Any], call: Call) -> list[Part]:
    """Return what a call's own item says of its result, and the image that it may have made."""
    if call.kind == "mcp_call":
        error = item.get("error")
        output = item.get("output") if error is None else error
        return [ToolResult(call.id, call.name, output, error is not None)]
    if call.kind not in RESULTS:
        return []
    failed = item.get("status") == "failed"
    results: list[Part] = [ToolResult(call.id, call.name, _members(item, RESULTS[call.kind]), failed)]
    image = word(item.get("result")) if call.kind == "image_generation_call" else ""
    return (
        [*results, File(f"image/{word(item.get('output_format')) or 'png'}", data=image)]
        if image
        else results
    )


def output_of(item: dict[str, Any]) -> ToolResult | None:
    """Return the result that an item is, of a call that was an item of its own."""
    kind = word(item.get("type"))
    if not kind.endswith("_output"):
        return None
    name = word(item.get("name")) or kind.removesuffix("_output").removesuffix("_call")
    output = item.get("output", item.get("result", item.get("tools")))
    call_id = word(item.get("call_id")) or word(item.get("id"))
    return ToolResult(call_id, name, output, item.get("status") == "failed")


def inside(text: str) -> str:
    """Return a text as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _code_interpreter(item: dict[str, Any], own: str) -> Call:
    container, code = item.get("container_id"), item.get("code")
    opening = '{"container_id":' + source_of(container) + ',"code":"'
    source = source_of({"container_id": container, "code": code or ""})
    return Call(
        word(item.get("type")), own, "code_interpreter", source,
        executed=True, opening=opening, closing='"}', quoted=True,
    )  # fmt: skip


def _runs_in_container(item: dict[str, Any]) -> bool:
    environment = item.get("environment")
    return isinstance(environment, dict) and environment.get("type") == "container_reference"


def _members(item: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: item[name] for name in names if item.get(name) is not None}
