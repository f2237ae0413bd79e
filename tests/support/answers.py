"""A model's answer as it is counted when its stream has ended."""

from __future__ import annotations

from proxy.dialects.part import Part, Start
from proxy.dialects.summary import Summary
from proxy.telemetry import Answer


def answer(*parts: Part, model: str = "gpt", error: str = "", duration: float = 3.0) -> Answer:
    """Return an answer that says the first of these things after half a second, and the others after two."""
    summary = Summary(began=0.0)
    summary.note(Start(model=model), 0.0)
    for part, at in zip(parts, (0.5, *[2.0] * len(parts)), strict=False):
        summary.note(part, at)
    return Answer("openai", "chat", summary.model, error, duration, summary)
