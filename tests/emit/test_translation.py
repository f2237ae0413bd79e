"""From a decoder's parts to a writer's blocks: one end, told once, and nothing behind it."""

from __future__ import annotations

import pytest

from proxy.dialects import Failure
from proxy.dialects.base import Decoder
from proxy.dialects.part import Citation, End, Error, Finish, Part, Raw, Text, ToolCall, ToolFault, Usage
from proxy.dialects.summary import Summary
from proxy.emit import base
from proxy.emit.base import TooMuch, Writer
from proxy.emit.translation import TAIL_BYTES, Translation


class Plain(Decoder):
    """Each block's data is a text, but for the words that are ends."""

    def decode(self, block: bytes) -> list[Part]:
        """Say what it says."""
        said = block.removeprefix(b"data: ").decode()
        return [{"END": End(), "ERROR": Error("it broke", "broken")}.get(said) or Text(said)]

    def finish(self) -> list[Part]:
        """Say one thing more."""
        return [Text("(finished)")]


class Words(Writer):
    """Writes words."""

    def text(self, part: Text) -> None:
        """Put it as it is."""
        self.put(part.content.encode())

    def close(self, summary: Summary, now: float) -> None:
        """Put the time."""
        self.put(b"closed at %g" % now)

    def fail(self, error: Error, summary: Summary, now: float) -> None:
        """Put what went wrong."""
        self.put(b"failed: " + error.message.encode())


CUT = Failure("truncated", "it was cut")


def translation(keep: int = 16) -> Translation:
    """A stream that began at 0."""
    return Translation(Plain(), Words(), 0.0, keep=keep)


def test_a_marker_is_the_end() -> None:
    """It is told when it comes; the end of the body adds nothing, nor does what stands behind the marker."""
    form = translation()
    assert form.feed([b"data: a", b"data: END", b"data: b"], 1.0) == [b"a", b"closed at 1"]
    assert form.close(2.0) == []
    assert form.fail(CUT, 3.0) == []
    assert not form.told_error


def test_a_good_end_without_a_marker() -> None:
    """What the decoder still has is told first."""
    form = translation()
    assert form.feed([b"data: a"], 1.0) == [b"a"]
    assert form.close(2.0) == [b"(finished)", b"closed at 2"]


def test_a_failure_is_told() -> None:
    """What the decoder still has is not whole, and is not told."""
    form = translation()
    form.feed([b"data: a"], 1.0)
    assert form.fail(CUT, 2.0) == [b"failed: it was cut"]
    assert form.told_error
    assert form.close(3.0) == []


def test_an_error_of_the_provider_s_is_the_end() -> None:
    """Some servers send their marker after it: that makes nothing whole."""
    form = translation()
    assert form.feed([b"data: ERROR", b"data: END"], 1.0) == [b"failed: it broke"]
    assert form.close(2.0) == []
    assert form.told_error
    assert form.summary.error == Error("it broke", "broken")


def test_blocks_without_data_are_none() -> None:
    """Comments and reconnection times say nothing, and push nothing out of the tail."""
    form = translation(keep=1)
    assert form.feed([b"data: a", b": ping", b"retry: 5"], 1.0) == [b"a"]
    assert list(form.tail.blocks) == [b"data: a"]


def test_the_tail_is_bounded() -> None:
    """In blocks, and in bytes: images come in blocks of megabytes. The newest one is always there."""
    form = translation(keep=2)
    form.feed([b"data: a", b"data: b", b"data: c"], 1.0)
    assert list(form.tail.blocks) == [b"data: b", b"data: c"]
    image = b"data: " + b"x" * TAIL_BYTES
    form.feed([image], 1.0)
    assert list(form.tail.blocks) == [image]
    form.feed([b"data: d"], 1.0)
    assert list(form.tail.blocks) == [b"data: d"]


class Parts(Decoder):
    """Says what it is given."""

    def __init__(self, *parts: Part) -> None:
        self.parts = list(parts)

    def decode(self, block: bytes) -> list[Part]:
        """Say the next thing."""
        return [self.parts.pop(0)] if self.parts else []


class Calls(Words):
    """Writes what it hears of calls, too."""

    def tool_call(self, part: ToolCall) -> None:
        """Put its name."""
        self.put(b"call " + part.name.encode())

    def tool_fault(self, part: ToolFault) -> None:
        """Put what is wrong with it."""
        self.put(b"fault: " + part.message.encode())

    def finish(self, part: Finish) -> None:
        """Put the reason."""
        self.put(part.reason.encode())


def heard(*parts: Part, failure: Failure | None = None) -> list[bytes]:
    """What a writer hears of parts that come one by one, and of the end."""
    form = Translation(Parts(*parts), Calls(), 0.0, keep=1)
    told = [block for _ in parts for block in form.feed([b"data: x"], 1.0)]
    return told + (form.close(1.0) if failure is None else form.fail(failure, 1.0))


EMPTY = ToolCall(0, "1", "now", {}, "")
FAULT = b"fault: the arguments of now have not come"


def test_a_call_without_arguments_is_whole_when_the_model_goes_on() -> None:
    """Whatever follows it, or a good end, says so; figures and raw events say nothing."""
    assert heard(EMPTY, Raw("x", ""), Usage(1), Text("a")) == [b"call now", b"a", b"closed at 1"]
    assert heard(EMPTY, EMPTY, Finish("tool_calls", "x")) == [
        b"call now", b"call now", b"tool_calls", b"closed at 1",
    ]  # fmt: skip
    assert heard(EMPTY) == [b"call now", b"closed at 1"]


def test_a_call_without_arguments_at_the_token_limit_is_cut() -> None:
    """Nobody knows what the model would have said: the call cannot be made."""
    assert heard(EMPTY, Usage(1), Finish("length", "max_tokens")) == [FAULT, b"length", b"closed at 1"]
    assert heard(EMPTY, EMPTY, Finish("length", "x")) == [b"call now", FAULT, b"length", b"closed at 1"]
    assert heard(EMPTY, failure=CUT) == [FAULT, b"failed: it was cut"]
    assert heard(EMPTY, Error("it broke", "broken")) == [FAULT, b"failed: it broke"]


def test_a_call_without_arguments_is_of_one_choice() -> None:
    """That another choice was cut says nothing of it."""
    cut, done = Finish("length", "x", 1), Finish("tool_calls", "x")
    assert heard(EMPTY, cut, done) == [b"length", b"call now", b"tool_calls", b"closed at 1"]


def test_other_calls_do_not_wait() -> None:
    """Those that have arguments, and those that the provider has run itself."""
    whole, executed = ToolCall(0, "1", "f", {}, "{}"), ToolCall(0, "1", "g", {}, "", executed=True)
    assert heard(whole, executed, Finish("length", "x"))[:2] == [b"call f", b"call g"]


class Citing(Words):
    """Tells of a citation at length."""

    def citation(self, part: Citation) -> None:
        """Put its text."""
        self.put(part.text.encode())


def test_citations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is told with each of a thousand sources ends the stream, and fills no memory."""
    monkeypatch.setattr(base, "MAX_CITED", 10)
    form = Translation(Parts(*[Citation(text="cited")] * 5), Citing(), 0.0, keep=1)
    told = [block for _ in range(5) for block in form.feed([b"data: x"], 1.0)]
    assert told == [b"cited", b"cited", b"cited", b"failed: the citations are over 10 bytes"]
    assert form.told_error


class Deep(Words):
    """Cannot write what is nested too deep."""

    def text(self, part: Text) -> None:
        """Fail as Python's own writer of JSON does."""
        raise RecursionError


def test_what_cannot_be_written_ends_the_stream() -> None:
    """A value that is nested too deep for a form is told of as an error, not raised."""
    form = Translation(Plain(), Deep(), 0.0, keep=16)
    assert form.feed([b"data: a", b"data: b"], 1.0) == [
        b"failed: a value in the stream is nested too deep to be told"
    ]
    assert form.told_error


class Refusing(Words):
    """Has no room for a text."""

    def text(self, part: Text) -> None:
        """Refuse it."""
        raise TooMuch("more than fits")


def test_what_takes_too_much_ends_the_stream_and_is_known_by_its_code() -> None:
    """The provider has told no error: the record must not read as if it had."""
    form = Translation(Plain(), Refusing(), 0.0, keep=1)
    assert form.feed([b"data: a", b"data: END"], 1.0) == [b"failed: more than fits"]
    assert form.told_error
    assert form.summary.error == Error("more than fits", "too_much", 502)
