"""The JSON inside of blocks and bodies: read leniently, written safely."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

Shape = TypeVar("Shape", bound=msgspec.Struct)


#: Texts up to this length get a second, ten times slower reading when msgspec refuses them. Chunks of
#: text are far smaller; a peer must not hold up everybody with megabytes of almost-JSON.
FORGIVING_BYTES = 64 * 1024


def read(source: str | bytes | None, shape: type[Shape]) -> Shape:
    """Return what a JSON text says about ``shape``, whose fields must all have defaults.

    Whatever is not a JSON object of this shape reads as an empty one: what a provider sends is never
    a reason to raise.
    """
    if source is None:
        return shape()
    try:
        return msgspec.json.decode(source, type=shape, strict=False)
    except msgspec.ValidationError:
        return shape()
    except RecursionError:  # an attack: "[[[[…", nested deeper than the stack
        return shape()
    except ValueError:
        return _read_as_python_does(source, shape) if len(source) <= FORGIVING_BYTES else shape()


def _read_as_python_does(source: str | bytes, shape: type[Shape]) -> Shape:
    r"""Read what msgspec refuses and the SDKs' ``json.loads`` accepts.

    Tokens that cut an emoji in two arrive as lone surrogates (``"\ud83d"``), log probabilities as
    ``NaN``. The SDK sees a finish reason in such a chunk, so it has to be seen here.
    """
    try:
        return msgspec.convert(json.loads(source), shape, strict=False)
    except (ValueError, RecursionError):
        return shape()


def write(value: dict[str, Any]) -> bytes:
    r"""Return a JSON object as one line of ASCII.

    Some SDKs split lines as ``str.splitlines`` does, at U+0085 and U+2028 too, and a message may
    hold anything, lone surrogates included. As ``\u`` escapes, all of it is harmless.
    """
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def data_block(value: dict[str, Any], event: str = "") -> bytes:
    """Return a block with this JSON object as its data, and an ``event`` line if one is named."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + write(value)


class Request(msgspec.Struct):
    """What matters here of a request body."""

    stream: Any = None


def asks_to_stream(body: bytes) -> bool:
    """Whether a JSON request body says ``"stream": true`` at its top level."""
    return read(body, Request).stream is True
