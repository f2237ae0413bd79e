"""Streams by the names that apps give them: which stream a name means at the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proxy.stream.log import Reason

if TYPE_CHECKING:
    from proxy.server.relay import Relay


class Alias(NamedTuple):
    """A stream's name: unique for one principal, at one path of one route."""

    route: str
    path: str
    owner: bytes
    name: str


class Aliases:
    """The newest stream of each alias. A stream that is forgotten takes its alias along."""

    def __init__(self) -> None:
        self._streams: dict[Alias, Relay] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def note(self, alias: Alias, relay: Relay) -> None:
        """Let ``alias`` mean this stream from now on."""
        self._streams[alias] = relay
        relay.on_forgotten.append(lambda: self._forget(alias, relay))

    def active(self, alias: Alias) -> Relay | None:
        """Return the stream that somebody who asks for this alias is owed, if there is one."""
        relay = self._streams.get(alias)
        return relay if relay is not None and _is_active(relay) else None

    def _forget(self, alias: Alias, relay: Relay) -> None:
        if self._streams.get(alias) is relay:
            del self._streams[alias]


def _is_active(relay: Relay) -> bool:
    """Whether a stream runs, or has ended while nobody was there to be told.

    The latter is what a page finds that was loaded again at the wrong moment, or a phone that woke up. What
    was stopped is owed to nobody.
    """
    terminal = relay.log.terminal
    if not relay.recorded:
        return False
    return terminal is None or not (relay.was_read or terminal.reason is Reason.CANCELLED)
