"""Errors as answers: a problem document (RFC 9457), or the provider's own error shape.

An SDK that talks to a provider's route gets errors in that provider's JSON, so that it raises what
it would have raised without the sidecar.
"""

from __future__ import annotations

import random

from aiohttp import hdrs, web

from proxy.dialects import Dialect
from proxy.emit import Emit
from proxy.errors import SidecarError
from proxy.server.headers import LAST_EVENT_ID
from proxy.server.wire import SERVER, json_body
from proxy.stream.sse import EVENT_STREAM

#: Statuses that pass: the same request may well succeed a little later.
PASSING = frozenset({429, 502, 503, 504})

#: What an EventSource is told to wait after a passing fault, in milliseconds, where nothing else says.
#: Jittered, so that a thousand pages do not come back in the same instant.
COME_BACK_MS = 2000


def answer(
    error: SidecarError,
    request: web.BaseRequest,
    *,
    route: str | None = None,
    dialect: Dialect | None = None,
    form: Dialect | Emit | None = None,
    final: bool = False,
) -> web.Response:
    """Return the response that tells the client of ``error``.

    ``dialect`` is what the upstream speaks, ``form`` what the client does. ``final``: an EventSource must
    not come again, since it would be paid for once more.
    """
    if error.status in PASSING and is_event_source(request) and not final:
        return _come_again(error)
    body = form.error_body(error.status, error.kind, str(error)) if form is not None else None
    if body is not None:
        response = web.Response(status=error.status, body=body + b"\n", content_type="application/json")
    else:
        response = web.Response(
            status=error.status,
            body=json_body(error.document(route)),
            content_type="application/problem+json",
        )
    response.headers.update(error.headers)
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers[hdrs.SERVER] = SERVER
    if error.sent and dialect is not None and dialect.llm:
        # The provider may be working on it: an SDK that asks again by itself would pay twice.
        response.headers["x-should-retry"] = "false"
    if request.body_exists and not request.content.is_eof():
        response.force_close()
    return response


def is_event_source(request: web.BaseRequest) -> bool:
    """Whether a browser's EventSource asks: any status but 200 would stop it for good."""
    return (
        request.method == hdrs.METH_GET
        and EVENT_STREAM in request.headers.get(hdrs.ACCEPT, "")
        and (LAST_EVENT_ID in request.headers or "Sec-Fetch-Mode" in request.headers)
    )


def _come_again(error: SidecarError) -> web.Response:
    after = int(error.headers.get("Retry-After", "0")) * 1000 or COME_BACK_MS
    return event_stream(b"retry: %d\n\n" % jittered(after))


def event_stream(body: bytes) -> web.Response:
    """Return a whole event stream of ours, after which an EventSource comes again."""
    response = web.Response(
        body=body,
        content_type=EVENT_STREAM,
        charset="utf-8",
        headers={hdrs.CACHE_CONTROL: "no-store", "X-Accel-Buffering": "no", hdrs.SERVER: SERVER},
    )
    response.force_close()
    return response


def jittered(milliseconds: int) -> int:
    """Spread a waiting time over half to one and a half of it."""
    return int(milliseconds * random.uniform(0.5, 1.5))
