"""OpenAI Realtime's server events, built with the models of the ``openai`` package."""

from __future__ import annotations

import base64
from itertools import count
from typing import Any, Literal

from openai.types import realtime as api
from openai.types.realtime import realtime_conversation_item_user_message as user_message
from openai.types.realtime import response_content_part_added_event as part_added
from openai.types.realtime import response_content_part_done_event as part_done
from openai.types.realtime.conversation_item import ConversationItem
from openai.types.realtime.realtime_server_event import ConversationItemRetrieved, RealtimeServerEvent

from proxy.demo.voice import FAILURE, Call

__all__ = ["ConversationItem", "Events", "RealtimeServerEvent"]


class Events:
    """Writes the events of one socket, and names what is in them: no two of its ids are the same."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._numbers = count(1)

    def name(self, prefix: str) -> str:
        """A new identifier, in the form of the API's own: ``item_…``."""
        return f"{prefix}_{self._call.number:06d}{next(self._numbers):09d}"

    # What a session tells.

    def session_created(self, session: api.RealtimeSessionCreateRequest) -> RealtimeServerEvent:
        """The first event of every socket."""
        return api.SessionCreatedEvent(type="session.created", event_id=self._id(), session=session)

    def session_updated(self, session: api.RealtimeSessionCreateRequest) -> RealtimeServerEvent:
        """The whole session as it is now."""
        return api.SessionUpdatedEvent(type="session.updated", event_id=self._id(), session=session)

    def error(
        self, code: str, message: str, *, param: str | None = None, cause: str | None = None
    ) -> RealtimeServerEvent:
        """The client's mistake; ``cause`` is the ``event_id`` of what it sent. The session goes on."""
        error = api.RealtimeError(
            type="invalid_request_error", code=code, message=message, param=param, event_id=cause
        )
        return api.RealtimeErrorEvent(type="error", event_id=self._id(), error=error)

    def complaint(self) -> RealtimeServerEvent:
        """The provider's own failure."""
        error = api.RealtimeError(
            type="server_error", code="server_error", message=FAILURE, param=None, event_id=None
        )
        return api.RealtimeErrorEvent(type="error", event_id=self._id(), error=error)

    # What becomes of the client's audio.

    def speech_started(self, item_id: str, at_ms: int) -> RealtimeServerEvent:
        """The client begins to speak."""
        return api.InputAudioBufferSpeechStartedEvent(
            type="input_audio_buffer.speech_started",
            event_id=self._id(),
            item_id=item_id,
            audio_start_ms=at_ms,
        )

    def speech_stopped(self, item_id: str, at_ms: int) -> RealtimeServerEvent:
        """The client has fallen silent."""
        return api.InputAudioBufferSpeechStoppedEvent(
            type="input_audio_buffer.speech_stopped",
            event_id=self._id(),
            item_id=item_id,
            audio_end_ms=at_ms,
        )

    def committed(self, item_id: str, previous: str | None) -> RealtimeServerEvent:
        """The buffer becomes an item of the conversation."""
        return api.InputAudioBufferCommittedEvent(
            type="input_audio_buffer.committed",
            event_id=self._id(),
            item_id=item_id,
            previous_item_id=previous,
        )

    def cleared(self) -> RealtimeServerEvent:
        """The buffer is empty again."""
        return api.InputAudioBufferClearedEvent(type="input_audio_buffer.cleared", event_id=self._id())

    # What becomes of the conversation.

    def item_added(self, item: ConversationItem, previous: str | None) -> RealtimeServerEvent:
        """An item is there, though perhaps not yet whole."""
        return api.ConversationItemAdded(
            type="conversation.item.added", event_id=self._id(), item=item, previous_item_id=previous
        )

    def item_done(self, item: ConversationItem, previous: str | None) -> RealtimeServerEvent:
        """The item will not change any more."""
        return api.ConversationItemDone(
            type="conversation.item.done", event_id=self._id(), item=item, previous_item_id=previous
        )

    def item_retrieved(self, item: ConversationItem) -> RealtimeServerEvent:
        """The item that was asked for."""
        return ConversationItemRetrieved(type="conversation.item.retrieved", event_id=self._id(), item=item)

    def item_deleted(self, item_id: str) -> RealtimeServerEvent:
        """The item is gone."""
        return api.ConversationItemDeletedEvent(
            type="conversation.item.deleted", event_id=self._id(), item_id=item_id
        )

    def item_truncated(self, item_id: str, content_index: int, end_ms: int) -> RealtimeServerEvent:
        """The item's audio ends there now, and its transcript is gone."""
        return api.ConversationItemTruncatedEvent(
            type="conversation.item.truncated",
            event_id=self._id(),
            item_id=item_id,
            content_index=content_index,
            audio_end_ms=end_ms,
        )

    # What a response tells. ``place`` says of which response, item and part.

    def response_created(self, response: api.RealtimeResponse) -> RealtimeServerEvent:
        """A response begins."""
        return api.ResponseCreatedEvent(type="response.created", event_id=self._id(), response=response)

    def response_done(self, response: api.RealtimeResponse) -> RealtimeServerEvent:
        """A response is over, whole or not."""
        return api.ResponseDoneEvent(type="response.done", event_id=self._id(), response=response)

    def output_item_added(self, response_id: str, item: ConversationItem) -> RealtimeServerEvent:
        """The response's only item begins."""
        return api.ResponseOutputItemAddedEvent(
            type="response.output_item.added",
            event_id=self._id(),
            response_id=response_id,
            output_index=0,
            item=item,
        )

    def output_item_done(self, response_id: str, item: ConversationItem) -> RealtimeServerEvent:
        """The response's only item is over."""
        return api.ResponseOutputItemDoneEvent(
            type="response.output_item.done",
            event_id=self._id(),
            response_id=response_id,
            output_index=0,
            item=item,
        )

    def part_added(self, kind: Literal["text", "audio"], place: dict[str, Any]) -> RealtimeServerEvent:
        """The item's only part begins, empty."""
        part = part_added.Part(type="text", text="")
        if kind == "audio":
            part = part_added.Part(type="audio", transcript="")
        return api.ResponseContentPartAddedEvent(
            type="response.content_part.added", event_id=self._id(), part=part, **place
        )

    def part_done(
        self, kind: Literal["text", "audio"], text: str, place: dict[str, Any]
    ) -> RealtimeServerEvent:
        """The item's only part is over."""
        part = part_done.Part(type="text", text=text)
        if kind == "audio":
            part = part_done.Part(type="audio", transcript=text)
        return api.ResponseContentPartDoneEvent(
            type="response.content_part.done", event_id=self._id(), part=part, **place
        )

    def text_delta(self, delta: str, place: dict[str, Any]) -> RealtimeServerEvent:
        """More text."""
        return api.ResponseTextDeltaEvent(
            type="response.output_text.delta", event_id=self._id(), delta=delta, **place
        )

    def text_done(self, text: str, place: dict[str, Any]) -> RealtimeServerEvent:
        """All the text there was."""
        return api.ResponseTextDoneEvent(
            type="response.output_text.done", event_id=self._id(), text=text, **place
        )

    def transcript_delta(self, delta: str, place: dict[str, Any]) -> RealtimeServerEvent:
        """More of what is being said."""
        return api.ResponseAudioTranscriptDeltaEvent(
            type="response.output_audio_transcript.delta", event_id=self._id(), delta=delta, **place
        )

    def transcript_done(self, text: str, place: dict[str, Any]) -> RealtimeServerEvent:
        """All that was said."""
        return api.ResponseAudioTranscriptDoneEvent(
            type="response.output_audio_transcript.done", event_id=self._id(), transcript=text, **place
        )

    def audio_delta(self, audio: bytes, place: dict[str, Any]) -> RealtimeServerEvent:
        """More audio."""
        return api.ResponseAudioDeltaEvent(
            type="response.output_audio.delta",
            event_id=self._id(),
            delta=base64.b64encode(audio).decode(),
            **place,
        )

    def audio_done(self, place: dict[str, Any]) -> RealtimeServerEvent:
        """The audio is over."""
        return api.ResponseAudioDoneEvent(type="response.output_audio.done", event_id=self._id(), **place)

    def _id(self) -> str:
        return self.name("event")


def spoken_item(item_id: str) -> api.RealtimeConversationItemUserMessage:
    """The client's audio as an item; the audio itself is not shown, as in the API."""
    return api.RealtimeConversationItemUserMessage(
        id=item_id,
        object="realtime.item",
        type="message",
        role="user",
        status="completed",
        content=[user_message.Content(type="input_audio", transcript=None)],
    )
