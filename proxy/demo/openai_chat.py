"""OpenAI chat completions, built with the models of the ``openai`` package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat import ChatCompletionMessageFunctionToolCall as MessageToolCall
from openai.types.chat import chat_completion as whole
from openai.types.chat import chat_completion_chunk as chunk
from openai.types.chat.chat_completion_message_function_tool_call import Function
from openai.types.completion_usage import CompletionUsage

from proxy.demo.event import Event
from proxy.demo.openai_errors import refusal
from proxy.demo.voice import FAILURE, Call, ToolCall, choose_tool, last_prompt, word_count


class StreamOptions(msgspec.Struct):
    """``stream_options`` of a request."""

    include_usage: bool = False


class FunctionSchema(msgspec.Struct):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: str
    parameters: Any = None


class Tool(msgspec.Struct):
    """One of ``tools``; those that are no functions are left alone."""

    function: FunctionSchema | None = None


class Request(msgspec.Struct):
    """What the provider reads of a request; everything else is accepted and ignored."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None

    def tool_call(self) -> ToolCall | None:
        """The call that the request provokes, if it does."""
        functions = [tool.function for tool in self.tools or [] if tool.function]
        return choose_tool(
            [(function.name, function.parameters) for function in functions],
            forced=self.tool_choice == "required" or isinstance(self.tool_choice, dict),
            prompt=last_prompt(self.messages),
        )


class ChatVoice:
    """Answers one ``POST /v1/chat/completions``."""

    def __init__(self, call: Call, request: Request) -> None:
        self._call = call
        self._request = request
        self._tool = request.tool_call()
        self._include_usage = bool(request.stream_options and request.stream_options.include_usage)

    @property
    def streams(self) -> bool:
        """The request's ``stream``."""
        return bool(self._request.stream)

    def events(self) -> Iterator[Event]:
        """A role, deltas, a finish reason, the usage if it was asked for, ``[DONE]``."""
        yield from self._text_events() if self._tool is None else self._tool_events(self._tool)
        if self._include_usage:
            yield self._event([], self._usage())
        yield Event("[DONE]")

    def complaint(self) -> Event:
        """The error object as a block: the SDKs raise on any payload with an ``error``."""
        return Event(json.dumps(refusal(500, FAILURE)))

    def answer(self) -> str:
        """One ``chat.completion``."""
        choice = whole.Choice(
            index=0,
            message=self._message(),
            finish_reason="stop" if self._tool is None else "tool_calls",
            logprobs=None,
        )
        completion = ChatCompletion(
            id=self._call.identity("chatcmpl-"),
            object="chat.completion",
            created=self._call.created,
            model=self._request.model,
            choices=[choice],
            usage=self._usage(),
            service_tier="default",
            system_fingerprint="fp_demo",
        )
        return completion.to_json(indent=None)

    def _text_events(self) -> Iterator[Event]:
        yield self._delta(chunk.ChoiceDelta(role="assistant", content="", refusal=None))
        for piece in self._call.speech.pieces():
            yield self._delta(chunk.ChoiceDelta(content=piece))
        yield self._delta(chunk.ChoiceDelta(), "stop")

    def _tool_events(self, tool: ToolCall) -> Iterator[Event]:
        function = chunk.ChoiceDeltaToolCallFunction(name=tool.name, arguments="")
        opening = chunk.ChoiceDeltaToolCall(
            index=0, id=self._call.identity("call_"), type="function", function=function
        )
        yield self._delta(chunk.ChoiceDelta(role="assistant", content=None, tool_calls=[opening]))
        for piece in tool.pieces():
            function = chunk.ChoiceDeltaToolCallFunction(arguments=piece)
            fragment = chunk.ChoiceDeltaToolCall(index=0, function=function)
            yield self._delta(chunk.ChoiceDelta(tool_calls=[fragment]))
        yield self._delta(chunk.ChoiceDelta(), "tool_calls")

    def _delta(
        self, delta: chunk.ChoiceDelta, finish_reason: Literal["stop", "tool_calls"] | None = None
    ) -> Event:
        choice = chunk.Choice(index=0, delta=delta, finish_reason=finish_reason, logprobs=None)
        return self._event([choice], None)

    def _event(self, choices: list[chunk.Choice], usage: CompletionUsage | None) -> Event:
        # The models write a field that was set to None as null and leave out one that was never set:
        # usage is null until the last chunk if it was asked for, and absent otherwise.
        asked_for: dict[str, Any] = {"usage": usage} if self._include_usage else {}
        document = ChatCompletionChunk(
            id=self._call.identity("chatcmpl-"),
            object="chat.completion.chunk",
            created=self._call.created,
            model=self._request.model,
            choices=choices,
            service_tier="default",
            system_fingerprint="fp_demo",
            **asked_for,
        )
        return Event(document.to_json(indent=None))

    def _message(self) -> ChatCompletionMessage:
        if self._tool is None:
            return ChatCompletionMessage(role="assistant", content=self._call.speech.text(), refusal=None)
        call = MessageToolCall(
            id=self._call.identity("call_"),
            type="function",
            function=Function(name=self._tool.name, arguments=self._tool.arguments_json),
        )
        return ChatCompletionMessage(role="assistant", content=None, refusal=None, tool_calls=[call])

    def _usage(self) -> CompletionUsage:
        asked = word_count(last_prompt(self._request.messages))
        said = self._call.speech.length() if self._tool is None else len(self._tool.pieces())
        return CompletionUsage(prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said)


def listen(call: Call, body: bytes) -> ChatVoice:
    """The voice that answers ``body``; msgspec.ValidationError when it is not a request of this API."""
    return ChatVoice(call, msgspec.json.decode(body, type=Request))
