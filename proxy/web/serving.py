"""Hands out the assets over HTTP: a page with what it may load, and what it loads, each with a validator."""

from __future__ import annotations

from typing import Final

from aiohttp import ETag, hdrs, web

from proxy.web import Asset, asset

#: What a page may do: load and ask what comes from its own origin, and nothing else. No script and no style
#: stands in a page itself, so that whatever gets into it as text stays text.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
)

_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-cache",  # ask every time whether it has changed: a new version shows at once
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(request: web.Request, name: str) -> web.Response:
    """Return the answer with that asset, or 304 where the client has it. Raises HTTPNotFound."""
    found = asset(name)
    if found is None:
        raise web.HTTPNotFound(text=f"there is no {name[:80]!r} here\n")
    if _has(request, found):
        return web.Response(status=304, headers={**_HEADERS, hdrs.ETAG: found.etag})
    headers = {**_HEADERS, hdrs.ETAG: found.etag, hdrs.CONTENT_TYPE: found.content_type}
    return web.Response(body=found.body, headers=headers)


async def serve_named(request: web.Request) -> web.Response:
    """Answer a request whose path ends in ``{asset}``."""
    return serve(request, request.match_info["asset"])


def _has(request: web.Request, found: Asset) -> bool:
    """Whether one of the client's validators is the asset's (RFC 9110 §13.1.2, a weak comparison)."""
    validators = request.if_none_match or ()
    return any(each == ETag("*") or f'"{each.value}"' == found.etag for each in validators)
