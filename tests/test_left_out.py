"""What a run says that could not test everything."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.command import PROJECT
from tests.support.origin import PATIENCE

SUITE = """
import pytest

def test_here():
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_elsewhere(number):
    pytest.skip("LEFT OUT: browser tests: no chromium")
"""

MODULE = """
import pytest

pytest.skip("LEFT OUT: load tests: no wrk", allow_module_level=True)
"""


async def run(directory: Path, processes: int = 0, **environ: str) -> tuple[int, str]:
    """Run the tests in a directory as ``make test`` would; return the status and the output."""
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "tests.left_out", "-c", os.devnull),
        *("-p", "xdist", "-n", str(processes)),
        *("--rootdir", str(directory), "-p", "no:cacheprovider", str(directory)),
        cwd=PROJECT,
        env={
            **inherited,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **environ,
        },  # what else is installed takes seconds
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE * 3):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    ("environ", "processes", "status"),
    [({}, 0, 0), ({"CI": "true"}, 0, 1), ({"CI": "false"}, 0, 0), ({"CI": "true"}, 2, 1)],
)
async def test_what_was_left_out_is_said_last(
    tmp_path: Path, environ: dict[str, str], processes: int, status: int
) -> None:
    """In a frame behind the summary, each reason once, whichever process met it; in CI it fails the run."""
    (tmp_path / "test_some.py").write_text(SUITE)
    (tmp_path / "test_none.py").write_text(MODULE)
    code, output = await run(tmp_path, processes, **environ)
    assert code == status
    _, _, framed = output.partition("1 passed, 3 skipped")
    assert framed.count("LEFT OUT: browser tests: no chromium  (2 skipped)") == 1
    assert framed.count("LEFT OUT: load tests: no wrk  (1 skipped)") == 1
    assert framed.rstrip().splitlines()[-1] == "#" * len(framed.rstrip().splitlines()[-1])
    assert ("counts as failed" in framed) == bool(status)


async def test_other_skips_are_nobody_s_business(tmp_path: Path) -> None:
    """A test that skips itself for another reason frames nothing and fails nothing."""
    (tmp_path / "test_some.py").write_text(SUITE.replace("LEFT OUT", "not on this platform"))
    code, output = await run(tmp_path, CI="true")
    assert code == 0
    assert "####" not in output
