"""One response of a Realtime session: the provider's text, written or spoken, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from openai.types import realtime as api
from openai.types.realtime import realtime_conversation_item_assistant_message as assistant_message
from openai.types.realtime import realtime_response
from openai.types.realtime.realtime_audio_formats import AudioPCM
from openai.types.realtime.realtime_response_usage_input_token_details import CachedTokensDetails

from proxy.demo.realtime_conversation import SPOKEN_MS_PER_TOKEN, Conversation
from proxy.demo.realtime_events import Events, RealtimeServerEvent
from proxy.demo.speech import Speech, expected_text
from proxy.demo.tone import SAMPLE_RATE, WORD_MS, word_audio

Modality = Literal["text", "audio"]
Status = Literal["in_progress", "completed", "cancelled"]

#: Why a response was cancelled.
Interruption = Literal["turn_detected", "client_cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a response is to be: the session's settings under those of its ``response.create``.

    A ``detached`` one reads the conversation, but is no part of it (the API's ``conversation: none``).
    """

    modality: Modality
    voice: str
    max_output_tokens: int | Literal["inf"]
    metadata: dict[str, str] | None = None
    detached: bool = False


class Response:
    """Says ``speech`` according to ``plan``."""

    def __init__(self, events: Events, conversation: Conversation, plan: Plan, speech: Speech) -> None:
        self.id = events.name("resp")
        self.detached = plan.detached
        self._events = events
        self._conversation = conversation
        self._plan = plan
        self._speech = speech
        self._item_id = events.name("item")
        self._previous: str | None = None
        self._place: dict[str, Any] = {
            "response_id": self.id,
            "item_id": self._item_id,
            "output_index": 0,
            "content_index": 0,
        }
        self._begun = False  # whether the item was told of
        self._words = 0
        self._heard = (conversation.text_tokens, conversation.audio_tokens)

    def created(self) -> RealtimeServerEvent:
        """The event that opens it, before anything is said."""
        return self._events.response_created(self._document("in_progress"))

    def steps(self) -> Iterator[list[RealtimeServerEvent]]:
        """The events that go together: the item's beginning, each word, the end."""
        yield self._begin()
        for piece in self._speech.pieces():
            self._words += 1
            yield self._say(piece)
        yield self._end("completed")

    def cancel(self, reason: Interruption) -> list[RealtimeServerEvent]:
        """End it here: what was said stays, marked as incomplete."""
        return self._end("cancelled", reason)

    def _begin(self) -> list[RealtimeServerEvent]:
        self._begun = True
        item = self._item("in_progress")
        told = [self._events.output_item_added(self.id, item)]
        if not self.detached:
            self._previous = self._conversation.add(item)
            told.append(self._events.item_added(item, self._previous))
        return [*told, self._events.part_added(self._plan.modality, self._place)]

    def _say(self, piece: str) -> list[RealtimeServerEvent]:
        if self._plan.modality == "text":
            return [self._events.text_delta(piece, self._place)]
        return [
            self._events.transcript_delta(piece, self._place),
            self._events.audio_delta(word_audio(self._words - 1), self._place),
        ]

    def _end(self, status: Status, reason: Interruption | None = None) -> list[RealtimeServerEvent]:
        told = self._end_item(status) if self._begun else []
        return [*told, self._events.response_done(self._document(status, reason))]

    def _end_item(self, status: Status) -> list[RealtimeServerEvent]:
        text, item = expected_text(self._words), self._item(status)
        if self._plan.modality == "text":
            told = [self._events.text_done(text, self._place)]
        else:
            told = [self._events.audio_done(self._place), self._events.transcript_done(text, self._place)]
        told.append(self._events.part_done(self._plan.modality, text, self._place))
        if not self.detached:
            self._conversation.finish(item, audio_ms=self._audio_ms)
            told.append(self._events.item_done(item, self._previous))
        return [*told, self._events.output_item_done(self.id, item)]

    @property
    def _audio_ms(self) -> int:
        return self._words * WORD_MS if self._plan.modality == "audio" else 0

    def _item(self, status: Status) -> api.RealtimeConversationItemAssistantMessage:
        return api.RealtimeConversationItemAssistantMessage(
            id=self._item_id,
            object="realtime.item",
            type="message",
            role="assistant",
            status="incomplete" if status == "cancelled" else status,
            content=[] if status == "in_progress" else [self._content()],
        )

    def _content(self) -> assistant_message.Content:
        text = expected_text(self._words)
        if self._plan.modality == "text":
            return assistant_message.Content(type="output_text", text=text)
        return assistant_message.Content(type="output_audio", transcript=text)

    def _document(self, status: Status, reason: Interruption | None = None) -> api.RealtimeResponse:
        over = status != "in_progress"
        return api.RealtimeResponse(
            id=self.id,
            object="realtime.response",
            status=status,
            status_details=self._details(status, reason),
            output=[self._item(status)] if over and self._begun else [],
            conversation_id=None if self.detached else self._conversation.id,
            output_modalities=[self._plan.modality],
            max_output_tokens=self._plan.max_output_tokens,
            audio=realtime_response.Audio(
                output=realtime_response.AudioOutput(
                    format=AudioPCM(type="audio/pcm", rate=SAMPLE_RATE), voice=self._plan.voice
                )
            ),
            metadata=self._plan.metadata,
            usage=self._usage() if over else None,
        )

    def _details(self, status: Status, reason: Interruption | None) -> api.RealtimeResponseStatus | None:
        if status != "cancelled":
            return None
        return api.RealtimeResponseStatus(type="cancelled", reason=reason)

    def _usage(self) -> api.RealtimeResponseUsage:
        text_in, audio_in = self._heard
        text_out, audio_out = self._words, self._audio_ms // SPOKEN_MS_PER_TOKEN
        nothing_cached = CachedTokensDetails(text_tokens=0, audio_tokens=0, image_tokens=0)
        return api.RealtimeResponseUsage(
            input_tokens=text_in + audio_in,
            input_token_details=api.RealtimeResponseUsageInputTokenDetails(
                text_tokens=text_in,
                audio_tokens=audio_in,
                image_tokens=0,
                cached_tokens=0,
                cached_tokens_details=nothing_cached,
            ),
            output_tokens=text_out + audio_out,
            output_token_details=api.RealtimeResponseUsageOutputTokenDetails(
                text_tokens=text_out, audio_tokens=audio_out
            ),
            total_tokens=text_in + audio_in + text_out + audio_out,
        )
