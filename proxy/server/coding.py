"""Undoing the content coding of an event stream, read by read.

Events cannot be told apart inside gzip. Each read is decoded as far as it goes, so an event leaves
as soon as its bytes are there, and what comes out of one read is handed on in bounded pieces: a few
kilobytes can decode to gigabytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli

#: Most bytes that one step of decoding yields. The reader may pause between two steps.
PIECE_BYTES = 256 * 1024

#: Most codings that one body may have: each costs memory and multiplies what a small body decodes to.
MAX_CODINGS = 4

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW_DEFLATE = -zlib.MAX_WBITS

#: gzip's magic number, and zlib's whole header.
HEAD_BYTES = 2


class Decoder(Protocol):
    """Takes coded bytes, yields decoded pieces of at most about PIECE_BYTES."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to. Raises ValueError where it is not of this coding."""


class Identity:
    """No coding."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield ``data``."""
        yield data


class Zlib:
    """gzip (RFC 1952) with any number of members, and deflate in both forms that servers send."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._head = b""  # the first byte, where it came alone
        self._begun = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        if not self._begun:
            data = self._begin(self._head + data)
        more = bool(data)
        while more:
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise ValueError(f"not gzip or deflate: {error}") from error
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
            if piece:
                yield piece
            # All input may be taken while a full piece's worth of output still waits inside.
            more = bool(data) or len(piece) == PIECE_BYTES

    def _begin(self, data: bytes) -> bytes:
        """Look at the first two bytes, which tell the form; return what can be decoded now.

        RFC 9110 §8.4.1.2: some servers send "deflate" without the zlib wrapper.
        """
        if len(data) < HEAD_BYTES:
            self._head = data
            return b""
        self._begun = True
        try:
            zlib.decompressobj(_GZIP_OR_ZLIB).decompress(data[:HEAD_BYTES])
        except zlib.error:
            self._stream = zlib.decompressobj(_RAW_DEFLATE)
        return data


class Brotli:
    """br (RFC 7932)."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        try:
            piece = self._stream.process(data, output_buffer_limit=PIECE_BYTES)
            while piece:  # can_accept_more_data() says yes while output still waits: only asking tells
                yield piece
                piece = self._stream.process(b"", output_buffer_limit=PIECE_BYTES)
        except brotli.error as error:
            raise ValueError(f"not br: {error}") from error


class Stacked:
    """Several codings, the last one applied undone first."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        yield from self._through(data, 0)

    def _through(self, data: bytes, index: int) -> Iterator[bytes]:
        if index == len(self._decoders):
            yield data
            return
        for piece in self._decoders[index].decode(data):
            yield from self._through(piece, index + 1)


DECODERS: dict[str, type[Zlib] | type[Brotli] | type[Identity]] = {
    "gzip": Zlib,
    "x-gzip": Zlib,
    "deflate": Zlib,
    "br": Brotli,
    "identity": Identity,
}


#: The one that needs no state of its own: most streams have no coding.
IDENTITY = Identity()


def decoder(content_encoding: str) -> Decoder | None:
    """Return a decoder for a Content-Encoding value, or None where we cannot undo it."""
    if not content_encoding:
        return IDENTITY
    names = [name.strip().lower() for name in content_encoding.split(",") if name.strip()]
    if not names:
        return IDENTITY
    if len(names) > MAX_CODINGS or any(name not in DECODERS for name in names):
        return None
    return Stacked([DECODERS[name]() for name in reversed(names)]) if len(names) > 1 else DECODERS[names[0]]()
