"""Loaded by the sidecar's interpreter in these tests: on SIGUSR1 it tidies up and says what is left.

What a process holds can only be told after garbage is collected and free memory was given back, and
only it can do that. The line goes to stderr beside the log: bytes resident, blocks that Python has
allocated (an exact figure, where memory has holes), and how many objects of each kind of ours,
aiohttp's and asyncio's are alive.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections import Counter

PACKAGES = ("proxy", "aiohttp", "asyncio", "_asyncio", "uvloop")


def _tidy(*_: object) -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, gc.get_objects()))
    kinds = Counter(name for name in names if name.partition(".")[0] in PACKAGES)
    with open("/proc/self/statm", encoding="ascii") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    census = {"resident": resident, "blocks": sys.getallocatedblocks(), "kinds": kinds}
    line = json.dumps({"event": "census", "level": "debug", **census})
    os.write(2, line.encode() + b"\n")


signal.signal(signal.SIGUSR1, _tidy)
