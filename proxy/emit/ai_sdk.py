"""The AI SDK's UI message stream, version 1: what ``useChat`` reads.

``uiMessageChunkSchema`` of npm's ``ai`` is the authority. Blocks are data alone, one JSON object each. A
client fails at a chunk of a type that it does not know; those that are told here are known since version 5.

A message is a list of parts, and a part stands where it began. So text that comes after a tool call is
another part than text before it, though the provider may count one block: that keeps the provider's order.
``start`` names no message: a client that goes on with a message after it ran a tool (``addToolOutput``) would
take another name for another message, and show what it had twice.

What the protocol has no field for stands in the ``sidecar`` entry of a part's ``providerMetadata``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from proxy.dialects import payload
from proxy.dialects.part import (
    Citation,
    Error,
    File,
    Raw,
    Reason,
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
from proxy.dialects.tool_calls import MAX_CALLS
from proxy.emit.base import Emit, Writer, may_pass

#: The protocol's words for why an answer ended; ``other`` is the same in both.
REASONS: Mapping[Reason, str] = MappingProxyType(
    {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool-calls",
        "content_filter": "content-filter",
        "other": "other",
    }
)

#: The failure of a stream that somebody stopped. The protocol has a word of its own for that: ``abort``.
CANCELLED = "cancelled"

#: Most citations that are kept to be told again with the end of their text.
MAX_CITATIONS = 1024

#: What is said of a document whose type the provider does not tell (RFC 2046 §4.5.1).
ANY_MEDIA_TYPE = "application/octet-stream"


class _Open(NamedTuple):
    """The text or the reasoning that is being told. ``refusal``: it stands in place of an answer."""

    kind: Literal["text", "reasoning"]
    block: int
    refusal: bool = False


class AiSdkWriter(Writer):
    """Tells one stream as a UI message.

    A message holds one answer: of the further choices nothing is told, but with ``raw``, as ``data-choice``.
    """

    __slots__ = (
        "_begun",
        "_block",
        "_calls",
        "_citations",
        "_count",
        "_delta",
        "_open",
        "_raw",
        "_salt",
        "_sources",
        "_started",
    )

    def __init__(self, salt: str, *, raw: bool) -> None:
        super().__init__()
        self._salt = salt
        self._raw = raw
        self._started = False
        self._open: _Open | None = None
        self._block: int | None = None  # of the open part, where it is plain text
        self._delta = b""  # how every delta of the open part begins
        self._count = 0  # texts and reasonings so far
        self._sources = 0
        self._citations: list[dict[str, Any]] = []  # of the open text
        self._calls: set[str] = set()  # ids that the client knows
        self._begun: dict[str, ToolStart] = {}  # those that have not come to their end

    # Text

    def start(self, part: Start) -> None:
        """``start``, and the one step that an answer is."""
        self._begin()

    def text(self, part: Text) -> None:
        """``text-delta``: the hot path."""
        if part.choice or part.block != self._block:
            self._tell_piece(part, _Open("text", part.block))
        elif part.content:
            self.put(b"%b%b}" % (self._delta, payload.text(part.content)))

    def refusal(self, part: Refusal) -> None:
        """A text that says in its metadata what it is: whoever does not look shows it, as they should."""
        self._tell_piece(part, _Open("text", part.block, refusal=True))

    def thinking(self, part: Thinking) -> None:
        """``reasoning-delta``; the signature, or what only the provider can read, as metadata."""
        proof = _told(signature=part.signature, redacted=part.redacted)
        if not proof:
            self._tell_piece(part, _Open("reasoning", part.block))
        elif not self._is_other(part):
            self._turn_to(_Open("reasoning", part.block))
            self._say("reasoning-delta", id=self._name, delta=part.content, **_metadata(**proof))

    # Tools

    def tool_start(self, part: ToolStart) -> None:
        """``tool-input-start``."""
        if self._is_other(part):
            return
        if self._know(part.id):
            self._begun[part.id] = part
            self._tell_call("tool-input-start", part)
        else:
            self._tell_fault(part, f"this answer has more than {MAX_CALLS} tool calls")

    def tool_delta(self, part: ToolDelta) -> None:
        """``tool-input-delta``. Of a call that the client does not know it would be an error."""
        if not self._is_other(part) and part.id in self._begun:
            self.put(
                b'data: {"type":"tool-input-delta","toolCallId":%b,"inputTextDelta":%b}'
                % (payload.text(part.id), payload.text(part.arguments))
            )

    def tool_call(self, part: ToolCall) -> None:
        """``tool-input-available``: the input is parsed."""
        if not self._is_other(part) and self._know(part.id):
            self._begun.pop(part.id, None)
            self._tell_call("tool-input-available", part, input=part.arguments)

    def tool_fault(self, part: ToolFault) -> None:
        """``tool-input-error``, with the arguments as far as they came."""
        if not self._is_other(part) and self._know(part.id):
            self._begun.pop(part.id, None)
            self._tell_fault(part, part.message, part.source)

    def tool_result(self, part: ToolResult) -> None:
        """``tool-output-available`` or ``-error``, of a tool that the provider has run.

        A result may be of a call in an earlier answer. The client fails where it knows no such call, so it
        is told of one.
        """
        if self._is_other(part):
            return
        if part.id not in self._calls:
            if not self._know(part.id):
                return
            self._tell_call("tool-input-available", ToolStart(0, part.id, part.name, executed=True), input={})
        if part.failed:
            self._say(
                "tool-output-error",
                toolCallId=part.id,
                errorText=_as_text(part.output),
                providerExecuted=True,
            )
        else:
            self._say("tool-output-available", toolCallId=part.id, output=part.output, providerExecuted=True)

    # Sources and files

    def citation(self, part: Citation) -> None:
        """``source-url`` or ``source-document``; what it supports is told again with the end of its text."""
        if self._is_other(part):
            return
        self._sources += 1
        source = self._source(part)
        whole = part.source if self._raw else None
        where = _told(text=part.text, start=part.start, end=part.end, source=whole)
        kind, name = f"source-{source['sourceType']}", source["id"]
        fields = {key: value for key, value in source.items() if key not in ("type", "sourceType", "id")}
        self._say(kind, sourceId=name, **fields, **_metadata(**where))
        if self._open is not None and self._open.kind == "text" and len(self._citations) < MAX_CITATIONS:
            place = _told(startIndex=_offset(part.start), endIndex=_offset(part.end), citedText=part.text)
            self._citations.append({"source": source, **place})

    def file(self, part: File) -> None:
        """``file``."""
        if not self._is_other(part):
            self._end_open()
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            self._say("file", url=url, mediaType=part.media_type)

    def raw(self, part: Raw) -> None:
        """``data-raw``, where it is wanted: transient, so that it is no part of the message."""
        if self._raw:
            self._say("data-raw", data={"event": part.event, "data": part.data}, transient=True)

    # The end

    def close(self, summary: Summary, now: float) -> None:
        """``finish``, with the model and the tokens as the message's metadata, and the marker."""
        self._end_open()
        for call in self._begun.values():
            self._tell_fault(call, "the call did not come to its end")
        self._say("finish-step")
        finish = summary.finishes.get(0)
        reason = {"finishReason": REASONS[finish.reason]} if finish else {}
        told = _told(**_facts(summary), rawFinishReason=finish.native if finish else "")
        self._say("finish", **reason, **({"messageMetadata": told} if told else {}))
        self.put(b"data: [DONE]")

    def fail(self, error: Error, summary: Summary, now: float) -> None:
        """``error``, or ``abort`` where somebody stopped the stream; neither a finish nor the marker follows.

        What it took of tokens is told before, in a message that has begun: after an error nobody reads on.
        """
        stopped = error.code == CANCELLED
        fault = None if stopped else {"code": error.code, "recoverable": may_pass(error)}
        facts = _told(**_facts(summary), error=fault)
        if facts and self._started:
            self._tell("message-metadata", messageMetadata=facts)
        if stopped:
            self._tell("abort", reason=error.message)
        else:
            self._tell("error", errorText=error.message or error.code)

    # How it is said

    @property
    def _name(self) -> str:
        """The id of the open part."""
        return str(self._count)

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._tell("start")
            self._tell("start-step")

    def _is_other(self, part: Any) -> bool:
        """Whether a part is of another choice than the first; where it is wanted, tell it apart."""
        if not part.choice:
            return False
        if self._raw:
            data = {"type": type(part).__name__, **msgspec.structs.asdict(part)}
            self._say("data-choice", data=data, transient=True)
        return True

    def _tell_piece(self, part: Text | Refusal | Thinking, place: _Open) -> None:
        """Tell some text where it belongs."""
        if part.content and not self._is_other(part):
            self._turn_to(place)
            self.put(b"%b%b}" % (self._delta, payload.text(part.content)))

    def _turn_to(self, place: _Open) -> None:
        """Let the open part be this one, which may begin here."""
        if self._open == place:
            return
        self._end_open()
        self._open = place
        self._block = place.block if place.kind == "text" and not place.refusal else None
        self._count += 1
        refusal = {"refusal": True} if place.refusal else {}
        self._say(f"{place.kind}-start", id=self._name, **_metadata(**refusal))
        self._delta = b'data: {"type":"%b-delta","id":"%d","delta":' % (place.kind.encode(), self._count)

    def _end_open(self) -> None:
        if self._open is None:
            return
        citations = {"citations": self._citations} if self._citations else {}
        self._say(f"{self._open.kind}-end", id=self._name, **citations)
        self._open = self._block = None
        self._citations = []

    def _know(self, call: str) -> bool:
        """Let the client know this call; False where it would be one too many."""
        if call not in self._calls:
            if len(self._calls) == MAX_CALLS:
                return False
            self._end_open()  # what comes after the call's beginning stands behind it
            self._calls.add(call)
        return True

    def _tell_fault(self, part: ToolStart | ToolFault, why: str, source: str = "") -> None:
        self._tell_call("tool-input-error", part, input=source, errorText=why)

    def _tell_call(self, kind: str, part: ToolStart | ToolCall | ToolFault, **more: Any) -> None:
        executed = {"providerExecuted": True} if part.executed else {}
        self._say(kind, toolCallId=part.id, toolName=part.name, **more, **executed)

    def _source(self, part: Citation) -> dict[str, Any]:
        """Return a source as citations name it."""
        name = {"type": "source", "id": f"{self._salt}-{self._sources}"}
        if part.url:
            return {**name, "sourceType": "url", "url": part.url, **_told(title=part.title)}
        title = part.title or part.document
        file = part.document if part.document != title else ""
        more = {"mediaType": ANY_MEDIA_TYPE, "title": title, **_told(filename=file)}
        return {**name, "sourceType": "document", **more}

    def _say(self, kind: str, **fields: Any) -> None:
        """Put a chunk, behind the ``start`` that every message begins with."""
        self._begin()
        self._tell(kind, **fields)

    def _tell(self, kind: str, **fields: Any) -> None:
        self.put(payload.data_block({"type": kind, **fields}))


class AiSdk(Emit):
    """Data-only blocks; the end is ``data: [DONE]``."""

    __slots__ = ()

    name = "ai-sdk"
    headers = MappingProxyType({"x-vercel-ai-ui-message-stream": "v1"})

    def writer(self, salt: str, *, raw: bool) -> Writer:
        """Return what tells one stream."""
        return AiSdkWriter(salt, raw=raw)


def _told(**fields: Any) -> dict[str, Any]:
    """Return the fields that say something."""
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _offset(place: int | None) -> int | None:
    """Return a place as the protocol has it: a chunk with one below zero would be refused whole."""
    return place if place is not None and place >= 0 else None


def _metadata(**fields: Any) -> dict[str, Any]:
    """Return what a part says beside the protocol's own fields."""
    return {"providerMetadata": {"sidecar": fields}} if fields else {}


def _facts(summary: Summary) -> dict[str, Any]:
    """Return what a message's metadata says of an answer. Every field may be absent."""
    return _told(model=summary.model, responseId=summary.id, usage=_usage(summary.usage) or None)


def _usage(usage: Usage) -> dict[str, Any]:
    """Return tokens in the names of the SDK's own ``LanguageModelUsage``."""
    sent, made = usage.input_tokens, usage.output_tokens
    cached, written, reasoning = (
        usage.cached_input_tokens,
        usage.cache_write_input_tokens,
        usage.reasoning_tokens,
    )
    details = _told(cacheReadTokens=cached, cacheWriteTokens=written)
    return _told(
        inputTokens=sent,
        inputTokenDetails=details or None,
        outputTokens=made,
        outputTokenDetails=None if reasoning is None else {"reasoningTokens": reasoning},
        totalTokens=None if sent is None or made is None else sent + made,
    )


def _as_text(output: Any) -> str:
    return output if isinstance(output, str) else payload.write(output).decode()
