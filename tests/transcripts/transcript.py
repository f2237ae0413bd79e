"""One row of the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.dialects.part import Error, Reason, Usage

HERE = Path(__file__).parent

#: The figures of a stream that tells none.
UNTOLD = Usage()


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. ``arguments`` are parsed; ``source`` where they ended early, so that there is no call.

    ``id`` is empty where the provider gives none. ``executed``: the provider ran the tool itself.
    """

    id: str
    name: str
    arguments: Any = None
    source: str | None = None
    executed: bool = False
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Transcript:
    """A recorded stream, and what it says.

    ``text`` is that of the first choice, ``others`` those of the further ones. An emoji that came in halves
    stands there in halves, as Python joins them. ``thinking`` is all of it; ``signature`` and ``redacted``
    are the last ones of their kind. ``citations`` are the URLs, or the names of documents, in order;
    ``results`` the names of the tools whose results the provider tells; ``files`` the media types of what
    the model made. ``usage`` are the figures at the end, counted as the part of that name counts. ``error``
    is the provider's own; ``truncated``: the body stops short.
    """

    dialect: str
    name: str
    suffix: str = "sse"
    content_type: str = "text/event-stream"
    message_id: str = ""
    model: str = ""
    text: str = ""
    others: tuple[str, ...] = ()
    refusal: str = ""
    thinking: str = ""
    signature: str = ""
    redacted: str = ""
    calls: tuple[Call, ...] = ()
    results: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    finish: Reason | None = None
    native: str = ""
    usage: Usage = UNTOLD
    error: Error | None = None
    truncated: bool = False

    @property
    def id(self) -> str:
        """How the table names it."""
        return f"{self.dialect}/{self.name}"

    @property
    def path(self) -> Path:
        """Where its body lies."""
        return HERE / self.dialect / f"{self.name}.{self.suffix}"

    @property
    def body(self) -> bytes:
        """The bytes that the provider sent."""
        return self.path.read_bytes()

    @property
    def whole(self) -> bool:
        """Whether it ends well."""
        return self.error is None and not self.truncated

    @property
    def faulty(self) -> bool:
        """Whether the arguments of a call ended early."""
        return any(call.source is not None for call in self.calls)


@dataclass(frozen=True, slots=True)
class Script:
    """A row, and the body that is written for it."""

    transcript: Transcript
    body: bytes
