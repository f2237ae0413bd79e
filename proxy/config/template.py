"""JSON in the configuration: what is added to request bodies, and the body that a prompt is put into.

Both are written as a YAML mapping; a template may be JSON text as well. In a template's strings
``${query.NAME}`` stands for what the client's query says, ``${query.NAME:-default}`` for that or else the
default, and ``$$`` for a plain ``$``. A reference is looked for in strings that have been read already, so
it can stand nowhere else, and what is put in its place is escaped: no value can end its string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from proxy.config.document import QUERY, REFERENCE, Item
from proxy.config.form import Form, JsonSchema
from proxy.config.reading import Fault, Reading


class Reference(Struct, frozen=True):
    """A place for what the query says under ``name``; one without ``default`` must be there."""

    name: str
    default: str | None = None

    def filled(self, values: Mapping[str, str]) -> str:
        """Return what stands here, between a JSON string's quotes. KeyError if nothing does."""
        if self.default is None or self.name in values:
            return inside_a_string(values[self.name])
        return inside_a_string(self.default)


class Template(Struct, frozen=True):
    """A JSON object in pieces: its text, ASCII, and between two quotes of it the references."""

    pieces: tuple[str | Reference, ...]

    @property
    def references(self) -> Iterator[Reference]:
        """The references, in their order."""
        return (piece for piece in self.pieces if isinstance(piece, Reference))

    def filled(self, values: Mapping[str, str]) -> bytes:
        """Return the object with ``values`` in place. KeyError for one that is missing and has no default."""
        text = (piece if isinstance(piece, str) else piece.filled(values) for piece in self.pieces)
        return "".join(text).encode("ascii")


def inside_a_string(text: str) -> str:
    """Return ``text`` as it stands between the quotes of a JSON string, in ASCII."""
    return json.dumps(text)[1:-1]


def compact(value: Any) -> str:
    """Return a JSON value as text, in ASCII and without blanks."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


# ── forms ───────────────────────────────────────────────────────────────────────────────────────────────


class Additions(Form):
    """A mapping of anything, read into the text of a JSON object."""

    def written(self, value: str) -> Any:
        """The mapping; nothing where there are no additions."""
        return json.loads(value) if value else None

    def _read(self, item: Item, reading: Reading) -> str:
        if not isinstance(item.value, dict):
            raise Fault(f"expected a mapping (key: value), got {item.shown()}")
        if not item.value:
            raise Fault("is empty; it needs at least one entry")
        _check_keys(item)
        return compact(_value_of(item))

    def _shapes(self) -> list[JsonSchema]:
        return [{"type": "object", "minProperties": 1}]


#: A key that JSON writes in one way only, but for escapes that nobody needs: a client's is found by it.
_KEY: Final = re.compile(r'[^"\\\x00-\x1f\x7f-\U0010ffff]*')


def _check_keys(item: Item) -> None:
    for key, child in item.children.items():
        if not _KEY.fullmatch(key):
            raise Fault("expected keys of printable ASCII without quotes and backslashes")
        _check_keys(child)


class TemplateText(Form):
    """A JSON object with references to the query: a mapping, or JSON text."""

    def _read(self, item: Item, reading: Reading) -> Template:
        if isinstance(item.value, dict):
            return template_of(_value_of(item))
        if not isinstance(item.value, str):
            raise Fault(f"expected a mapping (key: value) or the text of a JSON object, got {item.shown()}")
        return template_of(_parsed(item.value))

    def _shapes(self) -> list[JsonSchema]:
        return [{"type": "object", "minProperties": 1}, {"type": "string"}]


def _value_of(item: Item) -> Any:
    """What an item holds, as JSON has it. Fault, in silence, if a part of it has been reported already."""
    if item.spoilt:
        raise Fault
    if isinstance(item.value, dict):
        return {key: _value_of(child) for key, child in item.value.items()}
    if isinstance(item.value, list):
        return [_value_of(element) for element in item.value]
    return item.value if item.quoted else item.typed


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        hint = "" if "${" not in text else "; a reference to the query stands inside of a JSON string"
        at = f"line {error.lineno}, column {error.colno} of the text"
        raise Fault(f"expected the text of a JSON object: {error.msg} at {at}{hint}") from None
    except ValueError as error:
        raise Fault(f"expected the text of a JSON object: {error}") from None
    except RecursionError:
        raise Fault("expected a JSON object that is not so deeply nested") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object says one key twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


# ── templates ───────────────────────────────────────────────────────────────────────────────────────────


def template_of(value: Any) -> Template:
    """Return the template that a JSON object is, its strings as written. Fault if it can be none."""
    if not isinstance(value, dict) or not value:
        raise Fault("expected a JSON object with at least one member")
    try:
        return Template(tuple(_joined(_pieces(value))))
    except ValueError as error:  # a number that JSON cannot say, such as 1e999
        raise Fault(f"expected what JSON can say: {error}") from None
    except RecursionError:
        raise Fault("expected a JSON object that is not so deeply nested") from None


def _pieces(value: Any) -> Iterator[str | Reference]:
    """Yield an object's text and references in their order."""
    if isinstance(value, dict):
        for number, (key, member) in enumerate(value.items()):
            if "${" in key:
                raise Fault("a reference cannot stand in a key: who asks would choose what is said")
            yield f"{'{' if not number else ','}{compact(key)}:"
            yield from _pieces(member)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for number, element in enumerate(value):
            yield "[" if not number else ","
            yield from _pieces(element)
        yield "]" if value else "[]"
    elif isinstance(value, str):
        yield '"'
        yield from _string_pieces(value)
        yield '"'
    else:
        yield compact(value)


def _string_pieces(text: str) -> Iterator[str | Reference]:
    end = 0
    for match in REFERENCE.finditer(text):
        yield inside_a_string(text[end : match.start()])
        end = match.end()
        yield "$" if match["dollar"] else _reference(match)
    yield inside_a_string(text[end:])


def _reference(match: re.Match[str]) -> Reference:
    inside = QUERY.fullmatch(match["inside"])
    if inside is None or not match["close"]:
        raise Fault("a reference here is ${query.NAME} or ${query.NAME:-default}; a literal `$` is `$$`")
    return Reference(inside["name"], inside["default"])


def _joined(pieces: Iterator[str | Reference]) -> Iterator[str | Reference]:
    """Join the pieces of text that follow each other."""
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            yield text
            yield piece
            text = ""
    yield text
