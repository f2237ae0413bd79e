"""What a Realtime client sends, held against the models of the ``openai`` package."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from openai.types import realtime as api
from pydantic import ValidationError

ClientEvent = (
    api.SessionUpdateEvent
    | api.InputAudioBufferAppendEvent
    | api.InputAudioBufferCommitEvent
    | api.InputAudioBufferClearEvent
    | api.ConversationItemCreateEvent
    | api.ConversationItemRetrieveEvent
    | api.ConversationItemTruncateEvent
    | api.ConversationItemDeleteEvent
    | api.ResponseCreateEvent
    | api.ResponseCancelEvent
)

#: Every event that a client can send over a WebSocket; `output_audio_buffer.clear` is for WebRTC only.
_EVENTS: dict[str, type[ClientEvent]] = {
    "session.update": api.SessionUpdateEvent,
    "input_audio_buffer.append": api.InputAudioBufferAppendEvent,
    "input_audio_buffer.commit": api.InputAudioBufferCommitEvent,
    "input_audio_buffer.clear": api.InputAudioBufferClearEvent,
    "conversation.item.create": api.ConversationItemCreateEvent,
    "conversation.item.retrieve": api.ConversationItemRetrieveEvent,
    "conversation.item.truncate": api.ConversationItemTruncateEvent,
    "conversation.item.delete": api.ConversationItemDeleteEvent,
    "response.create": api.ResponseCreateEvent,
    "response.cancel": api.ResponseCancelEvent,
}

#: What the API calls the mistakes that have a name of their own.
Code = Literal[
    "invalid_json",
    "invalid_value",
    "item_not_found",
    "item_truncate_invalid_item_id",
    "input_audio_buffer_commit_empty",
    "conversation_already_has_active_response",
    "response_cancel_not_active",
]

#: Unlike Python's own, it takes no half of a surrogate pair, which could not be told back.
_decoder = msgspec.json.Decoder(dict[str, Any])


class Mistake(Exception):
    """The client asked for what cannot be done; told as an ``error`` event, and the session goes on.

    ``param`` names the field at fault, ``cause`` is the ``event_id`` of the client's event.
    """

    def __init__(
        self, code: Code, message: str, *, param: str | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.cause = cause


def read(message: str | bytes) -> ClientEvent:
    """The event in a text message, or Mistake."""
    document = _document(message)
    cause = document.get("event_id")
    cause = cause if isinstance(cause, str) else None
    kind = document.get("type")
    event = _EVENTS.get(kind) if isinstance(kind, str) else None
    if event is None:
        known = ", ".join(_EVENTS)
        raise Mistake(
            "invalid_value", f"Unknown type {kind!r}; known are {known}.", param="type", cause=cause
        )
    try:
        return event.model_validate(document)
    except ValidationError as error:
        raise misfit(error, cause=cause) from None


def misfit(error: ValidationError, *, cause: str | None = None) -> Mistake:
    """The mistake of a field that the schema does not allow."""
    first, *others = error.errors(include_url=False, include_input=False)
    # Where a field can be one of several models, pydantic puts the model's name on the way to the fault.
    steps = [str(step) for step in first["loc"]]
    param = ".".join(step for step in steps if not step[:1].isupper())
    more = f" (and {len(others)} more)" if others else ""
    return Mistake("invalid_value", f"Invalid {param}: {first['msg']}{more}.", param=param, cause=cause)


def _document(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise Mistake("invalid_json", f"Expected a text message with JSON, got {len(message)} binary bytes.")
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Mistake("invalid_json", f"Expected a JSON object: {error}.") from None
