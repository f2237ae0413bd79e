"""Tool calls, put together from the fragments in which they come.

Providers send a call's arguments as pieces of a JSON text, several calls at once, with text between them.
A client wants each call once, whole and parsed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from typing import Any

import msgspec

from proxy.dialects.json_value import source_of
from proxy.dialects.part import Part, ToolCall, ToolDelta, ToolFault, ToolStart

#: Most characters of ids, names and arguments that the calls of one stream may have together, and most calls.
#: A provider that sends more is broken or hostile; what it sends passes on, but it is not put together.
MAX_ARGUMENTS = 16 * 1024 * 1024
MAX_CALLS = 4096

#: Deepest nesting of a call's arguments. A form that tells them stands deeper in the stack than what reads
#: them, so whatever can just be read could not be written.
MAX_DEPTH = 256


class _Call:
    """One call, as far as it has come."""

    __slots__ = ("choice", "executed", "fragments", "id", "index", "name")

    def __init__(self, start: ToolStart) -> None:
        self.index, self.id, self.name = start.index, start.id, start.name
        self.choice, self.executed = start.choice, start.executed
        self.fragments: list[str] = []

    def ended(self, refused: str) -> ToolCall | ToolFault:
        """Return the call, parsed, or why there is none: ``refused`` where it was not put together."""
        source = mended("".join(self.fragments))
        try:
            arguments = parsed(source)
        except ValueError as error:
            refused = refused or f"the arguments of {self.name or 'a tool call'} are no whole JSON: {error}"
        if refused:
            return ToolFault(
                self.index, self.id, self.name, source, refused, choice=self.choice, executed=self.executed
            )
        return ToolCall(
            self.index, self.id, self.name, arguments, source, choice=self.choice, executed=self.executed
        )


class ToolCalls:
    """The calls of one stream that have begun and not ended, by whatever ``key`` the provider names them.

    ``salt`` goes into the ids of calls that the provider gave none (Gemini, Ollama): they have to be
    unique in a conversation of many streams.
    """

    __slots__ = ("_counts", "_made", "_open", "_room", "_salt")

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._open: dict[Hashable, _Call] = {}
        self._counts: dict[int, int] = {}  # by choice
        self._made = 0
        self._room = MAX_ARGUMENTS

    def __contains__(self, key: Hashable) -> bool:
        return key in self._open

    def id_of(self, key: Hashable) -> str:
        """Return the id of an open call; nothing where there is none."""
        return self._open[key].id if key in self._open else ""

    def start(
        self, key: Hashable, name: str, call_id: str = "", *, choice: int = 0, executed: bool = False
    ) -> list[Part]:
        """Begin a call; one too many is a fault at once. One that is still open under this key ends."""
        before = self.end(key)
        index = self._counts.get(choice, 0)
        if self._made < MAX_CALLS:
            self._counts[choice] = index + 1
        self._made += 1
        self._room -= len(call_id) + len(name)
        start = ToolStart(index, call_id or f"call_{self._salt}_{self._made}", name, choice, executed)
        call = _Call(start)
        if self._made > MAX_CALLS or self._room < 0:
            return [*before, start, call.ended(self._too_much() or f"more than {MAX_CALLS} tool calls came")]
        self._open[key] = call
        return [*before, start]

    def add(self, key: Hashable, arguments: str) -> list[Part]:
        """Take a fragment of a call's arguments. One of a call that has not begun is dropped."""
        call = self._open.get(key)
        if call is None or not arguments:
            return []
        self._room -= len(arguments)
        if self._room >= 0:
            call.fragments.append(arguments)
        return [ToolDelta(call.index, call.id, arguments, call.choice)]

    def supply(self, key: Hashable, arguments: str) -> list[Part]:
        """Take a call's whole arguments, where no fragment of them has come."""
        call = self._open.get(key)
        return [] if call is None or call.fragments else self.add(key, arguments)

    def end(self, key: Hashable) -> list[Part]:
        """End one call, if it is open."""
        call = self._open.pop(key, None)
        if call is None:
            return []
        return [call.ended(self._too_much())]

    def end_all(self, choice: int | None = None) -> list[Part]:
        """End all calls, or those of one choice, in the order in which they began."""
        keys = [key for key, call in self._open.items() if choice is None or call.choice == choice]
        return [part for key in keys for part in self.end(key)]

    def whole(
        self, name: str, arguments: Any, call_id: str = "", *, choice: int = 0, executed: bool = False
    ) -> list[Part]:
        """Return all parts of a call that came in one piece, its arguments parsed already; None is none."""
        key = object()
        source = source_of({} if arguments is None else arguments)
        begun = self.start(key, name, call_id, choice=choice, executed=executed)
        return [*begun, *self.add(key, source), *self.end(key)]

    def _too_much(self) -> str:
        return "" if self._room >= 0 else f"the arguments are over {MAX_ARGUMENTS} characters"


def mended(text: str) -> str:
    """Return a text whose halves of a character have come together: fragments end in the middle of an emoji.

    A half that has no other half stays what it is, a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text


def parsed(source: str) -> Any:
    """Return what a call's arguments mean: ``{}`` where there are none. Raises ValueError."""
    if not source.strip():
        return {}
    try:
        value = _read(source)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if source.count("{") + source.count("[") > MAX_DEPTH and _is_deep(value):
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return value


def _read(source: str) -> Any:
    try:
        return msgspec.json.decode(source)
    except (msgspec.DecodeError, UnicodeEncodeError):  # lone surrogates, which msgspec refuses
        return json.loads(source, parse_constant=_refused, parse_float=_finite)


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for values in inner for each in values if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _refused(constant: str) -> Any:
    """Python reads ``NaN`` and ``Infinity``, which are no JSON: a client could not read the call at all."""
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:40]} is beyond what a number can hold")
    return value
