"""``python -m tests.sdks`` plays the matrix of SDKs and conditions, and writes what came into its page."""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog

from tests.sdks.matrix import ROWS, play_row
from tests.sdks.node_clients import Node
from tests.sdks.page import markdown, write


async def main() -> int:
    """Write the table. Return 1, and leave the page alone, where a cell is not what it must be."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    async with Node() as node:
        cells = {name: await play_row(name, node) for name in ROWS}
    wrong = [
        f"{name}, {condition}: {cell.complaint}\n"
        for name, row in cells.items()
        for condition, cell in row.items()
        if cell.complaint
    ]
    sys.stderr.writelines(wrong)
    if not wrong:
        write(markdown(cells))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
