"""Any other event stream: an app's own."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.dialects.base import Dialect, Failure, Verdict


class Generic(Dialect):
    """Nothing is known about it but the event stream format itself.

    So nothing in it marks its end or tells an error, and nothing may be injected. A failure is shown
    by breaking the connection: ``fetch`` then throws, and EventSource comes back and resumes.
    """

    __slots__ = ()

    name = "generic"
    llm = False

    def serves(self, segments: list[str]) -> bool:
        """Never by its path: it is what remains when no other dialect claims one."""
        return False

    def confirms(self, block: bytes) -> bool:
        """Any block will do."""
        return True

    def verdict(self, tail: Sequence[bytes]) -> Verdict:
        """Always open: only how the connection closed can tell a whole stream from a cut one."""
        return Verdict.OPEN

    def failure_block(self, failure: Failure, tail: Sequence[bytes] = ()) -> bytes | None:
        """None: the connection is aborted instead."""
        return None

    def error_body(self, status: int, kind: str, message: str) -> bytes | None:
        """None: a problem document says it."""
        return None

    def wants_stream(self, body: bytes) -> bool:
        """No request of an app says so in a way that could be known."""
        return False
