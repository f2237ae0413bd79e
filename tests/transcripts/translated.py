"""A recorded body in another form, without a socket: what framing, decoder and writer make of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from proxy.dialects import DIALECTS, Dialect, Failure, Verdict
from proxy.emit import Translation, emit_for, translation
from proxy.stream.framing import Framing
from proxy.stream.sse import has_data
from tests.transcripts.transcript import Transcript

MAX_BLOCK_BYTES = 1 << 24

#: How many of the last blocks a dialect sees of a stream that ended.
TAIL_BLOCKS = 16

#: What a failure says where a body ends before its end.
SHORT = "the upstream closed the stream before its end"

#: Goes into the names that decoders and writers make up.
SALT = "salt"


def translated(
    transcript: Transcript,
    emit: str,
    cuts: Iterable[int] = (),
    *,
    body: bytes | None = None,
    raw: bool = False,
) -> bytes:
    """Return what a client of the form ``emit`` receives, as an event stream.

    ``cuts`` are the places at which the body is split into reads, ``body`` another one than the recorded.
    All of it comes at one second after the request. A body that does not end well is told of as the relay
    does it.
    """
    dialect = DIALECTS[transcript.dialect]
    framing = framing_of(transcript)
    received = list(blocks_of(framing, transcript.body if body is None else body, cuts))
    failure = failure_of(dialect, framing, [block for blocks in received for block in blocks])
    form = emit_for(emit, dialect)
    if form is None:
        told = passed_on(dialect, received, failure)
    else:
        told = retold(translation(form, dialect, SALT, 0.0, raw=raw, keep=TAIL_BLOCKS), received, failure)
    return b"".join(block + b"\n\n" for block in told)


def framing_of(transcript: Transcript) -> Framing:
    """Return what cuts a transcript's body into blocks."""
    return DIALECTS[transcript.dialect].framings[transcript.content_type](MAX_BLOCK_BYTES)


def blocks_of(framing: Framing, body: bytes, cuts: Iterable[int] = ()) -> Iterator[list[bytes]]:
    """Yield the blocks that each read of a body completes, and those that its end does."""
    places = sorted({0, *(min(each, len(body)) for each in cuts), len(body)})
    for start, end in pairwise(places):
        yield framing.feed(body[start:end])
    yield framing.finish()


def failure_of(dialect: Dialect, framing: Framing, blocks: list[bytes]) -> Failure | None:
    """Return how a body that closed cleanly has failed, and None where it ended well."""
    tail = tail_of(blocks)
    verdict, lacks = dialect.verdict(tail), framing.broken or dialect.lacks(tail, framing.pending)
    if verdict is Verdict.COMPLETE or (verdict is Verdict.FINISHED and not lacks):
        return None
    return Failure("truncated", framing.broken or SHORT)


def tail_of(blocks: list[bytes]) -> list[bytes]:
    """Return what a dialect sees of a stream's end."""
    return [block for block in blocks if has_data(block)][-TAIL_BLOCKS:]


def retold(form: Translation, received: list[list[bytes]], failure: Failure | None) -> list[bytes]:
    """Return the blocks in another form."""
    told = [block for blocks in received for block in form.feed(blocks, 1.0)]
    return told + (form.fail(failure, 1.0) if failure else form.close(1.0))


def passed_on(dialect: Dialect, received: list[list[bytes]], failure: Failure | None) -> list[bytes]:
    """Return the provider's own blocks, and after a failure of which it told nothing, the dialect's word."""
    told = [block for blocks in received for block in blocks]
    tail = tail_of(told)
    if failure is None or dialect.verdict(tail) is Verdict.ERROR:
        return told
    block = dialect.failure_block(failure, tail)
    return told if block is None else [*told, block]
