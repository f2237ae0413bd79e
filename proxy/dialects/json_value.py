"""Values of JSON whose type nobody has promised."""

from __future__ import annotations

import json
from typing import Any


def word(value: Any) -> str:
    """Return a text as it is, nothing for null, and any other value as a text."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def whole_number(value: Any) -> int | None:
    """Return a whole number as it is, and None for anything else."""
    return value if type(value) is int else None


def source_of(value: Any) -> str:
    """Return a value as a JSON text, as short as it gets.

    One that is nested deeper than a writer of JSON can go is cut off at its beginning. That is no JSON: a
    call whose arguments it is can not be made, and is told as such.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "{"
