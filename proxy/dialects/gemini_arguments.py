"""Arguments that Gemini streams leaf by leaf, each with a JSONPath that says where it belongs (RFC 9535)."""

from __future__ import annotations

import re
from typing import Any

from proxy.dialects.json_value import source_of
from proxy.dialects.tool_calls import MAX_ARGUMENTS

#: Steps of a path that are followed. What is nested deeper is no arguments.
MAX_STEPS = 32

#: What a place in the arguments takes of the room, in bytes, and a piece beside its text.
PLACE_BYTES = 256
PIECE_BYTES = 64

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^'\\]*)'\]|\[\"([^\"\\]*)\"\]")

Step = str | int
Node = dict[Step, Any]


class StreamedArguments:
    """The leaves of one call's arguments, as far as they have come.

    A leaf is a list of pieces: a text comes in several. Inner nodes are dicts, of lists too, by index. A
    piece that has no place, or no room, is lost, and the call can not be made without it.
    """

    __slots__ = ("_lost", "_room", "_root")

    def __init__(self) -> None:
        self._root: Node = {}
        self._room = MAX_ARGUMENTS
        self._lost = False

    def add(self, path: str, piece: Any) -> None:
        """Put a piece where its path says."""
        leaf = self._leaf(_steps(path))
        self._room -= PIECE_BYTES + (len(piece) if isinstance(piece, str) else 0)
        if leaf is None or self._room < 0:
            self._lost = True
        else:
            leaf.append(piece)

    def source(self, *, whole: bool = True) -> str:
        """Return the arguments as a JSON text: where they are not ``whole``, without the last brace."""
        text = source_of(_value(self._root) if self._root else {})
        return text if whole and not self._lost else text[:-1]

    def _leaf(self, steps: list[Step]) -> list[Any] | None:
        """Return the pieces of the leaf to which a path leads; None where it leads nowhere."""
        if not steps or self._lost:
            return None
        node = self._root
        for step in steps[:-1]:
            inner = self._at(node, step, {})
            if not isinstance(inner, dict):
                return None
            node = inner
        leaf = self._at(node, steps[-1], [])
        return leaf if isinstance(leaf, list) else None

    def _at(self, node: Node, step: Step, new: Any) -> Any:
        if step not in node:
            self._room -= PLACE_BYTES
        return node.setdefault(step, new)


def _steps(path: str) -> list[Step]:
    """Return a path's steps; nothing for one that is none."""
    if not path.startswith("$"):
        return []
    found = list(_STEP.finditer(path, 1))
    whole = sum(len(match[0]) for match in found) == len(path) - 1
    steps = [
        int(match[2]) if match[2] is not None else next(filter(None, match.groups()), "") for match in found
    ]
    return steps if whole and len(steps) <= MAX_STEPS else []


def _value(node: Any) -> Any:
    if isinstance(node, list):
        return "".join(node) if all(isinstance(piece, str) for piece in node) else node[-1]
    if all(isinstance(step, int) for step in node):
        return [_value(node[step]) for step in sorted(node)]
    return {str(step): _value(inner) for step, inner in node.items()}
