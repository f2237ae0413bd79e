"""The bridge's language: what a client says over WebSocket, and what a stream looks like there.

Text frames of JSON, both ways. A client's frame is a ``Command``; a stream's block becomes an ``event``
frame. What the block's data says is spliced into the frame as it stands where it is a JSON object or array,
so that a client parses each event once; anything else is a string.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.errors import BadFrame
from proxy.stream.cursor import MAX_SEQ_DIGITS
from proxy.stream.log import Terminal
from proxy.stream.sse import decode
from proxy.stream.websocket import Opcode, frame

#: The bridge's name among a WebSocket's subprotocols.
SUBPROTOCOL = "sse-sidecar.v1"

# ── what a client says ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Start:
    """Send one request upstream. ``body`` is JSON as the client wrote it, or None for no body."""

    body: bytes | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a stream; what runs on this connection where none is named."""

    stream: str | None


@dataclass(frozen=True, slots=True)
class Resume:
    """Follow a stream from behind ``after`` (a seq or ``now``) or ``last_event_id`` on.

    ``stream`` may be left out where the id names it.
    """

    stream: str | None
    after: str | None
    last_event_id: str | None


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with a pong."""


Command = Start | Cancel | Resume | Ping

TYPES = ("start", "chat", "cancel", "resume", "ping")

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
_RAW = msgspec.json.Decoder(msgspec.Raw)

#: So much of a client's frame is quoted back, in characters.
QUOTED = 40


def parse(text: bytes) -> Command:
    """Return what a client's text frame says. Raises BadFrame: what came, and what was expected."""
    try:
        said = _OBJECT.decode(text)
    except msgspec.ValidationError:
        raise BadFrame(f"expected a JSON object, got {_quoted(text)}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadFrame(f"this frame is not JSON: {error}; got {_quoted(text)}") from None
    kind = _text(said, "type") if "type" in said else None
    if kind is None:
        return Start(text)
    if kind == "start":
        body = said.get("body")
        return Start(None if body is None else bytes(body))
    if kind == "chat":
        del said["type"]
        return Start(msgspec.json.encode(said))
    if kind == "cancel":
        return Cancel(_text(said, "stream"))
    if kind == "resume":
        return _resume(said)
    if kind == "ping":
        return Ping()
    raise BadFrame(
        f"unknown type {kind[:QUOTED]!r}; expected one of {', '.join(TYPES)}, or an object without a type, "
        "which is a request's body"
    )


def _resume(said: dict[str, msgspec.Raw]) -> Resume:
    asked = Resume(_text(said, "stream"), _after(said), _text(said, "last_event_id"))
    if asked.stream is None and asked.last_event_id is None:
        raise BadFrame("resume names no stream: expected last_event_id, or stream and after")
    return asked


def _after(said: dict[str, msgspec.Raw]) -> str | None:
    """``after`` may be a number or a string, as it is in a query."""
    if "after" not in said:
        return None
    value = _ANY.decode(said["after"])
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**MAX_SEQ_DIGITS:
        return str(value)
    return _text(said, "after")


def _text(said: dict[str, msgspec.Raw], name: str) -> str | None:
    """Return the string under ``name``; None where there is none. Raises BadFrame where it is no string."""
    value = _ANY.decode(said[name]) if name in said else None
    if value is None or isinstance(value, str):
        return value
    raise BadFrame(f"{name}: expected a string, got {_quoted(bytes(said[name]))}")


def _quoted(text: bytes) -> str:
    return repr(text[: 4 * QUOTED].decode("utf-8", "replace")[:QUOTED])


# ── what the sidecar says ───────────────────────────────────────────────────────────────────────────────


def told(kind: str, **fields: Any) -> bytes:
    """Return one frame of the sidecar's: ``{"type": kind, …}``. A ``msgspec.Raw`` is spliced in."""
    return frame(Opcode.TEXT, msgspec.json.encode({"type": kind, **fields}))


def end_frame(stream: str | None, terminal: Terminal) -> bytes:
    """Return the frame that tells of a stream's end: its terminal record."""
    why = {"message": terminal.message} if terminal.message else {}
    return told("end", stream=stream, reason=terminal.reason.value, **why)


def gap_frame(stream: str, first: int, last: int) -> bytes:
    """Return the event that tells a reader that ``first`` … ``last`` are gone. Its id resumes behind them."""
    data = {"from": first, "to": last}
    return told("event", id=f"{stream}.{last}", event="stream-gap", data=data)


class Framing:
    """The blocks of one stream as event frames.

    A frame's ``id`` is always ``<stream>.<seq>``, with which a client can resume, whoever wrote the ids of
    the stream's blocks; the upstream's own id, where a block carries one, is its ``upstream_id``.
    """

    __slots__ = ("_head", "_ours")

    def __init__(self, stream: str) -> None:
        self._head = b'{"type":"event","id":"%b.' % stream.encode()
        self._ours = b"id: %b." % stream.encode()  # how an id line of ours begins

    def event(self, seq: int, entry: bytes) -> bytes:
        """Return the frame of one log entry, which is one block with data: the bridge's hot path.

        Most are an id of ours, perhaps an event's name, and one line of data.
        """
        at = entry.find(b"\n") + 1 if entry.startswith(self._ours) else 0
        name = MESSAGE
        if entry.startswith(b"event: ", at):
            line, at = at, entry.find(b"\n", at) + 1
            name = _name(entry[line + 7 : at - 1])
        end = len(entry) - 2
        if entry.startswith(b"data: ", at) and entry.find(b"\n", at) == end:
            data = _json(entry[at + 6 : end])
            return frame(TEXT, b'%b%d","event":%b,"data":%b}' % (self._head, seq, name, data))
        return self._any_event(seq, entry)

    def events(self, first: int, entries: list[bytes]) -> bytes:
        """Return the frames of several."""
        return b"".join([self.event(seq, entry) for seq, entry in enumerate(entries, first)])

    def _any_event(self, seq: int, entry: bytes) -> bytes:
        # Under the upstream's ids, blocks without data may stand in front; an id among them still counts.
        before, _, block = entry.removesuffix(b"\n\n").rpartition(b"\n\n")
        event = decode(block)
        upstream_id = event.id if not before or event.id is not None else decode(before).id
        named = b""
        if upstream_id is not None and not entry.startswith(self._ours):
            named = b'"upstream_id":%b,' % msgspec.json.encode(upstream_id)
        data = _json((event.data or "").encode())
        name = _name(event.event.encode())
        return frame(TEXT, b'%b%d","event":%b,%b"data":%b}' % (self._head, seq, name, named, data))


def as_json(data: bytes) -> msgspec.Raw:
    """Return bytes as a value in a frame: spliced in where they are a JSON object or array, else a string."""
    return msgspec.Raw(_json(data))


TEXT = int(Opcode.TEXT)  # an enumeration's member is slow to look up

MESSAGE = b'"message"'


@functools.lru_cache(maxsize=256)  # a protocol has a few dozen names
def _name(event: bytes) -> bytes:
    """Return an event's name in JSON; one that is empty is ``message``, as to an EventSource."""
    return msgspec.json.encode(event.decode("utf-8", "replace")) if event else MESSAGE


def _json(data: bytes) -> bytes:
    """Return a block's data as JSON: as it is where it is an object or array, else as a string."""
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()  # a text frame must be UTF-8 (RFC 6455 §8.1)
    if data.startswith((b"{", b"[")) and _is_json(data):
        return data
    return msgspec.json.encode(data.decode())


def _is_json(data: bytes) -> bool:
    r"""Whether ``data`` is one JSON text; also with half a surrogate pair (``"\ud83c"``), as models send."""
    try:
        _RAW.decode(data)
    except msgspec.DecodeError:
        return b"\\u" in data and _is_json_by_grammar(data)
    except RecursionError:
        return False
    return True


def _is_json_by_grammar(data: bytes) -> bool:
    try:
        json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
