"""What a decoder hears in a recorded body, in the words of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.dialects import DIALECTS
from proxy.dialects.part import (
    Citation,
    Error,
    File,
    Finish,
    Part,
    Refusal,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolFault,
    ToolResult,
)
from proxy.dialects.summary import Summary
from tests.transcripts.transcript import Call, Transcript
from tests.transcripts.translated import SALT, blocks_of, failure_of, framing_of


def parts_of(transcript: Transcript, body: bytes | None = None) -> list[Part]:
    """Return all parts of a recorded body, or of another one in its place."""
    dialect = DIALECTS[transcript.dialect]
    decoder = dialect.decoder(SALT)
    assert decoder is not None
    framing = framing_of(transcript)
    received = blocks_of(framing, transcript.body if body is None else body)
    blocks = [block for blocks in received for block in blocks]
    parts = [part for block in blocks for part in decoder.decode(block)]
    return parts if failure_of(dialect, framing, blocks) else [*parts, *decoder.finish()]


def heard(transcript: Transcript, parts: list[Part]) -> Transcript:
    """Return the row that parts make: what they say, under the name of the recorded one.

    Ids that the decoder has made up are left out, as the table does.
    """
    summary = Summary(0.0)
    for part in parts:
        summary.note(part, 0.0)
    finishes = [part for part in parts if isinstance(part, Finish)]
    starts = [part for part in parts if isinstance(part, Start)]
    assert len(starts) <= 1
    assert len({finish.choice for finish in finishes}) == len(finishes)
    finish = next((each for each in finishes if each.choice == 0), None)
    return Transcript(
        transcript.dialect,
        transcript.name,
        transcript.suffix,
        transcript.content_type,
        message_id=summary.id,
        model=summary.model,
        text=joined(parts, Text, lambda part: part.choice == 0),
        others=tuple(
            joined(parts, Text, lambda part, choice=choice: part.choice == choice)
            for choice in range(
                1, 1 + max((part.choice for part in parts if isinstance(part, Text)), default=0)
            )
        ),
        refusal=joined(parts, Refusal),
        thinking=joined(parts, Thinking),
        signature=last([part.signature for part in parts if isinstance(part, Thinking)]),
        redacted=last([part.redacted for part in parts if isinstance(part, Thinking)]),
        calls=tuple(call_of(part) for part in parts if isinstance(part, ToolCall | ToolFault)),
        results=tuple(part.name for part in parts if isinstance(part, ToolResult)),
        citations=tuple(
            part.url or part.document or part.title for part in parts if isinstance(part, Citation)
        ),
        files=tuple(part.media_type for part in parts if isinstance(part, File)),
        finish=finish and finish.reason,
        native=finish.native if finish else "",
        usage=summary.usage,
        error=next((part for part in parts if isinstance(part, Error)), None),
        truncated=transcript.truncated,
    )


def joined(parts: list[Part], kind: type[Part], wanted: Callable[[Any], bool] = lambda part: True) -> str:
    """Return the contents of all parts of a kind."""
    return "".join(part.content for part in parts if isinstance(part, kind) and wanted(part))  # type: ignore[attr-defined]  # the kinds asked for have a content


def last(values: list[str]) -> str:
    """Return the last value that says anything."""
    return next((value for value in reversed(values) if value), "")


def call_of(part: ToolCall | ToolFault) -> Call:
    """Return a call as the table tells it."""
    call_id = "" if part.id.startswith(f"call_{SALT}_") else part.id
    more = {"executed": part.executed, "choice": part.choice}
    if isinstance(part, ToolFault):
        return Call(call_id, part.name, source=part.source, **more)
    return Call(call_id, part.name, part.arguments, **more)
