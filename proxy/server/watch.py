"""When a configuration file has changed, and has come to rest.

A file that is still being written may be a valid configuration already, with half of its routes. So a
change counts when two looks in a row have seen the same. Looking follows symlinks: Kubernetes changes
a ConfigMap's files by swapping a link to their directory.
"""

from __future__ import annotations

import os
from pathlib import Path

Identity = tuple[int, int, int, int]


class Watch:
    """Looks at the file at ``path``, which was read when this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = self._before = identity(path)

    def taken(self) -> None:
        """Note that the file was read as it is now."""
        self._read = identity(self._path)

    def look(self) -> bool:
        """Whether the file differs from what was read last, and did not change since the last look."""
        now = identity(self._path)
        at_rest, self._before = now == self._before, now
        return at_rest and now != self._read


def identity(path: Path) -> Identity | None:
    """Return what changes when the file does, or the link that leads to it; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
