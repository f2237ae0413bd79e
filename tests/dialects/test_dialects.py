"""The table: by path, by first block, and what all its rows have in common."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import DIALECTS, Dialect, Failure, Verdict, confirm, propose
from proxy.dialects.base import word_for
from proxy.stream.sse import decode, has_data

ALL = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
PROVIDERS = pytest.mark.parametrize(
    "dialect", [dialect for dialect in DIALECTS.values() if dialect.llm], ids=lambda dialect: dialect.name
)
#: Those whose SDK raises on a block. Cohere's raises when the connection breaks, and on no event.
TELLING = pytest.mark.parametrize(
    "dialect",
    [dialect for name, dialect in DIALECTS.items() if dialect.llm and name != "cohere"],
    ids=lambda dialect: dialect.name,
)
HOSTILE = [
    b"",
    b"data",
    b"data:",
    b"data: {",
    b"data: null",
    b"data: []",
    b'data: "choices"',
    b"data: \xff\xfe",
    b'data: {"choices": 1, "candidates": "x", "delta": [], "type": {}, "error": false}',
    b'data: {"choices": [null], "candidates": [[]], "sequence_number": "x"}',
    b'event: message_delta\ndata: {"delta": "\xf0\x28"}',
    b"event: message_delta\ndata: " + b"[" * 100_000,
    b": comment",
    b"id: 1\nretry: 3000",
]


def test_the_table() -> None:
    """Every dialect stands under its own name, in the order in which paths are tried."""
    by_path = ["openai", "openai-responses", "anthropic", "gemini", "cohere"]
    assert list(DIALECTS) == [*by_path, "ollama", "bedrock", "ndjson", "text", "generic"]
    assert [dialect.name for dialect in DIALECTS.values()] == list(DIALECTS)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "openai"),
        ("/chat/completions/", "openai"),
        ("/v1//chat/completions", "openai"),
        ("/openai/deployments/gpt-5/chat/completions", "openai"),
        ("/v1/chat/complet%69ons", "openai"),
        ("/v1/chat/completions/chatcmpl-1/messages/x", "generic"),
        ("/v1/chat%2Fcompletions", "generic"),
        ("/v1/completions", "generic"),
        ("/v1/Chat/Completions", "generic"),
        ("/completions/chat", "generic"),
        ("/v1/responses", "openai-responses"),
        ("/openai/v1/responses/", "openai-responses"),
        ("/v1/responses/resp_68af", "openai-responses"),
        ("/v1/responses/compact", "generic"),
        ("/v1/responses/resp_68af/cancel", "generic"),
        ("/v1/responses/resp_68af/input_items", "generic"),
        ("/resp_68af", "generic"),
        ("/v1/messages", "anthropic"),
        ("/anthropic/v1/messages/", "anthropic"),
        ("/v1/messages/count_tokens", "generic"),
        ("/v1/messages/batches", "generic"),
        ("/v1/messages/batches/b_1/results", "generic"),
        ("/v1beta/models/gemini-3-pro:streamGenerateContent", "gemini"),
        ("/v1beta/models/gemini-3-pro%3AstreamGenerateContent", "gemini"),
        ("/v1beta/models/gemini-3-pro%3astreamGenerateContent", "gemini"),
        ("/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent", "gemini"),
        ("/v1beta/models/gemini-3-pro:generateContent", "generic"),
        ("/v2/chat", "cohere"),
        ("/cohere/v2/chat/", "cohere"),
        ("/v1/chat", "generic"),
        ("/v2/chat/x", "generic"),
        ("/api/events", "generic"),
        ("/api/chat", "generic"),
        ("/api/generate", "generic"),
        ("/model/amazon.nova-lite-v1%3A0/converse-stream", "generic"),
        ("/", "generic"),
        ("", "generic"),
        ("/%ff%fe/%", "generic"),
    ],
)
def test_propose(path: str, name: str) -> None:
    """A path proposes the dialect spoken at its last segments, whatever the prefix."""
    assert propose(path).name == name


@given(st.text())
def test_propose_never_raises(path: str) -> None:
    """Any path has a dialect."""
    assert propose(path) in DIALECTS.values()


FIRST_BLOCKS = {
    "openai": b'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{}}]}',
    "openai-responses": b'event: response.created\ndata: {"type":"response.created","sequence_number":0}',
    "anthropic": b'event: message_start\ndata: {"type":"message_start","message":{"content":[]}}',
    "gemini": b'data: {"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"}}]}',
    "cohere": b'event: message-start\ndata: {"type":"message-start","id":"c1","delta":{"message":{}}}',
    "ollama": b'data: {"model":"llama3.2","created_at":"2025-10-01T00:00:00Z","message":{},"done":false}',
    "bedrock": b'event: messageStart\ndata: {"role":"assistant"}',
    "generic": b'id: 41\nevent: order\ndata: {"id": 7, "state": "paid"}',
}


@pytest.mark.parametrize("proposed", FIRST_BLOCKS)
@pytest.mark.parametrize("spoken", FIRST_BLOCKS)
def test_confirm(proposed: str, spoken: str) -> None:
    """The first block confirms the proposed dialect only if it speaks it; else the stream is generic."""
    name = proposed if proposed == spoken else "generic"
    assert confirm(DIALECTS[proposed], FIRST_BLOCKS[spoken]) is DIALECTS[name]


@pytest.mark.parametrize("name", FIRST_BLOCKS)
def test_confirm_looks_past_added_lines(name: str) -> None:
    """An id and a retry line before the block change nothing."""
    block = b"retry: 3000\nid: s.1\n" + FIRST_BLOCKS[name]
    assert confirm(DIALECTS[name], block) is DIALECTS[name]


@pytest.mark.parametrize(
    "block",
    [
        b'event: ping\ndata: {"at": "2026-11-20T07:36:00Z"}',
        b"event: message_start\ndata: hello",
        b'event: error\ndata: {"reason": "no such room"}',
        b'data: {"type":"message_start"}',
        b'event: chat\ndata: {"from": "ann", "text": "hi"}',
    ],
)
def test_an_apps_own_messages_are_not_anthropics(block: bytes) -> None:
    """A chat feed under /api/messages is not told of failures in Anthropic's words."""
    assert confirm(propose("/api/messages"), block).name == "generic"


@ALL
@pytest.mark.parametrize("block", HOSTILE)
def test_malformed_blocks_decide_nothing(dialect: Dialect, block: bytes) -> None:
    """A block that makes no sense neither raises nor ends the stream."""
    assert dialect.verdict([block]) is Verdict.OPEN
    assert dialect.verdict([]) is Verdict.OPEN
    assert dialect.confirms(block) in (True, False)


@ALL
@given(blocks=st.lists(st.binary().map(lambda data: b"data: " + data)))
def test_no_bytes_raise(dialect: Dialect, blocks: list[bytes]) -> None:
    """Whatever an upstream sends, its last blocks can be asked about its end."""
    assert dialect.verdict(blocks) in Verdict
    assert all(dialect.confirms(block) in (True, False) for block in blocks)


@TELLING
@pytest.mark.parametrize("status", [400, 404, 429, 499, 502, 503, 504])
def test_a_failure_block_is_one_block_that_reads_as_an_error(dialect: Dialect, status: int) -> None:
    """What is injected has data, no id, no empty line, no marker; the dialect itself reads it as an error."""
    block = dialect.failure_block(Failure("truncated", "cut after 3 of ?\n\ndata: [DONE]", status))
    assert block is not None
    assert has_data(block)
    assert b"\n\n" not in block
    assert not block.endswith(b"\n")
    assert decode(block).id is None
    assert dialect.verdict([b"id: s.9\n" + block]) is Verdict.ERROR
    assert dialect.confirms(block)


#: Where the message stands in the error bodies of those that have no error object.
MESSAGE_PLACES = {"cohere": ("message",), "ollama": ("error",), "bedrock": ("message",)}


@PROVIDERS
def test_error_bodies_are_json_with_the_message(dialect: Dialect) -> None:
    """An error before the stream carries its message where every provider's client looks for it."""
    body = dialect.error_body(503, "capacity", "10000 of 10000 streams are running")
    assert body is not None
    told = json.loads(body)
    for key in MESSAGE_PLACES.get(dialect.name, ("error", "message")):
        told = told[key]
    assert told == "10000 of 10000 streams are running"


def test_a_failure_is_a_bad_gateways_unless_told_otherwise() -> None:
    """The status that would have said it is 502 by default."""
    assert Failure("truncated", "cut").status == 502


@pytest.mark.parametrize(("status", "word"), [(429, "slow"), (499, "yours"), (400, "yours"), (500, "mine")])
def test_word_for(status: int, word: str) -> None:
    """A status without a word of its own gets the one for whose fault it is."""
    assert word_for(status, {429: "slow"}, "yours", "mine") == word


@PROVIDERS
def test_dialects_have_no_state(dialect: Dialect) -> None:
    """One instance serves all streams, so nothing can be stored in it."""
    with pytest.raises(AttributeError):
        dialect.seen = 1  # type: ignore[attr-defined]  # that it cannot be set is the point
