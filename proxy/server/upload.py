"""A request's body on its way upstream: counted, fingerprinted, and never held whole.

A body is held only where a policy has to know it before it goes on (an Idempotency-Key, an early
open, an alias, an addition), and then only up to ``limits.buffered_body``.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Callable

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from proxy.errors import BodyTooLarge, ExpectationFailed

#: Bodies beyond this many bytes get no fingerprint, so a resume with another one is not noticed.
MAX_FINGERPRINTED = 64 * 1024 * 1024

#: Fields that are true of one body only (RFC 9530, and what came before it).
OF_A_BODY = ("content-digest", "repr-digest", "digest", "content-md5")

_new_hash = functools.partial(hashlib.blake2b, digest_size=16)

#: The fingerprint of no body, and of an empty one.
NOTHING = _new_hash().digest()


class Fingerprint:
    """What a body is recognised by: ``value``, once it has been read to its end.

    A stream keeps it, since an upstream may answer before it has taken the whole request.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: bytes | None = None


class Upload:
    """The body of one request, recognised by its ``fingerprint``.

    ``error`` keeps what went wrong while it was read: the client's fault, not the upstream's.
    ``moved(now)`` is called whenever a part of it was read.
    """

    __slots__ = (
        "_buffered",
        "_hash",
        "_max_body",
        "_request",
        "error",
        "fingerprint",
        "moved",
        "read",
        "replaced",
    )

    def __init__(self, request: web.BaseRequest, max_body: int) -> None:
        self._request = request
        self._max_body = max_body
        self._hash: hashlib.blake2b | None = None
        self._buffered: bytes | None = None
        self.read = 0
        self.moved: Callable[[float], None] | None = None
        self.error: Exception | None = None
        self.replaced = False
        self.fingerprint = Fingerprint()
        if not request.body_exists:
            self.fingerprint.value = NOTHING

    @property
    def exists(self) -> bool:
        """Whether there is a body at all."""
        return self._buffered is not None or self._request.body_exists

    @property
    def length(self) -> int | None:
        """Its bytes, where that is known: it is held, or the client said so."""
        return self._request.content_length if self._buffered is None else len(self._buffered)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be read from the client."""
        return not self.exists or self._buffered is not None or self._request.content.at_eof()

    def check_head(self) -> None:
        """Raise ExpectationFailed or BodyTooLarge for what the request's head says of its body."""
        expect = self._request.headers.get(hdrs.EXPECT)
        if expect is not None and expect.lower() != "100-continue":
            raise ExpectationFailed(f"Expect: {expect[:40]!r}: only '100-continue' is known")
        length = self._request.content_length
        if length is not None and length > self._max_body:
            raise BodyTooLarge(f"the body is {length} bytes; this route takes {self._max_body}")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises BodyTooLarge, or what broke the client's connection."""
        if self._buffered is not None:
            yield self._buffered
            return
        self._continue()
        try:
            async for chunk in self._request.content.iter_any():
                self._count(chunk)
                yield chunk
        except Exception as error:
            self.error = error
            raise
        self._finish()

    def arrived(self) -> bytes | None:
        """Return the body if it has come to its end and was not read yet, else None. Raises BodyTooLarge."""
        content = self._request.content
        if self._buffered is None and content.is_eof() and content.exception() is None:
            body = content.read_nowait()
            self._count(body)
            self._finish()
            return body
        return self._buffered

    async def whole(self, limit: int, why: str = "an Idempotency-Key needs it whole") -> bytes:
        """Read the body into memory. Raises BodyTooLarge beyond ``limit`` bytes; ``why`` is it held?"""
        if self._buffered is None:
            too_large = BodyTooLarge(
                f"the body is over {limit} bytes (limits.buffered_body), which is what can be held; {why}"
            )
            if (self._request.content_length or 0) > limit:  # before it is asked for, with 100 Continue
                raise too_large
            parts = bytearray()
            async for chunk in self.chunks():
                parts += chunk
                if len(parts) > limit:
                    raise too_large
            self._buffered = bytes(parts)
        return self._buffered

    def replace(self, body: bytes) -> None:
        """Let ``body`` go upstream in place of what the client sent, which has been read ``whole``.

        The fingerprint stays that of the client's own, by which a resume is recognised.
        """
        self._buffered = body
        self.replaced = True

    def hold(self, body: bytes, asked: bytes) -> None:
        """Be a body that was made of what the client ``asked``, by which a resume is recognised."""
        self.replace(body)
        self.fingerprint.value = _new_hash(asked).digest()

    def describe(self, headers: CIMultiDict[str]) -> None:
        """Let a request's header fields say of the body what is true of the one that replaced it."""
        for name in OF_A_BODY:
            headers.pop(name, None)
        if hdrs.CONTENT_LENGTH in headers:
            headers[hdrs.CONTENT_LENGTH] = str(len(self._buffered or b""))

    async def drained(self) -> bytes | None:
        """Read the body for its fingerprint alone."""
        async for _ in self.chunks():
            pass
        return self.fingerprint.value

    def _count(self, chunk: bytes) -> None:
        self.read += len(chunk)
        if self.moved is not None:
            self.moved(asyncio.get_running_loop().time())
        if self.read > self._max_body:
            raise BodyTooLarge(f"the body is over {self._max_body} bytes, which is what this route takes")
        if self.read <= MAX_FINGERPRINTED:
            if self._hash is None:
                self._hash = _new_hash()
            self._hash.update(chunk)

    def _finish(self) -> None:
        if self.read <= MAX_FINGERPRINTED:
            self.fingerprint.value = NOTHING if self._hash is None else self._hash.digest()

    def _continue(self) -> None:
        """Ask for the body, now that somebody wants it.

        aiohttp would answer ``Expect: 100-continue`` before anything could be refused.
        """
        request = self._request
        if hdrs.EXPECT not in request.headers or request.version < HttpVersion11:
            return
        transport = request.transport
        if transport is not None and not transport.is_closing() and request.content.total_bytes == 0:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
