"""YAML text → a tree of :class:`Item`: plain values that know their path, their line and their origin.

YAML is composed, never constructed: no tag runs any code, and what a plain scalar means is decided by
:func:`plain` alone, close to YAML 1.2's core schema (``010`` and ``1:30`` are text, not 8 and 90 as in
1.1), but with 1.1's ``on`` and ``off``. ``${NAME}`` references are replaced in scalars after the structure
is known, so a variable's value can never become a key or a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import yaml

from proxy.errors import ConfigError, ConfigProblem

MAX_BYTES: Final = 1 << 20
"""A configuration of more than 1 MiB is a mistake (a log, a binary); refuse before parsing it."""

MAX_ITEMS: Final = 100_000
"""Values after aliases are expanded: nine lines of `[*a, *a, …]` make a billion ("billion laughs")."""

MAX_DEPTH: Final = 32
"""Nesting; the model needs six levels. Bounds recursion, also that of an anchor that contains itself."""

Value = str | int | float | bool | None | list["Item"] | dict[str, "Item"]
Report = Callable[[ConfigProblem], None]

WHOLE_FILE: Final = "(file)"
SYNTAX: Final = "(yaml)"
TOP: Final = "(top level)"


@dataclass(frozen=True, slots=True)
class Item:
    """One value of the document.

    ``where`` is its YAML path, ``line`` where it stands (a list or mapping: where its key stands) and
    ``key_line`` the line of its key, all from 1. ``text`` is a scalar as written, references replaced.
    ``variables`` names the environment variables in it. ``quoted``: it was, so it is text whatever it says.
    A ``spoilt`` item has been reported already.
    """

    where: str
    line: int
    key_line: int
    value: Value = field(repr=False)
    text: str = field(default="", repr=False)
    variables: tuple[str, ...] = ()
    spoilt: bool = False
    quoted: bool = False

    @property
    def children(self) -> dict[str, Item]:
        """The entries of a mapping; nothing for any other value."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def elements(self) -> list[Item]:
        """The elements of a list; nothing for any other value."""
        return self.value if isinstance(self.value, list) else []

    @property
    def typed(self) -> Value:
        """The value where something other than text is expected: ``${N}`` counts as a plain scalar there."""
        return plain(self.text) if self.variables else self.value

    @property
    def word(self) -> str | None:
        """The value as a bare word, ``on`` and ``off`` undone from the booleans that YAML makes of them."""
        value = self.typed
        if isinstance(value, bool):
            return "on" if value else "off"
        return value if isinstance(value, str) else None

    def shown(self, *, secret: bool = False) -> str:
        """What stands here, for an error message; never what came from the environment or is secret."""
        if isinstance(self.value, list):
            return "a list"
        if isinstance(self.value, dict):
            return "a mapping"
        if self.variables:
            return f"the value of {' and '.join(f'${{{name}}}' for name in self.variables)}"
        if self.value is None:
            return "nothing"
        kind = _kind(self.value)
        return kind if secret else f"{kind} {_printable(self.text)}"


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "the switch"
    return "the number" if isinstance(value, int | float) else "the text"


def _printable(text: str) -> str:
    """``text`` quoted, on one line, cut to 40 characters: a message must not repaint a terminal."""
    shown = text if len(text) <= 40 else text[:37] + "..."
    return f"`{shown}`" if shown.isprintable() else repr(shown)


_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9_.<-]{1,64}")


def shown_key(key: str) -> str:
    """``key`` for a message; ``<key>`` when it holds spaces or the like (`Authorization Bearer sk-…`)."""
    return key if _SAFE_KEY.fullmatch(key) else "<key>"


def joined(where: str, key: str | int) -> str:
    """The YAML path of ``key`` under ``where``: ``routes[1].heartbeat``."""
    if isinstance(key, int):
        return f"{where}[{key}]"
    return f"{where}.{shown_key(key)}" if where != TOP else shown_key(key)


# ── scalars ─────────────────────────────────────────────────────────────────────────────────────────────

_WORDS: Final[dict[str, bool | None]] = {
    "null": None, "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False,
}  # fmt: skip
_CONSTANTS: Final[dict[str, bool | None]] = {
    "": None,
    "~": None,
    **{spelt: meaning for word, meaning in _WORDS.items() for spelt in (word, word.title(), word.upper())},
}
# Eighteen digits hold every number that a setting can take; a longer one stays text and is refused as such.
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}", re.ASCII)


def plain(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


REFERENCE: Final = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<inside>[^}]*)(?P<close>\}?))")
QUERY: Final = re.compile(
    r"query\.(?P<name>[A-Za-z_][A-Za-z0-9_-]{0,63})(?::-(?P<default>(?s:.*)))?", re.ASCII
)
"""What stands inside of a reference to a client's query; see :mod:`proxy.config.template`."""

TEMPLATES: Final = re.compile(r"routes\[[0-9]+\]\.prompt\.body(?:[.\[].*)?", re.DOTALL)
"""Where references to the query may stand."""

_INSIDE: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?s:.*)))?", re.ASCII)


def substitute(
    text: str, environ: Mapping[str, str], *, template: bool = False
) -> tuple[str, tuple[str, ...]]:
    """``text`` with its references replaced, and the names it referred to.

    As in a shell, ``${NAME:-default}`` takes the default when the variable is unset or empty. ``$$`` is
    ``$``; any other ``$`` stands for itself. ValueError on an unset variable or a malformed reference.

    A ``template`` stays one: its references to the query stay, and so does ``$$``, which a ``$`` that comes
    from a variable becomes as well: no variable's value is a reference.
    """
    names: list[str] = []

    def value_of(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$$" if template else "$"
        if template and match["close"] and QUERY.fullmatch(match["inside"]):
            _refuse_nesting(match["inside"])
            return match[0]
        name, default = _name_and_default(match)
        names.append(name)
        value = _lookup(name, default, environ)
        return value.replace("$", "$$") if template else value

    return REFERENCE.sub(value_of, text), tuple(dict.fromkeys(names))


def _name_and_default(match: re.Match[str]) -> tuple[str, str | None]:
    inside = _INSIDE.fullmatch(match["inside"])
    if not match["close"]:
        raise ValueError("a `${` has no `}`; a literal `$` is written `$$`")
    if inside is None and QUERY.fullmatch(match["inside"]):
        raise ValueError("only the `prompt.body` of a route can refer to the query of a request")
    if inside is None and match["inside"].startswith("query."):
        said = "a reference to the query is ${query.NAME} or ${query.NAME:-default}; a literal `$` is `$$`"
        raise ValueError(said)
    if inside is None:
        raise ValueError("a reference is ${NAME} or ${NAME:-default}; a literal `$` is written `$$`")
    _refuse_nesting(inside["default"] or "")
    return inside["name"], inside["default"]


def _refuse_nesting(inside: str) -> None:
    if "${" in inside:
        raise ValueError("references do not nest: the default of one holds another")


def _lookup(name: str, default: str | None, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise ValueError(f"environment variable {name} is not set; ${{{name}:-default}} gives a default")
    return value


# ── the tree ────────────────────────────────────────────────────────────────────────────────────────────


def read_document(text: str, source: str, environ: Mapping[str, str], report: Report) -> Item:
    """The document's root. Single faults go to ``report``; ConfigError if it cannot be read at all."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _refusal(source, WHOLE_FILE, 1, f"is larger than {MAX_BYTES} bytes")
    try:
        root = yaml.compose(text, Loader=_Composer)
        if root is None:
            raise _refusal(source, WHOLE_FILE, 1, "is empty; it needs `upstreams` and `routes`")
        return _Builder(environ, report).item(root, TOP, _line(root), 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _refusal(source, SYNTAX, line, f"{_complaint(error)} (column {column})") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refusal(source, SYNTAX, line, "holds a control character, which YAML forbids") from None


def decode(raw: bytes, source: str) -> str:
    """``raw`` as UTF-8, with or without BOM; ConfigError with the line of the first bad byte."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refusal(source, WHOLE_FILE, line, f"is not UTF-8: byte 0x{raw[error.start]:02x}") from None


def _refusal(source: str, where: str, line: int, what: str) -> ConfigError:
    return ConfigError(source, [ConfigProblem(where, line, what)])


def _complaint(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's words, without names in quotes: an unquoted ``*secret`` is an alias to it."""
    parts = [part for part in (error.problem, error.context) if part]
    return re.sub(r"(alias|anchor|handle|directive) '.*?'", r"\1", ", ".join(parts)).replace("\n", " ")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _too_much(what: str, mark: yaml.Mark | None) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)


class _Composer(yaml.BaseLoader):
    """Composes nodes, with no opinion on scalars, and stops before Python's own recursion limit does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth > MAX_DEPTH:
            raise _too_much(f"is nested deeper than {MAX_DEPTH} levels", self.get_mark())
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_TAGS: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
MERGE: Final = "<<"


class _Builder:
    """Turns nodes into items, expanding aliases and merges, and counts what that makes."""

    def __init__(self, environ: Mapping[str, str], report: Report) -> None:
        self.environ = environ
        self.report = report
        self.built = 0

    def item(self, node: yaml.Node, where: str, key_line: int, depth: int) -> Item:
        self._count(node, depth)
        if node.tag not in _TAGS:
            return self._spoilt(where, _line(node), "carries a YAML tag; only plain values are understood")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, where, key_line)
        children: Value
        if isinstance(node, yaml.SequenceNode):
            parts = enumerate(node.value)
            children = [self.item(part, joined(where, n), _line(part), depth + 1) for n, part in parts]
        else:
            children = self._entries(node, where, depth)
        return Item(where, key_line, key_line, children)

    def _count(self, node: yaml.Node, depth: int) -> None:
        self.built += 1
        if self.built > MAX_ITEMS:
            raise _too_much(f"has more than {MAX_ITEMS} values once aliases are expanded", node.start_mark)
        if depth > MAX_DEPTH:
            raise _too_much(f"is nested deeper than {MAX_DEPTH} levels, or inside itself", node.start_mark)

    def _scalar(self, node: yaml.ScalarNode, where: str, key_line: int) -> Item:
        line = _line(node)
        try:
            template = TEMPLATES.fullmatch(where) is not None
            text, variables = substitute(node.value, self.environ, template=template)
        except ValueError as error:
            return self._spoilt(where, line, str(error))
        value = plain(text) if node.style is None and not variables else text
        return Item(where, line, key_line, value, text, variables, quoted=node.style is not None)

    def _entries(self, node: yaml.Node, where: str, depth: int) -> dict[str, Item]:
        entries: dict[str, Item] = {}
        merges: list[yaml.Node] = []
        for key, value in self._keys(node, where):
            if key.value == MERGE and key.style is None:
                merges.append(value)
            else:
                entries[key.value] = self.item(value, joined(where, key.value), _line(key), depth + 1)
        for merge in merges:
            for merged in self._merged(merge, where, depth):
                entries = merged | entries
        return entries

    def _keys(self, node: yaml.Node, where: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """The entries of a mapping that have a usable key of their own; the others are reported."""
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.report(ConfigProblem(where, _line(key), "a key must be a word, not a list or a mapping"))
            elif key.value in first:
                said = f"duplicate key, first on line {first[key.value]}"
                self.report(ConfigProblem(joined(where, key.value), _line(key), said))
            else:
                first[key.value] = _line(key)
                yield key, value

    def _merged(self, node: yaml.Node, where: str, depth: int) -> Iterator[dict[str, Item]]:
        """The mappings that ``<<`` brings in, the most important one first."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                self._count(source, depth + 1)
                yield self._entries(source, where, depth + 1)
            else:
                self.report(ConfigProblem(joined(where, MERGE), _line(source), "can only merge mappings"))

    def _spoilt(self, where: str, line: int, what: str) -> Item:
        self.report(ConfigProblem(where, line, what))
        return Item(where, line, line, None, spoilt=True)


def holding(item: Item, value: Value) -> Item:
    """``item`` with another value, at the same place."""
    return replace(item, value=value)
