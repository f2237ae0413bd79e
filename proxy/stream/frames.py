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
from proxy.stream.websocket import MAX_CONTROL, Opcode, frame

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
_decode = _RAW.decode

#: How msgspec refuses: what is no JSON, what JSON cannot be had as a value, and what is too deep.
REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

#: So long a text that msgspec refuses is looked at again, in bytes: the other parser builds what it reads,
#: which for a text of brackets takes twenty times its size.
MAX_TAKEN_APART = 1024 * 1024

#: So much of a client's frame is quoted back, in characters.
QUOTED = 40


def parse(text: bytes) -> Command:
    """Return what a client's text frame says. Raises BadFrame: what came, and what was expected."""
    said = _object(text)
    kind = _text(said, "type") if "type" in said else None
    if kind is None:
        return Start(text)
    if kind == "start":
        body = bytes(said.get("body", b"null"))
        return Start(None if body == b"null" else body)
    if kind == "chat":
        del said["type"]
        return Start(_written(said))
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
    value = _value(said, "after")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**MAX_SEQ_DIGITS:
        return str(value)
    if value is None or isinstance(value, str):
        return value
    raise BadFrame(
        f"after: expected a number of blocks (0, 1, 2, …) or 'now', got {_quoted(bytes(said['after']))}"
    )


def _text(said: dict[str, msgspec.Raw], name: str) -> str | None:
    """Return the string under ``name``; None where there is none. Raises BadFrame where it is no string."""
    value = _value(said, name)
    if value is None or isinstance(value, str):
        return value
    raise BadFrame(f"{name}: expected a string, got {_quoted(bytes(said[name]))}")


def _value(said: dict[str, msgspec.Raw], name: str) -> Any:
    """Return the value under ``name``, None where there is none.

    JSON can say what has no value here: ``1e999``, or half a surrogate pair. Then it is what it was: Raw.
    """
    if name not in said:
        return None
    try:
        return _ANY.decode(said[name])
    except REFUSALS:
        return said[name]


def _object(text: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object, each as it is written. Raises BadFrame."""
    try:
        return _OBJECT.decode(text)
    except msgspec.ValidationError:
        raise BadFrame(f"expected a JSON object, got {_quoted(text)}") from None
    except REFUSALS as error:
        members = _members(text) if b"\\u" in text and len(text) <= MAX_TAKEN_APART else None
        if members is None:
            raise BadFrame(f"this frame is not JSON: {error}; got {_quoted(text)}") from None
        return members


def _members(text: bytes) -> dict[str, msgspec.Raw] | None:
    r"""The same where msgspec sees no JSON and the grammar does; None where there is no object.

    Half a surrogate pair (``"\ud83d"``) is such a case. A page that cuts a text in the middle of an emoji
    says that, and over HTTP its body would pass. Here it passes written anew, in ASCII.
    """
    try:
        said = _GRAMMAR.decode(text.decode())
        if not isinstance(said, dict):
            return None
        return {name: msgspec.Raw(_COMPACT.encode(said[name]).encode()) for name in said}
    except (ValueError, RecursionError):
        return None


def _written(members: dict[str, msgspec.Raw]) -> bytes:
    """Return an object of these members."""
    return b"{%b}" % b",".join([b"%b:%b" % (json.dumps(name).encode(), members[name]) for name in members])


def _quoted(text: bytes) -> str:
    return repr(text[: 4 * QUOTED].decode("utf-8", "replace")[:QUOTED])


# ── what the sidecar says ───────────────────────────────────────────────────────────────────────────────


def told(kind: str, **fields: Any) -> bytes:
    """Return one frame of the sidecar's: ``{"type": kind, …}``. A ``msgspec.Raw`` is spliced in."""
    try:
        text = msgspec.json.encode({"type": kind, **fields})
    except UnicodeEncodeError:
        text = msgspec.json.encode({"type": kind, **{name: _unicode(fields[name]) for name in fields}})
    return frame(TEXT, text)


def _unicode(value: Any) -> Any:
    """Return a text without the surrogates that stand in it for a peer's bytes: of a reason phrase, say."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


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
        if not entry.startswith(b"data: ", at) or entry.find(b"\n", at) != end:
            return self._any_event(seq, entry)
        data = entry[at + 6 : end]
        if data.startswith(b"{") and data.isascii():
            try:
                _decode(data)
            except (msgspec.DecodeError, RecursionError):
                data = _json(data)
        else:
            data = _json(data)
        payload = b'%b%d","event":%b,"data":%b}' % (self._head, seq, name, data)
        size = len(payload)
        if MAX_CONTROL < size < 65536:  # ``frame``, for what most are
            return b"\x81\x7e%c%c%b" % (size >> 8, size & 255, payload)
        return frame(TEXT, payload)

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

#: Names of events up to so many bytes are remembered in JSON: those of protocols are short.
MAX_NAME = 128

#: What JSON allows around a value (RFC 8259 §2).
SPACE = b" \t\n\r"


def _name(event: bytes) -> bytes:
    """Return an event's name in JSON; one that is empty is ``message``, as to an EventSource."""
    return _known_name(event) if len(event) <= MAX_NAME else _text_in_json(event)


def _text_in_json(text: bytes) -> bytes:
    return msgspec.json.encode(text.decode("utf-8", "replace"))


@functools.lru_cache(maxsize=256)  # a protocol has a few dozen names
def _known_name(event: bytes) -> bytes:
    return _text_in_json(event) if event else MESSAGE


def _json(data: bytes) -> bytes:
    """Return a block's data as JSON: as it is where it is an object or array, else as a string."""
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()  # a text frame must be UTF-8 (RFC 6455 §8.1)
    if data.lstrip(SPACE).startswith((b"{", b"[")) and _is_json(data):
        return data
    return msgspec.json.encode(data.decode())


def _is_json(data: bytes) -> bool:
    r"""Whether ``data`` is one JSON text; also with half a surrogate pair (``"\ud83c"``), as models send."""
    try:
        _RAW.decode(data)
    except msgspec.DecodeError:
        return b"\\u" in data and len(data) <= MAX_TAKEN_APART and _is_json_by_grammar(data.decode())
    except RecursionError:
        return False
    return True


def _is_json_by_grammar(text: str) -> bool:
    # Text, not bytes: in those Python would see UTF-16 as well, which the NULs of some data look like.
    try:
        _GRAMMAR.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


#: JSON by its grammar, where msgspec also wants text to be Unicode.
_GRAMMAR = json.JSONDecoder(parse_constant=_refuse)
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
