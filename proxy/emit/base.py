"""What an emit is: the form in which a stream leaves, whatever dialect it came in."""

# ruff: noqa: B027 -- a writer's methods are there to be overridden, and say nothing where they are not

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from proxy.dialects import Dialect, Failure
from proxy.dialects.part import (
    Citation,
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
    ToolResult,
    ToolStart,
    Usage,
)
from proxy.dialects.summary import Summary

#: The ``code`` of an error that is one tool call's alone.
INVALID_ARGUMENTS = "invalid_tool_arguments"

#: Most bytes that a stream's citations take in a form. A provider may name a thousand sources of a text, and
#: each is told with the text: its stream ends before some kilobytes have become gigabytes.
MAX_CITED = 32 * 1024 * 1024

#: HTTP statuses of failures that may not come again when the same is asked once more.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class Writer(abc.ABC):
    """Tells one stream's parts as blocks of its form.

    There is a method for each part. One that is not overridden says nothing: the form has no place for
    it. ``put`` adds a block; ``take`` returns those added since. A block is an event's lines, joined by LF,
    with data, without ``id`` and ``retry``, and without an empty line at its end.

    ``close`` and ``fail`` write the end, once; ``summary`` is what the stream has told of itself by then,
    this part's included. ``fail`` is for an end that is not good: the provider's own ``Error``, or a failure
    of which it could not tell. It must leave nothing behind that reads as a whole answer.
    """

    __slots__ = ("_blocks", "_cited", "handlers", "put")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._cited = 0  # bytes of citations
        self.put = self._blocks.append
        #: The method for each part but ``Error`` and ``End``, which are ends.
        self.handlers: Mapping[type[Part], Callable[[Any], None]] = {
            Start: self.start,
            Text: self.text,
            Refusal: self.refusal,
            Thinking: self.thinking,
            ToolStart: self.tool_start,
            ToolDelta: self.tool_delta,
            ToolCall: self.tool_call,
            ToolFault: self.tool_fault,
            ToolResult: self.tool_result,
            Citation: self._cite,
            File: self.file,
            Usage: self.usage,
            Finish: self.finish,
            Raw: self.raw,
        }

    def take(self) -> list[bytes]:
        """Return the blocks that were put since the last time."""
        blocks = self._blocks.copy()
        self._blocks.clear()
        return blocks

    @abc.abstractmethod
    def close(self, summary: Summary, now: float) -> None:
        """Write the good end."""

    @abc.abstractmethod
    def fail(self, error: Error, summary: Summary, now: float) -> None:
        """Write the end that tells of an error."""

    def start(self, part: Start) -> None:
        """Tell that the answer begins. Not every stream says so; none does it twice."""

    def text(self, part: Text) -> None:
        """Tell a piece of the answer."""

    def refusal(self, part: Refusal) -> None:
        """Tell a piece of a refusal."""

    def thinking(self, part: Thinking) -> None:
        """Tell a piece of the reasoning."""

    def tool_start(self, part: ToolStart) -> None:
        """Tell that a tool call begins."""

    def tool_delta(self, part: ToolDelta) -> None:
        """Tell a fragment of a call's arguments."""

    def tool_call(self, part: ToolCall) -> None:
        """Tell a whole call."""

    def tool_fault(self, part: ToolFault) -> None:
        """Tell that a call did not become whole."""

    def tool_result(self, part: ToolResult) -> None:
        """Tell what a provider's own tool returned."""

    def citation(self, part: Citation) -> None:
        """Tell where a piece of the answer comes from."""

    def file(self, part: File) -> None:
        """Tell a file."""

    def usage(self, part: Usage) -> None:
        """Tell tokens so far. They are in the ``summary``, too."""

    def finish(self, part: Finish) -> None:
        """Tell that a choice is at its end. It is in the ``summary``, too."""

    def raw(self, part: Raw) -> None:
        """Tell an event that no other part can hold."""

    def _cite(self, part: Citation) -> None:
        before = len(self._blocks)
        self.citation(part)
        self._cited += sum(map(len, self._blocks[before:]))
        if self._cited > MAX_CITED:
            raise TooMuch(f"the citations are over {MAX_CITED} bytes")


class TooMuch(Exception):
    """A stream tells more than can be told. The text is for its reader."""


class Emit(abc.ABC):
    """One form in which streams leave. Stateless: one instance serves all streams."""

    __slots__ = ()

    #: As a route's ``emit`` setting spells it.
    name: ClassVar[str]

    #: Header fields that clients of this form want to see on an answer.
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    #: Whether it has a place for events that no other part can hold.
    tells_raw: ClassVar[bool] = True

    #: As a dialect's: what the form's clients survive.
    ids_safe: ClassVar[bool] = True
    heartbeat: ClassVar[bytes] = b": ping\n"

    def speaks(self, dialect: Dialect) -> bool:
        """Whether blocks of this dialect are of this form already, and leave as they came."""
        return False

    @abc.abstractmethod
    def writer(self, salt: str, *, raw: bool) -> Writer:
        """Return what tells one stream in this form.

        ``salt`` goes into the names that the writer has to make up: it is another one for each stream.
        ``raw``: events that have no other place are wanted too.
        """

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """Return the JSON body of an error answer as the form's clients expect it.

        None means: answer with a problem document (RFC 9457).
        """
        return None


def as_error(failure: Failure) -> Error:
    """Return a failure of ours, or of the way, as if the provider had told it."""
    return Error(failure.message, failure.reason, failure.status)


def may_pass(error: Error) -> bool:
    """Whether asking again may help."""
    return error.status in PASSING
