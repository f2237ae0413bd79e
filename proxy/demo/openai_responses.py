"""OpenAI Responses, built with the models of the ``openai`` package.

Every event is named after its ``type`` and numbered; the lifecycle runs from ``response.created`` to
``response.completed``, and there is no ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

import msgspec
from openai.types import responses as api
from openai.types.responses import response_usage

from proxy.demo.event import Event
from proxy.demo.voice import FAILURE, Call, ToolCall, choose_tool, last_prompt, word_count


class Tool(msgspec.Struct):
    """One of ``tools``; only those of type ``function`` are ever called."""

    type: str
    name: str = ""
    parameters: Any = None


class Request(msgspec.Struct):
    """What the provider reads of a request; everything else is accepted and ignored."""

    model: str
    input: str | list[dict[str, Any]]
    stream: bool | None = False
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None

    def tool_call(self) -> ToolCall | None:
        """The call that the request provokes, if it does."""
        return choose_tool(
            [(tool.name, tool.parameters) for tool in self.tools or [] if tool.type == "function"],
            forced=self.tool_choice == "required" or isinstance(self.tool_choice, dict),
            prompt=last_prompt(self.input),
        )


class ResponsesVoice:
    """Answers one ``POST /v1/responses``."""

    def __init__(self, call: Call, request: Request) -> None:
        self._call = call
        self._request = request
        self._tool = request.tool_call()
        self._sequence = count()

    @property
    def streams(self) -> bool:
        """The request's ``stream``."""
        return bool(self._request.stream)

    def events(self) -> Iterator[Event]:
        """Created, in progress, one output item with its deltas, completed."""
        begun = self._response("in_progress", [])
        yield self._event(
            api.ResponseCreatedEvent(type="response.created", response=begun, sequence_number=self._next())
        )
        yield self._event(
            api.ResponseInProgressEvent(
                type="response.in_progress", response=begun, sequence_number=self._next()
            )
        )
        yield from self._text_events() if self._tool is None else self._tool_events(self._tool)
        yield self._event(
            api.ResponseCompletedEvent(
                type="response.completed", response=self._whole(), sequence_number=self._next()
            )
        )

    def complaint(self) -> Event:
        """The flat ``error`` event, as the API's schema has it."""
        return self._event(
            api.ResponseErrorEvent(
                type="error", code="server_error", message=FAILURE, param=None, sequence_number=self._next()
            )
        )

    def answer(self) -> str:
        """One whole ``response``."""
        return self._whole().to_json(indent=None)

    def _text_events(self) -> Iterator[Event]:
        item_id = self._call.identity("msg_")
        place: dict[str, Any] = {"item_id": item_id, "output_index": 0, "content_index": 0}
        yield self._item_added(self._message("in_progress", []))
        yield self._event(
            api.ResponseContentPartAddedEvent(
                type="response.content_part.added",
                part=_output_text(""),
                sequence_number=self._next(),
                **place,
            )
        )
        for piece in self._call.speech.pieces():
            yield self._event(
                api.ResponseTextDeltaEvent(
                    type="response.output_text.delta",
                    delta=piece,
                    logprobs=[],
                    sequence_number=self._next(),
                    **place,
                )
            )
        text = self._call.speech.text()
        yield self._event(
            api.ResponseTextDoneEvent(
                type="response.output_text.done",
                text=text,
                logprobs=[],
                sequence_number=self._next(),
                **place,
            )
        )
        yield self._event(
            api.ResponseContentPartDoneEvent(
                type="response.content_part.done",
                part=_output_text(text),
                sequence_number=self._next(),
                **place,
            )
        )
        yield self._item_done(self._output())

    def _tool_events(self, tool: ToolCall) -> Iterator[Event]:
        place: dict[str, Any] = {"item_id": self._call.identity("fc_"), "output_index": 0}
        yield self._item_added(self._function_call(tool, "in_progress", ""))
        for piece in tool.pieces():
            yield self._event(
                api.ResponseFunctionCallArgumentsDeltaEvent(
                    type="response.function_call_arguments.delta",
                    delta=piece,
                    sequence_number=self._next(),
                    **place,
                )
            )
        yield self._event(
            api.ResponseFunctionCallArgumentsDoneEvent(
                type="response.function_call_arguments.done",
                arguments=tool.arguments_json,
                sequence_number=self._next(),
                **place,
            )
        )
        yield self._item_done(self._output())

    def _item_added(self, item: api.ResponseOutputItem) -> Event:
        return self._event(
            api.ResponseOutputItemAddedEvent(
                type="response.output_item.added", item=item, output_index=0, sequence_number=self._next()
            )
        )

    def _item_done(self, item: api.ResponseOutputItem) -> Event:
        return self._event(
            api.ResponseOutputItemDoneEvent(
                type="response.output_item.done", item=item, output_index=0, sequence_number=self._next()
            )
        )

    def _output(self) -> api.ResponseOutputMessage | api.ResponseFunctionToolCall:
        if self._tool is None:
            return self._message("completed", [_output_text(self._call.speech.text())])
        return self._function_call(self._tool, "completed", self._tool.arguments_json)

    def _message(
        self, status: Literal["in_progress", "completed"], content: list[api.ResponseOutputText]
    ) -> api.ResponseOutputMessage:
        return api.ResponseOutputMessage(
            id=self._call.identity("msg_"),
            type="message",
            role="assistant",
            status=status,
            content=list(content),
        )

    def _function_call(
        self, tool: ToolCall, status: Literal["in_progress", "completed"], arguments: str
    ) -> api.ResponseFunctionToolCall:
        return api.ResponseFunctionToolCall(
            id=self._call.identity("fc_"),
            call_id=self._call.identity("call_"),
            type="function_call",
            name=tool.name,
            arguments=arguments,
            status=status,
        )

    def _whole(self) -> api.Response:
        response = self._response("completed", [self._output()])
        response.usage = self._usage()
        return response

    def _response(
        self, status: Literal["in_progress", "completed"], output: list[api.ResponseOutputItem]
    ) -> api.Response:
        return api.Response(
            id=self._call.identity("resp_"),
            object="response",
            created_at=self._call.created,
            status=status,
            error=None,
            incomplete_details=None,
            instructions=None,
            metadata={},
            model=self._request.model,
            output=output,
            parallel_tool_calls=True,
            temperature=1.0,
            tool_choice="auto",
            tools=[],
            top_p=1.0,
            usage=None,
        )

    def _usage(self) -> api.ResponseUsage:
        asked = word_count(last_prompt(self._request.input))
        said = self._call.speech.length() if self._tool is None else len(self._tool.pieces())
        return api.ResponseUsage(
            input_tokens=asked,
            input_tokens_details=response_usage.InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens=said,
            output_tokens_details=response_usage.OutputTokensDetails(reasoning_tokens=0),
            total_tokens=asked + said,
        )

    def _next(self) -> int:
        return next(self._sequence)

    def _event(self, event: api.ResponseStreamEvent) -> Event:
        return Event(event.to_json(indent=None), name=event.type)


def _output_text(text: str) -> api.ResponseOutputText:
    return api.ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])


def listen(call: Call, body: bytes) -> ResponsesVoice:
    """The voice that answers ``body``; msgspec.ValidationError when it is not a request of this API."""
    return ResponsesVoice(call, msgspec.json.decode(body, type=Request))
