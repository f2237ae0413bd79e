"""A client of ``/v1/realtime`` that takes no event which the ``openai`` package's schema does not have."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel

from proxy.demo import Running

from .sockets import Peer, joined

#: Every server event's model, by its ``type``.
_MODELS: tuple[type[BaseModel], ...] = get_args(get_args(RealtimeServerEvent)[0])
KINDS = {get_args(model.model_fields["type"].annotation)[0]: model for model in _MODELS}


def validated(text: str | bytes) -> Any:
    """The event in ``text``, if it has all the fields of its model, of their exact types, and no others."""
    assert isinstance(text, str)
    document = json.loads(text)
    event = KINDS[document["type"]].model_validate(document, strict=True)
    assert unknown_fields(event) == []
    return event


def unknown_fields(value: object) -> list[str]:
    """Fields anywhere in ``value`` that its model does not have: the SDK's models let them pass."""
    match value:
        case BaseModel():
            inside = [name for field in value.__dict__.values() for name in unknown_fields(field)]
            return [*(value.model_extra or {}), *inside]
        case list():
            return [name for each in value for name in unknown_fields(each)]
    return []


class Caller:
    """One session."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.ids: list[str] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event of type ``kind``."""
        await self.peer.send_json(type=kind, **fields)

    async def append(self, audio: bytes) -> None:
        """Send audio."""
        await self.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    async def configure(self, **session: Any) -> Any:
        """Update the session, and return it as it is told to be."""
        await self.send("session.update", session={"type": "realtime", **session})
        return (await self.expect("session.updated")).session

    async def receive(self) -> Any:
        """The next event."""
        event = validated(await self.peer.receive())
        self.ids.append(event.event_id)
        return event

    async def expect(self, kind: str) -> Any:
        """The next event, which must be of that type."""
        event = await self.receive()
        assert event.type == kind
        return event

    async def until(self, kind: str) -> list[Any]:
        """The events up to and with the next of that type."""
        events = [await self.receive()]
        while events[-1].type != kind:
            events.append(await self.receive())
        return events


def kinds(events: Sequence[Any]) -> list[str]:
    """The types of events, in order; several of one type in a row count once."""
    types = [event.type for event in events]
    return [kind for before, kind in zip([None, *types], types, strict=False) if kind != before]


def pick(events: Sequence[Any], kind: str) -> list[Any]:
    """Those of one type."""
    return [event for event in events if event.type == kind]


@asynccontextmanager
async def call(running: Running, wrong: str = "interval=0", **session: Any) -> AsyncIterator[Caller]:
    """A session with these settings, after its first events were read."""
    async with joined(running, f"/v1/realtime?model=demo-1&{wrong}", protocols=["realtime"]) as peer:
        caller = Caller(peer)
        await caller.expect("session.created")
        if session:
            await caller.configure(**session)
        yield caller
