"""The TypeScript types of the unified protocol: they are the schema's, and the manual's code compiles."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import proxy.emit
from tests.support.node import node_22
from tests.web.conftest import NODE, run_node
from tests.web.test_client_types import TARGET, TSC, WEB

EMIT = Path(proxy.emit.__file__).parent
TYPES = (EMIT / "unified.d.ts").read_text("utf-8")
SCHEMA = json.loads((EMIT / "unified.schema.json").read_text("utf-8"))
MANUAL = Path(__file__).parents[2] / "docs" / "unified.md"

_INTERFACE = re.compile(r"^export interface (\w+) \{\n(.*?)^\}", re.M | re.S)
_FIELD = re.compile(r"^  (\w+)(\??): ", re.M)


def declared() -> dict[str, tuple[set[str], set[str]]]:
    """Of each event: its fields, and those that are always there."""
    events = {}
    for _, body in _INTERFACE.findall(TYPES):
        if kind := re.search(r'^  type: "(\w+)";', body, re.M):
            fields = _FIELD.findall(body)
            events[kind[1]] = (
                {name for name, _ in fields},
                {name for name, optional in fields if not optional},
            )
    return events


def test_the_types_are_the_schema_s() -> None:
    """The same events with the same fields, of which the same are always there."""
    schema = {
        kind: (set(event["properties"]), set(event["required"]))
        for kind, event in SCHEMA["$defs"].items()
        if "type" in event.get("properties", {})
    }
    assert declared() == schema


def test_the_manual_lists_the_same_fields() -> None:
    """The table of docs/unified.md has a row for each event; it tells of `choice` and `block` beside it."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", MANUAL.read_text("utf-8"), re.M)
    shown = {kind: set(re.findall(r"`(\w+)`", fields)) for kind, fields in rows}
    events = {kind: fields - {"type", "choice", "block"} for kind, (fields, _) in declared().items()}
    assert shown == events


async def test_the_manual_s_code_compiles(tmp_path: Path) -> None:
    """In strict TypeScript, with both files beside it."""
    (code,) = re.findall(r"^```ts\n(.*?)^```", MANUAL.read_text("utf-8"), re.M | re.S)
    (tmp_path / "unified.d.ts").write_text(TYPES)
    (tmp_path / "app.ts").write_text(code)
    shutil.copy(WEB / "client.d.ts", tmp_path)
    status, said = await run_node(node_22(NODE), TSC, *TARGET, "--strict", "app.ts", cwd=tmp_path)
    assert status == 0, said
