"""The vocabulary of an answer: what a provider's stream says, whatever the dialect that it says it in.

A dialect's ``Decoder`` reads blocks and tells them as parts, in the provider's order; an emit's ``Writer``
(``proxy.emit``) tells parts as the blocks of another protocol. So every dialect can be had in every form,
and neither side knows the other.

``choice`` tells several answers in one stream apart (OpenAI's ``n``, Gemini's candidates). ``block`` is
the provider's own count of its content blocks, where it has one: text of two blocks is two texts. ``index``
counts the tool calls of one choice from 0.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: Why an answer ended, in the words of OpenAI's chat completions. ``other`` is any reason that none of them
#: means; the provider's own word stands beside it.
Reason = Literal["stop", "length", "tool_calls", "content_filter", "other"]


class Part(msgspec.Struct, frozen=True, gc=False):
    """Something that a stream says."""


class Start(Part, frozen=True, gc=False):
    """The answer begins. ``id`` is the provider's name for it; ``created`` is in seconds of the epoch."""

    id: str = ""
    model: str = ""
    created: int | None = None


class Text(Part, frozen=True, gc=False):
    """A piece of the answer."""

    content: str
    block: int = 0
    choice: int = 0


class Refusal(Part, frozen=True, gc=False):
    """A piece of what a model says in place of an answer."""

    content: str
    block: int = 0
    choice: int = 0


class Thinking(Part, frozen=True, gc=False):
    """A piece of the reasoning before an answer.

    ``signature`` proves to the provider, in a later turn, that it wrote the thinking of this block; it may
    come alone, with an empty ``content``. ``redacted`` is reasoning that only the provider can read.
    """

    content: str = ""
    block: int = 0
    choice: int = 0
    signature: str = ""
    redacted: str = ""


class ToolStart(Part, frozen=True, gc=False):
    """A tool call begins. ``executed``: the provider runs the tool itself, and tells its result."""

    index: int
    id: str
    name: str
    choice: int = 0
    executed: bool = False


class ToolDelta(Part, frozen=True, gc=False):
    """A fragment of a call's arguments: of a JSON text, cut anywhere."""

    index: int
    id: str
    arguments: str
    choice: int = 0


class ToolCall(Part, frozen=True, gc=False):
    """A tool call, once, whole: ``arguments`` parsed (empty ones are ``{}``), ``source`` their JSON text."""

    index: int
    id: str
    name: str
    arguments: Any
    source: str
    choice: int = 0
    executed: bool = False


class ToolFault(Part, frozen=True, gc=False):
    """A tool call whose arguments ended early, or are no JSON, or are too long: it can not be made."""

    index: int
    id: str
    name: str
    source: str
    message: str
    choice: int = 0
    executed: bool = False


class ToolResult(Part, frozen=True, gc=False):
    """What a tool returned that the provider has run itself. ``output`` is any JSON value."""

    id: str
    name: str
    output: Any
    failed: bool = False
    choice: int = 0


class Citation(Part, frozen=True, gc=False):
    """Where a piece of the answer comes from.

    ``url`` or ``document`` (a name or number) says what is cited, ``text`` the words that are cited;
    ``start`` and ``end`` are the place in the answer's text, in characters, where the provider tells it.
    ``source`` is the provider's own object, whole.
    """

    url: str = ""
    title: str = ""
    text: str = ""
    document: str = ""
    start: int | None = None
    end: int | None = None
    block: int = 0
    choice: int = 0
    source: Any = None


class File(Part, frozen=True, gc=False):
    """A file that the model made: ``data`` in base64, or its ``url``."""

    media_type: str
    data: str = ""
    url: str = ""
    choice: int = 0


class Usage(Part, frozen=True, gc=False):
    """Tokens so far; what is None was not told (or was told before, and stays).

    ``input_tokens`` are all that were sent, with those read from or written to a cache, ``output_tokens``
    all that were made, reasoning among them (as the GenAI conventions count; some providers count apart).
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_tokens: int | None = None


class Finish(Part, frozen=True, gc=False):
    """One choice is at its end. ``native`` is the provider's own word for the reason."""

    reason: Reason
    native: str
    choice: int = 0


class Error(Part, frozen=True, gc=False):
    """The provider says that it failed; nothing follows.

    ``code`` is the provider's word (``overloaded_error``), ``status`` the HTTP status that would have said
    it, 500 where that is not known.
    """

    message: str
    code: str
    status: int = 500


class Raw(Part, frozen=True, gc=False):
    """An event that no other part can hold: its name, and its data as it came."""

    event: str
    data: str


class End(Part, frozen=True, gc=False):
    """The provider's terminal marker: nothing follows, and nothing is missing."""
