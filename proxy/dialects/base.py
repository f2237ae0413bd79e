"""What a dialect is, and the words in which it is asked and answers."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from proxy.dialects.part import Part
from proxy.dialects.payload import asks_to_stream
from proxy.stream import sse
from proxy.stream.framing import Framing

#: The message of a provider's error that has none.
WORDLESS = "the provider told an error without a word"


class Verdict(enum.Enum):
    """What the last blocks of a stream say about its end."""

    COMPLETE = "the provider marked the end"
    FINISHED = "it gave the reason why it finished, and no marker: whole, if the close is clean"
    ERROR = "the provider told an error of its own"
    OPEN = "none of these"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a stream ends before its end.

    ``reason`` is the terminal record's word: ``upstream_error``, ``truncated``, ``cancelled``,
    ``idle_timeout``, ``total_timeout``, ``overflow`` or ``producer_lost``. ``message`` is for people.
    ``status`` is the HTTP status that would have said it, had the headers not been sent already.
    """

    reason: str
    message: str
    status: int = 502


class Decoder(abc.ABC):
    """Reads one stream of a dialect and tells what it says. No method raises, whatever came."""

    __slots__ = ()

    @abc.abstractmethod
    def decode(self, block: bytes) -> list[Part]:
        """Return what the next block says, in order; an ``Error`` or ``End`` is the last part of all.

        A reader of the stream's beginning and end alone may leave blocks out in between.
        """

    def finish(self) -> list[Part]:
        """Return what is still to be said when the stream has ended well, though without its marker."""
        return []


class Dialect(abc.ABC):
    """How one provider's stream looks. Stateless: one instance serves all streams.

    A *block* is an event as it stands on the wire, its lines ended by LF, with or without the
    ``id:`` and ``retry:`` lines that were added to it. No method raises on malformed input.
    """

    __slots__ = ()

    name: ClassVar[str]

    #: Whether requests spend tokens: they go upstream with ``Accept-Encoding: identity``, and errors
    #: are told in the provider's shape.
    llm: ClassVar[bool] = True

    #: The provider's name in metrics: ``gen_ai.provider.name`` of OpenTelemetry's GenAI conventions.
    provider: ClassVar[str] = ""

    #: What is asked of it: ``gen_ai.operation.name`` of these conventions.
    operation: ClassVar[str] = "chat"

    #: How bodies become blocks, by content type. A route whose ``dialect`` is ``auto`` re-emits event
    #: streams alone: whoever asks for lines of JSON, without a word in the configuration, reads them.
    framings: ClassVar[Mapping[str, Callable[[int], Framing]]] = MappingProxyType(
        {sse.EVENT_STREAM: sse.Parser}
    )

    #: Whether the provider has streams that begin with a GET. Where it has none, a GET under one of its
    #: paths is an app's.
    streams_get: ClassVar[bool] = False

    #: Whether the provider's SDKs survive ``id`` and ``retry`` lines and comments.
    ids_safe: ClassVar[bool] = True

    #: What may be written between two blocks to show life: one line, with a single LF. An empty line
    #: after it would make several SDKs dispatch an empty event once they have seen an id.
    heartbeat: ClassVar[bytes] = b": ping\n"

    @abc.abstractmethod
    def serves(self, segments: list[str]) -> bool:
        """Whether a path with these (non-empty, decoded) segments is where this dialect is spoken."""

    def streams_at(self, segments: list[str]) -> bool:
        """Whether an answer at this path may be a stream in another format than an event stream.

        Providers that stream so answer other requests with the same content types.
        """
        return True

    def model_at(self, segments: list[str]) -> str:
        """Return the model that a path names; nothing where the stream tells its model itself."""
        return ""

    @abc.abstractmethod
    def confirms(self, block: bytes) -> bool:
        """Whether the first block with data of a stream is one that this dialect could begin with."""

    @abc.abstractmethod
    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Say how a stream stands whose last blocks are ``tail``, oldest first.

        An error anywhere in it outweighs a marker: some servers send ``[DONE]`` after their error.
        """

    def lacks(self, tail: Sequence[bytes], begun: bytes) -> bool:
        """Whether a stream that closed inside of the block ``begun`` lacks more than its marker."""
        return sse.has_data(begun) and self.verdict([*tail, begun]) is not Verdict.COMPLETE

    @abc.abstractmethod
    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """Return the block that makes the provider's SDK raise, or None if nothing may be injected.

        It has no id and no empty line at its end. ``tail`` are the last blocks before it, for
        dialects that number their events. No terminal marker is ever made up here.
        """

    @abc.abstractmethod
    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """Return the JSON body of an error answer in the provider's shape.

        ``kind`` is the stable word for the problem. None means: answer with a problem document.
        """

    def decoder(self, salt: str) -> Decoder | None:
        """Return what reads a stream of this dialect; None where nobody knows what its events mean.

        ``salt`` goes into the names that the decoder has to make up: it is another one for each stream.
        """
        return None

    def wants_stream(self, body: bytes) -> bool:
        """Whether this (whole) request body asks for a stream."""
        return asks_to_stream(body)


def word_for(status: int, words: Mapping[int, str], client: str, server: str) -> str:
    """Return a provider's word for an HTTP status: from ``words``, else by whose fault it is."""
    return words.get(status) or (client if status < 500 else server)


def error_status(told: Any) -> int | None:
    """Return what a provider tells of its error if that is an HTTP status of one."""
    return told if type(told) is int and 400 <= told < 600 else None
