"""What a route adds to the bodies that go upstream, so that a stream tells its usage, for example.

A body is spliced, never written anew: what the client said stays as it was, byte for byte, its numbers,
its escapes, its blanks and its order. So the additions stand behind the client's own members, in the
object that they belong to, and only where the client does not say the same.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import hdrs
from msgspec import UNSET, Raw, Struct, UnsetType

from proxy.config.template import compact
from proxy.server.exchange import Exchange
from proxy.server.pool import SAFE_METHODS

#: Fields of a request whose body must arrive as it was sent: it is coded, or signed (AWS's SigV4).
UNTOUCHABLE = (hdrs.CONTENT_ENCODING, "X-Amz-Content-Sha256")

#: What RFC 8259 §2 calls whitespace.
BLANKS = b" \t\n\r"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: Places in a body that look like the member which is to grow. The attack: megabytes of such places, each of
#: which costs a reading of the whole body.
MOST_PLACES = 8

#: An escape of half a character, as text that cuts an emoji in two is sent. msgspec refuses it, so that one
#: as long is read in its place.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_HARMLESS = rb"\\u0020"


async def add(exchange: Exchange) -> None:
    """Add to a request's body what its route injects, where it is a JSON object that asks for a stream.

    Raises BodyTooLarge where it might be one, and is longer than ``limits.buffered_body``.
    """
    upload, additions = exchange.upload, exchange.route.inject
    if not additions or not upload.exists or not _is_open(exchange):
        return
    body = await upload.whole(exchange.config.limits.buffered_body, "`inject` adds to it")
    if exchange.dialect.wants_stream(body):
        upload.replace(spliced(body, additions))


def _is_open(exchange: Exchange) -> bool:
    """Whether the body may be JSON that can be added to. A type that is not named may be JSON's."""
    if exchange.route.prompt is not None:
        return True
    request = exchange.request
    if request.method in SAFE_METHODS or any(name in request.headers for name in UNTOUCHABLE):
        return False
    kind = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    return kind in ("", "application/json", "text/json") or kind.endswith("+json")


def spliced(body: bytes, additions: str) -> bytes:
    """Return ``body`` with the members of the JSON object ``additions`` that it does not have.

    An object among them is added to the client's object under the same key, if there is one; anything else
    that the client says stays. Of a key that it says twice, the last counts. What is no JSON object, or
    not one that can be read, is returned as it is.
    """
    wanted = _additions(additions)
    start = len(BYTE_ORDER_MARK) if body.startswith(BYTE_ORDER_MARK) else 0
    text = body[start:]
    if wanted.found(text) is None:
        text = _SURROGATE.sub(_HARMLESS, text)
    pieces, end = [], 0
    for at, added in _insertions(text, wanted, start):
        pieces += [body[end:at], added]
        end = at
    return b"".join([*pieces, body[end:]])


@dataclass(frozen=True, slots=True)
class Addition:
    """A member that is wanted: its key and value as JSON, and what the value wants where it is an object."""

    key: bytes
    value: bytes
    inside: Additions | None


@dataclass(frozen=True, slots=True)
class Additions:
    """Members that are wanted in an object. ``shape`` reads those of the same keys out of one."""

    wanted: tuple[Addition, ...]
    shape: type[Struct]

    @classmethod
    def of(cls, members: dict[str, Any]) -> Additions:
        """Prepare the members of a JSON object."""
        wanted = [
            Addition(
                compact(key).encode(),
                compact(value).encode(),
                Additions.of(value) if isinstance(value, dict) else None,
            )
            for key, value in members.items()
        ]
        fields = [f"member{number}" for number in range(len(members))]
        shape = msgspec.defstruct(
            "Members",
            [(field, Raw | UnsetType, UNSET) for field in fields],
            rename=dict(zip(fields, members, strict=True)),
        )
        return cls(tuple(wanted), shape)

    def found(self, text: bytes) -> list[bytes | None] | None:
        """Return what an object says under each key; None where the text is no object that can be read."""
        try:
            members = msgspec.json.decode(text, type=self.shape)
        except (ValueError, RecursionError):
            return None
        values = (getattr(members, field) for field in self.shape.__struct_fields__)
        return [bytes(value) if isinstance(value, Raw) else None for value in values]


@functools.lru_cache(maxsize=64)  # as many as a configuration names
def _additions(text: str) -> Additions:
    return Additions.of(json.loads(text))


def _insertions(text: bytes, additions: Additions, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield where something is to be added to an object that begins at ``offset``, and what, in order."""
    missing = []
    places = []
    for number, said in enumerate(additions.found(text) or [b""] * len(additions.wanted)):
        addition = additions.wanted[number]
        if said is None:
            missing.append(b"%b:%b" % (addition.key, addition.value))
        elif addition.inside is not None and said.startswith(b"{"):
            place = _place(text, additions, number, said)
            if place is not None:
                places.append((place, said, addition.inside))
    for place, said, inside in sorted(places, key=lambda each: each[0]):
        yield from _insertions(said, inside, offset + place)
    if missing:
        head = text.rstrip(BLANKS)[:-1]
        comma = b"" if head.rstrip(BLANKS).endswith(b"{") else b","
        yield offset + len(head), comma + b",".join(missing)


def _place(text: bytes, additions: Additions, number: int, said: bytes) -> int | None:
    """Return where in an object the value stands that it ``said`` under a key.

    The same may stand elsewhere in it, deeper or in a string. So the value is taken out: that was its place
    if the object says something else under the key then.
    """
    member = re.escape(additions.wanted[number].key) + rb"[ \t\n\r]*:[ \t\n\r]*" + re.escape(said)
    for match in itertools.islice(re.finditer(member, text), MOST_PLACES):
        place = match.end() - len(said)
        without = additions.found(text[:place] + b"null" + text[match.end() :])
        if without is not None and without[number] == b"null":
            return place
    return None
