"""Everything that can go wrong, as a tree: who is to blame, and the HTTP status that says so.

::

    SidecarError
    ├── ConfigError            the operator's file
    ├── RequestError           the client's fault, 4xx
    │   ├── BadRequest  BadPath  BadCursor  BadFrame  400
    │   ├── Refused                             403
    │   ├── NoRoute  UnknownStream              404
    │   ├── MethodNotAllowed                    405
    │   ├── NotAcceptable                       406
    │   ├── NothingRunning                      409
    │   ├── Gap  Expired                        410
    │   ├── BodyTooLarge                        413
    │   ├── BodyDiffers                         422
    │   ├── UpgradeRequired                     426
    │   ├── TooManyReaders  TooManyWebSockets  Busy  429
    │   ├── ExpectationFailed                   417
    │   ├── HeadersTooLarge                     431
    │   └── VersionNotSupported                 505
    ├── UpstreamError          the upstream's fault, 5xx
    │   ├── UpstreamUnreachable  UpstreamBroken  AnsweredWithError  502
    │   └── UpstreamTimeout                     504
    └── CapacityError          ours, 503

Every message carries numbers: what came, what was expected, where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class SidecarError(Exception):
    """Root of the tree.

    ``status`` is the HTTP status of the answer, ``kind`` the stable word that names the problem in
    answers, logs and metrics, ``title`` its short description (RFC 9457 §3.1).
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retry_after: ClassVar[int | None] = None

    #: Whether an upstream may have begun to work on the request.
    sent = False

    @property
    def headers(self) -> dict[str, str]:
        """Header fields that the answer must carry besides the problem document.

        ``retry_after`` is in seconds (RFC 9110 §10.2.3).
        """
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def document(self, route: str | None = None) -> dict[str, object]:
        """The problem document (RFC 9457); ``route`` is the name of the one that was asked for."""
        return {
            "type": f"urn:sse-sidecar:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": str(self),
            "route": route,
        }


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One fault in a configuration file: ``where`` is the YAML path, ``line`` counts from 1."""

    where: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.where}: {self.what}"


class ConfigError(SidecarError):
    """The configuration file is not usable; ``problems`` lists every fault found in it."""

    kind = "config"
    title = "Configuration refused"

    def __init__(self, source: str, problems: list[ConfigProblem]) -> None:
        super().__init__("\n".join(f"{source}:{problem}" for problem in problems))
        self.source = source
        self.problems = problems


class RequestError(SidecarError):
    """The client asked for something that cannot be given; asking again unchanged will not help."""

    status = 400
    kind = "bad-request"
    title = "Bad request"


class BadRequest(RequestError):
    """The request contradicts itself or is malformed."""


class BadPath(RequestError):
    """The path holds dot segments, plain or percent-encoded, which routes must never see."""

    kind = "bad-path"
    title = "Bad path"


class BadCursor(RequestError):
    """A resume cursor is malformed, contradictory, or past the end of the stream."""

    kind = "bad-cursor"
    title = "Bad cursor"


class BadFrame(RequestError):
    """A client's WebSocket message is not what the bridge understands."""

    kind = "bad-frame"
    title = "Bad frame"


class Refused(RequestError):
    """A foreign page, a rebound name or a cross-site request on a route that spends a credential."""

    status = 403
    kind = "refused"
    title = "Refused"


class NoRoute(RequestError):
    """No route matches the path."""

    status = 404
    kind = "no-route"
    title = "No such route"


class UnknownStream(RequestError):
    """No such stream *for this caller*: unknown, another route's, or another principal's, all alike."""

    status = 404
    kind = "unknown-stream"
    title = "No such stream"

    def __init__(self) -> None:
        super().__init__("no stream with this id can be read here")


class MethodNotAllowed(RequestError):
    """The route exists, the method does not (RFC 9110 §15.5.6: the answer lists what does)."""

    status = 405
    kind = "method-not-allowed"
    title = "Method not allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"method {method} is not served here, only {', '.join(allowed)}")
        self.allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        """The ``Allow`` field."""
        return {"Allow": ", ".join(self.allowed)}


class NotAcceptable(RequestError):
    """The route answers in one form only, and the client does not name it in ``Accept``."""

    status = 406
    kind = "not-acceptable"
    title = "Not acceptable"


class Gap(RequestError):
    """The cursor points before the oldest block still held: blocks in between are gone."""

    status = 410
    kind = "gap"
    title = "Blocks are gone"

    def __init__(self, cursor: int, earliest: int) -> None:
        super().__init__(f"asked to resume after block {cursor}; the oldest block still held is {earliest}")
        self.cursor = cursor
        self.earliest = earliest

    @property
    def headers(self) -> dict[str, str]:
        """``Stream-Earliest``: the seq of the oldest block that can still be had."""
        return {"Stream-Earliest": str(self.earliest)}


class Expired(RequestError):
    """The stream existed, ended, and its log was dropped."""

    status = 410
    kind = "expired"
    title = "Stream expired"

    def __init__(self) -> None:
        super().__init__("this stream has ended and its log is no longer held")


class BodyTooLarge(RequestError):
    """The request body exceeds ``max_body``."""

    status = 413
    kind = "body-too-large"
    title = "Body too large"


class ExpectationFailed(RequestError):
    """The client expects something that HTTP does not define (RFC 9110 §10.1.1)."""

    status = 417
    kind = "expectation-failed"
    title = "Expectation failed"


class UpgradeRequired(RequestError):
    """A WebSocket handshake in a version that is not 13 (RFC 6455 §4.4)."""

    status = 426
    kind = "upgrade-required"
    title = "Upgrade required"

    @property
    def headers(self) -> dict[str, str]:
        """The version that is spoken; RFC 9110 §15.5.22 wants ``Upgrade`` beside it."""
        return {"Sec-WebSocket-Version": "13", "Upgrade": "websocket", "Connection": "Upgrade"}


class NothingRunning(RequestError):
    """A cancel came over a WebSocket on which nothing runs (any more)."""

    status = 409
    kind = "nothing-running"
    title = "Nothing is running"


class BodyDiffers(RequestError):
    """The same stream or Idempotency-Key was named with a different body."""

    status = 422
    kind = "body-differs"
    title = "Body differs"


class TooManyReaders(RequestError):
    """The caller, or the stream, already has as many readers as it may."""

    status = 429
    kind = "too-many-readers"
    title = "Too many readers"
    retry_after = 5


class TooManyWebSockets(RequestError):
    """The caller already has as many WebSockets as it may."""

    status = 429
    kind = "too-many-websockets"
    title = "Too many WebSockets"
    retry_after = 5


class Busy(RequestError):
    """A WebSocket follows as many streams as it may (``max_concurrent``)."""

    status = 429
    kind = "busy"
    title = "Busy"
    retry_after = 1


class HeadersTooLarge(RequestError):
    """The request's header section is larger than ``limits.max_headers``; nothing of it is echoed."""

    status = 431
    kind = "headers-too-large"
    title = "Headers too large"


class VersionNotSupported(RequestError):
    """The request is neither HTTP/1.0 nor HTTP/1.1; other versions are the edge's work."""

    status = 505
    kind = "version-not-supported"
    title = "HTTP version not supported"


class UpstreamError(SidecarError):
    """The upstream failed before it answered. ``sent`` tells whether it may have begun to work.

    A client must not blindly repeat a request that was sent: the provider may bill it twice.
    ``reason`` is what went wrong, without saying who.
    """

    status = 502
    kind = "upstream-error"
    title = "Upstream failed"

    def __init__(self, who: str, reason: str, *, sent: bool) -> None:
        super().__init__(f"{who}: {reason}")
        self.reason = reason
        self.detail = ""  # for the log only
        self.sent = sent


class UpstreamUnreachable(UpstreamError):
    """No connection: name not found, refused, TLS failed, connect timeout. Nothing was sent."""

    kind = "upstream-unreachable"
    title = "Upstream unreachable"

    def __init__(self, who: str, reason: str) -> None:
        super().__init__(who, reason, sent=False)


class UpstreamBroken(UpstreamError):
    """The connection broke, or what came back is not HTTP."""

    kind = "upstream-broken"
    title = "Upstream broke"


class AnsweredWithError(UpstreamError):
    """The answer to a WebSocket's start is no stream but an error; it is told with its own status."""

    kind = "upstream-status"
    title = "Upstream answered with an error"

    def __init__(self, who: str, answer: str) -> None:
        super().__init__(who, f"answered {answer}", sent=True)


class UpstreamTimeout(UpstreamError):
    """No response headers within ``timeouts.first_byte``."""

    status = 504
    kind = "upstream-timeout"
    title = "Upstream timed out"


class CapacityError(SidecarError):
    """The sidecar itself is full or draining; another one, or a later moment, will do."""

    status = 503
    kind = "capacity"
    title = "At capacity"
    retry_after = 2
