"""``/v1/realtime``: OpenAI's Realtime API over a WebSocket, with the subprotocol ``realtime`` if offered.

A session answers every ``response.create``, and every turn that its voice detection took, with the text
that the provider always says: as text deltas, or as audio with its transcript. ``response.created`` comes
at once, the item after ``first_delay``, each word and the end after ``interval``. Tools are never called.
``realtime_input`` tells what the voice detection hears; it interrupts a running response.

``Session`` knows no socket and no clock: it takes a message, or the time, and returns the events to send.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any, NoReturn

from aiohttp import web
from openai.types import realtime as api
from openai.types.realtime.realtime_audio_formats import AudioPCM, RealtimeAudioFormats
from openai.types.realtime.realtime_audio_input_turn_detection import SemanticVad, ServerVad
from pydantic import ValidationError

from proxy.demo.misbehaviour import Misbehaviour
from proxy.demo.realtime_conversation import Conversation, Entry, Item, TakenId, UnknownItem
from proxy.demo.realtime_events import Events, RealtimeServerEvent, spoken_item
from proxy.demo.realtime_input import InputBuffer, Sign
from proxy.demo.realtime_request import ClientEvent, Mistake, misfit, read
from proxy.demo.realtime_response import Interruption, Plan, Response
from proxy.demo.tone import SAMPLE_RATE
from proxy.demo.voice import Call
from proxy.demo.websocket import Socket, Talk

PROTOCOL = "realtime"

#: The session's model where the URL names none.
MODEL = "gpt-realtime"
VOICE = "marin"

#: How long a silence ends a turn, in milliseconds, where the session does not say.
SILENCE_MS = 500

_PCM = {"type": "audio/pcm", "rate": SAMPLE_RATE}

#: What a session is until the client changes it: the API's own defaults.
_SETTINGS: dict[str, Any] = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
    "tracing": None,
    "prompt": None,
    "include": None,
    "audio": {
        "input": {
            "format": _PCM,
            "noise_reduction": None,
            "transcription": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": SILENCE_MS,
                "idle_timeout_ms": None,
                "create_response": True,
                "interrupt_response": True,
            },
        },
        "output": {"format": _PCM, "voice": VOICE, "speed": 1.0},
    },
}

Told = list[RealtimeServerEvent]


class Session:
    """One session. Every method returns the events that are to be sent now."""

    def __init__(self, call: Call, misbehaviour: Misbehaviour, *, model: str) -> None:
        self._speech = call.speech
        self._pace = misbehaviour
        self._events = Events(call)
        self._settings = {**_SETTINGS, "model": model}
        self._session = api.RealtimeSessionCreateRequest.model_validate(self._settings)
        self._conversation = Conversation(self._events.name("conv"))
        self._input = InputBuffer()
        self._speech_item: str | None = None  # the id promised for what the client is saying
        self._response: Response | None = None
        self._steps: Iterator[Told] = iter(())
        self._due: float | None = None

    @property
    def due(self) -> float | None:
        """When to call ``proceed``; None while no response runs."""
        return self._due

    def open(self) -> Told:
        """What a client is told first."""
        return [self._events.session_created(self._session)]

    def complaint(self) -> RealtimeServerEvent:
        """The event that tells of a failure."""
        return self._events.complaint()

    def receive(self, message: str | bytes, now: float) -> Told:
        """Take a client's message."""
        cause: str | None = None
        try:
            event = read(message)
            cause = event.event_id
            return self._obey(event, now)
        except Mistake as mistake:
            cause = mistake.cause or cause
            return [self._events.error(mistake.code, str(mistake), param=mistake.param, cause=cause)]

    def proceed(self, now: float) -> Told:
        """The running response's next step."""
        told = next(self._steps)
        self._due = now + self._pace.interval
        if told[-1].type == "response.done":
            self._forget_response()
        return told

    def _obey(self, event: ClientEvent, now: float) -> Told:
        match event:
            case api.SessionUpdateEvent():
                return self._update(event.session.to_dict())
            case api.InputAudioBufferAppendEvent():
                return self._append(event.audio, now)
            case api.InputAudioBufferCommitEvent():
                return self._commit()
            case api.InputAudioBufferClearEvent():
                return self._clear()
            case api.ConversationItemCreateEvent():
                return self._create_item(event)
            case api.ConversationItemRetrieveEvent():
                return [self._events.item_retrieved(self._find(event.item_id).item)]
            case api.ConversationItemTruncateEvent():
                return self._truncate(event)
            case api.ConversationItemDeleteEvent():
                self._find(event.item_id)
                self._conversation.remove(event.item_id)
                return [self._events.item_deleted(event.item_id)]
            case api.ResponseCreateEvent():
                return self._create_response(event.response or api.RealtimeResponseCreateParams(), now)
            case api.ResponseCancelEvent():
                return self._cancel_response(event.response_id)

    # The session

    def _update(self, changes: dict[str, Any]) -> Told:
        settings = _merged(self._settings, changes)
        try:
            session = api.RealtimeSessionCreateRequest.model_validate(settings)
        except ValidationError as error:
            raise misfit(error) from None
        if session.audio and session.audio.input:
            _require_pcm(session.audio.input.format, "session.audio.input.format")
        if session.audio and session.audio.output:
            _require_pcm(session.audio.output.format, "session.audio.output.format")
        self._settings, self._session = settings, session
        return [self._events.session_updated(session)]

    @property
    def _turn_detection(self) -> ServerVad | SemanticVad | None:
        audio = self._session.audio
        return audio.input.turn_detection if audio and audio.input else None

    # The client's audio

    def _append(self, audio_base64: str, now: float) -> Told:
        try:
            audio = base64.b64decode(audio_base64, validate=True)
        except ValueError as error:
            raise Mistake("invalid_value", f"Invalid audio: {error}.", param="audio") from None
        detection = self._turn_detection
        if detection is None:
            self._input.append(audio)
            return []
        start_ms = self._input.written_ms
        silence_ms = detection.silence_duration_ms if isinstance(detection, ServerVad) else None
        told: Told = []
        for sign in self._input.listen(audio, silence_ms=SILENCE_MS if silence_ms is None else silence_ms):
            if sign is Sign.STARTED:
                told += self._begin_turn(detection, start_ms)
            else:
                told += self._end_turn(detection, now)
        return told

    def _begin_turn(self, detection: ServerVad | SemanticVad, start_ms: int) -> Told:
        self._speech_item = self._events.name("item")
        started = self._events.speech_started(self._speech_item, start_ms)
        if self._response is None or self._response.detached or detection.interrupt_response is False:
            return [started]
        return [started, *self._stop(self._response, "turn_detected")]

    def _end_turn(self, detection: ServerVad | SemanticVad, now: float) -> Told:
        assert self._speech_item is not None, "speech that stops has begun"
        told = [self._events.speech_stopped(self._speech_item, self._input.written_ms), *self._commit()]
        if self._response is None and detection.create_response is not False:
            told += self._create_response(api.RealtimeResponseCreateParams(), now)
        return told

    def _commit(self) -> Told:
        if self._input.empty:
            raise Mistake("input_audio_buffer_commit_empty", "The input audio buffer is empty.")
        item = spoken_item(self._speech_item or self._events.name("item"))
        committed = self._events.committed(str(item.id), self._conversation.last_id)
        told = self._add_item(item, audio_ms=self._input.held_ms)
        self._empty_buffer()
        return [committed, *told]

    def _clear(self) -> Told:
        self._empty_buffer()
        return [self._events.cleared()]

    def _empty_buffer(self) -> None:
        self._input.clear()
        self._speech_item = None

    # The conversation

    def _create_item(self, event: api.ConversationItemCreateEvent) -> Told:
        item = event.item
        if not isinstance(item, Item):
            raise Mistake("invalid_value", "The demo plays no part of MCP.", param="item.type")
        item.id = item.id or self._events.name("item")
        item.object, item.status = "realtime.item", "completed"
        return self._add_item(item, after=event.previous_item_id)

    def _add_item(self, item: Item, *, after: str | None = None, audio_ms: int = 0) -> Told:
        try:
            previous = self._conversation.add(item, after=after, audio_ms=audio_ms)
        except UnknownItem:
            raise Mistake(
                "item_not_found", f"There is no item {after!r}.", param="previous_item_id"
            ) from None
        except TakenId:
            raise Mistake(
                "invalid_value", f"There already is an item {item.id!r}.", param="item.id"
            ) from None
        return [self._events.item_added(item, previous), self._events.item_done(item, previous)]

    def _find(self, item_id: str) -> Entry:
        try:
            return self._conversation.find(item_id)
        except UnknownItem:
            raise Mistake("item_not_found", f"There is no item {item_id!r}.", param="item_id") from None

    def _truncate(self, event: api.ConversationItemTruncateEvent) -> Told:
        entry = self._find(event.item_id)
        if event.content_index != 0 or not entry.audio_ms or not entry.said:
            message = f"Only what the assistant said can be cut; {event.item_id!r} is no such item."
            raise Mistake("item_truncate_invalid_item_id", message, param="item_id")
        if not 0 <= event.audio_end_ms <= entry.audio_ms:
            message = f"The item is {entry.audio_ms} ms long; it cannot be cut at {event.audio_end_ms} ms."
            raise Mistake("invalid_value", message, param="audio_end_ms")
        entry.truncate(event.audio_end_ms)
        return [self._events.item_truncated(event.item_id, event.content_index, event.audio_end_ms)]

    # The response

    def _create_response(self, asked: api.RealtimeResponseCreateParams, now: float) -> Told:
        if self._response is not None:
            raise Mistake(
                "conversation_already_has_active_response",
                f"The response {self._response.id} is still running; cancel it, or wait for its end.",
            )
        plan = self._plan(asked)
        self._response = Response(self._events, self._conversation, plan, self._speech)
        self._steps = self._response.steps()
        self._due = now + self._pace.first_delay
        return [self._response.created()]

    def _cancel_response(self, response_id: str | None) -> Told:
        if self._response is None or response_id not in (None, self._response.id):
            raise Mistake("response_cancel_not_active", "There is no such response to cancel.")
        return self._stop(self._response, "client_cancelled")

    def _stop(self, response: Response, reason: Interruption) -> Told:
        self._forget_response()
        return response.cancel(reason)

    def _forget_response(self) -> None:
        self._response, self._due = None, None
        self._steps = iter(())

    def _plan(self, asked: api.RealtimeResponseCreateParams) -> Plan:
        """What was asked for, and where nothing was, what the session says."""
        output = asked.audio.output if asked.audio else None
        if output is not None:
            _require_pcm(output.format, "response.audio.output.format")
        modalities = asked.output_modalities or self._session.output_modalities or ["audio"]
        limit = asked.max_output_tokens or self._session.max_output_tokens or "inf"
        return Plan(
            modality="audio" if "audio" in modalities else "text",
            voice=_voice_name(output.voice if output else None) or self._voice,
            max_output_tokens=limit,
            metadata=asked.metadata,
            detached=asked.conversation == "none",
        )

    @property
    def _voice(self) -> str:
        audio = self._session.audio
        return _voice_name(audio.output.voice if audio and audio.output else None) or VOICE


def _voice_name(voice: Any) -> str | None:
    """The name of a voice, which can also be an object with an ``id``."""
    name = getattr(voice, "id", voice)
    return name if isinstance(name, str) else None


def _require_pcm(audio_format: RealtimeAudioFormats | None, param: str) -> None:
    if audio_format is not None and not isinstance(audio_format, AudioPCM):
        raise Mistake("invalid_value", "The demo hears and speaks audio/pcm only.", param=param)


#: Settings of which a client may name some parts; all others are replaced whole, also by null.
_NESTED = frozenset({"audio", "input", "output"})


def _merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The settings with the changes, which name only what changes."""
    nested = {
        key: _merged(settings[key], value)
        for key, value in changes.items()
        if key in _NESTED and isinstance(value, dict) and isinstance(settings.get(key), dict)
    }
    return {**settings, **changes, **nested}


def join(request: web.Request, call: Call, misbehaviour: Misbehaviour) -> Talk:
    """A session for one request; its query may name the model."""
    session = Session(call, misbehaviour, model=request.query.get("model", MODEL))

    async def hold(socket: Socket) -> NoReturn:
        clock = asyncio.get_running_loop().time
        told = session.open()
        while True:
            for event in told:
                await socket.send(_text(event))
            message = await socket.receive(session.due)
            told = session.proceed(clock()) if message is None else session.receive(message, clock())

    return Talk(hold=hold, complaint=lambda: _text(session.complaint()), protocols=[PROTOCOL])


def _text(event: RealtimeServerEvent) -> str:
    return event.to_json(indent=None)
