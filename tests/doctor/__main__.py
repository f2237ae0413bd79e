"""``python -m tests.doctor`` lets the doctor examine every chain, and writes what it says into its page."""

from __future__ import annotations

import asyncio
import sys

from proxy.demo import start_provider
from tests.doctor.chains import BROKEN, GOOD, SENDERS
from tests.doctor.examination import examine
from tests.doctor.page import markdown, write


async def main() -> int:
    """Write the tables. Return 1, and leave the page alone, where a verdict is not what it should be."""
    provider = await start_provider()
    try:
        examined = [await examine(chain, provider.url) for chain in (*BROKEN, *GOOD, *SENDERS)]
    finally:
        await provider.close()
    wrong = [each for each in examined if each.complaint]
    for each in wrong:
        sys.stderr.write(f"{each.chain.name}: {each.complaint}\n")
    if not wrong:
        write(markdown(examined))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
