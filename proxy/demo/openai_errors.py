"""How OpenAI says no: the same error object before a stream and inside one."""

from __future__ import annotations

from typing import Any

_TYPES = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def refusal(status: int, message: str) -> dict[str, Any]:
    """The body of an answer with that status."""
    kind, code = _TYPES.get(status, ("server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
