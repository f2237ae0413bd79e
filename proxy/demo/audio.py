"""``/api/audio``: an app's microphone socket, with the subprotocol ``audio.v1`` where it is offered.

Every binary message is audio, and comes back as it came. For every ``WORD_BYTES`` of it the app hears one
word of the text that the provider always speaks of, and tells it after the echo of the message in which
the word ended, in one frame a message:

    {"type":"transcript","text":"A stream is","final":false}
    {"type":"transcript","text":" a","final":false}

The frames' texts, one after the other, are ``expected_text(words)``. A text frame ``{"type":"stop"}`` ends
the talk: the whole transcript follows, then a close with code 1000.

    {"type":"transcript","text":"A stream is a","final":true,"words":4,"bytes":65000}

Any other text is answered by ``{"type":"error","message":"…"}``, and the socket lives.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import Any, Literal, NoReturn

import msgspec
from aiohttp import web

from proxy.demo import app_events
from proxy.demo.misbehaviour import Misbehaviour
from proxy.demo.speech import Speech, expected_text
from proxy.demo.voice import Call
from proxy.demo.websocket import Socket, Talk

PROTOCOL = "audio.v1"

#: Bytes of audio in which one word is spoken: a third of a second of PCM16 at 24 kHz.
WORD_BYTES = 16_000


class Stop(msgspec.Struct):
    """The only text that the app understands."""

    type: Literal["stop"]


class Transcript:
    """What was heard so far."""

    def __init__(self) -> None:
        self._bytes = 0
        self._words = 0
        self._pieces = Speech(None).pieces()

    def hear(self, audio: bytes) -> str:
        """The words that end in ``audio``, mostly none; the text's own spaces stand before them."""
        self._bytes += len(audio)
        new_words = self._bytes // WORD_BYTES - self._words
        self._words += new_words
        return "".join(islice(self._pieces, new_words))

    def whole(self) -> dict[str, Any]:
        """The frame that ends it."""
        return {
            "type": "transcript",
            "text": expected_text(self._words),
            "final": True,
            "words": self._words,
            "bytes": self._bytes,
        }


async def listen(socket: Socket) -> NoReturn:
    """Echo and transcribe, until the client says stop."""
    transcript = Transcript()
    while True:
        match await socket.receive():
            case bytes(audio):
                await socket.send(audio)
                if words := transcript.hear(audio):
                    await socket.send(_json({"type": "transcript", "text": words, "final": False}))
            case str(text) if complaint := _misunderstood(text):
                await socket.send(_json({"type": "error", "message": complaint}))
            case str():
                await socket.send(_json(transcript.whole()))
                await socket.close(reason="stopped")


def _misunderstood(text: str) -> str | None:
    """What is wrong with ``text``; None when it says stop."""
    try:
        msgspec.json.decode(text, type=Stop)
    except msgspec.DecodeError as error:
        return f'{error}; send audio as binary messages, or {{"type":"stop"}}'
    return None


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


def join(_request: web.Request, _call: Call, _misbehaviour: Misbehaviour) -> Talk:
    """The microphone socket for one request."""
    return Talk(hold=listen, complaint=app_events.socket_complaint, protocols=[PROTOCOL])
