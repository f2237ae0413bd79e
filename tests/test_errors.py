"""The tree of errors: every class is in it, with the status and the word that the outside knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from proxy import errors
from proxy.errors import (
    AnsweredWithError,
    BadCursor,
    BadFrame,
    BadPath,
    BadRequest,
    BodyDiffers,
    BodyTooLarge,
    Busy,
    CapacityError,
    ConfigError,
    ConfigProblem,
    ExpectationFailed,
    Expired,
    Gap,
    HeadersTooLarge,
    MethodNotAllowed,
    NoRoute,
    NotAcceptable,
    NothingRunning,
    Refused,
    RequestError,
    SidecarError,
    TooManyReaders,
    TooManyWebSockets,
    UnknownStream,
    UpgradeRequired,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
    VersionNotSupported,
)

UPGRADE = {"Sec-WebSocket-Version": "13", "Upgrade": "websocket", "Connection": "Upgrade"}

ANSWERS: list[tuple[SidecarError, int, str, dict[str, str]]] = [
    # (error, status, kind, headers of the answer)
    (BadRequest("two lengths"), 400, "bad-request", {}),
    (BadPath("/../x"), 400, "bad-path", {}),
    (BadCursor("after=x"), 400, "bad-cursor", {}),
    (BadFrame("not JSON"), 400, "bad-frame", {}),
    (Refused("foreign origin"), 403, "refused", {}),
    (NoRoute("/x"), 404, "no-route", {}),
    (UnknownStream(), 404, "unknown-stream", {}),
    (MethodNotAllowed("PUT", ("GET", "POST")), 405, "method-not-allowed", {"Allow": "GET, POST"}),
    (NotAcceptable("no Accept"), 406, "not-acceptable", {}),
    (NothingRunning("x"), 409, "nothing-running", {}),
    (Gap(cursor=3, earliest=9), 410, "gap", {"Stream-Earliest": "9"}),
    (Expired(), 410, "expired", {}),
    (BodyTooLarge("11 bytes"), 413, "body-too-large", {}),
    (ExpectationFailed("x"), 417, "expectation-failed", {}),
    (BodyDiffers("x"), 422, "body-differs", {}),
    (UpgradeRequired("version 8"), 426, "upgrade-required", UPGRADE),
    (TooManyWebSockets("9"), 429, "too-many-websockets", {"Retry-After": "5"}),
    (Busy("1 of 1"), 429, "busy", {"Retry-After": "1"}),
    (TooManyReaders("9"), 429, "too-many-readers", {"Retry-After": "5"}),
    (HeadersTooLarge("33 KiB"), 431, "headers-too-large", {}),
    (UpstreamUnreachable("upstream", "refused"), 502, "upstream-unreachable", {}),
    (UpstreamBroken("upstream", "no HTTP", sent=True), 502, "upstream-broken", {}),
    (AnsweredWithError("upstream", "404 Not Found"), 502, "upstream-status", {}),
    (CapacityError("full"), 503, "capacity", {"Retry-After": "2"}),
    (UpstreamTimeout("upstream", "600 s", sent=True), 504, "upstream-timeout", {}),
    (VersionNotSupported("HTTP/0.9"), 505, "version-not-supported", {}),
]


def classes(root: type[SidecarError] = SidecarError) -> Iterator[type[SidecarError]]:
    """Yield a class and all below it."""
    yield root
    for below in root.__subclasses__():
        yield from classes(below)


@pytest.mark.parametrize(("error", "status", "kind", "headers"), ANSWERS)
def test_answers(error: SidecarError, status: int, kind: str, headers: dict[str, str]) -> None:
    """Each error knows its answer's status, header fields and problem document (RFC 9457)."""
    assert (error.status, error.headers) == (status, headers)
    assert error.document("chat") == {
        "type": f"urn:sse-sidecar:problem:{kind}",
        "title": error.title,
        "status": status,
        "detail": str(error),
        "route": "chat",
    }
    assert error.document()["route"] is None


def test_all_answers_are_told_apart() -> None:
    """Every error that is raised stands in the table above, under a word and a title of its own."""
    raised = [type(error) for error, *_ in ANSWERS]
    assert set(raised) == {cls for cls in classes() if not cls.__subclasses__()} - {ConfigError}
    assert max(Counter(cls.kind for cls in raised).values()) == 1
    assert max(Counter(cls.title for cls in raised).values()) == 1


def test_the_tree_that_opens_the_module() -> None:
    """Every class stands in the docstring's tree, the raised ones under their status."""
    told: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        if branch := re.search(r"(?:── |^    )((?:[A-Z]\w+ *)+)", line):
            status = re.search(r"[45]\d\d$", line)
            told |= dict.fromkeys(branch[1].split(), status and status[0])
    assert set(told) == {cls.__name__ for cls in classes()}
    for cls in classes():
        if not cls.__subclasses__() and cls is not ConfigError:
            assert told[cls.__name__] == str(cls.status)


def test_who_is_to_blame() -> None:
    """A 4xx is the client's fault, and so is its protocol; what the upstream did is told from our own."""
    for error, status, *_ in ANSWERS:
        assert isinstance(error, RequestError) == (status < 500 or isinstance(error, VersionNotSupported))
        assert isinstance(error, UpstreamError) == (status in (502, 504))


def test_messages_carry_numbers() -> None:
    """What came, what was expected, where."""
    assert str(Gap(3, 9)) == "asked to resume after block 3; the oldest block still held is 9"
    assert str(MethodNotAllowed("PUT", ("GET", "POST"))) == "method PUT is not served here, only GET, POST"
    assert str(UnknownStream()) == "no stream with this id can be read here"
    assert str(Expired()) == "this stream has ended and its log is no longer held"


def test_what_was_sent_upstream() -> None:
    """A request that never left can be repeated without being paid for twice."""
    assert not UpstreamUnreachable("upstream", "refused").sent
    assert UpstreamTimeout("upstream", "600 s", sent=True).sent


def test_every_fault_of_a_configuration() -> None:
    """All faults of a file are told at once, each with its line and its path."""
    problems = [ConfigProblem("routes[0].path", 3, "no path"), ConfigProblem("listen", 1, "no port")]
    error = ConfigError("sidecar.yaml", problems)
    assert str(error) == "sidecar.yaml:line 3: routes[0].path: no path\nsidecar.yaml:line 1: listen: no port"
    assert (error.source, error.problems, error.kind) == ("sidecar.yaml", problems, "config")
