"""Content codings for a stream: every write leaves the encoder whole, so that no event waits for the next."""

from __future__ import annotations

import importlib
import zlib
from typing import Protocol


class Encoder(Protocol):
    """Turns the bytes of one body into coded bytes."""

    def encode(self, data: bytes) -> bytes:
        """The coded form of ``data``, flushed: a decoder can have all of it at once."""
        ...

    def finish(self) -> bytes:
        """The bytes that end the coded body."""
        ...


class Identity:
    """No coding."""

    def encode(self, data: bytes) -> bytes:
        """``data`` itself."""
        return data

    def finish(self) -> bytes:
        """Nothing."""
        return b""


class Zlib:
    """``gzip`` and ``deflate`` (RFC 9110 §8.4.1: the latter is the zlib format); they differ in ``wbits``."""

    def __init__(self, wbits: int) -> None:
        self._compressor = zlib.compressobj(wbits=wbits)

    def encode(self, data: bytes) -> bytes:
        """A sync flush ends what is returned."""
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        """The final block and the checksum."""
        return self._compressor.flush()


class Brotli:
    """``br`` (RFC 7932)."""

    def __init__(self) -> None:
        # The package has no type stubs, and nothing else of the provider needs it.
        self._compressor = importlib.import_module("brotli").Compressor()

    def encode(self, data: bytes) -> bytes:
        """A flush ends what is returned."""
        return bytes(self._compressor.process(data) + self._compressor.flush())

    def finish(self) -> bytes:
        """The last meta-block."""
        return bytes(self._compressor.finish())


def encoder(coding: str) -> Encoder:
    """The encoder of a content coding: ``identity``, ``gzip``, ``deflate`` or ``br``."""
    match coding:
        case "gzip":
            return Zlib(wbits=31)
        case "deflate":
            return Zlib(wbits=15)
        case "br":
            return Brotli()
    return Identity()
