"""A value of another type than expected somewhere in a chunk: what else it says is heard all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.dialects import DIALECTS, Dialect
from proxy.dialects.part import Text
from proxy.stream.sse import named_data
from tests.transcripts import TRANSCRIPTS
from tests.transcripts.translated import blocks_of, framing_of

ODD: tuple[Any, ...] = (None, 1.5, True, "odd", [], {})

#: So many blocks of a stream are bent.
BLOCKS = 3

Path = tuple[str | int, ...]


def texts(dialect: Dialect, name: str, value: Any) -> list[str]:
    """The text that an event says."""
    event = b"" if name == "message" else b"event: " + name.encode() + b"\n"
    parts = dialect.decoder("salt").decode(event + b"data: " + json.dumps(value).encode())  # type: ignore[union-attr]  # of those that have one
    return [part.content for part in parts if isinstance(part, Text)]


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything in a JSON value, and where it is."""
    yield path, value
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def bent(value: Any, path: Path, odd: Any) -> Any:
    """The same value with an odd one at one place."""
    if not path:
        return odd
    copy = value.copy()
    copy[path[0]] = bent(value[path[0]], path[1:], odd)
    return copy


def speaking(dialect: str) -> Iterator[tuple[str, Any, list[str]]]:
    """Events with text, of each recorded stream the first few."""
    for row in TRANSCRIPTS.values():
        if row.dialect != dialect:
            continue
        blocks = [block for read in blocks_of(framing_of(row), row.body, []) for block in read]
        events = [
            (name, json.loads(data)) for name, data in map(named_data, blocks) if data[:1] in (b"{", "{")
        ]
        said = [(name, value, texts(DIALECTS[dialect], name, value)) for name, value in events]
        yield from [each for each in said if each[2]][:BLOCKS]


@pytest.mark.parametrize("dialect", sorted({row.dialect for row in TRANSCRIPTS.values()}))
def test_one_odd_value_costs_no_text(dialect: str) -> None:
    """Whatever stands in place of anything but the text, its type, and what they stand in."""
    for name, value, said in speaking(dialect):
        around = {
            path[:depth] for path, inner in places(value) if inner in said for depth in range(len(path) + 1)
        }
        told = {(*path[:-1], "type") for path in around if path} | {("type",)}  # what says that it is text
        for path, _ in places(value):
            if path in around | told:
                continue
            for odd in ODD:
                assert texts(DIALECTS[dialect], name, bent(value, path, odd)) == said, (name, path, odd)
