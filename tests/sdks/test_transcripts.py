"""Every recorded stream through the SDKs for Node: as it came, and by `ai` as OpenAI's chunks.

The SDKs for Python read them in tests/transcripts, and other forms are read in tests/emit and tests/react.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.emit.telling import one_string, run_in_node
from tests.support.node import SDKS
from tests.support.shelf import Shelf, as_sent
from tests.transcripts import TRANSCRIPTS, Transcript, translated

#: Who reads a provider's own events: its SDK, and `ai` with the provider's package.
READERS = {
    "openai": ("openai", "ai, openai-compatible"),
    "openai-responses": ("responses", "ai, openai responses"),
    "anthropic": ("anthropic", "ai, anthropic"),
    "gemini": ("google", "ai, google"),
}


class Reading(NamedTuple):
    """A recorded stream in a form, and who reads it."""

    row: Transcript
    form: str
    reader: str

    @property
    def name(self) -> str:
        """How the shelf knows the body."""
        return f"{self.row.id} as {self.form}"


READINGS = [
    Reading(row, "passthrough", reader)
    for row in TRANSCRIPTS.values()
    if row.suffix == "sse"
    for reader in READERS.get(row.dialect, ())
] + [
    Reading(row, "openai", "ai, openai-compatible") for row in TRANSCRIPTS.values() if row.dialect != "openai"
]

#: What a reader's own schema refuses, though the provider's API has it: it raises, as without a sidecar.
REFUSED = {
    ("openai-responses/custom-tool-call", "ai, openai responses"),
    ("openai-responses/file-search", "ai, openai responses"),
    ("openai-responses/mcp", "ai, openai responses"),
    ("anthropic/citations", "ai, anthropic"),
    ("anthropic/no-message-stop", "anthropic"),  # its accumulator insists on the marker
}

#: What a reader hands to the program as an event of the stream, and does not raise.
HANDED_ON = {
    ("openai-responses/failed", "responses"),
    ("gemini/prompt-blocked", "google"),
    ("gemini/prompt-blocked", "ai, google"),
}


def body_of(reading: Reading) -> bytes:
    """The stream as the sidecar sends it; Gemini's SDKs get neither ids nor comments."""
    body = translated(reading.row, reading.form)
    plain = reading.form == "passthrough" and reading.row.dialect == "gemini"
    return body if plain else as_sent(body)


@pytest.fixture(scope="module")
def heard() -> Iterator[dict[str, Any]]:
    """What each reader heard, by the body's name and the reader's."""
    with Shelf({reading.name: body_of(reading) for reading in READINGS}) as shelf:
        table: dict[str, dict[str, str]] = {}
        for reading in READINGS:
            table.setdefault(reading.name, {})[reading.reader] = shelf.url(reading.name)
        yield run_in_node("transcripts.mjs", table, SDKS)


def text_for(reading: Reading) -> str | None:
    """The text that a reader gets; None where it mixes those of several choices."""
    row, by_ai = reading.row, reading.reader.startswith("ai, ")
    if by_ai and row.others:
        return None
    shows_refusals = by_ai and reading.reader != "ai, anthropic"
    return row.text + row.refusal if shows_refusals else row.text


@pytest.mark.parametrize("reading", READINGS, ids=[f"{each.name}-{each.reader}" for each in READINGS])
def test_never_a_silent_short_answer(reading: Reading, heard: dict[str, Any]) -> None:
    """The text is whole, and so are the calls; or an error is raised."""
    row, came = reading.row, heard[reading.name][reading.reader]
    case = (row.id, reading.reader)
    if case in HANDED_ON:
        assert came == {"text": "", "tools": [], "error": None}
    elif case in REFUSED or not row.whole:
        assert came["error"]
    else:
        expected = text_for(reading)
        assert came["error"] is None
        assert expected is None or one_string(came["text"]) == one_string(expected)
        if all(call.source is None for call in row.calls):
            assert came["tools"] == [call.name for call in row.calls if not call.executed]
