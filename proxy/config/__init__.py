"""YAML → typed, validated settings; the only place where raw mappings exist.

::

    text ─ document ─→ Item tree ─ resolve ─→ defaults merged into routes ─ form, rule ─→ Config
           (YAML, lines, ${ENV})                                            (fields, then what spans them)

``model`` says what there is; the annotations of its fields are ``form``s (units, bounds, words, ``syntax``),
which read a value and describe it to editors (``json_schema``). Every fault is found in one pass and told
with its YAML path and line; no message and no ``repr`` shows a value that may be secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from proxy.config.document import MAX_BYTES, WHOLE_FILE, decode, read_document
from proxy.config.json_schema import schema
from proxy.config.model import (
    Admin,
    Alias,
    Config,
    Emit,
    Limits,
    Log,
    MemoryStore,
    Policy,
    Principal,
    Prompt,
    Replay,
    Route,
    Store,
    Timeouts,
    Tls,
    Upstream,
)
from proxy.config.reading import Reading
from proxy.config.resolve import resolve
from proxy.config.rule import RULES
from proxy.errors import ConfigError, ConfigProblem

__all__ = [
    "Admin",
    "Alias",
    "Config",
    "Emit",
    "Limits",
    "Log",
    "MemoryStore",
    "Policy",
    "Principal",
    "Prompt",
    "Replay",
    "Route",
    "Store",
    "Timeouts",
    "Tls",
    "Upstream",
    "load",
    "parse",
    "schema",
]


def load(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in the file at ``path``; ConfigError with every fault, also if it cannot be read."""
    source = os.fspath(path)
    try:
        with open(path, "rb") as file:
            # One byte more than allowed is enough to be refused, whatever the file is.
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        problem = ConfigProblem(WHOLE_FILE, 1, f"cannot be read: {error.strerror}")
        raise ConfigError(source, [problem]) from error
    return parse(decode(raw, source), source, environ)


def parse(text: str, source: str = "<config>", environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in ``text``; ConfigError, naming ``source``, with every fault by line."""
    reading = Reading(RULES)
    root = read_document(text, source, environ, reading.report)
    config = resolve(root, reading)
    if config is None or reading.problems:
        raise ConfigError(source, reading.problems)
    return config
