"""The schema for editors: it is written down, it describes everything, and it agrees with the reader."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from proxy.config import parse, schema
from proxy.config.form import settings_of
from proxy.config.json_schema import STRUCTS
from proxy.config.model import Config
from proxy.errors import ConfigError

PROJECT = Path(__file__).parents[2]


def documents() -> Iterator[Any]:
    """Every whole configuration that the project shows: config/*.yaml, and the README's blocks of YAML."""
    for example in sorted(PROJECT.glob("config/*.yaml")):
        yield pytest.param(example.read_text("utf-8"), id=example.name)
    for page in sorted(PROJECT.glob("README.md")):
        for number, block in enumerate(
            re.findall(r"^```ya?ml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        ):
            if "upstreams:" in block and "routes:" in block:
                yield pytest.param(block, id=f"{page.name}-{number}")


def complaints(text: str) -> list[str]:
    """What an editor with the schema would underline in ``text``."""
    return [
        f"{error.json_path}: {error.message}"
        for error in Draft202012Validator(schema()).iter_errors(yaml.safe_load(text))
    ]


def test_the_file_is_the_schema() -> None:
    """config/schema.json is what the code says; `sse-sidecar schema > config/schema.json` writes it."""
    assert json.loads((PROJECT / "config/schema.json").read_text("utf-8")) == schema()


def test_the_schema_is_one() -> None:
    """It is valid JSON Schema 2020-12, and every reference in it leads somewhere."""
    Draft202012Validator.check_schema(schema())
    references = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema())))
    assert references == schema()["$defs"].keys()


def test_everything_is_described() -> None:
    """Every setting has a description, and every line of a docstring describes a setting."""
    for kind in (Config, *STRUCTS):
        described = re.findall(r"^ {4}(\w+): ", kind.__doc__ or "", re.MULTILINE)
        own = [name for name in settings_of(kind) if name in kind.__annotations__]
        assert described == own, kind.__name__
    for struct in (schema(), *schema()["$defs"].values()):
        assert struct["description"].endswith("."), struct


def test_defaults_are_written_as_people_write_them() -> None:
    """Editors show defaults with their units."""
    policy = schema()["$defs"]["Policy"]["properties"]
    shown = {
        name: policy[name].get("default") for name in ("heartbeat", "high_water", "ids", "hosts", "linger")
    }
    assert shown == {"heartbeat": "15s", "high_water": "64KiB", "ids": "auto", "hosts": None, "linger": "15s"}
    assert schema()["$defs"]["Timeouts"]["properties"]["total"]["default"] == "off"
    assert schema()["properties"]["store"]["default"] == "memory"


@pytest.mark.parametrize("text", list(documents()))
def test_examples(text: str) -> None:
    """Every configuration that the project shows is read, and editors have nothing to underline in it."""
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "sk-test")
    assert parse(text, environ=environ).routes
    assert complaints(text) == []


def test_a_file_with_every_setting(everything: str, base: str) -> None:
    """Everything that is read is also accepted by editors."""
    assert complaints(everything) == []
    assert complaints(base) == []


@pytest.mark.parametrize(
    "added",
    [
        "drain: 5",
        "drain: 0.5s",
        "drain: ${DRAIN:-5s}",
        "store: {memory: {}}",
        "tls: null",
        "limits: {readers_per_caller: off, streams: '${N:-5}', max_headers: 1000}",
        "limits: {readers_per_caller: null}",
        "log: {level: '${LEVEL:-info}', requests: '${FLAG:-on}'}",
        "defaults: {replay: off, open_after: 'off', linger: forever, timeouts: {idle: false, total: 1h}}",
        "defaults: {replay: on, principal: {header: X-User}, hosts: ['*.example.com'], origins: null}",
    ],
)
def test_what_both_accept(added: str, base: str) -> None:
    """Every form in which a value may be written is known to the reader and to editors."""
    assert parse(f"{base}{added}\n", environ={})
    assert complaints(f"{base}{added}\n") == []


@pytest.mark.parametrize(
    "added",
    [
        "drain: 15x",
        "drain: -1",
        "drain: off",
        "drain: [5]",
        "drian: 5s",
        "listen: 8080",
        "listen: localhost",
        "store: redis",
        "hosts: []",
        "hosts: example.com",
        "origins: [example.com]",
        "tls: {cert: x}",
        "limits: {streams: 0}",
        "limits: {streams: five}",
        "limits: {max_headers: 64K}",
        "log: {level: warn}",
        "log: {requests: 5}",
        "defaults: {path: /}",
        "defaults: {ids: off}",
        "defaults: {timeouts: {connect: off}}",
        "defaults: {replay: {enabled: true}}",
        "defaults: {principal: {}}",
        "defaults: {principal: {cookie: a, header: b}}",
        "defaults: {principal: {cookie: null}}",
    ],
)
def test_what_both_refuse(added: str, base: str) -> None:
    """Whatever editors underline would not have been read, and they underline whatever they can know of."""
    with pytest.raises(ConfigError):
        parse(f"{base}{added}\n", environ={})
    assert len(complaints(f"{base}{added}\n")) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{url: http://127.0.0.1:3000}", "{}"),
        ("{url: http://127.0.0.1:3000}", "{url: http://a, urls: [http://b]}"),
        ("{url: http://127.0.0.1:3000}", "{url: 127.0.0.1}"),
        ("{url: http://127.0.0.1:3000}", "{url: http://a, set_headers: {A: 5}}"),
        ("name: rest, ", ""),
        ("name: rest", "name: the rest"),
        ('"/{tail:.*}"', "v1"),
        ("upstream: app", "upstream: app, methods: []"),
        ("upstream: app", "upstream: app, methods: ['GET POST']"),
        ("upstream: app", "upstream: app, reconnect: maybe"),
    ],
)
def test_what_both_refuse_in_upstreams_and_routes(old: str, new: str, base: str) -> None:
    """The same for what upstreams and routes are made of."""
    text = base.replace(old, new)
    with pytest.raises(ConfigError):
        parse(text, environ={})
    assert complaints(text)
