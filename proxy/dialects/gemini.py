"""Google Gemini, ``:streamGenerateContent?alt=sse``."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from proxy.dialects.base import Decoder, Dialect, Failure, Verdict, word_for
from proxy.dialects.choices import Choices
from proxy.dialects.gemini_decoder import GeminiDecoder
from proxy.dialects.payload import data_block, read, write
from proxy.stream.json_array import JsonArray
from proxy.stream.sse import decode

#: The names of ``google.rpc.Code`` for HTTP statuses, as its comments pair them; 502 as gRPC's table
#: "HTTP to gRPC Status Code Mapping" does.
STATUS_WORDS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Content(msgspec.Struct):
    """A candidate's text and other parts."""

    parts: list[dict[str, Any]] | None = None


class Candidate(msgspec.Struct, rename="camel"):
    """One answer's part of a chunk. The API leaves out an index of 0."""

    index: int | None = 0
    content: Content | None = None
    finish_reason: Any = None

    @property
    def speaks(self) -> bool:
        """Whether the chunk adds to the answer: models often finish with one empty text part."""
        parts = (self.content and self.content.parts) or []
        return any(value for part in parts for value in part.values())


class PromptFeedback(msgspec.Struct, rename="camel"):
    """What the filter says about the prompt; a blocked one gets no candidates."""

    block_reason: Any = None


class Chunk(msgspec.Struct, rename="camel"):
    """What matters here of a ``GenerateContentResponse``, or of the error in its place."""

    candidates: list[Candidate] | msgspec.UnsetType | None = msgspec.UNSET
    prompt_feedback: PromptFeedback | msgspec.UnsetType | None = msgspec.UNSET
    usage_metadata: Any = msgspec.UNSET
    error: Any = msgspec.UNSET

    @property
    def answers(self) -> list[Candidate]:
        """The candidates, if there are any."""
        return self.candidates or []

    @property
    def blocked(self) -> bool:
        """Whether the prompt was refused, which ends the stream."""
        return bool(self.prompt_feedback and self.prompt_feedback.block_reason)


class Gemini(Dialect):
    """Data-only blocks and no terminal marker: a finish reason, then the end of the body.

    Google's SDKs take every line that does not begin with ``data: `` for a piece of JSON, so that
    ids, retry hints and comments break them; an empty line between blocks is all they tolerate.
    """

    __slots__ = ()

    name = "gemini"
    provider = "gcp.gemini"
    operation = "generate_content"
    framings = MappingProxyType({**Dialect.framings, "application/json": JsonArray})
    ids_safe = False
    heartbeat = b"\n"

    def serves(self, segments: list[str]) -> bool:
        """``…:streamGenerateContent``, on the Gemini API's and on Vertex AI's paths."""
        return bool(segments) and segments[-1].endswith(":streamGenerateContent")

    def streams_at(self, segments: list[str]) -> bool:
        """The same: ``:generateContent`` answers with JSON, too, and streams nothing."""
        return self.serves(segments)

    def confirms(self, block: bytes) -> bool:
        """An object with at least one of the response's own keys."""
        chunk = read(decode(block).data, Chunk)
        keys = (chunk.candidates, chunk.prompt_feedback, chunk.usage_metadata, chunk.error)
        return any(key is not msgspec.UNSET for key in keys)

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Finished when every candidate has its finish reason, or the prompt was blocked."""
        choices, blocked = Choices(), False
        for block in tail:
            chunk = read(decode(block).data, Chunk)
            if chunk.error:
                return Verdict.ERROR
            blocked = blocked or chunk.blocked
            for answer in chunk.answers:
                choices.note(answer.index or 0, finished=bool(answer.finish_reason), speaks=answer.speaks)
        return Verdict.FINISHED if blocked or choices.all_finished else Verdict.OPEN

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """``data: {"error": …}``. The SDK raises only if ``error`` is the object's first key."""
        return data_block(error_object(failure.status, failure.message))

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """The same object as in-band. It has no place for ``kind``."""
        return write(error_object(status, message))

    def wants_stream(self, body: bytes) -> bool:
        """Always: the path has said so already."""
        return True

    def decoder(self, salt: str) -> Decoder:
        """Return what reads chunks."""
        return GeminiDecoder(salt)


def error_object(status: int, message: str) -> dict[str, Any]:
    """Return the error of Google's APIs: the HTTP status as ``code``, its name as ``status``."""
    word = word_for(status, STATUS_WORDS, "INVALID_ARGUMENT", "INTERNAL")
    return {"error": {"code": status, "message": message, "status": word}}
