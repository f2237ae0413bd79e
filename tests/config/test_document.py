"""YAML → items: paths and lines, references to the environment, merges, and what is refused unread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.document import MAX_BYTES, MAX_ITEMS, Item, decode, plain, read_document, substitute
from proxy.errors import ConfigError, ConfigProblem

Faults = Callable[..., list[str]]


def read(text: str, **environ: str) -> Item:
    """The tree of a text that has no faults."""
    problems: list[ConfigProblem] = []
    root = read_document(text, "test.yaml", environ, problems.append)
    assert problems == []
    return root


def values(item: Item) -> Any:
    """What ``item`` holds, without places."""
    if isinstance(item.value, dict):
        return {key: values(child) for key, child in item.value.items()}
    return [values(child) for child in item.value] if isinstance(item.value, list) else item.value


def refusal(text: str) -> str:
    """The one fault of a text that cannot be read at all."""
    with pytest.raises(ConfigError) as refused:
        read_document(text, "test.yaml", {}, lambda problem: None)
    (problem,) = refused.value.problems
    return str(problem)


# ── values and places ───────────────────────────────────────────────────────────────────────────────────


def test_places() -> None:
    """Each value knows its path and line; a list or mapping stands where its key stands."""
    root = read("a: 1\nb:\n  - x\n  -\n    c:\n      d: 2\n")
    b = root.children["b"]
    c = b.elements[1].children["c"]
    d = c.children["d"]
    assert (root.children["a"].where, root.children["a"].line) == ("a", 1)
    assert (b.where, b.line) == ("b", 2)
    assert (b.elements[0].where, b.elements[0].line) == ("b[0]", 3)
    assert (c.where, c.line, d.where, d.line) == ("b[1].c", 5, "b[1].c.d", 6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("15s", "15s"),
        ("8080", 8080),
        ("-1", -1),
        ("0.5", 0.5),
        ("", None),
        ("null", None),
        ("~", None),
        ("off", False),
        ("Off", False),
        ("no", False),
        ("ON", True),
        ("true", True),
        ("010", "010"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2023-06-01", "2023-06-01"),
        ("9" * 19, "9" * 19),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    """Unquoted scalars mean what YAML 1.2 says, and on and off what 1.1 says; surprises of 1.1 are text."""
    assert plain(text) == value
    assert type(plain(text)) is type(value)


def test_quoted_scalars_are_text() -> None:
    """Quotes make text of anything."""
    assert values(read("a: '15'\nb: \"off\"\nc: |\n  1\n")) == {"a": "15", "b": "off", "c": "1\n"}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$"), max_size=20)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=12,
    )
)
def test_reads_what_pyyaml_writes(document: object) -> None:
    """What the YAML library writes, of every structure, is read back as it was."""
    text = yaml.safe_dump({"top": document}, allow_unicode=True)
    assert values(read(text)) == yaml.safe_load(text)


# ── references ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Bearer ${KEY}", ("Bearer k", ("KEY",))),
        ("${KEY}${KEY}-${OTHER}", ("kk-o", ("KEY", "OTHER"))),
        ("${UNSET:-fall back}", ("fall back", ("UNSET",))),
        ("${EMPTY:-fall back}", ("fall back", ("EMPTY",))),
        ("${EMPTY}", ("", ("EMPTY",))),
        ("${UNSET:-}", ("", ("UNSET",))),
        ("${KEY:-fall back}", ("k", ("KEY",))),
        ("$${KEY}", ("${KEY}", ())),
        ("$$", ("$", ())),
        ("$KEY costs 5$", ("$KEY costs 5$", ())),
        ("/x/{id:[0-9]+$}", ("/x/{id:[0-9]+$}", ())),
    ],
)
def test_references(text: str, answer: tuple[str, tuple[str, ...]]) -> None:
    """${NAME} and ${NAME:-default} are replaced as a shell would, $$ is a dollar, others stand."""
    assert substitute(text, {"KEY": "k", "OTHER": "o", "EMPTY": ""}) == answer


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("${UNSET}", "environment variable UNSET is not set; ${UNSET:-default} gives a default"),
        ("${KEY", "a `${` has no `}`; a literal `$` is written `$$`"),
        ("${}", "a reference is ${NAME} or ${NAME:-default}; a literal `$` is written `$$`"),
        ("${1KEY}", "a reference is ${NAME} or ${NAME:-default}; a literal `$` is written `$$`"),
        ("${KEY:=x}", "a reference is ${NAME} or ${NAME:-default}; a literal `$` is written `$$`"),
        ("${A:-${KEY}}", "references do not nest: the default of one holds another"),
    ],
)
def test_bad_references(text: str, what: str, base: str, faults: Faults) -> None:
    """A reference that cannot be replaced is told where it stands."""
    assert faults(f"{base}\npublic_path: '{text}'\n", KEY="k") == [f"line 6: public_path: {what}"]


@given(st.text())
def test_a_variable_never_becomes_structure(value: str) -> None:
    """Whatever a variable holds (`]`, newlines, `a: b`), it is one text, and keeps its every character."""
    assert values(read("a: ${X}\nb: ['${X}']\n", X=value)) == {"a": value, "b": [value]}


def test_a_variable_is_not_replaced_again() -> None:
    """A variable that holds a reference is text: the environment cannot refer to itself."""
    assert values(read("a: ${X}", X="${HOME} $$")) == {"a": "${HOME} $$"}


def test_a_reference_counts_as_plain_where_no_text_is_expected() -> None:
    """A quoted or unquoted reference can give a number or a switch, but stays text as such."""
    item = read("a: '${N:-100}'").children["a"]
    assert (item.value, item.typed, item.variables) == ("100", 100, ("N",))


# ── anchors and merges ──────────────────────────────────────────────────────────────────────────────────


def test_merge() -> None:
    """`<<` brings in what is not said; of several, the first wins; merged mappings may merge themselves."""
    root = read("a: &a {x: 1, y: 1, z: 1}\nb: &b {<<: *a, y: 2}\nc: {y: 3, <<: *b}\nd: {<<: [{x: 4}, *b]}\n")
    assert values(root)["c"] == {"x": 1, "y": 3, "z": 1}
    assert values(root)["d"] == {"x": 4, "y": 2, "z": 1}


def test_merged_values_keep_their_line() -> None:
    """A merged value is found where it was written, under the path where it counts."""
    item = read("a: &a\n  x: 1\nb:\n  <<: *a\n").children["b"].children["x"]
    assert (item.where, item.line) == ("b.x", 2)


def test_alias() -> None:
    """An alias repeats a value of any kind."""
    assert values(read("a: &a [1]\nb: *a\nc: &c 5s\nd: *c\n")) == {"a": [1], "b": [1], "c": "5s", "d": "5s"}


def test_quoted_merge_key_is_a_key(base: str, faults: Faults) -> None:
    """Only a plain `<<` merges."""
    assert faults(f"{base}'<<': {{drain: 1s}}\n") == ["line 5: <<: unknown key"]


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────


def test_duplicate_key(base: str, faults: Faults) -> None:
    """A key that stands twice is told on its second line, with its first."""
    assert faults(f"{base}drain: 5s\nlog:\n  level: info\n  level: debug\ndrain: 6s\n") == [
        "line 8: log.level: duplicate key, first on line 7",
        "line 9: drain: duplicate key, first on line 5",
    ]


def test_odd_keys_merges_and_tags(base: str, faults: Faults) -> None:
    """Keys that are lists, merges of no mapping and YAML tags are refused, each on its line."""
    text = f"{base}log:\n  ? [a]\n  : 1\n  <<: 5\ndrain: !!python/name:os.system 5\nadmin: !admin {{}}\n"
    assert faults(text) == [
        "line 6: log: a key must be a word, not a list or a mapping",
        "line 8: log.<<: can only merge mappings",
        "line 9: drain: carries a YAML tag; only plain values are understood",
        "line 10: admin: carries a YAML tag; only plain values are understood",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1,\n", "line 3: (yaml): expected the node content, but found '<stream end>', "
         "while parsing a flow node (column 1)"),
        ("a: 1\nb: c: d\n", "line 2: (yaml): mapping values are not allowed here (column 5)"),
        ("a:\n\t- b\n", "line 2: (yaml): found character '\\t' that cannot start any token, "
         "while scanning for the next token (column 1)"),
        ("a: 1\n---\nb: 2\n", "line 2: (yaml): but found another document, "
         "expected a single document in the stream (column 1)"),
        ("a: 1\n\nb: '\x01'\n", "line 3: (yaml): holds a control character, which YAML forbids"),
        ("", "line 1: (file): is empty; it needs `upstreams` and `routes`"),
        ("# nothing\n", "line 1: (file): is empty; it needs `upstreams` and `routes`"),
    ],
)  # fmt: skip
def test_syntax_errors(text: str, said: str) -> None:
    """What is no YAML is told with line and column, in the library's words."""
    assert refusal(text) == said


def test_syntax_errors_show_no_value() -> None:
    """A secret that starts with `*` reads as an alias; the message does not name it."""
    assert refusal("a: 1\nkey: *hunter2\n") == "line 2: (yaml): found undefined alias (column 6)"


def test_too_large() -> None:
    """More than a mebibyte is refused before it is parsed."""
    said = "line 1: (file): is larger than 1048576 bytes"
    assert refusal("#" * (MAX_BYTES + 1)) == said
    assert refusal("é" * (MAX_BYTES // 2 + 1)) == said


def test_billion_laughs() -> None:
    """The attack: nine levels of ten aliases each, a kilobyte that would expand to a billion values."""
    levels = ["l0: &l0 [lol]"] + [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert f"has more than {MAX_ITEMS} values once aliases are expanded" in refusal("\n".join(levels))


def test_billion_merges() -> None:
    """The same attack with merges, which expand as well."""
    levels = ["l0: &l0 {a: 1}"] + [
        f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 10)}]}}" for n in range(1, 10)
    ]
    assert f"has more than {MAX_ITEMS} values once aliases are expanded" in refusal("\n".join(levels))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}"])
def test_alias_inside_itself(text: str) -> None:
    """A value that contains itself has no end, and is refused."""
    assert refusal(text).startswith("line 1: (yaml): is nested deeper than 32 levels, or inside itself")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 20_000, "- " * 50_000])
def test_deep_nesting(text: str) -> None:
    """The attack: nesting as deep as the file is long, to exhaust the interpreter's stack."""
    assert "(yaml): is nested deeper than 32 levels" in refusal(text)


def test_bad_utf8() -> None:
    """A byte that is no UTF-8 is told with its line."""
    with pytest.raises(ConfigError) as refused:
        decode(b"a: 1\nb: caf\xe9\n", "test.yaml")
    assert str(refused.value) == "test.yaml:line 2: (file): is not UTF-8: byte 0xe9"


def test_line_ends_and_bom() -> None:
    """A file from another system, with BOM and CRLF, has the same values and lines."""
    root = read(decode(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "test.yaml"))
    assert values(root) == {"a": 1, "b": 2}
    assert root.children["b"].line == 2


def test_items_keep_their_values_to_themselves() -> None:
    """The repr of an item, as a traceback would show it, holds no value."""
    assert "hunter2" not in repr(read("a: [hunter2, '${X}']", X="hunter2"))
