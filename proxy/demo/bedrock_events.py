"""AWS Bedrock's ``Converse`` and ``ConverseStream``: events in content blocks, then the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from proxy.demo.event import Event
from proxy.demo.voice import FAILURE, THOUGHT, Call, ToolCall, choose_tool, last_prompt, word_count

#: What proves the model's thinking to the service in a later turn.
SIGNATURE = "ZGVtbw=="

#: Every payload of the service has a text of some length beside its fields, against guesses from its size.
PADDING = {"p": "abcdefghijkl"}

LATENCY_MS = 7

_ERROR_CODES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


class InputSchema(msgspec.Struct):
    """``inputSchema``: a JSON schema below ``json``."""

    json: Any = None


class ToolSpec(msgspec.Struct, rename="camel"):
    """A tool that the model may call."""

    name: str
    input_schema: InputSchema = msgspec.field(default_factory=InputSchema)


class Tool(msgspec.Struct, rename="camel"):
    """One of the tools; those that are no function are left alone."""

    tool_spec: ToolSpec | None = None


class ToolConfig(msgspec.Struct, rename="camel"):
    """``toolConfig``: ``any`` and ``tool`` in the choice force a call."""

    tools: list[Tool] = []
    tool_choice: dict[str, Any] = {}


class Request(msgspec.Struct, rename="camel"):
    """What the provider reads of a request; everything else is accepted and ignored."""

    messages: list[dict[str, Any]]
    tool_config: ToolConfig = msgspec.field(default_factory=ToolConfig)
    additional_model_request_fields: dict[str, Any] | None = None

    @property
    def thinks(self) -> bool:
        """Whether the model is to think, as Anthropic's models are asked for it here."""
        return bool((self.additional_model_request_fields or {}).get("thinking"))

    def tool_call(self) -> ToolCall | None:
        """The call that the request provokes, if it does."""
        specs = [tool.tool_spec for tool in self.tool_config.tools if tool.tool_spec]
        return choose_tool(
            [(spec.name, spec.input_schema.json) for spec in specs],
            forced=not self.tool_config.tool_choice.keys().isdisjoint({"any", "tool"}),
            prompt=last_prompt(self.messages),
        )


class ConverseVoice:
    """Answers one ``/converse`` or ``/converse-stream``."""

    def __init__(self, call: Call, request: Request, *, streams: bool) -> None:
        self._call = call
        self._streams = streams
        self._asked = word_count(last_prompt(request.messages))
        self._tool = request.tool_call()
        self._thought = THOUGHT if request.thinks else ()

    @property
    def streams(self) -> bool:
        """What the request's URL says."""
        return self._streams

    def events(self) -> Iterator[Event]:
        """The message's start, its blocks, its stop, the metadata."""
        yield _event("messageStart", role="assistant")
        if self._thought:
            thought = [{"text": piece} for piece in self._thought]
            deltas = [{"reasoningContent": piece} for piece in [*thought, {"signature": SIGNATURE}]]
            yield from _block(0, deltas)
        index = 1 if self._thought else 0
        if self._tool is None:
            yield from _block(index, ({"text": piece} for piece in self._call.speech.pieces()))
        else:
            start = {"toolUse": {"toolUseId": self._call_id, "name": self._tool.name}}
            yield _event("contentBlockStart", start=start, contentBlockIndex=index)
            yield from _block(index, ({"toolUse": {"input": piece}} for piece in self._tool.pieces()))
        yield _event("messageStop", stopReason=self._stop_reason)
        yield _event("metadata", usage=self._usage(), metrics={"latencyMs": LATENCY_MS})

    def complaint(self) -> Event:
        """The exception that the SDKs raise in a stream."""
        return Event(_json({"message": FAILURE, "originalStatusCode": 500}), name="modelStreamErrorException")

    def answer(self) -> str:
        """One whole ``ConverseResponse``."""
        return _json(
            {
                "output": {"message": {"role": "assistant", "content": self._content()}},
                "stopReason": self._stop_reason,
                "usage": self._usage(),
                "metrics": {"latencyMs": LATENCY_MS},
            }
        )

    @property
    def _call_id(self) -> str:
        return self._call.identity("tooluse_")

    @property
    def _stop_reason(self) -> str:
        return "end_turn" if self._tool is None else "tool_use"

    def _content(self) -> list[dict[str, Any]]:
        reasoning = {"text": "".join(self._thought), "signature": SIGNATURE}
        thought = [{"reasoningContent": {"reasoningText": reasoning}}] if self._thought else []
        if self._tool is None:
            return [*thought, {"text": self._call.speech.text()}]
        use = {"toolUseId": self._call_id, "name": self._tool.name, "input": self._tool.arguments}
        return [*thought, {"toolUse": use}]

    def _usage(self) -> dict[str, int]:
        answered = self._call.speech.length() if self._tool is None else len(self._tool.pieces())
        made = answered + len(self._thought)
        return {"inputTokens": self._asked, "outputTokens": made, "totalTokens": self._asked + made}


def _block(index: int, deltas: Iterable[dict[str, Any]]) -> Iterator[Event]:
    """The deltas of a content block and its end."""
    for delta in deltas:
        yield _event("contentBlockDelta", delta=delta, contentBlockIndex=index)
    yield _event("contentBlockStop", contentBlockIndex=index)


def _event(name: str, **fields: Any) -> Event:
    return Event(_json({**fields, **PADDING}), name=name)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def refusal(status: int, message: str) -> dict[str, Any]:
    """The body of an answer with that status. The service names the exception in a header, or as ``code``."""
    other = "ValidationException" if status < 500 else "InternalServerException"
    return {"message": message, "code": _ERROR_CODES.get(status, other)}


def listen_streaming(call: Call, body: bytes) -> ConverseVoice:
    """The voice for ``/converse-stream``; msgspec.ValidationError when ``body`` is no request."""
    return ConverseVoice(call, msgspec.json.decode(body, type=Request), streams=True)


def listen_whole(call: Call, body: bytes) -> ConverseVoice:
    """The voice for ``/converse``; msgspec.ValidationError when ``body`` is no request."""
    return ConverseVoice(call, msgspec.json.decode(body, type=Request), streams=False)
