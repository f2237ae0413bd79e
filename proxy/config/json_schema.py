"""JSON Schema 2020-12 of a configuration, for editors: generated from the same forms that read it."""

from __future__ import annotations

import inspect
import re
from typing import Final

import msgspec

from proxy.config import model, units
from proxy.config.form import JsonSchema, settings_of

STRUCTS: Final = (
    model.Tls,
    model.Admin,
    model.Store,
    model.MemoryStore,
    model.Limits,
    model.Log,
    model.Upstream,
    model.Policy,
    model.Replay,
    model.Emit,
    model.Timeouts,
    model.Principal,
    model.Prompt,
    model.Alias,
    model.Route,
)
"""Every struct below :class:`model.Config`; each becomes an entry of ``$defs``."""

_EXACTLY_ONE: Final[dict[type[msgspec.Struct], tuple[str, str]]] = {
    model.Upstream: ("url", "urls"),
    model.Principal: ("cookie", "header"),
}

_SCALARS: Final[JsonSchema] = {
    "duration": {
        "description": "A duration: 250ms, 15s, 5m, 1h, or a number of seconds.",
        "anyOf": [
            {"type": "string", "pattern": units.DURATION_PATTERN},
            {"type": "number", "minimum": 0, "maximum": units.MAX_SECONDS},
        ],
    },
    "size": {
        "description": "A size: 64KiB, 4MiB, 1GiB, 10MB, or a number of bytes.",
        "anyOf": [
            {"type": "string", "pattern": units.SIZE_PATTERN},
            {"type": "integer", "minimum": 0, "maximum": units.MAX_BYTES},
        ],
    },
    "reference": {
        "description": "Text with a reference to the environment: ${NAME} or ${NAME:-default}.",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
    },
    "off": {"description": "None of it. YAML 1.1 reads `off` as false.", "enum": ["off", False]},
    "on": {"description": "With its defaults. YAML 1.1 reads `on` as true.", "enum": ["on", True]},
}


def schema() -> JsonSchema:
    """The schema of a whole file. config/schema.json is this, written down."""
    structs = {kind.__name__: _struct(kind) for kind in STRUCTS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sse-sidecar configuration",
        **_struct(model.Config),
        "$defs": _SCALARS | structs,
    }


def _struct(kind: type[msgspec.Struct]) -> JsonSchema:
    settings = settings_of(kind)
    described = _field_descriptions(kind)
    answer: JsonSchema = {
        "description": _summary(kind),
        "type": "object",
        "properties": {name: _property(kind, name, described[name]) for name in settings},
        "required": [name for name, setting in settings.items() if setting.required],
        "additionalProperties": False,
    }
    if kind in _EXACTLY_ONE:
        answer["oneOf"] = [{"required": [name]} for name in _EXACTLY_ONE[kind]]
    return answer


def _property(kind: type[msgspec.Struct], name: str, description: str) -> JsonSchema:
    setting = settings_of(kind)[name]
    unset = setting.required or setting.default is msgspec.UNSET
    default = None if unset else setting.form.written(setting.default)
    shown: JsonSchema = {} if default is None else {"default": default}
    return {"description": description, **setting.form.schema(), **shown}


def _summary(kind: type[msgspec.Struct]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _field_descriptions(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The ``name: …`` lines of the docstrings of ``kind`` and of the structs that it extends."""
    lines: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        lines |= dict(re.findall(r"^ {4}(\w+): (.+)$", base.__doc__ or "", re.MULTILINE))
    return lines
