"""What every API of the provider has in common: a call comes in, a voice answers it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.demo.event import Event
from proxy.demo.speech import Speech

#: Told when the provider fails in mid-stream because it was asked to.
FAILURE = "The demo provider was asked to fail here."

#: What a model thinks before it answers, where the request asks for that, in the pieces that it comes in.
THOUGHT = ("They", " want", " a", " text", " about", " streams.")


class Script(Protocol):
    """A stream that can be played."""

    def events(self) -> Iterator[Event]:
        """Every event from the first to the terminal marker."""
        ...

    def complaint(self) -> Event:
        """The event that tells of a failure in mid-stream."""
        ...


class Voice(Script, Protocol):
    """An answer in the form of one API, as a stream or whole."""

    @property
    def streams(self) -> bool:
        """Whether the request asked for a stream."""
        ...

    def answer(self) -> str:
        """The JSON document for a request that asked for no stream; ValueError for an endless speech."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to an API. ``created`` is in seconds since the epoch.

    ``path_model`` is the model, where an API's URLs name it.
    """

    number: int
    created: int
    speech: Speech
    path_model: str = ""

    def identity(self, prefix: str) -> str:
        """An identifier as the API forms them, the same for the whole of this answer."""
        return f"{prefix}{self.number:024d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One function call: its ``arguments`` fit the schema that the request gave for ``name``."""

    name: str
    arguments: dict[str, Any]

    @property
    def arguments_json(self) -> str:
        """The arguments as the model would write them."""
        return json.dumps(self.arguments, ensure_ascii=False)

    def pieces(self) -> list[str]:
        """That JSON in the fragments of a stream, cut without regard for its grammar."""
        text = self.arguments_json
        return [text[start : start + 8] for start in range(0, len(text), 8)]


def choose_tool(functions: Iterable[tuple[str, Any]], *, forced: bool, prompt: str) -> ToolCall | None:
    """The call of the first of ``functions`` (name, JSON schema), when there is reason for one.

    The reason is a tool choice that ``forced`` it, or a prompt that speaks of a tool.
    """
    name, schema = next(iter(functions), (None, None))
    if name is None or not (forced or re.search(r"\btools?\b", prompt, re.IGNORECASE)):
        return None
    sample = _sample(schema)
    return ToolCall(name=name, arguments=sample if isinstance(sample, dict) else {})


def last_prompt(turns: object) -> str:
    """The text of the last turn, in any of the nestings in which the APIs take one."""
    return _spoken(turns[-1:] if isinstance(turns, list) else turns)


def word_count(text: str) -> int:
    """The provider's tokenizer: a word is a token."""
    return len(text.split())


def _spoken(content: object) -> str:
    match content:
        case str():
            return content
        case list():
            return " ".join(_spoken(part) for part in content)
        case {"text": inner} | {"content": inner} | {"parts": inner}:
            return _spoken(inner)
    return ""


_SAMPLES: dict[str, Any] = {
    "string": "Zürich",
    "integer": 7,
    "number": 3.5,
    "boolean": True,
    "array": [],
    "null": None,
}


def _sample(schema: object) -> Any:
    """A value that fits the schema, whose types may be in capitals, as Gemini writes them."""
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"properties": dict(properties)}:
            return {name: _sample(inner) for name, inner in properties.items()}
        case {"type": str(kind)}:
            return _SAMPLES.get(kind.lower(), {})
    return {}
