"""AG-UI 1.0, the Agent User Interaction Protocol: a provider's answer as the events of one run.

The shapes are those of ``@ag-ui/core``. Which event may follow which is what ``@ag-ui/client`` verifies, and
it ends a run that breaks the rules: whatever began has to end before ``RUN_FINISHED``. Three of its habits
decide how things are told here. A message is a bubble on the screen, so text goes on in the same one until
something else comes between. At ``TOOL_CALL_END`` it parses the arguments, and takes ``{}`` where it can not:
so a call that did not become whole never gets one, and its run ends with ``RUN_ERROR``. A call without a
result is the application's to make: so one that the provider has made gets a result, if an empty one.
"""

from __future__ import annotations

import json
from typing import Any

from proxy.dialects import payload
from proxy.dialects.part import (
    Citation,
    Error,
    File,
    Finish,
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
)
from proxy.dialects.summary import MOST_CHOICES, Summary
from proxy.dialects.tool_calls import MAX_CALLS
from proxy.emit.base import INVALID_ARGUMENTS, Emit, Writer

#: What ``RUN_STARTED`` declares.
PROTOCOL_VERSION = "1.0"

#: Names of the ``CUSTOM`` events.
CITATION = "citation"
FILE = "file"

#: Largest number that the protocol takes, of tokens or milliseconds: clients refuse an event with more.
MAX_NUMBER = 2**53 - 1

#: What a message is made of.
_Kind = type[Text] | type[Refusal] | type[Thinking]


class _Choice:
    """The messages of one choice: the open one, and the last that tool calls and citations can belong to."""

    __slots__ = ("began", "block", "index", "kind", "message", "parent", "said")

    def __init__(self, index: int) -> None:
        self.index = index
        self.kind: _Kind | None = None  # of the open message; None where there is none
        self.message = ""  # its id
        self.said = 0  # characters of its text
        self.block = 0  # of the provider's, that it is at
        self.began = 0  # where in its text that begins
        self.parent = ""


class AgUiWriter(Writer):
    """Tells one stream as a run."""

    __slots__ = ("_calls", "_choices", "_fault", "_made", "_raw", "_run", "_salt", "_unanswered", "_waiting")

    def __init__(self, salt: str, *, raw: bool) -> None:
        super().__init__()
        self._salt = salt
        self._raw = raw
        self._run: dict[str, str] = {}  # the ids of thread and run
        self._made = 0  # messages
        self._choices: dict[int, _Choice] = {}
        self._calls: dict[str, str] = {}  # names of the calls that have begun and not ended, by id
        self._fault = ""  # what is wrong with the first call that nobody can make
        self._waiting: list[str] = []  # the calls that are the application's to make
        self._unanswered: dict[str, None] = {}  # those that the provider has made, without a result so far

    def start(self, part: Start) -> None:
        """``RUN_STARTED``. The run is the provider's answer; of the thread the stream knows nothing."""
        if self._run:
            return
        self._run = {"threadId": f"thread_{self._salt}", "runId": part.id or f"run_{self._salt}"}
        fields: dict[str, Any] = {
            **self._run,
            "protocolVersion": PROTOCOL_VERSION,
            **_metadata(model=part.model),
        }
        if part.created and 0 < part.created * 1000 <= MAX_NUMBER:
            fields["timestamp"] = part.created * 1000
        self._tell("RUN_STARTED", **fields)

    def text(self, part: Text) -> None:
        """``TEXT_MESSAGE_CONTENT``: the hot path."""
        if part.content:
            choice = self._turn_to(Text, part.choice, part.block)
            choice.said += len(part.content)
            self._say(b"TEXT_MESSAGE_CONTENT", choice.message, part.content)

    def refusal(self, part: Refusal) -> None:
        """A message of its own, whose ``metadata`` says so: whoever does not look shows it all the same."""
        if part.content:
            choice = self._turn_to(Refusal, part.choice, part.block)
            self._say(b"TEXT_MESSAGE_CONTENT", choice.message, part.content)

    def thinking(self, part: Thinking) -> None:
        """``REASONING_MESSAGE_CONTENT``; what the provider wants back, as the message's encrypted value.

        A signature alone, in the midst of a text, signs that text (Gemini's do).
        """
        if not (part.content or part.signature or part.redacted):
            return
        choice = self._choice(part.choice)
        signs_text = choice.kind is Text and choice.block == part.block and not part.content + part.redacted
        if not signs_text:
            self._turn_to(Thinking, part.choice, part.block)
        if part.content:
            self._say(b"REASONING_MESSAGE_CONTENT", choice.message, part.content)
        for secret in filter(None, (part.signature, part.redacted)):
            fields = {"subtype": "message", "entityId": choice.message, "encryptedValue": secret}
            self._tell("REASONING_ENCRYPTED_VALUE", **fields)

    def tool_start(self, part: ToolStart) -> None:
        """``TOOL_CALL_START``, in the assistant message before it, or in one that has nothing but calls."""
        choice = self._choice(part.choice)
        self._end_message(choice)
        if len(self._calls) == MAX_CALLS:
            self._fault = self._fault or _unended(part.name)
            return
        self._calls[part.id] = part.name
        choice.parent = choice.parent or self._new_message()
        call = {"toolCallId": part.id, "toolCallName": part.name, "parentMessageId": choice.parent}
        self._tell("TOOL_CALL_START", **call, **_metadata(choice=part.choice))

    def tool_delta(self, part: ToolDelta) -> None:
        """``TOOL_CALL_ARGS``."""
        if part.id in self._calls and part.arguments:
            self._fragment(part.id, part.arguments)

    def tool_call(self, part: ToolCall) -> None:
        """``TOOL_CALL_END``. Empty arguments are told first: clients parse them as JSON."""
        if self._calls.pop(part.id, None) is None:
            return
        if not part.source.strip():
            self._fragment(part.id, "{}")
        self._tell("TOOL_CALL_END", toolCallId=part.id)
        if part.executed:
            self._unanswered[part.id] = None
        else:
            self._waiting.append(part.id)

    def tool_fault(self, part: ToolFault) -> None:
        """No ``TOOL_CALL_END``: it would say that the arguments are whole."""
        self._fault = self._fault or part.message

    def tool_result(self, part: ToolResult) -> None:
        """``TOOL_CALL_RESULT``: a text, JSON where the tool returned anything else."""
        choice = self._choice(part.choice)
        self._end_message(choice)
        choice.parent = ""  # the answer goes on in another message
        content = part.output if isinstance(part.output, str) else json.dumps(part.output, ensure_ascii=False)
        self._answer(part.id, content, **_metadata(failed=part.failed))

    def citation(self, part: Citation) -> None:
        """``CUSTOM`` of the name ``citation``, with the message that cites, and the place in its text."""
        choice = self._choice(part.choice)
        told = {name: getattr(part, name) for name in part.__struct_fields__ if name != "block"}
        places = {name: told[name] + choice.began for name in ("start", "end") if told[name] is not None}
        self._custom(CITATION, messageId=choice.parent, **{**told, **places})

    def file(self, part: File) -> None:
        """``CUSTOM`` of the name ``file``."""
        self._begin()
        self._custom(FILE, mediaType=part.media_type, data=part.data, url=part.url, choice=part.choice)

    def raw(self, part: Raw) -> None:
        """``RAW``, where it is wanted: the event's name, and its data as it came."""
        if self._raw:
            self._begin()
            self._tell("RAW", event={"event": part.event, "data": part.data})

    def close(self, summary: Summary, now: float) -> None:
        """``RUN_FINISHED`` with why and at what cost; ``RUN_ERROR`` where a call did not become whole."""
        for choice in self._choices.values():
            self._end_message(choice)
        fault = self._fault or next(map(_unended, self._calls.values()), "")
        if fault:
            self.fail(Error(fault, INVALID_ARGUMENTS), summary, now)
            return
        for call in list(self._unanswered):
            self._answer(call, "")
        self._begin()
        fields: dict[str, Any] = {**self._run, "result": _result(summary), **_usage(summary)}
        if self._waiting:
            fields["outcome"] = {"type": "success", "pendingToolCallIds": self._waiting}
        self._tell("RUN_FINISHED", **fields)

    def fail(self, error: Error, summary: Summary, now: float) -> None:
        """``RUN_ERROR``. What is open is not ended before it: an end would say that it is whole."""
        self._begin()
        self._tell("RUN_ERROR", message=error.message, code=error.code, **_usage(summary))

    def _begin(self) -> None:
        if not self._run:
            self.start(Start())

    def _choice(self, index: int) -> _Choice:
        self._begin()
        index = index if 0 <= index < MOST_CHOICES else MOST_CHOICES  # those beyond share one message
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index)
        return choice

    def _turn_to(self, kind: _Kind, index: int, block: int) -> _Choice:
        """Let the open message of a choice be of this kind; it begins where there is none.

        Reasoning of another block is another message, since each has an encrypted value of its own.
        """
        choice = self._choice(index)
        if choice.kind is not kind or (kind is Thinking and choice.block != block):
            self._end_message(choice)
            choice.kind, choice.message = kind, self._new_message()
            choice.said = choice.began = 0
            self._begin_message(choice)
        elif choice.block != block:
            choice.began = choice.said
        choice.block = block
        return choice

    def _new_message(self) -> str:
        self._made += 1
        return f"msg_{self._salt}_{self._made}"

    def _begin_message(self, choice: _Choice) -> None:
        if choice.kind is Thinking:
            self._tell("REASONING_START", messageId=choice.message)
            begun = {"messageId": choice.message, "role": "reasoning"}
            self._tell("REASONING_MESSAGE_START", **begun, **_metadata(choice=choice.index))
            return
        choice.parent = choice.message
        metadata = _metadata(refusal=choice.kind is Refusal, choice=choice.index)
        self._tell("TEXT_MESSAGE_START", messageId=choice.message, role="assistant", **metadata)

    def _end_message(self, choice: _Choice) -> None:
        if choice.kind is Thinking:
            self._tell("REASONING_MESSAGE_END", messageId=choice.message)
            self._tell("REASONING_END", messageId=choice.message)
        elif choice.kind is not None:
            self._tell("TEXT_MESSAGE_END", messageId=choice.message)
        choice.kind, choice.message = None, ""

    def _answer(self, call: str, content: str, **fields: Any) -> None:
        self._unanswered.pop(call, None)
        told = {"messageId": self._new_message(), "toolCallId": call, "content": content, "role": "tool"}
        self._tell("TOOL_CALL_RESULT", **told, **fields)

    def _custom(self, name: str, **value: Any) -> None:
        """Put an event of a name of ours. Fields that say nothing are left out, as a choice's number 0 is."""
        choice = value.pop("choice") or None
        told = {key: field for key, field in {**value, "choice": choice}.items() if field not in (None, "")}
        self._tell("CUSTOM", name=name, value=told)

    def _fragment(self, call: str, arguments: str) -> None:
        self.put(
            b'data: {"type":"TOOL_CALL_ARGS","toolCallId":%b,"delta":%b}'
            % (payload.text(call), payload.text(arguments))
        )

    def _say(self, kind: bytes, message: str, delta: str) -> None:
        self.put(
            b'data: {"type":"%b","messageId":"%b","delta":%b}' % (kind, message.encode(), payload.text(delta))
        )

    def _tell(self, kind: str, **fields: Any) -> None:
        self.put(payload.data_block({"type": kind, **fields}))


class AgUi(Emit):
    """Data-only events; the end is ``RUN_FINISHED`` or ``RUN_ERROR``."""

    __slots__ = ()

    name = "ag-ui"

    def writer(self, salt: str, *, raw: bool) -> Writer:
        """Return what tells one stream."""
        return AgUiWriter(salt, raw=raw)


def _metadata(**fields: Any) -> dict[str, dict[str, Any]]:
    """Return the ``metadata`` of an event: the fields that say something, in names of ours."""
    told = {name: value for name, value in fields.items() if value}
    return {"metadata": told} if told else {}


def _unended(name: str) -> str:
    return f"the arguments of {name or 'a tool call'} never ended"


def _result(summary: Summary) -> dict[str, Any]:
    """Return why the answer ended; where there are several, each with its choice's number."""
    finishes = [finish for _, finish in sorted(summary.finishes.items())]
    if len(finishes) < 2:
        return _ended(summary.finish)
    return {
        **_ended(summary.finish),
        "choices": [{"index": each.choice, **_ended(each)} for each in finishes],
    }


def _ended(finish: Finish | None) -> dict[str, str]:
    if finish is None:
        return {"finishReason": "stop"}
    return {"finishReason": finish.reason, "nativeFinishReason": finish.native}


def _usage(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """Return the ``usage`` of a run's last event; nothing where no figure was told."""
    usage = summary.usage
    sent, made = usage.input_tokens, usage.output_tokens
    figures = {
        "inputTokens": sent,
        "outputTokens": made,
        "totalTokens": None if sent is None or made is None else sent + made,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_input_tokens,
        "cacheWriteInputTokens": usage.cache_write_input_tokens,
    }
    told = {name: count for name, count in figures.items() if count is not None and 0 <= count <= MAX_NUMBER}
    model = {"model": summary.model} if summary.model else {}
    return {"usage": [{**model, **told}]} if told else {}
