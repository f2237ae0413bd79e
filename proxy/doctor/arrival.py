"""When what came: compression that shows in it, and the times themselves."""

from __future__ import annotations

from itertools import pairwise

from proxy.doctor.edge import mend_compression
from proxy.doctor.evidence import Stream
from proxy.doctor.finding import Figures, Finding, fault, many, ok, spoken, unseen
from proxy.doctor.lump import lumps_of


def judge_compression(stream: Stream, asked: str) -> Finding:
    """Whether the stream was compressed, and what that did to the arrival of its events."""
    coding = stream.head.get("Content-Encoding").lower()
    if coding in ("", "identity"):
        return ok("compression", f"none, though {asked} was offered", coding=None)
    lumps = [lump for lump in lumps_of(stream) if lump.events]
    effect = f"{many(len(stream.arrivals), 'event')} came in {many(len(lumps), 'lump')}"
    if stream.undecodable:
        effect = "which could not be decoded here, so that nothing more can be said"
    said = f"Content-Encoding: {coding[:40]}; {effect}"
    figures: Figures = {
        "coding": coding[:40],
        "wire_bytes": stream.wire,
        "bytes": stream.decoded,
        "lumps": len(lumps),
    }
    return fault("compression", said, mend_compression(stream.head), **figures)


def judge_timing(stream: Stream) -> Finding:
    """Time to headers, first byte, first event, and the gaps between events."""
    headers = stream.headed - stream.asked
    figures: Figures = {"headers": round(headers, 4)}
    if not stream.arrivals:
        waited = stream.until - stream.asked
        said = f"headers after {spoken(headers)}, then no event for {spoken(stream.until - stream.headed)}"
        return unseen("timing", said, **figures, waited=round(waited, 3))
    first_byte = stream.reads[0].at - stream.asked
    first_event = stream.arrivals[0].at - stream.asked
    times = [arrival.at for arrival in stream.arrivals]
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    figures |= {
        "first_byte": round(first_byte, 4),
        "first_event": round(first_event, 4),
        "events": len(times),
    }
    said = f"headers {spoken(headers)}, first byte {spoken(first_byte)}, first event {spoken(first_event)}"
    if gaps:
        spread = {
            name: round(_quantile(gaps, at), 4)
            for name, at in (("min", 0.0), ("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        }
        figures |= {f"gap_{name}": value for name, value in spread.items()}
        said += "; gaps " + ", ".join(f"{name} {spoken(value)}" for name, value in spread.items())
    return ok("timing", said, **figures)


def _quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` of the (sorted) values lie, by the nearest rank."""
    return values[min(len(values) - 1, round(share * (len(values) - 1)))]
