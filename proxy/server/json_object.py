"""A request body that is a JSON object: its members, each as the client wrote it."""

from __future__ import annotations

import json

import msgspec

Members = dict[str, msgspec.Raw]


def members(body: bytes) -> Members | None:
    """Return what the object holds, by name; None where the body is no JSON object.

    Of members with the same name the last one counts, as it does for nearly everybody who reads JSON.
    """
    try:
        return msgspec.json.decode(body, type=Members)
    except RecursionError:  # an attack: "[[[[…", nested deeper than the stack
        return None
    except ValueError:
        return _as_python_reads(body)


def _as_python_reads(body: bytes) -> Members | None:
    r"""Read what msgspec refuses and others accept: a text that was cut inside of an emoji (``"\ud83d"``)."""
    try:
        value = json.loads(body)
        found = value.items() if isinstance(value, dict) else ()
        return {name: msgspec.Raw(json.dumps(member).encode()) for name, member in found} or None
    except (ValueError, RecursionError):
        return None


def written(members: Members) -> bytes:
    """Return an object that holds these: each value is the very bytes that it was read from."""
    said = (json.dumps(name).encode() + b":" + bytes(value) for name, value in members.items())
    return b"{%b}" % b",".join(said)
