"""Cross-origin pages: what they may read, and the answers to their preflights.

Where a route names ``origins``, the sidecar speaks for the route. Elsewhere the app's own CORS
headers pass, and what the sidecar adds to a stream becomes readable wherever the stream itself is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from aiohttp import hdrs, web
from multidict import CIMultiDict

#: What a page needs to resume and to understand a refusal.
EXPOSED = ("Stream-Id", "Stream-Resumed-From", "Stream-Closed", "Stream-Earliest", "Link", "Retry-After")

#: How long a browser may remember a preflight's answer, in seconds (Chromium's own limit).
PREFLIGHT_SECONDS = 7200


def is_preflight(request: web.BaseRequest) -> bool:
    """Whether the request is a CORS preflight (Fetch standard, §3.2.2)."""
    return (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    )


def preflight(request: web.BaseRequest, methods: Iterable[str]) -> web.Response:
    """Answer a preflight from an origin that is allowed."""
    answer = web.Response(status=204)
    answer.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(methods)
    answer.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(PREFLIGHT_SECONDS)
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
    if asked:
        answer.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
    return answer


def allow(request: web.BaseRequest, headers: CIMultiDict[str], origins: Collection[str]) -> None:
    """Let a page of one of ``origins`` read the answer, with its cookies; make our fields readable."""
    if origins:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin in origins:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
        # Also where this answer allows nobody, or a cache would give it to those it allows.
        headers.add(hdrs.VARY, "Origin")
    if hdrs.ACCESS_CONTROL_ALLOW_ORIGIN in headers:
        _expose(headers)


def _expose(headers: CIMultiDict[str]) -> None:
    values = headers.popall(hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, [])
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    known = {name.lower() for name in names}
    names += [name for name in EXPOSED if name.lower() not in known]
    headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(names)
