"""Content codings of a stream."""

from __future__ import annotations

import zlib

import pytest
from aiohttp.compression_utils import BrotliDecompressor

from proxy.demo.encoding import encoder


@pytest.mark.parametrize(("coding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_each_write_can_be_decoded_at_once(coding: str, wbits: int) -> None:
    """No event waits inside the encoder for the next, and the body ends as the format wants."""
    coder, decoder = encoder(coding), zlib.decompressobj(wbits=wbits)
    assert decoder.decompress(coder.encode(b"data: 1\n\n")) == b"data: 1\n\n"
    assert decoder.decompress(coder.encode(b"data: 2\n\n")) == b"data: 2\n\n"
    assert not decoder.eof
    assert decoder.decompress(coder.finish()) == b""
    assert decoder.eof


def test_brotli_too_can_be_decoded_at_once() -> None:
    """The same for br."""
    coder, decoder = encoder("br"), BrotliDecompressor()
    assert decoder.decompress_sync(coder.encode(b"data: 1\n\n")) == b"data: 1\n\n"
    assert decoder.decompress_sync(coder.encode(b"data: 2\n\n")) == b"data: 2\n\n"
    assert coder.finish() != b""


def test_identity_changes_nothing() -> None:
    """Without a coding, bytes are bytes."""
    coder = encoder("identity")
    assert (coder.encode(b"data: 1\n\n"), coder.finish()) == (b"data: 1\n\n", b"")
