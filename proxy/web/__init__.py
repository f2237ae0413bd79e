"""What a browser gets: the pages, their styles and scripts, and ``client.js``, which apps may use too.

Plain files without a build step, part of the package. ``asset(name)`` is one of them, with what HTTP says
of it; ``proxy.web.serving`` hands them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePath

#: What is handed out, by the ending of its name. Whatever ends otherwise is none of a browser's business.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",  # types, for people; video/mp2t is what systems take it for
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. ``etag`` is a strong validator (RFC 9110 §8.8.3), quotes and all."""

    name: str
    body: bytes
    content_type: str
    etag: str


def asset(name: str) -> Asset | None:
    """Return the file of that name, or None: a name with a path in it names nothing."""
    return _assets().get(name)


@cache
def _assets() -> dict[str, Asset]:
    found = (file for file in files(__name__).iterdir() if PurePath(file.name).suffix in CONTENT_TYPES)
    return {file.name: _read(file.name, file.read_bytes()) for file in found}


def _read(name: str, body: bytes) -> Asset:
    content_type = CONTENT_TYPES[PurePath(name).suffix]
    return Asset(name, body, content_type, f'"{sha256(body).hexdigest()[:20]}"')
