"""The head of a stream's answers: what all of them say, and what each says of itself."""

from __future__ import annotations

import functools
from typing import cast

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion10, StreamWriter
from multidict import CIMultiDict, MultiMapping

from proxy.config import Config
from proxy.server import cors, guard
from proxy.server.headers import NOT_RETURNED, Fields, Sieve
from proxy.server.relay import Relay
from proxy.server.wire import Answer, serialized
from proxy.stream.sse import EVENT_STREAM

#: Upstream fields that describe bytes which are no longer the ones that are sent, and those that are
#: said anew. Set-Cookie is the first answer's alone: a resume must not repeat it.
NOT_OF_A_STREAM = (
    "content-type",
    "content-length",
    "content-encoding",
    "cache-control",
    "x-accel-buffering",
    "set-cookie",
    "accept-ranges",
    "content-digest",
    "content-md5",
    "digest",
    "etag",
    "last-modified",
    "repr-digest",
    # An upstream that is a sidecar too says these of its own stream.
    "stream-id",
    "stream-closed",
    "stream-resumed-from",
)
_FREE = Sieve(NOT_OF_A_STREAM)
_PAID = Sieve((*NOT_OF_A_STREAM, *NOT_RETURNED))

#: Upstream cache directives that stay in force.
KEPT_DIRECTIVES = ("no-store", "private")


def stream_fields(upstream: MultiMapping[str], *, credentials: bool) -> Fields:
    """Return what every answer of a stream carries, from the upstream's header fields."""
    kind = upstream.get(hdrs.CONTENT_TYPE, "")
    caching = upstream.getall(hdrs.CACHE_CONTROL, ())
    return (
        (hdrs.CONTENT_TYPE, kind if _is_exact(kind) else f"{EVENT_STREAM}; charset=utf-8"),
        *(_PAID if credentials else _FREE).sift(upstream),
        (hdrs.CACHE_CONTROL, _cache_control(", ".join(caching)) if caching else "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
    )


def _is_exact(kind: str) -> bool:
    """Whether an upstream's content type is the answer's, and says more than that it is an event stream."""
    return media_type(kind) == EVENT_STREAM and ";" in kind


def media_type(content_type: str) -> str:
    """Return a Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


@functools.lru_cache(maxsize=64)  # an upstream says the same of all its streams
def _cache_control(upstream: str) -> str:
    said = {directive.strip().lower() for directive in upstream.split(",")}
    kept = [directive for directive in KEPT_DIRECTIVES if directive in said]
    return ", ".join(["no-cache", "no-transform", *kept])


def answer_headers(relay: Relay, request: web.BaseRequest, config: Config) -> CIMultiDict[str]:
    """Return the header fields of one answer: the stream's, and those of this reader."""
    at = f"{config.public_path}/_streams/{relay.id}"
    link = f'<{at}/cancel>; rel="cancel"'
    if relay.recorded:
        link = f'<{at}>; rel="resume", {link}'
    headers = CIMultiDict([*relay.fields, ("Stream-Id", relay.id), (hdrs.LINK, link)])
    if relay.emit is not None:
        headers.update(relay.emit.headers)
    if relay.log.terminal is not None:
        headers["Stream-Closed"] = "true"
    cors.allow(request, headers, guard.allowed_origins(config, relay.route))
    return headers


class StreamAnswer(Answer):
    """The answer through which one reader follows a stream. Its head leaves with what follows it.

    It has no length, and no other framing than its version's: most of what aiohttp asks of a response
    before it makes a head has one answer here.
    """

    def __init__(self, headers: CIMultiDict[str]) -> None:
        super().__init__(_real_headers=headers)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Make the head, which the first bytes of the body take along."""
        if self.prepared:
            return self._payload_writer
        self.note(request)
        self._req = request
        self._payload_writer = writer = cast(StreamWriter, request.writer)
        headers, version = self._headers, request.version
        if version == HttpVersion10:
            self._keep_alive = False  # the connection's end is the body's end
        else:
            writer.enable_chunking()
            headers[hdrs.TRANSFER_ENCODING] = "chunked"
            if self._keep_alive is None:
                self._keep_alive = request.keep_alive
            if not self._keep_alive:
                headers[hdrs.CONNECTION] = "close"
        if hdrs.DATE not in headers:
            headers[hdrs.DATE] = rfc822_formatted_time()
        writer._headers_buf = serialized(f"HTTP/1.{version.minor} 200 OK", headers)
        headers.clear()  # they are said, and a stream may last for hours
        return writer
