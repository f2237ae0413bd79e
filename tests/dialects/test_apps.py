"""The formats of apps: lines of JSON, and text."""

from __future__ import annotations

import pytest

from proxy.dialects import DIALECTS, Dialect, Failure, Verdict
from proxy.dialects.part import Finish, Text
from proxy.stream import text
from proxy.stream.lines import Lines

NDJSON, TEXT = DIALECTS["ndjson"], DIALECTS["text"]
BOTH = pytest.mark.parametrize("dialect", [NDJSON, TEXT], ids=lambda dialect: dialect.name)


@BOTH
def test_nothing_is_known_but_the_format(dialect: Dialect) -> None:
    """No marker, no error, and nothing that may be injected: how the connection closed tells the end."""
    assert not dialect.llm
    assert dialect.confirms(b"data: x")
    assert dialect.verdict([b'data: {"error":"x"}']) is Verdict.OPEN
    assert dialect.failure_block(Failure("truncated", "cut")) is None
    assert dialect.error_body(503, "capacity", "full") is None
    assert not dialect.wants_stream(b'{"stream":true}')
    assert dialect.streams_at(["api", "chat"])


@pytest.mark.parametrize(
    "content_type", ["application/x-ndjson", "application/jsonl", "application/stream+json"]
)
def test_the_names_of_lines_of_json(content_type: str) -> None:
    """There are many, and none is registered."""
    assert NDJSON.framings[content_type] is Lines


@pytest.mark.parametrize("content_type", ["text/plain", "text/markdown", ""])
def test_the_names_of_text(content_type: str) -> None:
    """A body without a type is text on a route that says so."""
    assert TEXT.framings[content_type] is text.Text


@BOTH
def test_event_streams_are_read_as_well(dialect: Dialect) -> None:
    """Some of an app's paths may send events."""
    assert "text/event-stream" in dialect.framings


def test_nobody_knows_what_lines_mean() -> None:
    """So there is nothing to translate."""
    assert NDJSON.decoder("salt") is None


def test_text_is_an_answer() -> None:
    """Each block is a piece of it, and the end of the body its end."""
    decoder = TEXT.decoder("salt")
    assert decoder is not None
    assert decoder.decode(b"data: Hello,\ndata: ") == [Text("Hello,\n")]
    assert decoder.decode(b"data: you") == [Text("you")]
    assert decoder.decode(b"data: ") == []
    assert decoder.finish() == [Finish("stop", "")]
