"""The machine: its cores, the CPU time and memory of a process tree, and what it is.

CPU time is what the scheduler accounts in ``/proc/PID/task/TID/schedstat``, in nanoseconds. The ticks of
``/proc/PID/stat`` would be too coarse for windows of a few seconds.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CPUS = Path("/sys/devices/system/cpu")

#: Nanoseconds in one of the ticks of ``/proc/stat``.
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class TooSmall(Exception):
    """The contestant and its surroundings cannot be kept apart on this machine."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Numbers of two CPUs: the contestant's, and that of everything else."""

    contestant: int
    others: int


def two_cores() -> Cores:
    """Choose the first CPU that we may use, and the next that is no hyper-thread of the same core.

    Raises TooSmall where there is no second one.
    """
    usable = sorted(os.sched_getaffinity(0))
    first = usable[0]
    siblings = _siblings(first)
    for other in usable[1:]:
        if other not in siblings:
            return Cores(contestant=first, others=other)
    raise TooSmall(f"two cores are needed, one for the contestant alone; usable here: CPU {usable}")


def stay_on(cpu: int) -> None:
    """Run only there from now on."""
    os.sched_setaffinity(0, {cpu})


def open_files() -> int:
    """How many descriptors a process started by us may have: as many as the system lets us ask for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _siblings(cpu: int) -> set[int]:
    try:
        return cpu_list((CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text())
    except OSError:  # not every hypervisor tells
        return {cpu}


def cpu_list(text: str) -> set[int]:
    """Parse the kernel's list format: ``0-3,8``."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        numbers.update(range(int(low), int(high or low) + 1))
    return numbers


# ── a process tree ──────────────────────────────────────────────────────────────────────────────────────


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants, as far as they live."""
    yield pid
    for children in (PROC / str(pid) / "task").glob("*/children"):
        for child in _read(children).split():
            yield from tree(int(child))


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What the scheduler did with some threads so far, in nanoseconds.

    ran: On a CPU.
    waited: Ready to run, while something else ran.
    """

    ran: int = 0
    waited: int = 0

    def __add__(self, other: Scheduled) -> Scheduled:
        return Scheduled(self.ran + other.ran, self.waited + other.waited)

    def __sub__(self, earlier: Scheduled) -> Scheduled:
        return Scheduled(self.ran - earlier.ran, self.waited - earlier.waited)


def scheduled(pids: Iterable[int]) -> Scheduled:
    """All threads of these processes' trees together.

    What a process did that has ended since is not in it: contestants keep their workers.
    """
    total = Scheduled()
    for root in pids:
        for pid in tree(root):
            for thread in (PROC / str(pid) / "task").glob("*/schedstat"):
                total += scheduled_of(_read(thread))
    return total


def scheduled_of(schedstat: str) -> Scheduled:
    """Parse schedstat's fields: time on a CPU, time ready to run, number of time slices.

    An empty text (the thread has just ended) counts as nothing.
    """
    if not schedstat:
        return Scheduled()
    ran, waited, _slices = map(int, schedstat.split())
    return Scheduled(ran, waited)


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of these processes' trees: shared pages count by their share."""
    return sum(pss_of(_read(PROC / str(pid) / "smaps_rollup")) for root in pids for pid in tree(root))


def pss_of(smaps_rollup: str) -> int:
    """The ``Pss:`` line, in bytes; 0 if there is none."""
    for line in smaps_rollup.splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return ""


# ── the hypervisor ──────────────────────────────────────────────────────────────────────────────────────


def stolen_ns(cpu: int) -> int:
    """How long the hypervisor has run something else on this CPU so far, to the precision of a tick."""
    return stolen_of((PROC / "stat").read_text(), cpu)


def stolen_of(stat: str, cpu: int) -> int:
    """Parse ``cpuN user nice system idle iowait irq softirq steal …``; KeyError if there is no such line."""
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            return int(ticks[7]) * TICK_NS
    raise KeyError(cpu)


# ── what it is ──────────────────────────────────────────────────────────────────────────────────────────


def facts() -> dict[str, object]:
    """What a reader of the results must know about the machine."""
    cpuinfo = (PROC / "cpuinfo").read_text().splitlines()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": next((line.partition(":")[2].strip() for line in cpuinfo if "model name" in line), "unknown"),
        "cores": os.cpu_count(),
        "virtual": any(line.startswith("flags") and " hypervisor" in line for line in cpuinfo),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "system": _system(),
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
