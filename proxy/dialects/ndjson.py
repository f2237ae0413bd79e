"""An app's own lines of JSON."""

from __future__ import annotations

from types import MappingProxyType

from proxy.dialects.generic import Generic
from proxy.stream.lines import Lines

#: The names under which lines of JSON go; none of them is registered.
CONTENT_TYPES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/stream+json",
)


class Ndjson(Generic):
    """Each line becomes a block. Nobody knows what an app's lines mean, so there is nothing to translate.

    As with an app's events, a clean close is the end, and nothing may be injected.
    """

    __slots__ = ()

    name = "ndjson"
    framings = MappingProxyType({**Generic.framings, **dict.fromkeys(CONTENT_TYPES, Lines)})
