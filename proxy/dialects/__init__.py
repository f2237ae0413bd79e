"""How each provider streams: one file and one row of ``DIALECTS`` per dialect.

A dialect answers what a proxy has to know about a stream that it does not own: is this one of mine
(``serves``, ``confirms``), how is its body cut into blocks (``framings``), did it reach its end
(``verdict``), in which words does its SDK learn of a failure (``failure_block``, ``error_body``), and which
additions does that SDK survive (``ids_safe``, ``heartbeat``). What a stream says is read by its ``decoder``,
in the words of ``part``, which are the same for all: ``tool_calls`` puts calls together, ``summary`` what
the stream has told of itself.

``<name>.py`` is the dialect, ``<name>_decoder.py`` its decoder where that is long, and beside it stand the
files that it alone needs. To add a dialect, write these with a subclass of ``Dialect``, add it to the tuple
below, and its name to ``proxy.config.model.DialectName``, which a route's setting is checked by. Its
recorded streams go to ``tests/transcripts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import unquote

from proxy.dialects.anthropic import Anthropic
from proxy.dialects.base import Dialect, Failure, Verdict
from proxy.dialects.bedrock import Bedrock
from proxy.dialects.cohere import Cohere
from proxy.dialects.gemini import Gemini
from proxy.dialects.generic import Generic
from proxy.dialects.ndjson import Ndjson
from proxy.dialects.ollama import Ollama
from proxy.dialects.openai import OpenAI
from proxy.dialects.openai_responses import OpenAIResponses
from proxy.dialects.text import PlainText

__all__ = ["DIALECTS", "Dialect", "Failure", "Verdict", "confirm", "propose", "segments_of"]

#: By name, as a route's ``dialect`` setting spells it.
DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        dialect.name: dialect
        for dialect in (
            OpenAI(),
            OpenAIResponses(),
            Anthropic(),
            Gemini(),
            Cohere(),
            Ollama(),
            Bedrock(),
            Ndjson(),
            PlainText(),
            Generic(),
        )
    }
)

GENERIC = DIALECTS["generic"]


def segments_of(path: str) -> list[str]:
    """Return a path's segments as dialects look at them. It is given raw and without its query.

    The path is cut before it is decoded, so that an encoded slash stays part of its segment. Empty
    segments count for nothing: SDKs whose base URL ends in a slash send ``//chat/completions``.
    """
    return [unquote(segment) for segment in path.split("/") if segment]


def propose(path: str) -> Dialect:
    """Guess the dialect from a request's path, given raw (percent-encoded) and without its query."""
    segments = segments_of(path)
    return next((dialect for dialect in DIALECTS.values() if dialect.serves(segments)), GENERIC)


def confirm(proposed: Dialect, block: bytes) -> Dialect:
    """Return ``proposed`` if the stream's first block with data speaks it, else the generic dialect.

    A path proves little: an app's own ``/api/messages`` is not Anthropic's, and must not be told of
    failures in Anthropic's words.
    """
    return proposed if proposed.confirms(block) else GENERIC
