"""Chunks of a chat completion, for any provider: what the openai SDKs read, and all that is made like them.

What OpenAI's own API has no name for goes where the compatible servers put it and their clients look for it.
Reasoning is in ``delta.reasoning_content`` (DeepSeek's and vLLM's; the AI SDK's openai-compatible provider
reads it). Its signatures are in ``delta.reasoning_details``, images in ``delta.images``, and the provider's
own word for the end in ``native_finish_reason`` (these three are OpenRouter's).

Lists in a delta number their entries: openai-python's accumulator joins them by ``index``, and raises where
there is none. A finish reason is told at the good end alone, so that what breaks off never has one.
"""

from __future__ import annotations

from typing import Any

from proxy.dialects import Dialect, payload
from proxy.dialects.openai import OpenAI as OpenAIDialect
from proxy.dialects.openai import error_object
from proxy.dialects.openai_decoder import DONE
from proxy.dialects.part import (
    Citation,
    Error,
    File,
    Finish,
    Refusal,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    ToolFault,
    ToolStart,
    Usage,
)
from proxy.dialects.summary import MOST_CHOICES, Summary
from proxy.dialects.tool_calls import MAX_CALLS
from proxy.emit.base import Emit, Writer

#: Characters of citations that are kept back for the end of their choice. What is more leaves earlier.
MAX_CITATIONS = 64 * 1024

#: A key of the calls that have begun and not ended: choice and index.
_Key = tuple[int, int]


class _Choice:
    """What has been told of one choice: how much text, how many of each thing that is numbered."""

    __slots__ = (
        "_began",
        "_block",
        "_weight",
        "calls",
        "cited",
        "citing",
        "details",
        "faulty",
        "images",
        "said",
    )

    def __init__(self) -> None:
        self.said = 0  # characters of text
        self.calls = self.cited = self.details = self.images = 0
        self.faulty = False  # a call of it did not become whole
        self.citing: list[dict[str, Any]] = []  # the citations that were not told yet
        self._weight = 0  # of those, in characters
        self._block = self._began = 0

    def enter(self, block: int) -> None:
        """Go on with this block of text: citations of the one before end where it ends."""
        if block != self._block:
            self._end_citations()
            self._block, self._began = block, self.said

    def cite(self, part: Citation) -> bool:
        """Keep a citation. Returns whether as many are kept as may be.

        Places are those in a block of text; one that is not told covers the block.
        """
        self.enter(part.block)
        self.citing.append(
            {
                "index": self.cited,
                "type": "url_citation",
                "url_citation": {
                    "start_index": self._began + (part.start or 0),
                    "end_index": None if part.end is None else self._began + part.end,
                    "url": part.url,
                    "title": part.title,
                    **({"content": part.text} if part.text else {}),
                },
            }
        )
        self.cited += 1
        self._weight += len(part.url) + len(part.title) + len(part.text)
        return self._weight > MAX_CITATIONS

    def cited_now(self) -> list[dict[str, Any]]:
        """Return the citations that were kept, and keep them no longer."""
        self._end_citations()
        citing, self.citing, self._weight = self.citing, [], 0
        return citing

    def finish_reason(self, finish: Finish | None) -> str:
        """Return OpenAI's word for an end.

        A choice with a call that nobody can make was cut short (``length``), whatever its provider says of
        it: never ``tool_calls``, at which a client makes them. So was one that ended for a reason which
        OpenAI has no word for. ``tool_calls`` is said if, and only if, there are some.
        """
        reason = finish.reason if finish else "stop"
        if reason == "other" or (self.faulty and reason != "content_filter"):
            return "length"
        if reason in ("stop", "tool_calls"):
            return "tool_calls" if self.calls else "stop"
        return reason

    def _end_citations(self) -> None:
        for annotation in self.citing:
            cited = annotation["url_citation"]
            if cited["end_index"] is None:
                cited["end_index"] = self.said


class OpenAIWriter(Writer):
    """Tells one stream as chunks."""

    __slots__ = ("_calls", "_choices", "_head", "_rest", "_salt")

    def __init__(self, salt: str) -> None:
        super().__init__()
        self._salt = salt
        self._head = b""  # of every chunk, up to its choice's index
        self._choices: dict[int, _Choice] = {}
        self._rest = _Choice()  # of the choices beyond ``MOST_CHOICES``, which share one count
        self._calls: dict[_Key, int] = {}  # the open calls that are the client's to make; its index of each

    def start(self, part: Start) -> None:
        """The first chunk, with the role.

        ``created`` is 0 where the provider does not tell it: nothing here knows a clock, and a replay would
        tell another time.
        """
        if self._head:
            return
        self._head = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[{"index":'
            % (
                payload.text(part.id or f"chatcmpl-{self._salt}"),
                part.created or 0,
                payload.text(part.model),
            )
        )
        self._choice(0)

    def text(self, part: Text) -> None:
        """``delta.content``: the hot path."""
        choice = self._choice(part.choice)
        choice.enter(part.block)
        choice.said += len(part.content)
        self._put(part.choice, b'{"content":%b}' % payload.text(part.content))

    def refusal(self, part: Refusal) -> None:
        """``delta.refusal``."""
        self._choice(part.choice)
        self._put(part.choice, b'{"refusal":%b}' % payload.text(part.content))

    def thinking(self, part: Thinking) -> None:
        """``delta.reasoning_content``; what the provider wants back, in ``delta.reasoning_details``."""
        choice = self._choice(part.choice)
        if part.content:
            self._put(part.choice, b'{"reasoning_content":%b}' % payload.text(part.content))
        for detail in _details(part):
            self._say(part.choice, reasoning_details=[{"index": choice.details, **detail}])
            choice.details += 1

    def tool_start(self, part: ToolStart) -> None:
        """The first fragment of a call: id and name. One that the provider runs itself is not told.

        The index is counted anew, since a list with a gap is more than openai-python's accumulator can join.
        """
        choice = self._choice(part.choice)
        if part.executed:
            return
        if len(self._calls) == MAX_CALLS:
            choice.faulty = True
            return
        self._calls[part.choice, part.index] = choice.calls
        call = {"index": choice.calls, "id": part.id, "type": "function"}
        choice.calls += 1
        self._say(part.choice, tool_calls=[{**call, "function": {"name": part.name, "arguments": ""}}])

    def tool_delta(self, part: ToolDelta) -> None:
        """A further fragment."""
        self._fragment((part.choice, part.index), part.arguments)

    def tool_call(self, part: ToolCall) -> None:
        """Nothing more to say, but for empty arguments: clients parse them as JSON."""
        key = (part.choice, part.index)
        if not part.source.strip():
            self._fragment(key, "{}")
        self._calls.pop(key, None)

    def tool_fault(self, part: ToolFault) -> None:
        """Nothing can be taken back; the finish reason tells."""
        if self._calls.pop((part.choice, part.index), None) is not None:
            self._choice(part.choice).faulty = True

    def citation(self, part: Citation) -> None:
        """``delta.annotations``: a choice's in one delta, as OpenAI sends them. Only URLs have a place."""
        if part.url and self._choice(part.choice).cite(part):
            self._annotate(part.choice)

    def file(self, part: File) -> None:
        """``delta.images``, where it is one."""
        if part.media_type.startswith("image/"):
            choice = self._choice(part.choice)
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            image = {"index": choice.images, "type": "image_url", "image_url": {"url": url}}
            choice.images += 1
            self._say(part.choice, images=[image])

    def close(self, summary: Summary, now: float) -> None:
        """Each choice's finish reason, the usage in a chunk of its own, ``[DONE]``."""
        self._choice(0)
        for choice, _ in self._calls:
            self._choice(choice).faulty = True
        for index in sorted(self._choices.keys() | summary.finishes.keys()):
            self._finish(index, summary.finishes.get(index))
        if (usage := _usage(summary.usage)) is not None:
            head = self._head.removesuffix(b'{"index":')
            self.put(b'%b],"usage":%b}' % (head, payload.write(usage)))
        self.put(b"data: %b" % DONE.encode())

    def fail(self, error: Error, summary: Summary, now: float) -> None:
        """``data: {"error": …}``, which the SDKs raise. No finish reason and no ``[DONE]`` follow."""
        for index in sorted(self._choices):
            self._annotate(index)
        self.put(payload.data_block({"error": error_object(error.status, error.code, error.message)}))

    def _choice(self, index: int) -> _Choice:
        """Return what was told of a choice. Its first chunk says the role."""
        if (choice := self._choices.get(index)) is not None:
            return choice
        if not self._head:
            self.start(Start())
        if index in self._choices:  # which that has begun
            return self._choices[index]
        if len(self._choices) == MOST_CHOICES:
            return self._rest
        choice = self._choices[index] = _Choice()
        self._put(index, b'{"role":"assistant","content":""}')
        return choice

    def _fragment(self, key: _Key, arguments: str) -> None:
        if key in self._calls:
            fragment = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}'
            self._put(key[0], fragment % (self._calls[key], payload.text(arguments)))

    def _annotate(self, index: int) -> None:
        if cited := self._choice(index).cited_now():
            self._say(index, annotations=cited)

    def _finish(self, index: int, finish: Finish | None) -> None:
        choice = self._choice(index)
        self._annotate(index)
        reason = payload.text(choice.finish_reason(finish))
        if finish is not None and finish.native:
            reason += b',"native_finish_reason":' + payload.text(finish.native)
        self._put(index, b"{}", reason)

    def _say(self, choice: int, **delta: Any) -> None:
        self._put(choice, payload.write(delta))

    def _put(self, choice: int, delta: bytes, finish_reason: bytes = b"null") -> None:
        self.put(
            b'%b%d,"delta":%b,"logprobs":null,"finish_reason":%b}]}'
            % (self._head, choice, delta, finish_reason)
        )


class OpenAI(Emit):
    """Data-only chunks; the end is ``data: [DONE]``, an error is a payload with a truthy ``error``."""

    __slots__ = ()

    name = "openai"
    tells_raw = False

    def speaks(self, dialect: Dialect) -> bool:
        """Whether these are chat completions already."""
        return dialect.name == OpenAIDialect.name

    def writer(self, salt: str, *, raw: bool) -> Writer:
        """Return what tells one stream. ``raw`` changes nothing: no client looks for such an event."""
        return OpenAIWriter(salt)

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """``{"error": …}``, with the kind as ``code``."""
        return payload.write({"error": error_object(status, kind, message)})


def _details(part: Thinking) -> list[dict[str, str]]:
    """Return OpenRouter's forms of what is no text."""
    told = []
    if part.signature:
        told.append({"type": "reasoning.text", "text": "", "signature": part.signature})
    if part.redacted:
        told.append({"type": "reasoning.encrypted", "data": part.redacted})
    return told


def _usage(usage: Usage) -> dict[str, Any] | None:
    """Return OpenAI's usage object; None where no figure was told. Its three sums have to be there."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    sent, made = usage.input_tokens or 0, usage.output_tokens or 0
    details = {
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    told = {name: _told(figures) for name, figures in details.items()}
    return {
        "prompt_tokens": sent,
        "completion_tokens": made,
        "total_tokens": sent + made,
        **{name: figures for name, figures in told.items() if figures},
    }


def _told(figures: dict[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in figures.items() if count is not None}
