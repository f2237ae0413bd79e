"""What Gemini's chunks say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from proxy.dialects.base import Decoder, error_status
from proxy.dialects.gemini_arguments import StreamedArguments
from proxy.dialects.gemini_chunk import (
    Candidate,
    Chunk,
    ContentPart,
    FunctionCall,
    PromptFeedback,
    UsageMetadata,
)
from proxy.dialects.gemini_citations import Citations
from proxy.dialects.json_value import source_of, word
from proxy.dialects.part import (
    Error,
    File,
    Finish,
    Part,
    Raw,
    Reason,
    Start,
    Text,
    Thinking,
    ToolResult,
    ToolStart,
    Usage,
)
from proxy.dialects.payload import Data, as_text, reader
from proxy.dialects.tool_calls import ToolCalls
from proxy.stream.sse import named_data

REASONS: Mapping[str, Reason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "BLOCKLIST",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "IMAGE_SAFETY",
            "MODEL_ARMOR",
            "PROHIBITED_CONTENT",
            "RECITATION",
            "SAFETY",
            "SPII",
        ),
        "content_filter",
    ),
}

#: Most candidates that a stream has. The API's own limit is 8; for each one some text is kept.
MAX_CANDIDATES = 32

#: The tool that runs the code that a model writes.
CODE_EXECUTION = "code_execution"


_read_chunk = reader(Chunk)


class GeminiDecoder(Decoder):
    """Reads chunks: of an event stream, or the elements of an array.

    A finish reason is told when the stream ends: some models and gateways put one on every chunk.
    """

    __slots__ = (
        "_called",
        "_calls",
        "_citations",
        "_code",
        "_finishes",
        "_started",
        "_streamed",
        "_tools",
        "_usage",
    )

    def __init__(self, salt: str) -> None:
        self._calls = ToolCalls(salt)
        self._called: set[int] = set()  # the candidates that want a function called
        self._streamed: dict[int, StreamedArguments] = {}  # of a call that goes on, by candidate
        self._citations: dict[int, Citations] = {}
        self._finishes: dict[int, str] = {}
        self._usage: UsageMetadata | None = None
        self._code = ""  # the id of the newest code that was run
        self._started = False
        self._tools: Mapping[str, Callable[[dict[str, Any], int], list[Part]]] = {
            "executable_code": self._executable_code,
            "code_execution_result": self._code_result,
            "tool_call": self._tool_call,
            "tool_response": _tool_response,
        }

    def decode(self, block: bytes) -> list[Part]:
        """Return what the next chunk says."""
        data = named_data(block)[1]
        if not data:
            return []
        chunk = _read_chunk(data)
        if chunk.error:
            return [_error(chunk.error)]
        if chunk.candidates is None and chunk.means_nothing:
            return [Raw("message", as_text(data))]
        parts, as_it_came = self._start(chunk), _AsItCame(data)
        for position, candidate in enumerate(chunk.candidates or ()):
            if 0 <= (candidate.index or 0) < MAX_CANDIDATES:
                parts += self._candidate(candidate, position, as_it_came)
        if chunk.usage_metadata is not None:
            parts += self._used(chunk.usage_metadata)
        if chunk.prompt_feedback is not None:
            parts += _feedback(chunk.prompt_feedback)
        return parts

    def finish(self) -> list[Part]:
        """Return the calls that are still open, and why each candidate ended."""
        finishes, self._finishes = self._finishes, {}
        ends = (self._finish(choice, native) for choice, native in sorted(finishes.items()))
        return [*self._cut_streamed(), *self._calls.end_all(), *ends]

    def _start(self, chunk: Chunk) -> list[Part]:
        if self._started:
            return []
        self._started = True
        return [Start(chunk.response_id or "", chunk.model_version or "")]

    def _candidate(self, candidate: Candidate, position: int, as_it_came: _AsItCame) -> list[Part]:
        choice = candidate.index or 0
        said: list[Part] = []
        for number, part in enumerate((candidate.content and candidate.content.parts) or ()):
            text = part.text
            if text is None or part.thought or part.thought_signature:
                said += self._unusual(part, choice) or as_it_came.unknown(position, number)
            elif text:
                said.append(Text(text, 0, choice))
                self._cited(choice).hear(text)
        if candidate.finish_reason:
            self._finishes[choice] = word(candidate.finish_reason)
        if candidate.grounding_metadata is not None:
            said += self._cited(choice).grounded(candidate.grounding_metadata)
        if candidate.citation_metadata is not None:
            said += self._cited(choice).recited(candidate.citation_metadata)
        if candidate.has_more:
            said += _rest(candidate, choice)
        return said

    def _cited(self, choice: int) -> Citations:
        citations = self._citations.get(choice)
        if citations is None:
            citations = self._citations[choice] = Citations(choice)
        return citations

    def _unusual(self, part: ContentPart, choice: int) -> list[Part]:
        """Return what is no mere text. A signature may stand on any part, and is told before it."""
        signature, text = part.thought_signature or "", part.text or ""
        if part.thought and part.inline_data is not None:  # a draft of an image
            draft = {"mimeType": part.inline_data.mime_type, "data": part.inline_data.data}
            return [Raw("thought", source_of({"index": choice, "inlineData": draft}))]
        if part.thought:
            return [Thinking(text, 0, choice, signature)] if text or signature else []
        said: list[Part] = [Thinking("", 0, choice, signature)] if signature else []
        if text:
            self._cited(choice).hear(text)
            said.append(Text(text, 0, choice))
        if part.function_call is not None:
            said += self._function_call(part.function_call, choice)
        for blob in (part.inline_data, part.file_data):
            if blob is not None:
                said.append(File(blob.mime_type or "", blob.data or "", blob.file_uri or "", choice))
        for name, told in self._tools.items():
            inner = getattr(part, name)
            if inner is not None:
                said += told(inner, choice)
        return said

    # Calls

    def _function_call(self, call: FunctionCall, choice: int) -> list[Part]:
        """Return a call, whole as it nearly always comes; else its start, and at its last piece the rest."""
        self._called.add(choice)
        begun: list[Part] = []
        if call.name:
            begun = self._end_streamed(choice)
            if not call.will_continue and not call.partial_args:
                return [*begun, *self._calls.whole(call.name, call.args, call.id or "", choice=choice)]
            begun += self._calls.start(choice, call.name, call.id or "", choice=choice)
            self._streamed[choice] = StreamedArguments()
        streamed = self._streamed.get(choice)
        if streamed is not None:
            for argument in call.partial_args or ():
                streamed.add(argument.json_path, argument.value)
        return begun if call.will_continue else [*begun, *self._end_streamed(choice)]

    def _end_streamed(self, choice: int) -> list[Part]:
        streamed = self._streamed.pop(choice, None)
        if streamed is None:
            return []
        return [*self._calls.add(choice, streamed.source()), *self._calls.end(choice)]

    def _cut_streamed(self) -> list[Part]:
        """Return the arguments of calls that have not ended, as far as they came."""
        streamed, self._streamed = self._streamed, {}
        cut = ((choice, each.source(whole=False)) for choice, each in streamed.items())
        return [part for choice, source in cut for part in self._calls.add(choice, source)]

    def _executable_code(self, code: dict[str, Any], choice: int) -> list[Part]:
        arguments = {name: code[name] for name in ("language", "code") if name in code}
        parts = self._calls.whole(
            CODE_EXECUTION, arguments, word(code.get("id")), choice=choice, executed=True
        )
        self._code = next((part.id for part in parts if isinstance(part, ToolStart)), "")
        return parts

    def _code_result(self, result: dict[str, Any], choice: int) -> list[Part]:
        outcome = word(result.get("outcome"))
        output = {name: result[name] for name in ("outcome", "output") if name in result}
        call = word(result.get("id")) or self._code
        return [ToolResult(call, CODE_EXECUTION, output, outcome != "OUTCOME_OK", choice)]

    def _tool_call(self, call: dict[str, Any], choice: int) -> list[Part]:
        name, arguments = word(call.get("toolType")).lower(), call.get("args") or {}
        return self._calls.whole(name, arguments, word(call.get("id")), choice=choice, executed=True)

    # The rest

    def _finish(self, choice: int, native: str) -> Finish:
        """Return why a candidate ended. Gemini says STOP where it wants a function called, too."""
        reason = REASONS.get(native, "other")
        return Finish("tool_calls" if reason == "stop" and choice in self._called else reason, native, choice)

    def _used(self, told: UsageMetadata) -> list[Part]:
        """Return the figures so far, where they are new."""
        if told == self._usage:
            return []
        self._usage = told
        return [
            Usage(
                input_tokens=_sum(told.prompt_token_count, told.tool_use_prompt_token_count),
                output_tokens=_sum(told.candidates_token_count, told.thoughts_token_count),
                cached_input_tokens=told.cached_content_token_count,
                reasoning_tokens=told.thoughts_token_count,
            )
        ]


def _sum(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return first if second is None else second
    return first + second


def _tool_response(response: dict[str, Any], choice: int) -> list[Part]:
    name = word(response.get("toolType")).lower()
    return [ToolResult(word(response.get("id")), name, response.get("response"), choice=choice)]


def _feedback(feedback: PromptFeedback) -> list[Part]:
    """Return a prompt's being blocked, as the error that it is: no candidate follows."""
    if not feedback.block_reason:
        return []
    why = feedback.block_reason_message or f"the prompt was blocked: {feedback.block_reason}"
    return [Error(why, feedback.block_reason, 400)]


def _error(error: Any) -> Error:
    """Return an error: Google's object, whose code is an HTTP status, or whatever stands in its place."""
    told = error if isinstance(error, dict) else {}
    code = word(told.get("status")) or word(told.get("code")) or "INTERNAL"
    return Error(word(told.get("message")) or word(error), code, error_status(told.get("code")) or 500)


def _rest(candidate: Candidate, choice: int) -> Iterator[Part]:
    """Yield what no part holds, together, where there is any."""
    grounding = candidate.grounding_metadata or {}
    told = {
        "finishMessage": candidate.finish_message,
        "safetyRatings": candidate.safety_ratings,
        "urlContextMetadata": candidate.url_context_metadata,
        "avgLogprobs": candidate.avg_logprobs,
        "logprobsResult": candidate.logprobs_result,
        "webSearchQueries": grounding.get("webSearchQueries"),
        "searchEntryPoint": grounding.get("searchEntryPoint"),
    }
    rest = {name: value for name, value in told.items() if value is not None}
    if rest:
        yield Raw("candidate", source_of({"index": choice, **rest}))


class _AsItCame:
    """A chunk's text, to be read a second time, and no more, where a part is of an unknown kind."""

    __slots__ = ("_chunk", "_data")

    def __init__(self, data: Data) -> None:
        self._data = data
        self._chunk: Any = None

    def unknown(self, candidate: int, number: int) -> list[Part]:
        """Return a part as it came, but for the names that are known; nothing for an empty one."""
        if self._chunk is None:
            self._chunk = _value(self._data)
        try:
            part = dict(self._chunk["candidates"][candidate]["content"]["parts"][number])
        except (LookupError, TypeError, ValueError):  # what does not fit was left out, and the places moved
            return []
        known = ContentPart.__struct_encode_fields__
        rest = {name: value for name, value in part.items() if name not in known}
        return [Raw("part", source_of(rest))] if rest else []


def _value(data: Data) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return {}
