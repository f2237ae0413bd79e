"""Events as the provider writes them."""

from __future__ import annotations

import json

from proxy.demo.event import Event


def test_a_block_has_its_fields_and_an_empty_line() -> None:
    """Id, event, retry and data stand on lines of their own."""
    event = Event("one\ntwo", name="tick", id="7", retry=1000)
    assert event.block() == b"id: 7\nevent: tick\nretry: 1000\ndata: one\ndata: two\n\n"


def test_a_block_can_end_its_lines_otherwise() -> None:
    """CR LF and CR are line ends as well."""
    assert Event("x", name="t").block(newline="\r\n") == b"event: t\r\ndata: x\r\n\r\n"
    assert Event("x", name="t").block(newline="\r") == b"event: t\rdata: x\r\r"


def test_padding_leaves_the_document_as_it_is() -> None:
    """A padded block has exactly the size asked for, and its JSON means the same."""
    block = Event('{"text": "Grüße"}').block(size=100)
    assert len(block) == 100
    assert json.loads(block.removeprefix(b"data: ")) == {"text": "Grüße"}


def test_padding_spares_what_is_no_json() -> None:
    """A marker such as [DONE] is compared by some clients, so it is never padded."""
    assert Event("[DONE]").block(size=100) == b"data: [DONE]\n\n"
