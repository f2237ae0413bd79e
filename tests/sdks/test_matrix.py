"""Every SDK under every condition that the sidecar adds to, or that a stream can meet.

The wire between each SDK and the sidecar is recorded, so that every cell also proves that the additions
were there.
"""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.sdks.clients import SDKS
from tests.sdks.matrix import CONDITIONS, ROWS, Cell, play_row
from tests.sdks.node_clients import Node

#: Each row is played on the fast path, and the first one of each SDK for Python on the ordinary one too.
PLAYED = {
    **{f"fast-path-{name}": (name, True) for name in ROWS},
    **{f"task-{name}": (name, False) for name in SDKS if "," not in name},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cells(request: pytest.FixtureRequest, node: Node) -> dict[str, Cell]:
    """A row's cells, by their columns."""
    name, fast_path = request.param
    return await play_row(name, node, fast_path=fast_path)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(
    "cells",
    [pytest.param(row, id=name) for name, row in PLAYED.items()],
    indirect=True,
    scope="module",
)
def test_whole_or_raised(cells: dict[str, Cell], condition: str) -> None:
    """The text is the provider's to its last word, or the SDK raises; never is it short and silent."""
    assert not cells[condition].complaint
