"""Arguments that Gemini streams leaf by leaf, each with a JSONPath that says where it belongs (RFC 9535)."""

from __future__ import annotations

import re
from typing import Any

from proxy.dialects.tool_calls import MAX_ARGUMENTS

#: Steps of a path that are followed. What is nested deeper is no arguments.
MAX_STEPS = 32

#: What a step of a path may take of the room, in bytes: a dict.
STEP_BYTES = 256

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^'\\]*)'\]|\[\"([^\"\\]*)\"\]")

Step = str | int
Node = dict[Step, Any]


class StreamedArguments:
    """The leaves of one call's arguments, as far as they have come.

    A leaf is a list of pieces: a text comes in several. Inner nodes are dicts, of lists too, by index.
    """

    __slots__ = ("_room", "_root")

    def __init__(self) -> None:
        self._root: Node = {}
        self._room = MAX_ARGUMENTS

    def add(self, path: str, piece: Any) -> None:
        """Put a piece where its path says. A path that leads nowhere is left alone."""
        steps = _steps(path)
        self._room -= STEP_BYTES * len(steps) + (len(piece) if isinstance(piece, str) else 0)
        if not steps or self._room < 0:
            return
        node = self._root
        for step in steps[:-1]:
            inner = node.setdefault(step, {})
            if not isinstance(inner, dict):
                return
            node = inner
        leaf = node.setdefault(steps[-1], [])
        if isinstance(leaf, list):
            leaf.append(piece)

    def value(self) -> Any:
        """Return the arguments."""
        return _value(self._root) if self._root else {}


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
