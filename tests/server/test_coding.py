"""Content codings: what comes out does not depend on how the bytes came in, and comes out at once."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.server.coding import MAX_CODINGS, PIECE_BYTES, Decoder, decoder

EVENTS = b"".join(b'data: {"n": %d}\n\n' % number for number in range(40))


def raw_deflate(data: bytes) -> bytes:
    """Return what some servers send as "deflate": no wrapper around it."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    # name: (Content-Encoding, what a server does)
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "identity": ("identity", bytes),
    "nothing": ("", bytes),
    "gzip, br": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "br, gzip, identity": ("BR , GZip,, identity", lambda data: gzip.compress(brotli.compress(data))),
}


def decode(decoding: Decoder, *reads: bytes) -> bytes:
    """Return what these reads decode to."""
    return b"".join(piece for read in reads for piece in decoding.decode(read))


def decoder_for(content_encoding: str) -> Decoder:
    """Return the decoder of a coding that there is."""
    found = decoder(content_encoding)
    assert found is not None
    return found


@pytest.mark.parametrize(("coding", "encode"), ENCODERS.values(), ids=ENCODERS)
def test_however_the_bytes_come(coding: str, encode: Callable[[bytes], bytes]) -> None:
    """Whole, byte by byte, and cut anywhere, a body decodes to what was encoded."""
    coded = encode(EVENTS)
    assert decode(decoder_for(coding), coded) == EVENTS
    assert decode(decoder_for(coding), *(coded[at : at + 1] for at in range(len(coded)))) == EVENTS
    for at in range(len(coded)):
        assert decode(decoder_for(coding), coded[:at], coded[at:]) == EVENTS, at


@given(st.binary(max_size=2000), st.sampled_from(sorted(ENCODERS)), st.lists(st.integers(1, 40), max_size=20))
def test_any_body(body: bytes, name: str, sizes: list[int]) -> None:
    """Any bytes come out as they went in."""
    coding, encode = ENCODERS[name]
    decoding, rest, found = decoder_for(coding), encode(body), b""
    for size in sizes:
        found += decode(decoding, rest[:size])
        rest = rest[size:]
    assert found + decode(decoding, rest) == body


@pytest.mark.parametrize("wbits", [zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS])
def test_an_event_leaves_when_its_bytes_are_there(wbits: int) -> None:
    """What a server flushes is decoded with the read that brings it, not with the next one."""
    encoder, decoding = zlib.compressobj(wbits=wbits), decoder_for("deflate")
    for number in range(50):
        event = b"data: %d\n\n" % number
        assert decode(decoding, encoder.compress(event) + encoder.flush(zlib.Z_SYNC_FLUSH)) == event


def test_an_event_in_brotli_leaves_when_its_bytes_are_there() -> None:
    """The same with br."""
    encoder, decoding = brotli.Compressor(), decoder_for("br")
    for number in range(50):
        event = b"data: %d\n\n" % number
        assert decode(decoding, encoder.process(event) + encoder.flush()) == event


def test_members() -> None:
    """A gzip body may have many members (RFC 1952 §2.2), cut anywhere."""
    coded = gzip.compress(b"data: a\n\n") + gzip.compress(b"") + gzip.compress(b"data: b\n\n")
    for at in range(len(coded)):
        assert decode(decoder_for("gzip"), coded[:at], coded[at:]) == b"data: a\n\ndata: b\n\n"


# A few kilobytes that decode to gigabytes: one step yields a bounded piece, and nothing is lost between
# the steps, not even where all input has been taken.

SIZES = [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, PIECE_BYTES + 200, 5 * PIECE_BYTES, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - {"identity", "nothing"}))
def test_pieces_are_bounded_and_whole(name: str, size: int) -> None:
    """However far a read decodes, it comes in pieces of bounded size, all of them."""
    coding, encode = ENCODERS[name]
    body = (b"data: x\n\n" * (size // 9 + 1))[:size]
    pieces = list(decoder_for(coding).decode(encode(body)))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", raw_deflate),
        ("br", lambda data: brotli.compress(data, quality=1)),
        ("gzip, br", lambda data: brotli.compress(gzip.compress(data), quality=1)),
    ],
)
def test_a_bomb_costs_what_is_taken(coding: str, encode: Callable[[bytes], bytes]) -> None:
    """Some kilobytes that decode to 64 MiB: a reader that pauses after a few pieces pays for these."""
    bomb = encode(bytes(1 << 26))
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    pieces = decoder_for(coding).decode(bomb)
    for _ in range(5):
        assert next(pieces).strip(b"\0") == b""
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * PIECE_BYTES


# What cannot be undone


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"data: not gzip at all\n\n"),
        ("deflate", b"\xff\xff\xff\xff\xff"),
        ("br", b"\xff\xff\xff\xff\xff"),
        ("gzip", gzip.compress(EVENTS)[:-8] + b"\0\0\0\0\0\0\0\0"),
        ("gzip", gzip.compress(EVENTS) + b"trailing"),
        ("br", brotli.compress(EVENTS) + b"trailing"),
        ("gzip, br", brotli.compress(b"data: not gzip\n\n")),
    ],
)
def test_what_is_not_of_the_coding(coding: str, body: bytes) -> None:
    """Bytes that are not of the named coding are a ValueError, wherever they are cut."""
    for at in range(len(body)):
        with pytest.raises(ValueError, match=r"^not (gzip or deflate|br): "):
            decode(decoder_for(coding), body[:at], body[at:])


@pytest.mark.parametrize(
    "coding", ["zstd", "gzip, zstd", "gzip;q=1", "chunked", ", ".join(["gzip"] * (MAX_CODINGS + 1))]
)
def test_unknown_codings(coding: str) -> None:
    """A coding that is unknown, or a tower of known ones, has no decoder: such a body passes as it is."""
    assert decoder(coding) is None


def test_as_many_codings_as_there_may_be() -> None:
    """The bound itself is inside."""
    coded = EVENTS
    for _ in range(MAX_CODINGS):
        coded = gzip.compress(coded)
    assert decode(decoder_for(", ".join(["gzip"] * MAX_CODINGS)), coded) == EVENTS
