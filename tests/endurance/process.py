"""``sse-sidecar serve`` as a process, looked at from outside: /proc, its log, its admin listener."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.client import ask
from tests.support.command import Command

MIB = 1 << 20

#: How long a process may take to come to rest, in seconds.
PATIENCE = 60.0

#: What lives no longer than a request or a stream.
PASSING = (
    *("Attempt", "Call", "Exchange", "Response", "Upload"),
    *("Log", "Numbering", "Parser", "Relay", "SseReader", "TaskSource"),
    *("Bridge", "End", "Framing", "Messages", "Passage", "Tunnel", "WsReader"),
)

#: Metrics that are zero when nothing runs, nobody reads, and nothing is kept.
GAUGES = (
    "sidecar_active_streams",
    "sidecar_readers",
    "sidecar_websockets",
    "sidecar_log_bytes",
    "sidecar_logs",
)

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Census:
    """What a tidied process holds: bytes resident, blocks of memory that Python has allocated, and live
    objects by the name of their class.
    """

    resident: int
    blocks: int
    kinds: dict[str, int]

    @property
    def left(self) -> dict[str, int]:
        """What should have gone with its request or stream, and how much of it is there."""
        ours = {kind: number for kind, number in self.kinds.items() if kind.startswith("proxy.")}
        return {kind: number for kind, number in ours.items() if kind.rpartition(".")[2] in PASSING}

    def more_than(self, before: Census) -> dict[str, int]:
        """The kinds of which there are more than there were, and how many more."""
        grown = {kind: number - before.kinds.get(kind, 0) for kind, number in self.kinds.items()}
        return {kind: number for kind, number in grown.items() if number > 0}


class SidecarProcess:
    """One sidecar process with the configuration of ``document``, on free loopback ports."""

    def __init__(self, directory: Path, document: dict[str, Any]) -> None:
        self.file = directory / "sidecar.yaml"
        self.configure(document)
        self._command = Command(directory, "serve", self.file, PYTHONPATH=str(_HERE / "site"))
        self._counted = 0

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._command.pid

    def configure(self, document: dict[str, Any]) -> None:
        """Write the configuration file; a running process reads it by and by, or at once on ``reload``."""
        loopback = "127.0.0.1:0"
        common = {"listen": loopback, "admin": {"listen": loopback}, "log": {"format": "json"}}
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(common | document, sort_keys=False))
        fresh.replace(self.file)  # there is never half a file to be read

    async def start(self) -> None:
        """Start it and wait until it listens."""
        await self._command.start()
        self.url = await self._command.url()
        self.admin_url = await self._command.admin_url()

    async def stop(self) -> int:
        """End it as an orchestrator would, and return its exit status."""
        try:
            if self._command.running:
                self._command.signal(signal.SIGTERM)
            return await self._command.ended()
        finally:
            await self._command.end()

    def reload(self) -> None:
        """Let it read its configuration again."""
        self._command.signal(signal.SIGHUP)

    # What it holds

    async def census(self) -> Census:
        """Let it collect its garbage and give back free memory, and say what is left."""
        self._counted += 1
        self._command.signal(signal.SIGUSR1)
        line = await self._command.logged("census", self._counted)
        return Census(line["resident"], line["blocks"], line["kinds"])

    def resident(self) -> int:
        """Bytes in memory now."""
        return int(self._proc("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def proportional(self) -> int:
        """Bytes in memory now, of pages that are shared with others a part only (proc(5), Pss)."""
        line = next(line for line in self._proc("smaps_rollup").splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024

    def peak(self) -> int:
        """Most bytes ever in memory since the start, or since ``forget_peak``."""
        line = next(line for line in self._proc("status").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        """Measure the peak from now on: "5" resets VmHWM (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        """How many file descriptors are open, sockets and all."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    async def rests(self) -> None:
        """Wait until nothing runs, nobody reads, and nothing is kept."""
        await self._until(self._is_idle, "nothing runs or is kept")
        assert await self.streams() == []

    async def closes_all_but(self, descriptors: int) -> None:
        """Wait until no more than so many file descriptors are open."""

        async def closed() -> bool:
            return self.descriptors() <= descriptors

        await self._until(closed, f"descriptors are closed but {descriptors}")

    async def _is_idle(self) -> bool:
        metrics = await self.metrics()
        return not any(metrics.get(gauge, 0.0) for gauge in GAUGES)

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not await condition():
            assert time.monotonic() < deadline, f"{what}: did not come true within {PATIENCE:.0f} s"
            await asyncio.sleep(0.1)

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()

    # What it says

    def complaints(self) -> list[str]:
        """What it wrote to stderr besides log lines of a level below error: its own faults."""
        return [text for text in self._command.errors.splitlines() if _tells_of_fault(text)]

    async def metrics(self) -> dict[str, float]:
        """Every metric's value, summed over its labels."""
        text = (await self._admin("/metrics")).decode()
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    async def labelled(self, name: str, label: str) -> dict[str, float]:
        """One metric's values by one of its labels."""
        text = (await self._admin("/metrics")).decode()
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    key = sample.labels[label]
                    values[key] = values.get(key, 0.0) + sample.value
        return values

    async def streams(self) -> list[dict[str, Any]]:
        """The streams it holds."""
        return list(json.loads(await self._admin("/streams"))["streams"])

    async def _admin(self, path: str) -> bytes:
        answer = await ask(self.admin_url, path, headers={"Connection": "close"})
        try:
            return await answer.body()
        finally:
            answer.close()


def _tells_of_fault(text: str) -> bool:
    try:
        return json.loads(text)["level"] in ("error", "critical")
    except (ValueError, LookupError, TypeError):
        return bool(text.strip())  # a traceback, a warning: nothing of ours writes to stderr but log lines
