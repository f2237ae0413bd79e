"""OpenAI chat completions, and the many servers that speak the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.dialects.base import Decoder, Dialect, Failure, Verdict, word_for
from proxy.dialects.choices import Choices
from proxy.dialects.openai_decoder import OpenAIDecoder, is_done
from proxy.dialects.payload import data_block, read, write
from proxy.stream.sse import Event, decode

#: How nearly every chunk begins, up to the key by which it is known.
_CHUNK_BLOCK = re.compile(rb'data: \{(?:"id": ?"[^"\\]*", ?)?"(?:object": ?"chat\.completion|choices": ?\[)')

#: A block that is the terminal marker in its usual form.
_DONE_BLOCK = re.compile(rb"(?:id: [^\n]*\n)?(?:retry: [0-9]+\n)?data: \[DONE\]")

ERROR_TYPES = {
    429: "rate_limit_error",
    499: "server_error",  # a stream that somebody cancelled was not a bad request
}


class Choice(msgspec.Struct):
    """One answer's part of a chunk."""

    index: int | None = 0
    delta: dict[str, Any] | None = None
    finish_reason: Any = None

    @property
    def speaks(self) -> bool:
        """Whether the chunk adds to the answer: text, a refusal, reasoning, a tool call."""
        return any(value for key, value in (self.delta or {}).items() if key != "role")


class Chunk(msgspec.Struct):
    """What matters here of a ``chat.completion.chunk``, or of what stands in its place."""

    object: Any = None
    choices: list[Choice] | msgspec.UnsetType | None = msgspec.UNSET
    error: Any = None

    @property
    def answers(self) -> list[Choice]:
        """The choices, if there are any."""
        return self.choices or []


class OpenAI(Dialect):
    """Data-only blocks; the end is ``data: [DONE]``, an error is a chunk with a truthy ``error``."""

    __slots__ = ()

    name = "openai"
    provider = "openai"

    def serves(self, segments: list[str]) -> bool:
        """``…/chat/completions``, below any prefix (Azure's deployments, gateways)."""
        return segments[-2:] == ["chat", "completions"]

    def confirms(self, block: bytes) -> bool:
        """A chunk, an error, or the end.

        ``choices`` may be empty: Azure begins with the content filter's verdict on the prompt.
        """
        if _CHUNK_BLOCK.match(block):
            return True
        event = decode(block)
        chunk = read(event.data, Chunk)
        return (
            is_done(event)
            or is_error(event, chunk)
            or chunk.choices is not msgspec.UNSET
            or str(chunk.object).startswith("chat.completion")
        )

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Complete with ``[DONE]``, finished when every choice has its finish reason.

        The latter is for servers that close without the marker; usage may follow the reason.
        """
        if tail and _DONE_BLOCK.fullmatch(tail[-1]) and not _may_tell_error(b"\n".join(tail)):
            return Verdict.COMPLETE  # as nearly all do end: there is no need to read what came before
        choices, done = Choices(), False
        for event in map(decode, tail):
            chunk = read(event.data, Chunk)
            if is_error(event, chunk):
                return Verdict.ERROR
            done = done or is_done(event)
            for choice in chunk.answers:
                choices.note(choice.index or 0, finished=bool(choice.finish_reason), speaks=choice.speaks)
        if done:
            return Verdict.COMPLETE
        return Verdict.FINISHED if choices.all_finished else Verdict.OPEN

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """``data: {"error": …}``: the SDKs raise on any payload with a truthy ``error``."""
        return data_block({"error": error_object(failure.status, failure.reason, failure.message)})

    def decoder(self, salt: str) -> Decoder:
        """Return what reads chunks."""
        return OpenAIDecoder(salt)

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """``{"error": …}``, with the kind as ``code``."""
        return write({"error": error_object(status, kind, message)})


def _may_tell_error(text: bytes) -> bool:
    """Whether any of some blocks may be an error (``is_error``): cheap, and never wrongly false.

    The word stands in each of its forms, and JSON can spell it otherwise with escapes only.
    """
    return b"error" in text or b"\\u" in text


def is_error(event: Event, chunk: Chunk) -> bool:
    """Whether the block tells an error, in one of the forms that servers use.

    OpenRouter adds ``error`` to a chunk that also has a finish reason; older vLLM sends the error
    itself, ``{"object": "error", …}``; gateways name the event and send the flat error object.
    """
    return event.event == "error" or bool(chunk.error) or chunk.object == "error"


def error_object(status: int, code: str, message: str) -> dict[str, str | None]:
    """Return the error object of OpenAI's APIs. Clients read ``message``, ``type`` and ``code``."""
    kind = word_for(status, ERROR_TYPES, "invalid_request_error", "server_error")
    return {"message": message, "type": kind, "param": None, "code": code}
