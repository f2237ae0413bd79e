"""The JSON inside of blocks and bodies: read leniently, written safely."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

Shape = TypeVar("Shape", bound=msgspec.Struct)

#: An event's data, as ``sse.named_data`` returns it: of one line in bytes, of several as a text.
Data = bytes | str

#: Texts up to this length get a second, ten times slower reading when msgspec refuses them. Chunks of
#: text are far smaller; a peer must not hold up everybody with megabytes of almost-JSON.
FORGIVING_BYTES = 64 * 1024

#: So deep is written what is nested too deep to be written whole.
MAX_DEPTH = 64


def read(source: str | bytes | None, shape: type[Shape]) -> Shape:
    """Return what a JSON text says about ``shape``, whose fields must all have defaults.

    A field that is not of its type counts as not there, and whatever is no JSON object reads as an empty
    one: what a provider sends is never a reason to raise, and one odd figure none to lose a chunk's text.
    """
    if source is None:
        return shape()
    try:
        return msgspec.json.decode(source, type=shape, strict=False)
    except RecursionError:  # an attack: "[[[[…", nested deeper than the stack
        return shape()
    except ValueError:
        return _read_forgivingly(source, shape) if len(source) <= FORGIVING_BYTES else shape()


def reader(shape: type[Shape]) -> Callable[[Data], Shape]:
    """Return what does the same for one shape, for what comes many times a second."""
    strict = msgspec.json.Decoder(shape, strict=False).decode

    def lenient(source: Data) -> Shape:
        try:
            return strict(source)
        except (ValueError, RecursionError):
            return read(as_text(source), shape)

    return lenient


def as_text(data: Data) -> str:
    """Return an event's data as a text, as the standard's parser reads it."""
    return data if isinstance(data, str) else data.decode("utf-8", "replace")


def _read_forgivingly(source: str | bytes, shape: type[Shape]) -> Shape:
    r"""Read what msgspec refuses and the SDKs accept, who check no types and read with ``json.loads``.

    Tokens that cut an emoji in two arrive as lone surrogates (``"\ud83d"``), log probabilities as
    ``NaN``. The SDK sees a finish reason in such a chunk, so it has to be seen here.
    """
    try:
        fitting = _fitting(json.loads(source), shape)
    except (ValueError, RecursionError):
        return shape()
    return fitting if isinstance(fitting, shape) else shape()


def _fitting(value: Any, kind: Any) -> Any:
    """Return what of a value is of a type: all of it, or less; ``UNSET`` where nothing is.

    It goes as deep as the type does, so a value cannot make it go deeper.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        pass
    for option in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if isinstance(value, list) and get_origin(option) is list:
            (inner,) = get_args(option)
            return [each for each in (_fitting(item, inner) for item in value) if each is not msgspec.UNSET]
        if isinstance(value, dict) and isinstance(option, type) and issubclass(option, msgspec.Struct):
            return _struct(value, option)
    return msgspec.UNSET


def _struct(value: dict[str, Any], shape: type[Shape]) -> Shape:
    kinds = get_type_hints(shape)
    names = {field.name: field.encode_name for field in msgspec.structs.fields(shape)}
    fields = {name: _fitting(value[key], kinds[name]) for name, key in names.items() if key in value}
    return shape(**{name: field for name, field in fields.items() if field is not msgspec.UNSET})


def write(value: dict[str, Any]) -> bytes:
    r"""Return a JSON object as one line of ASCII.

    Some SDKs split lines as ``str.splitlines`` does, at U+0085 and U+2028 too, and a message may
    hold anything, lone surrogates included. As ``\u`` escapes, all of it is harmless.

    What is no JSON, though Python reads it (``NaN``), is ``null``, as JavaScript writes it; so is what stands
    deeper than can be written: whoever reads a value may stand less deep in the stack than whoever writes it.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, RecursionError):
        return json.dumps(_writable(value, MAX_DEPTH), separators=(",", ":")).encode("ascii")


def _writable(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _writable(inner, depth - 1) for name, inner in value.items()} if depth else None
    if isinstance(value, list | tuple):
        return [_writable(inner, depth - 1) for inner in value] if depth else None
    return value


def text(value: str) -> bytes:
    """Return a string as a JSON text of ASCII, by the same rules: several times faster than ``write``."""
    return encode_basestring_ascii(value).encode("ascii")


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
