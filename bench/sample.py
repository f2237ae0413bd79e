"""What one measurement found: the raw record of which everything else is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one measurement found.

    window_ns: How long it took.
    cpu_ns: The contestant's time on its core, all its processes together.
    upstream_ns, generator_ns: The same of those that must not be the bottleneck.
    disturbed: Share of the window in which the contestant could have run and did not, because something
        else ran on its core, or the hypervisor took it away. (A contestant of several processes also
        waits for itself.)
    behind: Events that the upstream sent late, the streams' opening included.
    pss_before, pss_after: The contestant's memory in bytes, without a stream and with all of them.
    failure: Why there are no figures.
    """

    load: str
    contestant: str
    round: int
    streams: int = 0
    window_ns: int = 0
    events: int = 0
    bytes: int = 0
    done: int = 0
    behind: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    latency_ns: Mapping[str, int] = field(default_factory=dict)
    ttfb_ns: Mapping[str, int] = field(default_factory=dict)
    ttfe_ns: Mapping[str, int] = field(default_factory=dict)
    cpu_ns: int = 0
    upstream_ns: int = 0
    generator_ns: int = 0
    disturbed: float = 0.0
    pss_before: int = 0
    pss_after: int = 0
    failure: str = ""
