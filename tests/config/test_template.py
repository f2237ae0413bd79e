"""A prompt's body: where a reference may stand, and that no value of a query ever leaves its string."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import parse
from proxy.config.template import Template, template_of

Faults = Callable[..., list[str]]

CHAT = "/v1/chat/completions"


def route(body: str, path: str = CHAT, more: str = "") -> str:
    """A file whose only route, on line 3, sends ``body`` (YAML) to ``path``."""
    prompt = f"prompt: {{path: {json.dumps(path)}, body: {body}}}"
    return (
        "upstreams: {app: {url: http://127.0.0.1:3000}}\nroutes:\n"
        f"  - {{name: ask, path: /ask, upstream: app, {prompt}{more}}}\n"
    )


def body_of(text: str, **environ: str) -> Template:
    """The template of a file's only route."""
    (read,) = parse(text, environ=environ).routes
    assert read.prompt is not None
    return read.prompt.body


def filled(body: str, environ: dict[str, str] | None = None, **values: str) -> Any:
    """What a body (YAML) says with these values in place."""
    return json.loads(body_of(route(body), **(environ or {})).filled(values))


BOTH = [
    """'{"stream":true,"n":0.5,"m":["Say ${query.a}, ${query.b:-\\"or\\"} not",null]}'""",
    """{stream: true, n: 0.5, m: ["Say ${query.a}, ${query.b:-\\"or\\"} not", null]}""",
]


@pytest.mark.parametrize("body", BOTH, ids=["JSON", "YAML"])
def test_two_ways_to_write_it(body: str) -> None:
    """A body is JSON text or a mapping, and says the same in both."""
    assert filled(body, a="it") == {"stream": True, "n": 0.5, "m": ['Say it, "or" not', None]}
    assert filled(body, a="", b="")["m"][0] == "Say ,  not"


def test_dollars() -> None:
    """`$$` is a dollar; what a variable or the query says is text, whatever it looks like."""
    body = '\'{"stream":true,"m":"${M} $$5 $$${query.a} $${query.a} $x"}\''
    said = filled(body, {"M": "${query.a}$$"}, a="${query.a}")
    assert said["m"] == "${query.a}$$ $5 $${query.a} ${query.a} $x"


def test_a_variable_can_be_any_json_of_a_text() -> None:
    """In JSON text the environment's references are replaced first; in a mapping they are values."""
    assert filled('\'{"stream":true,"n":${N}}\'', {"N": "[1]"})["n"] == [1]
    assert filled('{stream: true, n: "${N}"}', {"N": "1"})["n"] == "1"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("""'{"stream":true,"n":${query.a}}'""", "expected the text of a JSON object: Expecting value at "
         "line 1, column 20 of the text; a reference to the query stands inside of a JSON string"),
        ("""'{"stream":true,"${query.a}":1}'""",
         "a reference cannot stand in a key: who asks would choose what is said"),
        ("""'{"stream":true,"n":1,"n":2}'""",
         "expected the text of a JSON object: an object says one key twice"),
        ("""'{"stream":true,"n":NaN}'""", "expected the text of a JSON object: NaN is no JSON"),
        ("""'{"stream":true,"n":1e999}'""",
         "expected what JSON can say: Out of range float values are not JSON compliant"),
        ("'[1]'", "expected a JSON object with at least one member"),
        ("'{}'", "expected a JSON object with at least one member"),
        ("5", "expected a mapping (key: value) or the text of a JSON object, got the number `5`"),
        ("""'{"stream":true,"n":"${query.a:-${B}}"}'""",
         "references do not nest: the default of one holds another"),
        ("""'{"stream":true,"n":"\\u0024{query.}"}'""",
         "a reference here is ${query.NAME} or ${query.NAME:-default}; a literal `$` is `$$`"),
        ("""'{"stream":true,"n":"${query.a b}"}'""",
         "a reference to the query is ${query.NAME} or ${query.NAME:-default}; a literal `$` is `$$`"),
        (f"""'{{"n":{"[" * 100_000}'""", "expected a JSON object that is not so deeply nested"),
        ("""'{"messages":[]}'""",
         "does not ask for a stream, as dialect openai does with `stream: true`"),
    ],
)  # fmt: skip
def test_what_is_no_body(body: str, what: str, faults: Faults) -> None:
    """A body that could not be sent, or could be bent, is told where it stands."""
    assert faults(route(body)) == [f"line 3: routes[0].prompt.body: {what}"]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (CHAT, "/v1/${query.a}", "routes[0].prompt.path"),
        ("path: /ask", 'path: "/${query.a:-x}"', "routes[0].path"),
        ("name: ask", 'inject: {a: "${query.a}"}, name: ask', "routes[0].inject.a"),
        ("{url: http://127.0.0.1:3000}", '{url: "http://${query.a}"}', "upstreams.app.url"),
    ],
)
def test_the_query_is_known_nowhere_else(old: str, new: str, where: str, faults: Faults) -> None:
    """In any other setting a reference to the query is a fault, not a text that goes out as it is."""
    line = 1 if where.startswith("upstreams") else 3
    said = "only the `prompt.body` of a route can refer to the query of a request"
    assert faults(route("{stream: true}").replace(old, new)) == [f"line {line}: {where}: {said}"]


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("methods: [GET]", "methods: has no effect: a route with `prompt` serves GET"),
        ("reconnect: true", "reconnect: has no effect: a prompt is never sent a second time"),
        ("strip_prefix: /ask", "strip_prefix: has no effect: `prompt.path` goes upstream as it is"),
        ("websocket: bridge", "websocket: cannot be: `prompt` is for GET; route the bridge beside it"),
        ("ids: never", "ids: cannot be on a route with `prompt`: an EventSource without ids begins anew "
         "whenever a stream ends"),
        ("ids: upstream", "ids: cannot be on a route with `prompt`: an EventSource without ids begins anew "
         "whenever a stream ends"),
        ("replay: off", "replay: cannot be on a route with `prompt`: an EventSource without ids begins anew "
         "whenever a stream ends"),
        ("alias: id, principal: {cookie: s}",
         "alias: has no effect: a route with `prompt` takes no body that could name a chat"),
    ],
)  # fmt: skip
def test_what_a_prompt_cannot_be_with(setting: str, what: str, faults: Faults) -> None:
    """Settings that mean nothing there, or would make an EventSource pay again and again: each told once."""
    text = route("{stream: true}", more=f", {setting}")
    assert faults(text) == [f"line 3: routes[0].{what}"]


def test_a_prompt_needs_ids_though_the_defaults_have_none(faults: Faults) -> None:
    """The fault is told where it stands; `on` in the route itself takes it back."""
    text = route("{stream: true}") + "defaults: {replay: off}\n"
    assert [fault.partition(": cannot")[0] for fault in faults(text)] == ["line 4: defaults.replay"]
    assert parse(route("{stream: true}", more=", replay: on") + "defaults: {replay: off}\n", environ={})


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("chat", "expected a path that starts with `/`"),
        ("/a/../b", "expected a path without `.` and `..` segments; requests with them are refused"),
        ("/a#b", "expected a path without query, fragment, blanks and control characters"),
        ("/a?b#c", "expected a path and query without fragment, blanks and letters that need encoding"),
        ("/a?b c", "expected a path and query without fragment, blanks and letters that need encoding"),
        ("/é", "expected a path and query without fragment, blanks and letters that need encoding"),
    ],
)
def test_where_a_prompt_cannot_go(path: str, what: str, faults: Faults) -> None:
    """Its path goes upstream as it is written."""
    said = f"line 3: routes[0].prompt.path: {what}, got the text `{path}`"
    assert faults(route("{stream: true}", path=path)) == [said]


def test_a_prompt_hides_no_other_method() -> None:
    """A POST at the same path has a route of its own, though the prompt's stands first."""
    text = route("{stream: true}") + "  - {name: post, path: /ask, upstream: app, methods: [POST]}\n"
    assert [read.name for read in parse(text, environ={}).routes] == ["ask", "post"]


@pytest.mark.parametrize("dialect", ["generic"])
def test_an_addition_needs_a_dialect_that_says_when(dialect: str, base: str, faults: Faults) -> None:
    """Where nothing tells that a stream is wanted, nothing would ever be added."""
    text = base.replace("upstream: app}", f"upstream: app, dialect: {dialect}, inject: {{a: 1}}}}")
    said = f"has no effect: nothing tells which requests of dialect {dialect} ask for a stream"
    assert faults(text) == [f"line 4: routes[0].inject: {said}"]


@pytest.mark.parametrize(
    ("inject", "what"),
    [
        ("{}", "is empty; it needs at least one entry"),
        ("[a]", "expected a mapping (key: value), got a list"),
        ("{a: {é: 1}}", "expected keys of printable ASCII without quotes and backslashes"),
        ("{'\"': 1}", "expected keys of printable ASCII without quotes and backslashes"),
        ("on", "expected a mapping (key: value), got the switch `on`"),
    ],
)
def test_what_cannot_be_injected(inject: str, what: str, base: str, faults: Faults) -> None:
    """Additions have keys."""
    text = base.replace("upstream: app}", f"upstream: app, inject: {inject}}}")
    assert faults(text) == [f"line 4: routes[0].inject: {what}"]


# ── whatever the query holds ────────────────────────────────────────────────────────────────────────────

ANY = st.text(st.characters(codec="utf-8"))


@given(value=ANY, before=ANY, after=ANY)
def test_a_value_stays_in_its_string(value: str, before: str, after: str) -> None:
    """Whatever the query holds (quotes, backslashes, line ends), the body is JSON, and holds exactly it."""
    text = before.replace("$", "$$") + "${query.x}" + after.replace("$", "$$")
    sent = template_of({"a": [text], "stream": True}).filled({"x": value})
    assert sent.isascii()
    assert json.loads(sent) == {"a": [before + value + after], "stream": True}
