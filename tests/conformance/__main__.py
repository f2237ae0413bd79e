"""``python -m tests.conformance [CASE…]`` compares all cases, or these, and prints the page."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.conformance import suite
from tests.conformance.comparison import PLAN, compare
from tests.conformance.page import markdown


async def main(wanted: list[str]) -> int:
    """Print the page, and on stderr where the suite's reports are kept. Return 1 if there is a difference."""
    about = await suite.about()
    comparisons = []
    for library, patterns in PLAN.items():
        cases = [case for case in about.matching(*patterns) if case in about.matching(*wanted or ["*"])]
        directory = Path(tempfile.mkdtemp(prefix=f"conformance-{library}-"))
        sys.stderr.write(f"The reports of {len(cases)} cases at {library} go to {directory}.\n")
        comparisons.append(await compare(library, cases, directory))
    sys.stdout.write(markdown(about, comparisons))
    return int(any(any(comparison.differences()) for comparison in comparisons))


if __name__ == "__main__":
    if not suite.installed():
        sys.exit("Autobahn's test suite is not installed: tests/install.sh test-all")
    sys.exit(asyncio.run(main(sys.argv[1:])))
