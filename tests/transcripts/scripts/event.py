"""Events as they stand on the wire."""

from __future__ import annotations

import json
from typing import Any


def data(value: Any, *, spaced: bool = False) -> bytes:
    """An event without a name, its data this JSON value; ``spaced`` as Python writes it by default."""
    separators = None if spaced else (",", ":")
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    return b"data: " + text.encode("utf-8", "backslashreplace") + b"\n\n"


def named(value: dict[str, Any]) -> bytes:
    """An event that has the name of its data's ``type``."""
    return f"event: {value['type']}\n".encode() + data(value)
