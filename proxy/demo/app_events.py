"""The streams of an app of one's own: no provider's dialect, no ids.

``/api/chat`` answers with ``event: token`` blocks and ends with ``event: done``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.demo.event import Event
from proxy.demo.voice import FAILURE, Call


class Request(msgspec.Struct):
    """What the app takes, as a JSON body or as the query of a GET."""

    prompt: str
    stream: bool = True


class AppVoice:
    """Answers one ``/api/chat``."""

    def __init__(self, call: Call, request: Request) -> None:
        self._call = call
        self._request = request

    @property
    def streams(self) -> bool:
        """The request's ``stream``, on by default."""
        return self._request.stream

    def events(self) -> Iterator[Event]:
        """Tokens, then ``done`` with their number."""
        for piece in self._call.speech.pieces():
            yield Event(_json({"text": piece}), name="token")
        yield Event(_json({"tokens": self._call.speech.length()}), name="done")

    def complaint(self) -> Event:
        """An ``error`` event, as this app happens to write it."""
        return Event(_json(refusal(500, FAILURE)), name="error")

    def answer(self) -> str:
        """The whole text."""
        return _json({"text": self._call.speech.text(), "tokens": self._call.speech.length()})


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


def refusal(status: int, message: str) -> dict[str, Any]:
    """The body of an answer with that status."""
    return {"error": message, "status": status}


def socket_complaint() -> str:
    """What the app's WebSockets say of a failure."""
    return _json({"type": "error", "message": FAILURE})


def listen(call: Call, body: bytes) -> AppVoice:
    """The voice that answers ``body``; msgspec.ValidationError when it is not a request of this app."""
    return AppVoice(call, msgspec.json.decode(body, type=Request))
