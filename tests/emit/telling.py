"""What a form makes of parts, and what its clients make of that."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.dialects.base import Decoder
from proxy.dialects.part import Part
from proxy.emit import EMITS, Translation
from proxy.stream import sse
from tests.support.node import node_22
from tests.support.shelf import Shelf, as_sent
from tests.transcripts import Transcript, translated

NODE = Path(__file__).parent / "node"

#: Seconds that one process of Node may take for all transcripts on a slow machine.
PATIENCE = 120.0


class Script(Decoder):
    """Says the next part at each block, whatever is in it."""

    def __init__(self, *parts: Part) -> None:
        self._parts = iter(parts)

    def decode(self, block: bytes) -> list[Part]:
        """Return the next part."""
        return [next(self._parts)]


def told(form: str, *parts: Part, raw: bool = False) -> list[Any]:
    """Return the payloads of a stream that says these parts; it ends well unless the last is an error."""
    translation = Translation(Script(*parts), EMITS[form].writer("salt", raw=raw), 0.0, keep=1)
    blocks = [block for _ in parts for block in translation.feed([b"data:"], 1.0)] + translation.close(1.0)
    assert all(block.isascii() for block in blocks)
    return [payload(block) for block in blocks]


def payload(block: bytes) -> Any:
    """Return a block's data: parsed, but for a terminal marker."""
    data = sse.decode(block).data
    assert data is not None
    return json.loads(data) if data.startswith("{") else data


def one_string(text: str) -> str:
    """Return a text as JavaScript has it: two surrogates that came apart are one character again."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@contextmanager
def shelf_of(form: str, rows: Mapping[str, Transcript]) -> Iterator[Shelf]:
    """Serve transcripts in a form, by their ids."""
    with Shelf({name: as_sent(translated(row, form)) for name, row in rows.items()}) as shelf:
        yield shelf


def heard_in_node(script: str, shelf: Shelf, directory: Path = NODE) -> dict[str, Any]:
    """Return what a script in Node hears of each of a shelf's transcripts, by its id.

    The script and its packages are in ``directory``.
    """
    return run_in_node(script, {name: shelf.url(name) for name in shelf.names}, directory)


def run_in_node(script: str, said: Any, directory: Path) -> dict[str, Any]:
    """Return what a script writes that is given ``said``, both as JSON."""
    command = [node_22(directory), script]
    given = json.dumps(said)
    ran = subprocess.run(
        command, cwd=directory, input=given, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ran.returncode == 0, ran.stderr
    heard: dict[str, Any] = json.loads(ran.stdout)
    return heard
