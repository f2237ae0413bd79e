"""One stream on its way from its dialect to its form."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from proxy.dialects import Failure
from proxy.dialects.base import Decoder
from proxy.dialects.part import End, Error, Finish, Part, Raw, ToolCall, ToolFault, Usage
from proxy.dialects.summary import Summary
from proxy.emit.base import TooMuch, Writer, as_error
from proxy.stream.sse import has_data

#: Bytes that a tail may hold besides its newest block: images come in blocks of megabytes.
TAIL_BYTES = 256 * 1024

#: Said of a provider whose values are nested some hundred deep: it is broken, or hostile.
TOO_DEEP = Error("a value in the stream is nested too deep to be told", "too_deep", 502)


class Tail:
    """The last blocks with data that came, oldest first: at most ``keep``, and not too many bytes."""

    __slots__ = ("_bytes", "_keep", "blocks")

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._bytes = 0
        self.blocks: deque[bytes] = deque()

    def append(self, block: bytes) -> None:
        """Add the newest block; the oldest make room."""
        blocks = self.blocks
        blocks.append(block)
        self._bytes += len(block)
        while len(blocks) > self._keep or (self._bytes > TAIL_BYTES and len(blocks) > 1):
            self._bytes -= len(blocks.popleft())


class Translation:
    """Reads blocks with a decoder, and tells them with a writer.

    ``tail`` are the last blocks that came, by which a dialect tells how its stream ended. ``summary`` is
    what the stream has told of itself, ``told_error`` whether it has told its reader of an error. ``began``
    is the time of the request. Times are in seconds.
    """

    __slots__ = ("_decoder", "_doubtful", "_ended", "_writer", "summary", "tail", "told_error")

    def __init__(self, decoder: Decoder, writer: Writer, began: float, *, keep: int) -> None:
        self._decoder = decoder
        self._writer = writer
        self._doubtful: ToolCall | None = None  # a call without arguments, which may be one that was cut
        self._ended = False
        self.told_error = False
        self.summary = Summary(began)
        self.tail = Tail(keep)

    def feed(self, blocks: Sequence[bytes], now: float) -> list[bytes]:
        """Return what the next blocks are in the other form."""
        for block in blocks:
            if has_data(block):
                self.tail.append(block)
                self._tell_or_fail(self._decoder.decode(block), now)
        return self._writer.take()

    def close(self, now: float) -> list[bytes]:
        """Return what a good end adds: nothing where it has been told."""
        if not self._ended:
            self._tell_or_fail(self._decoder.finish(), now)
            self._close(now)
        return self._writer.take()

    def fail(self, failure: Failure, now: float) -> list[bytes]:
        """Return what tells of a failure: nothing where an end has been told."""
        self._fail(as_error(failure), now)
        return self._writer.take()

    def let_go(self) -> None:
        """Keep nothing, now that the end has been told: a finished stream may be held for long."""
        self.summary = Summary(self.summary.began)  # whose words are a peer's, and as long as it likes
        self.tail.blocks.clear()
        self._writer.handlers = {}  # which know the writer
        del self._decoder

    def _tell_or_fail(self, parts: list[Part], now: float) -> None:
        """Tell parts; one that is nested too deep to be written, or takes too much, ends the stream."""
        try:
            self._tell(parts, now)
        except RecursionError:
            self._refuse(TOO_DEEP, now)
        except TooMuch as error:
            self._refuse(Error(str(error), "too_much", 502), now)

    def _refuse(self, error: Error, now: float) -> None:
        """Tell of what the provider has done and not told."""
        self.summary.note(error, now)
        self._fail(error, now)

    def _tell(self, parts: list[Part], now: float) -> None:
        handlers, note = self._writer.handlers, self.summary.note
        for part in parts:
            if self._ended:
                return
            note(part, now)
            if self._doubtful is not None:
                self._decide(part)
            if isinstance(part, ToolCall) and _may_be_cut(part):
                self._doubtful = part
                continue
            handle = handlers.get(type(part))
            if handle is not None:
                handle(part)
            elif isinstance(part, Error):
                self._fail(part, now)
            elif isinstance(part, End):
                self._close(now)

    def _decide(self, part: Part | None) -> None:
        """Tell the doubtful call, now that ``part`` follows it, or nothing does.

        A token limit cuts only the last thing that a model says.
        """
        call = self._doubtful
        if call is None or isinstance(part, Usage | Raw):
            return
        if isinstance(part, Finish) and part.choice != call.choice:
            return
        self._doubtful = None
        if isinstance(part, Error) or (isinstance(part, Finish) and part.reason == "length"):
            said = f"the arguments of {call.name or 'a tool call'} have not come"
            fault = ToolFault(call.index, call.id, call.name, call.source, said, choice=call.choice)
            self._writer.tool_fault(fault)
        else:
            self._writer.tool_call(call)

    def _close(self, now: float) -> None:
        if not self._ended:
            self._decide(None)
            self._ended = True
            self._writer.close(self.summary, now)

    def _fail(self, error: Error, now: float) -> None:
        if not self._ended:
            self._decide(error)
            self._ended = self.told_error = True
            self._writer.fail(error, self.summary, now)


def _may_be_cut(call: ToolCall) -> bool:
    """Whether a call that looks whole may be one of which only the name has come."""
    return not (call.source.strip() or call.executed)
