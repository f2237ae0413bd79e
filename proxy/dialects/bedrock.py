"""AWS Bedrock, ``ConverseStream``."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from proxy.dialects.base import Decoder, Dialect, Failure, Verdict, error_status
from proxy.dialects.part import (
    Citation,
    End,
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
    Usage,
)
from proxy.dialects.payload import Data, as_text, data_block, reader, write
from proxy.dialects.tool_calls import MAX_ARGUMENTS, MAX_CALLS, ToolCalls
from proxy.stream.event_message import ERROR_EVENT, EventMessages
from proxy.stream.sse import named_data

#: Longest id and name, together, of a call whose name is kept for its result.
MAX_NAME = 1024

#: Events that add to the answer. After one of them an earlier stop reason no longer counts.
CONTENT = frozenset({"messageStart", "contentBlockStart", "contentBlockDelta"})

EVENTS = CONTENT | {"contentBlockStop", "messageStop", "metadata"}

#: The exceptions of the stream and the HTTP statuses that the service's model gives them.
EXCEPTIONS: Mapping[str, int] = {
    "validationException": 400,
    "modelStreamErrorException": 424,
    "throttlingException": 429,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
    "modelTimeoutException": 408,
}

#: What a failure is called in the stream, by its status. Any other one is a ``modelStreamErrorException``:
#: "An error occurred while streaming the response. Retry your request."
EXCEPTION_NAMES: Mapping[int, str] = {
    400: "validationException",
    429: "throttlingException",
    500: "internalServerException",
    503: "serviceUnavailableException",
}

#: What it is called in an answer that is no stream.
ERROR_CODES: Mapping[int, str] = {
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
}

REASONS: Mapping[str, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


class Camel(msgspec.Struct, rename="camel"):
    """An object of the API, which writes its keys in camel case."""


class ToolUse(Camel):
    """The beginning of a call. ``type`` is ``server_tool_use`` where the service runs the tool."""

    tool_use_id: str = ""
    name: str = ""
    type: str = ""


class ToolOutcome(Camel):
    """The beginning of what such a tool returned. ``type`` is the kind of the result."""

    tool_use_id: str = ""
    type: str = ""
    status: str = ""


class Picture(Camel):
    """The beginning of an image, and a piece of one: ``source`` has ``bytes`` in base64."""

    format: str = ""
    source: dict[str, Any] = {}


class BlockStart(Camel):
    """How a content block begins; one of text has no start."""

    tool_use: ToolUse | None = None
    tool_result: ToolOutcome | None = None
    image: Picture | None = None


class Reasoning(Camel):
    """A piece of the reasoning: one of the three."""

    text: str = ""
    signature: str = ""
    redacted_content: str = ""


class ToolInput(Camel):
    """A fragment of a call's arguments."""

    input: str = ""


class Delta(Camel):
    """A piece of a content block: one of these."""

    text: str | None = None
    tool_use: ToolInput | None = None
    reasoning_content: Reasoning | None = None
    citation: dict[str, Any] | None = None
    tool_result: list[dict[str, Any]] | None = None
    image: Picture | None = None


class TokenUsage(Camel):
    """Tokens. ``input_tokens`` are those that the cache had no part in."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None

    def part(self) -> Usage:
        """Return it as it is counted here: what the cache gave or took was sent, too."""
        sent = (self.input_tokens, self.cache_read_input_tokens, self.cache_write_input_tokens)
        return Usage(
            input_tokens=None if self.input_tokens is None else sum(count or 0 for count in sent),
            output_tokens=self.output_tokens,
            cached_input_tokens=self.cache_read_input_tokens,
            cache_write_input_tokens=self.cache_write_input_tokens,
        )


class Payload(Camel):
    """What matters here of an event's data, whichever event it is."""

    content_block_index: int = 0
    start: BlockStart | None = None
    delta: Delta | None = None
    stop_reason: str = ""
    additional_model_response_fields: Any = None
    usage: TokenUsage | None = None
    message: str = ""
    code: str = ""
    original_status_code: Any = None


read_payload = reader(Payload)


class Bedrock(Dialect):
    """Named events, from ``messageStart`` to ``metadata``. Exceptions are events, too."""

    __slots__ = ()

    name = "bedrock"
    provider = "aws.bedrock"
    framings = MappingProxyType({**Dialect.framings, "application/vnd.amazon.eventstream": EventMessages})

    def serves(self, segments: list[str]) -> bool:
        """Never by its path: AWS's SDKs read nothing but binary messages. A route names this dialect."""
        return False

    def streams_at(self, segments: list[str]) -> bool:
        """``/model/{id}/converse-stream``."""
        return segments[-1:] == ["converse-stream"]

    def model_at(self, segments: list[str]) -> str:
        """The ``{id}`` of that path: no event says it."""
        return segments[-2] if self.streams_at(segments) and len(segments) > 1 else ""

    def confirms(self, block: bytes) -> bool:
        """One of the events, or an exception."""
        event, _ = named_data(block)
        return event in EVENTS or is_error(event)

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Finished with a stop reason that no content follows, complete with the metadata after it."""
        verdict = Verdict.OPEN
        for event, _ in map(named_data, tail):
            if is_error(event):
                return Verdict.ERROR
            if event in CONTENT:
                verdict = Verdict.OPEN
            elif event == "messageStop":
                verdict = Verdict.FINISHED
            elif event == "metadata" and verdict is Verdict.FINISHED:
                verdict = Verdict.COMPLETE
        return verdict

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """The event of an exception, as a message of the service would have become one."""
        name = EXCEPTION_NAMES.get(failure.status, "modelStreamErrorException")
        said: dict[str, Any] = {"message": failure.message}
        if name == "modelStreamErrorException":
            said["originalStatusCode"] = failure.status
        return data_block(said, event=name)

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """The message, and the exception's name as ``code``. It has no place for ``kind``."""
        other = "ValidationException" if status < 500 else "InternalServerException"
        return write({"message": message, "code": ERROR_CODES.get(status, other)})

    def decoder(self, salt: str) -> Decoder:
        """Return what reads one stream."""
        return BedrockDecoder(salt)

    def wants_stream(self, body: bytes) -> bool:
        """Always: the path has said so already."""
        return True


def is_error(event: str) -> bool:
    """Whether an event is an exception of the service, or tells a message of type ``error``."""
    return event == ERROR_EVENT or event.endswith("Exception")


class BedrockDecoder(Decoder):
    """Reads events. ``block`` of a part is the API's ``contentBlockIndex``.

    What arrives in pieces and makes sense only whole (a tool's result, an image) waits for its block's end.
    """

    __slots__ = ("_calls", "_finished", "_names", "_on", "_pictures", "_results", "_room")

    def __init__(self, salt: str) -> None:
        self._calls = ToolCalls(salt)
        self._names: dict[str, str] = {}  # of the service's own tools, by the id of the call
        self._results: dict[int, _Result] = {}
        self._pictures: dict[int, _Picture] = {}
        self._room = MAX_ARGUMENTS  # characters that these may still have, together
        self._finished = False
        self._on: dict[str, Callable[[Payload, Data], list[Part]]] = {
            "messageStart": self._message_start,
            "contentBlockStart": self._block_start,
            "contentBlockDelta": self._block_delta,
            "contentBlockStop": self._block_stop,
            "messageStop": self._message_stop,
            "metadata": self._metadata,
        }

    def decode(self, block: bytes) -> list[Part]:
        """Return what an event says."""
        event, data = named_data(block)
        if not data:
            return []
        payload = read_payload(data)
        if is_error(event):
            return [error_of(event, payload)]
        on = self._on.get(event)
        return on(payload, data) if on else [Raw(event, as_text(data))]

    def _message_start(self, _payload: Payload, _data: Data) -> list[Part]:
        return [Start()]

    def _block_start(self, payload: Payload, data: Data) -> list[Part]:
        start, index = payload.start or BlockStart(), payload.content_block_index
        if use := start.tool_use:
            executed = use.type == "server_tool_use"
            if executed and len(self._names) < MAX_CALLS and _is_short(use):
                self._names[use.tool_use_id] = use.name
            return self._calls.start(index, use.name, use.tool_use_id, executed=executed)
        if self._room < 0 or len(self._results) + len(self._pictures) >= MAX_CALLS:
            return [Raw("contentBlockStart", as_text(data))]
        if outcome := start.tool_result:
            name = self._names.get(outcome.tool_use_id, outcome.type)
            self._room -= len(outcome.tool_use_id) + len(name)
            self._results[index] = _Result(outcome.tool_use_id, name, failed=outcome.status == "error")
        elif start.image:
            self._pictures[index] = _Picture(start.image.format)
        else:
            return [Raw("contentBlockStart", as_text(data))]
        return []

    def _block_delta(self, payload: Payload, data: Data) -> list[Part]:
        delta, index = payload.delta or Delta(), payload.content_block_index
        if delta.text is not None:
            return [Text(delta.text, index)] if delta.text else []
        if delta.tool_use:
            return self._calls.add(index, delta.tool_use.input)
        if thought := delta.reasoning_content:
            return [Thinking(thought.text, index, 0, thought.signature, thought.redacted_content)]
        if delta.citation is not None:
            return [citation_of(delta.citation, index)]
        if self._takes(index, delta, len(data)):
            return []
        return [Raw("contentBlockDelta", as_text(data))]

    def _takes(self, index: int, delta: Delta, size: int) -> bool:
        """Whether it is a piece of something that is being put together, and there is room for it."""
        piece: Any = None
        if delta.tool_result is not None and index in self._results:
            taker, piece = self._results[index].pieces, delta.tool_result
        elif delta.image is not None and index in self._pictures:
            taker, piece = self._pictures[index].pieces, [delta.image.source.get("bytes")]
        self._room -= size if piece else 0
        if not piece or self._room < 0:
            return False
        taker += piece
        return True

    def _block_stop(self, payload: Payload, _data: Data) -> list[Part]:
        index = payload.content_block_index
        result, picture = self._results.pop(index, None), self._pictures.pop(index, None)
        parts = self._calls.end(index)
        parts += result.parts() if result else []
        return parts + (picture.parts() if picture else [])

    def _message_stop(self, payload: Payload, data: Data) -> list[Part]:
        parts = self._calls.end_all()
        if payload.additional_model_response_fields is not None:
            parts.append(Raw("messageStop", as_text(data)))
        self._finished = True
        return [*parts, Finish(REASONS.get(payload.stop_reason, "other"), payload.stop_reason)]

    def _metadata(self, payload: Payload, data: Data) -> list[Part]:
        """Usage has its part; the latency and the guardrail's trace have none."""
        parts: list[Part] = [payload.usage.part()] if payload.usage else []
        parts.append(Raw("metadata", as_text(data)))
        return [*parts, End()] if self._finished else parts


def _is_short(use: ToolUse) -> bool:
    return len(use.tool_use_id) + len(use.name) <= MAX_NAME


class _Result:
    """What a tool returned that the service has run, as far as it has come."""

    __slots__ = ("_failed", "_id", "_name", "pieces")

    def __init__(self, call_id: str, name: str, *, failed: bool) -> None:
        self._id, self._name, self._failed = call_id, name, failed
        self.pieces: list[dict[str, Any]] = []

    def parts(self) -> list[Part]:
        """Return it whole: its text as one, or else the list of what it is made of."""
        texts = [piece.get("text") for piece in self.pieces]
        plain = all(isinstance(text, str) for text in texts)
        output: Any = "".join(map(str, texts)) if plain else self.pieces
        return [ToolResult(self._id, self._name, output, self._failed)]


class _Picture:
    """An image, as far as it has come."""

    __slots__ = ("_kind", "pieces")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.pieces: list[Any] = []

    def parts(self) -> list[Part]:
        """Return it whole: each piece is a base64 text of its own. One that is none makes no file."""
        try:
            data = b"".join(b64decode(piece, validate=True) for piece in self.pieces)
        except (ValueError, TypeError):
            return []
        return [File(f"image/{self._kind}", data=b64encode(data).decode())] if data else []


def citation_of(source: dict[str, Any], block: int) -> Citation:
    """Return what a citation says. Its location is in the document, not in the answer."""
    location, contents = source.get("location"), source.get("sourceContent")
    place = next(iter(_objects(list(location.values()) if isinstance(location, dict) else [])), {})
    document = place.get("documentIndex", place.get("searchResultIndex"))
    texts = [content.get("text") for content in _objects(contents)]
    return Citation(
        url=_text(place.get("url")),
        title=_text(source.get("title")),
        text="".join(map(_text, texts)),
        document=_text(source.get("source")) or ("" if document is None else str(document)),
        block=block,
        source=source,
    )


def error_of(event: str, payload: Payload) -> Error:
    """Return the error that an event tells."""
    code = payload.code or event if event == ERROR_EVENT else event
    status = error_status(payload.original_status_code) or EXCEPTIONS.get(code, 500)
    return Error(payload.message, code, status)


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
