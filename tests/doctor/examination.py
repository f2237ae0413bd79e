"""The doctor, run on a chain as an operator runs it: a process of its own, beside the chain's servers."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.doctor.chains import Chain
from tests.doctor.site import Site
from tests.support.command import PROJECT
from tests.support.process import run


@dataclass(frozen=True, slots=True)
class Examined:
    """What the doctor says of a chain: its exit status, and its document."""

    chain: Chain
    status: int
    document: dict[str, Any]
    seconds: float

    def found(self, verdict: str) -> dict[str, dict[str, Any]]:
        """Return the findings with this verdict, by check."""
        return {each["check"]: each for each in self.document["findings"] if each["verdict"] == verdict}

    @property
    def complaint(self) -> str:
        """What is wrong with the doctor's verdict itself; empty where nothing is."""
        chain, faults, warnings = self.chain, self.found("fault"), self.found("warning")
        if self.status != int(bool(chain.finds)):
            return f"exit status {self.status}: {sorted(faults)}"
        if unfounded := faults.keys() - {chain.finds, *chain.follows}:
            return f"found what is not there: {sorted(unfounded)}"
        if chain.finds and chain.finds not in faults:
            return f"not found by {chain.finds}, only by {sorted(faults)}"
        if chain.finds and chain.mend not in faults[chain.finds]["mend"]:
            return f"the mend says nothing of {chain.mend}"
        if warnings and not chain.finds:
            return f"warned without a reason: {sorted(warnings)}"
        return ""

    def told(self) -> str:
        """Return the document, for a message."""
        return json.dumps(self.document, ensure_ascii=False, indent=2)


async def examine(chain: Chain, provider: str) -> Examined:
    """Build a chain in front of ``provider``, a base URL, and let the doctor examine it."""
    async with Site(provider) as site:
        front = await chain.build(site)
        began = time.monotonic()
        status, output = await doctor(front.url + chain.target, *front.options, *chain.asks, "--json")
        return Examined(chain, status, json.loads(output), time.monotonic() - began)


async def doctor(*arguments: str) -> tuple[int, str]:
    """Run ``sse-sidecar doctor``; return its exit status, and what it writes to stdout."""
    return await run(sys.executable, "-m", "proxy", "doctor", *arguments, cwd=PROJECT, stderr=None)
