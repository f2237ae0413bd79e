"""The framings in which a stream is written."""

from __future__ import annotations

import pytest

from proxy.demo.event import Event
from proxy.demo.framing import ARRAY, EVENT_STREAM, LINES, MESSAGES, Framing, message

EVENT = Event('{"a":"é"}', name="token")


@pytest.mark.parametrize(
    ("framing", "first", "next_one", "end"),
    [
        (EVENT_STREAM, 'event: token\ndata: {"a":"é"}\n\n', 'event: token\ndata: {"a":"é"}\n\n', b""),
        (LINES, '{"a":"é"}\n', '{"a":"é"}\n', b""),
        (ARRAY, '[{"a":"é"}', ',\r\n{"a":"é"}', b"\n]\n"),
    ],
    ids=["events", "lines", "array"],
)
def test_what_is_written(framing: Framing, first: str, next_one: str, end: bytes) -> None:
    """The first event, any other, and what comes after the last."""
    assert framing.block(EVENT, first=True).decode() == first
    assert framing.block(EVENT, first=False).decode() == next_one
    assert framing.end == end


@pytest.mark.parametrize(
    "framing", [EVENT_STREAM, LINES, ARRAY, MESSAGES], ids=["events", "lines", "array", "messages"]
)
@pytest.mark.parametrize("first", [True, False])
def test_padding(framing: Framing, first: bool) -> None:
    """Each framing can be padded to a size, in bytes, and never cut to one."""
    assert len(framing.block(EVENT, first=first, size=200)) == 200
    assert framing.block(EVENT, first=first, size=1) == framing.block(EVENT, first=first)


def test_a_message_is_what_aws_writes() -> None:
    """Two messages, byte for byte as AWS's SDKs test them."""
    assert message({}, b"") == bytes.fromhex("000000100000000005c248eb7d98c8ff")
    said = bytes.fromhex("0000001d00000000fd528c5a") + b"{'foo':'bar'}" + bytes.fromhex("c3653936")
    assert message({}, b"{'foo':'bar'}") == said
