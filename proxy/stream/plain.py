"""Reads that hold nothing unusual: the form in which LLM providers write their events.

``data: …`` and an empty line, or ``event: …``, ``data: …`` and an empty line, all of it in one read, with
LF as the line end. Nearly every read of a provider's stream is one such event, or several. Their blocks
have data, and neither an id nor a retry, so what has to be found out about other blocks is known of
these. Looking for single line ends is several times faster than looking for two in a row, so lines are
counted here where ``sse.Parser`` looks for empty ones.

These functions may be asked only where a block begins (``Parser.between_blocks``). Where they answer no, the
parser finds out what the read means; any other answer is the parser's own.
"""

from __future__ import annotations


def is_plain(data: bytes) -> bool:
    """Whether a read is exactly one plain event."""
    if data.startswith(b"data:"):
        end = data.find(b"\n")
    elif data.startswith(b"event:"):
        line = data.find(b"\n") + 1
        end = data.find(b"\n", line) if data.startswith(b"data:", line) else -1
    else:
        return False
    return end == len(data) - 2 and data.endswith(b"\n\n") and b"\r" not in data


def plain_blocks(data: bytes) -> list[bytes] | None:
    """Return the blocks of a read that is nothing but whole plain events of one kind, else None."""
    if not data.endswith(b"\n\n") or b"\r" in data:
        return None
    lines = data.split(b"\n")
    lines.pop()
    return _every_other(lines) if data.startswith(b"data:") else _pairs(lines)


def _every_other(lines: list[bytes]) -> list[bytes] | None:
    """The lines that have an empty one behind each."""
    blocks = lines[::2]
    if len(lines) % 2 or any(lines[1::2]):
        return None
    for block in blocks:
        if not block.startswith(b"data:"):
            return None
    return blocks


def _pairs(lines: list[bytes]) -> list[bytes] | None:
    """The pairs of lines that have an empty one behind each."""
    if len(lines) % 3 or any(lines[2::3]):
        return None
    blocks = []
    for event, line in zip(lines[::3], lines[1::3], strict=True):
        if not (event.startswith(b"event:") and line.startswith(b"data:")):
            return None
        blocks.append(b"%b\n%b" % (event, line))
    return blocks
