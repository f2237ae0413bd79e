"""What one setting may look like: a form reads an :class:`Item` and tells editors the same in JSON Schema.

Forms stand in the annotations of :mod:`proxy.config.model`, so that a field, its type, its unit and its
bounds are one line. :func:`form_of` derives the plain ones (``bool``, ``int``, ``Literal``, structs, tuples).
"""

from __future__ import annotations

import math
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from proxy.config import units
from proxy.config.document import Item, shown_key
from proxy.config.reading import Fault, Fields, Reading, suggestion
from proxy.errors import ConfigProblem

T = TypeVar("T")
JsonSchema = dict[str, Any]

COMPUTED: Final = "computed"
"""Marks a struct's field that is worked out at load and cannot be written in YAML."""


# ── forms ───────────────────────────────────────────────────────────────────────────────────────────────

REFERENCE: Final[JsonSchema] = {"$ref": "#/$defs/reference"}
OFF: Final[JsonSchema] = {"$ref": "#/$defs/off"}
ON: Final[JsonSchema] = {"$ref": "#/$defs/on"}


class Form(ABC):
    """How one value is written."""

    def read(self, item: Item, reading: Reading) -> Any:
        """The value of ``item``; :class:`Fault` if it is not of this form (in silence if it is spoilt)."""
        if item.spoilt:
            raise Fault
        return self._read(item, reading)

    def schema(self) -> JsonSchema:
        """The form in JSON Schema; its ``$ref`` are resolved by :mod:`proxy.config.json_schema`."""
        shapes = self._shapes()
        return {"anyOf": shapes} if len(shapes) > 1 else shapes[0]

    def written(self, value: Any) -> Any:
        """``value`` as one would write it in YAML, for a schema's ``default``."""
        return value

    @abstractmethod
    def _read(self, item: Item, reading: Reading) -> Any: ...

    @abstractmethod
    def _shapes(self) -> list[JsonSchema]: ...


def _expected(what: str, item: Item, *, secret: bool = False) -> Fault:
    return Fault(f"{what}, got {item.shown(secret=secret)}")


@dataclass(frozen=True, eq=False, slots=True)
class Duration(Form):
    """A time span, read into seconds; ``off`` reads as None, and ``forever`` as infinity, where allowed."""

    least: float = 0.0
    off: bool = False
    forever: bool = False

    def written(self, value: float | None) -> str:
        """The duration with its unit, or the word for its absence or its endlessness."""
        if value is None:
            return "off"
        return "forever" if value == math.inf else units.format_duration(value)

    def _read(self, item: Item, reading: Reading) -> float | None:
        if self.off and item.word == "off":
            return None
        if self.forever and item.word == "forever":
            return math.inf
        try:
            seconds = _quantity(item, units.parse_duration, units.checked_seconds)
        except ValueError as error:
            raise _expected(f"{error}{self._alternative()}", item) from None
        if seconds < self.least:
            least = units.format_duration(self.least)
            raise _expected(f"expected at least {least}{self._alternative()}", item)
        return seconds

    def _alternative(self) -> str:
        return (" or `off`" if self.off else "") + (" or `forever`" if self.forever else "")

    def _shapes(self) -> list[JsonSchema]:
        words = [OFF] * self.off + [{"const": "forever"}] * self.forever
        return [{"$ref": "#/$defs/duration"}, *words, REFERENCE]


@dataclass(frozen=True, eq=False, slots=True)
class Size(Form):
    """An amount of data, read into bytes."""

    least: int = 0

    def written(self, value: int) -> str:
        """The size with its unit."""
        return units.format_size(value)

    def _read(self, item: Item, reading: Reading) -> int:
        try:
            size = _quantity(item, units.parse_size, units.checked_bytes)
        except ValueError as error:
            raise _expected(str(error), item) from None
        if size < self.least:
            raise _expected(f"expected at least {units.format_size(self.least)}", item)
        return size

    def _shapes(self) -> list[JsonSchema]:
        return [{"$ref": "#/$defs/size"}, REFERENCE]


def _quantity(item: Item, parse: Callable[[str], T], checked: Callable[[Any], T]) -> T:
    """A quantity written with its unit, or as a bare number."""
    value = item.typed
    if isinstance(value, int | float) and not isinstance(value, bool):
        return checked(value)
    return parse(value if isinstance(value, str) else "")


@dataclass(frozen=True, eq=False, slots=True)
class Count(Form):
    """A whole number from ``least``; ``off`` or nothing reads as None where allowed."""

    least: int = 1
    off: bool = False

    def _read(self, item: Item, reading: Reading) -> int | None:
        value = item.typed
        if self.off and (value is None or item.word == "off"):
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < self.least:
            raise _expected(f"expected a whole number from {self.least}{' or `off`' * self.off}", item)
        return value

    def _shapes(self) -> list[JsonSchema]:
        number = {"type": "integer", "minimum": self.least}
        return [number, *[OFF, {"type": "null"}] * self.off, REFERENCE]


class Flag(Form):
    """true or false."""

    def _read(self, item: Item, reading: Reading) -> bool:
        value = item.typed
        if not isinstance(value, bool):
            raise _expected("expected true or false", item)
        return value

    def _shapes(self) -> list[JsonSchema]:
        return [{"type": "boolean"}, REFERENCE]


@dataclass(frozen=True, eq=False, slots=True)
class Choice(Form):
    """One of a few words."""

    words: tuple[str, ...]

    def _read(self, item: Item, reading: Reading) -> str:
        word = item.word or ""
        if word in self.words:
            return word
        hint = "" if item.variables else suggestion(word, self.words)
        raise Fault(f"expected one of {', '.join(self.words)}, got {item.shown()}{hint}")

    def _shapes(self) -> list[JsonSchema]:
        return [{"enum": list(self.words)}, REFERENCE]


def anything(text: str) -> str:
    """The check of a text that may be anything."""
    return text


@dataclass(frozen=True, eq=False, slots=True)
class Text(Form):
    """Text that passes ``check``, which gives it back normalised or says in a ValueError what is wrong.

    ``secret``: no message shows the text. ``pattern`` tells editors roughly what the check wants.
    """

    check: Callable[[str], str] = anything
    pattern: str | None = None
    secret: bool = False

    def _read(self, item: Item, reading: Reading) -> str:
        if item.value is None or isinstance(item.value, list | dict):
            raise _expected("expected text", item)
        try:
            text = self.check(item.text)
        except ValueError as error:
            raise (Fault(str(error)) if self.secret else _expected(str(error), item)) from None
        if not isinstance(item.value, str):
            raise Fault(f"expected text, got {item.shown(secret=self.secret)}; put it in quotes")
        return text

    def _shapes(self) -> list[JsonSchema]:
        if self.pattern is None:
            return [{"type": "string"}]
        return [{"type": "string", "pattern": self.pattern}, REFERENCE]


@dataclass(frozen=True, eq=False, slots=True)
class Maybe(Form):
    """``form``, or nothing (``null``), which reads as None."""

    form: Form

    def written(self, value: Any) -> Any:
        """As ``form`` would write it."""
        return None if value is None else self.form.written(value)

    def _read(self, item: Item, reading: Reading) -> Any:
        return None if item.typed is None else self.form.read(item, reading)

    def _shapes(self) -> list[JsonSchema]:
        return [*self.form._shapes(), {"type": "null"}]


@dataclass(frozen=True, eq=False, slots=True)
class Listing(Form):
    """A list of ``form``, read into a tuple; ``least`` elements or more."""

    form: Form
    least: int = 0

    def written(self, value: tuple[Any, ...]) -> list[Any]:
        """Each element as ``form`` would write it."""
        return [self.form.written(element) for element in value]

    def _read(self, item: Item, reading: Reading) -> tuple[Any, ...]:
        if not isinstance(item.value, list):
            raise _expected("expected a list, such as [a, b]", item)
        if len(item.value) < self.least:
            raise Fault("the list is empty; it needs at least one element")
        before, values = reading.faults, []
        for element in item.value:
            with reading.caught(element):
                values.append(self.form.read(element, reading))
        if reading.faults > before:
            raise Fault
        return tuple(values)

    def _shapes(self) -> list[JsonSchema]:
        bound = {"minItems": self.least} if self.least else {}
        return [{"type": "array", "items": self.form.schema(), **bound}]


@dataclass(frozen=True, eq=False, slots=True)
class Table(Form):
    """A mapping of names, which pass ``check``, to ``form``. ``secret``: no message shows a refused name."""

    form: Form
    check: Callable[[str], str]
    least: int = 0
    secret: bool = False

    def _read(self, item: Item, reading: Reading) -> dict[str, Any]:
        entries = _mapping(item, secret=self.secret)
        if len(entries) < self.least:
            raise Fault("is empty; it needs at least one entry")
        before, values = reading.faults, {}
        for name, child in entries.items():
            if self._usable(name, item, child, reading):
                with reading.caught(child):
                    values[name] = self.form.read(child, reading)
        if reading.faults > before:
            raise Fault
        return values

    def _usable(self, name: str, item: Item, child: Item, reading: Reading) -> bool:
        try:
            self.check(name)
        except ValueError as error:
            came = "" if self.secret else f", got `{shown_key(name)}`"
            reading.report(ConfigProblem(item.where, child.key_line, f"{error}{came}"))
            return False
        return True

    def _shapes(self) -> list[JsonSchema]:
        bound = {"minProperties": self.least} if self.least else {}
        return [{"type": "object", "additionalProperties": self.form.schema(), **bound}]


@dataclass(frozen=True, eq=False, slots=True)
class Block(Form):
    """A mapping with known keys, read into the struct ``kind``; one of ``words`` may stand for it all.

    So may a text alone, which then is the value of the key ``short``.
    """

    kind: type[msgspec.Struct]
    words: Mapping[str, msgspec.Struct] = field(default_factory=dict)
    short: str | None = None

    def written(self, value: Any) -> Any:
        """The word for ``value``, if there is one, else nothing: its fields have their own defaults."""
        return next((word for word, meaning in self.words.items() if meaning == value), None)

    def _read(self, item: Item, reading: Reading) -> msgspec.Struct:
        if item.word is not None and item.word in self.words:
            return self.words[item.word]
        if self.short is not None and isinstance(item.value, str):
            return self.kind(**{self.short: settings_of(self.kind)[self.short].form.read(item, reading)})
        before = reading.faults
        values = self._fields(item, reading)
        if self.kind in reading.rules:
            reading.rules[self.kind](values, item, reading)
        if reading.faults > before:
            raise Fault
        return self.kind(**values)

    def _fields(self, item: Item, reading: Reading) -> Fields:
        """The fields that can be read; what is missing, unknown or unusable is reported."""
        known = settings_of(self.kind)
        entries = _mapping(item, or_words=self.words, short=self.short)
        for name in [name for name, setting in known.items() if setting.required and name not in entries]:
            reading.refuse(item, f"`{name}` is missing")
        values: Fields = {}
        for name, child in entries.items():
            if name not in known:
                reading.refuse_key(child, f"unknown key{self._suggestion(name)}")
                continue
            with reading.caught(child):
                values[name] = known[name].form.read(child, reading)
        return values

    def _suggestion(self, name: str) -> str:
        """What was probably meant: a setting one level down (`idle` is `timeouts.idle`), or a slip."""
        known = settings_of(self.kind)
        for block, setting in known.items():
            if isinstance(setting.form, Block) and name in settings_of(setting.form.kind):
                return f"; did you mean `{block}.{name}`?"
        few = f"; the keys here are {', '.join(known)}" if len(known) <= 8 else ""
        return suggestion(name, known) or few

    def _shapes(self) -> list[JsonSchema]:
        words = [OFF if word == "off" else ON if word == "on" else {"const": word} for word in self.words]
        texts = [] if self.short is None else settings_of(self.kind)[self.short].form._shapes()
        return [{"$ref": f"#/$defs/{self.kind.__name__}"}, *words, *texts]


def _mapping(
    item: Item, *, or_words: Iterable[str] = (), short: str | None = None, secret: bool = False
) -> dict[str, Item]:
    if not isinstance(item.value, dict):
        words = "".join(f" or `{word}`" for word in or_words)
        words += f" or the `{short}` alone" if short else ""
        raise _expected(f"expected a mapping (key: value){words}", item, secret=secret)
    return item.value


# ── structs ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False, slots=True)
class Setting:
    """One field of a struct that can be written in YAML; ``default`` is None where it is ``required``."""

    form: Form
    required: bool
    default: Any


@cache
def settings_of(kind: type[msgspec.Struct]) -> dict[str, Setting]:
    """The fields of ``kind`` that YAML may hold, by name."""
    annotations = get_type_hints(kind, include_extras=True)
    return {
        info.name: Setting(form_of(annotations[info.name]), info.required, _default(info))
        for info in msgspec.structs.fields(kind)
        if COMPUTED not in getattr(annotations[info.name], "__metadata__", ())
    }


def _default(info: msgspec.structs.FieldInfo) -> Any:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return None if info.default is msgspec.NODEFAULT else info.default


def form_of(annotation: Any) -> Form:
    """The form that an annotation names, or that its type implies. KeyError for a type that implies none."""
    given = [extra for extra in getattr(annotation, "__metadata__", ()) if isinstance(extra, Form)]
    origin, args = get_origin(annotation), get_args(annotation)
    if given:
        return given[0]
    if origin is Literal:
        return Choice(args)
    if origin in (Union, types.UnionType) and args[-1] is types.NoneType and len(args) == 2:
        return Maybe(form_of(args[0]))
    if origin is tuple:
        return Listing(form_of(args[0]))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return Block(annotation)
    return _PLAIN[annotation]()


_PLAIN: Final[dict[Any, Callable[[], Form]]] = {bool: Flag, int: Count, str: Text}
