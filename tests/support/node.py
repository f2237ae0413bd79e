"""Node 22, which npm brings as a package: the newest majors of several SDKs ask for one so new."""

from __future__ import annotations

from pathlib import Path

from tests.support.command import PROJECT
from tests.support.process import left_out

#: The SDKs for Node, and the Node that runs them.
SDKS = PROJECT / "tests" / "sdks" / "node"

_NODE_22 = SDKS / "node_modules" / "node" / "bin" / "node"


def node_22(packages: Path = SDKS) -> Path:
    """Return the path of Node 22. Where it, or the packages of this directory, lack, the test is left out."""
    lacking = [
        path.relative_to(PROJECT)
        for path in (_NODE_22, packages / "node_modules" / ".package-lock.json")
        if not path.exists()
    ]
    return (
        left_out(f"{lacking[0]} is not installed; tests/install.sh test does that") if lacking else _NODE_22
    )
