"""The recorded streams: what the table says of each, and what every form makes of them, however they come."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects import DIALECTS, Verdict
from proxy.emit import EMITS, emit_for
from proxy.stream.sse import has_data
from tests.transcripts import TRANSCRIPTS, Transcript, translated
from tests.transcripts.heard import heard, parts_of
from tests.transcripts.scripts import SCRIPTS
from tests.transcripts.transcript import Script
from tests.transcripts.translated import SHORT, blocks_of, failure_of, framing_of, tail_of

FORMS = ("passthrough", *EMITS)
SPOKEN = sorted({row.dialect for row in TRANSCRIPTS.values()})

#: Which streams are told in which form; any other leaves as it came, and ends in its dialect's own words.
RETOLD = [(name, form) for name in SPOKEN for form in EMITS if emit_for(form, DIALECTS[name]) is not None]

#: How each form says that an answer is whole. An answer that is not must not say so anywhere.
WHOLE: Mapping[str, re.Pattern[bytes]] = {
    "unified": re.compile(rb"^event: done$", re.M),
    "openai": re.compile(rb'^data: \[DONE\]$|"finish_reason": ?"', re.M),
    "ai-sdk": re.compile(rb'"type": ?"finish"'),
    "ag-ui": re.compile(rb'"type": ?"RUN_FINISHED"'),
}

#: Servers that give a reason with every chunk: nobody can tell which one is the last.
STUTTERS = {"openai/finish-on-every-chunk", "gemini/finish-on-every-chunk"}

rows = pytest.mark.parametrize("row", TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())


def rows_of(dialect: str) -> list[Transcript]:
    """The recorded streams of a dialect."""
    return [row for row in TRANSCRIPTS.values() if row.dialect == dialect]


def beginnings(row: Transcript) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield each beginning of a body that ends where a block does, with the blocks in it."""
    framing, body = framing_of(row), row.body
    blocks: list[bytes] = []
    yield b"", []
    for place, octet in enumerate(body, start=1):
        if found := framing.feed(bytes([octet])):
            blocks += found
            yield body[:place], blocks.copy()


def fault_of(row: Transcript, body: bytes) -> str:
    """Return what the framing finds wrong with a body that ends there."""
    framing = framing_of(row)
    for _ in blocks_of(framing, body):
        pass
    return framing.broken


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.transcript.id)
def test_a_body_is_as_its_script_writes_it(script: Script) -> None:
    """``python -m tests.transcripts`` would change nothing."""
    assert script.transcript.body == script.body


def test_bodies_are_all_in_the_table() -> None:
    """No file is left behind by a script that is gone."""
    written = {row.path for row in TRANSCRIPTS.values()}
    there = {path for row in TRANSCRIPTS.values() for path in row.path.parent.iterdir()}
    assert there == written


@rows
def test_the_decoder_hears_what_the_table_says(row: Transcript) -> None:
    """Text, thinking, calls, citations, files, figures, reasons and errors: all of it, and no more."""
    assert heard(row, parts_of(row)) == row


@rows
def test_an_end_is_told_as_one(row: Transcript) -> None:
    """The dialect's verdict says of every stream what the table says."""
    framing = framing_of(row)
    blocks = [block for blocks in blocks_of(framing, row.body) for block in blocks]
    failure = failure_of(DIALECTS[row.dialect], framing, blocks)
    assert (failure is None) == (row.whole or row.name == "prompt-blocked")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dialect", SPOKEN)
def test_byte_by_byte(dialect: str, form: str) -> None:
    """A body that comes byte by byte gives the same output as one that comes at once."""
    for row in rows_of(dialect):
        assert translated(row, form, range(len(row.body))) == translated(row, form), row.id


@settings(max_examples=300)
@given(row=st.sampled_from(list(TRANSCRIPTS.values())), form=st.sampled_from(FORMS), data=st.data())
def test_any_cut(row: Transcript, form: str, data: st.DataObject) -> None:
    """So does one that comes in any pieces."""
    sizes = data.draw(st.lists(st.integers(1, 4000), max_size=40))
    assert translated(row, form, accumulate(sizes)) == translated(row, form)


@pytest.mark.parametrize(("dialect", "form"), RETOLD)
def test_a_truncated_stream_ends_in_a_told_error(dialect: str, form: str) -> None:
    """Whatever block a stream stops after: unless its dialect takes that for its end, its reader is told.

    And nothing in what the reader gets says that it was whole.
    """
    for row in rows_of(dialect):
        for body, blocks in beginnings(row):
            output = translated(row, form, body=body)
            verdict = DIALECTS[dialect].verdict(tail_of(blocks))
            broken = fault_of(row, body)
            error = row.error.message if row.error and verdict is not Verdict.OPEN else broken or SHORT
            told = error.encode() in output.split(b"\n\n")[-2]
            whole = WHOLE[form].search(output) is not None
            good = verdict is Verdict.COMPLETE or (verdict is Verdict.FINISHED and not broken)
            if good and row.error is None:
                assert not told, (row.id, len(blocks), output)
                assert whole or row.faulty, (row.id, len(blocks), output)
            else:
                assert told, (row.id, len(blocks), output)
                assert not whole, (row.id, len(blocks), output)


@pytest.mark.parametrize("row", [row for row in TRANSCRIPTS.values() if row.whole], ids=lambda row: row.id)
def test_no_beginning_passes_for_the_whole(row: Transcript) -> None:
    """Where a dialect takes a beginning for the end, the answer is there to its last word and call."""
    for body, blocks in beginnings(row):
        ended = DIALECTS[row.dialect].verdict(tail_of(blocks)) in (Verdict.COMPLETE, Verdict.FINISHED)
        if ended and not fault_of(row, body) and row.id not in STUTTERS:
            answer = heard(row, parts_of(row, body))
            assert (answer.text, answer.others) == (row.text, row.others)
            assert (answer.refusal, answer.thinking) == (row.refusal, row.thinking)
            assert (answer.calls, answer.finish) == (row.calls, row.finish)


@pytest.mark.parametrize("form", EMITS)
def test_half_a_block_is_no_block(form: str) -> None:
    """What follows the last whole block changes nothing: a half-received event is dropped."""
    for row in rows_of("anthropic"):
        for body, blocks in beginnings(row):
            if blocks:
                assert translated(row, form, body=body[:-1]) == translated(
                    row, form, body=body[: len(body) - len(blocks[-1]) - 2]
                ), row.id


@rows
def test_a_decoder_may_leave_the_middle_out(row: Transcript) -> None:
    """Whoever reads a stream's first block and its last eight learns its model, its end, and its figures."""
    decoder = DIALECTS[row.dialect].decoder("salt")
    assert decoder is not None
    received = blocks_of(framing_of(row), row.body)
    blocks = [block for blocks in received for block in blocks if has_data(block)]
    ends = [*blocks[:1], *blocks[1:][-8:]]
    parts = [part for block in ends for part in decoder.decode(block)]
    known = heard(row, [*parts, *(decoder.finish() if row.whole else [])])
    assert (known.model, known.finish, known.native) == (row.model, row.finish, row.native)
    assert (known.usage, known.error) == (row.usage, row.error)
