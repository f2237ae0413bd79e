"""One server-sent event as the provider writes it.

The provider has an encoder of its own, apart from the sidecar's, so that one mistake cannot hide in both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """``data`` may hold several lines, separated by LF; ``retry`` is in milliseconds."""

    data: str
    name: str | None = None
    id: str | None = None
    retry: int | None = None

    def block(self, *, newline: str = "\n", size: int = 0) -> bytes:
        """The event's bytes with the empty line that ends it, padded to at least ``size`` bytes."""
        block = self._lines(self.data, newline)
        missing = size - len(block)
        if missing > 0 and self.data.startswith("{"):
            # White space after a JSON value is part of no schema, so it pads every dialect alike.
            block = self._lines(self.data + " " * missing, newline)
        return block

    def _lines(self, data: str, newline: str) -> bytes:
        lines = [
            f"{field}: {value}"
            for field, value in (("id", self.id), ("event", self.name), ("retry", self.retry))
            if value is not None
        ]
        lines += [f"data: {line}" for line in data.split("\n")]
        return newline.join([*lines, "", ""]).encode()
