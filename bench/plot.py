"""The plot: groups of horizontal bars as plain SVG, readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

from bench.figures import Spread

WIDTH = 860
LABELS = 132  # room for the contestants' names, left of the bars
VALUES = 178  # room for the figures, right of the longest bar
MARGIN = 24
BAR = 15
PITCH = 21
HEADING = 30
TITLE = 62

#: A contestant's colour, on light and on dark pages. The order is that of the legend in the style sheet.
COLOURS = {
    "nginx": ("#5b7a99", "#88a8c8"),
    "haproxy": ("#8d86a8", "#ada6c9"),
    "textbook": ("#c08a3e", "#d9a860"),
    "ours-bare": ("#58a58c", "#6fbfa5"),
    "ours-full": ("#1f7a5c", "#3fae88"),
    "ours-unified": ("#8a9a2f", "#b5c455"),
    "ours-bridge": ("#2f6fa8", "#5aa0d8"),
    "ours-passthrough": ("#7a5ba6", "#a58ad0"),
    "litellm": ("#b35b5b", "#d08080"),
    "litellm-messages": ("#8f3f5f", "#c4708f"),
    "resumable-stream": ("#9a6a4f", "#bd8c70"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A contestant's microseconds per event, and what that is over nginx."""

    name: str
    value: Spread
    over: Spread | None


@dataclass(frozen=True, slots=True)
class Group:
    """The bars of one load."""

    title: str
    bars: Sequence[Bar]


def svg(groups: Sequence[Group]) -> str:
    """The plot as a document. All groups share one scale; the whisker is the least and the greatest."""
    longest = max((bar.value.high for group in groups for bar in group.bars), default=1.0)
    height = TITLE + sum(HEADING + PITCH * len(group.bars) for group in groups) + MARGIN + 8
    scale = (WIDTH - 2 * MARGIN - LABELS - VALUES) / longest
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="CPU time per event, by load and contestant">',
        _style(),
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="{MARGIN}" y="32">CPU time per event</text>',
        f'<text class="quiet" x="{MARGIN}" y="50">microseconds, median over the rounds; the line spans the '
        "least to the greatest; × is over nginx in the same round</text>",
        *_grid(longest, scale, height),
        *_groups(groups, scale),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _style() -> str:
    light = "".join(f".{name}{{fill:{colour}}}" for name, (colour, _) in COLOURS.items())
    dark = "".join(f".{name}{{fill:{colour}}}" for name, (_, colour) in COLOURS.items())
    return (
        "<style>"
        "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}"
        ".title{font-size:18px;font-weight:600}.load{font-weight:600}.quiet{fill:#667079;font-size:12px}"
        ".value{font-variant-numeric:tabular-nums}.page{fill:#fff}.grid{stroke:#e3e7eb}.whisker{stroke:#24292f;stroke-width:1.3}"
        f"{light}"
        "@media(prefers-color-scheme:dark){text{fill:#e2e6ea}.quiet{fill:#98a2ac}.page{fill:#15191e}.grid{stroke:#2a3037}"
        f".whisker{{stroke:#e2e6ea}}{dark}}}"
        "</style>"
    )


def _grid(longest: float, scale: float, height: int) -> Iterator[str]:
    step = grid_step(longest)
    count = int(longest / step)
    for tick in (step * number for number in range(count + 1)):
        x = MARGIN + LABELS + tick * scale
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TITLE + 4}" y2="{height - MARGIN - 4}"/>'
        yield f'<text class="quiet" x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>'


def grid_step(longest: float) -> float:
    """A round distance of grid lines, so that there are four to ten of them."""
    power = 10.0 ** int(log10(longest / 4) // 1)
    return next(step * power for step in (5, 2, 1) if longest / (step * power) >= 4)


def _groups(groups: Sequence[Group], scale: float) -> Iterator[str]:
    y = TITLE
    for group in groups:
        yield f'<text class="load" x="{MARGIN}" y="{y + 20}">{escape(group.title)}</text>'
        y += HEADING
        for bar in group.bars:
            yield from _bar(bar, y, scale)
            y += PITCH


def _bar(bar: Bar, y: int, scale: float) -> Iterator[str]:
    left, middle = MARGIN + LABELS, y + BAR / 2
    low, median, high = (left + value * scale for value in (bar.value.low, bar.value.median, bar.value.high))
    baseline = y + 12
    over = f" · {bar.over.median:.2f} ×" if bar.over is not None else ""
    yield f'<text x="{left - 10}" y="{baseline}" text-anchor="end">{escape(bar.name)}</text>'
    yield f'<rect class="{bar.name}" x="{left}" y="{y}" width="{median - left:.1f}" height="{BAR}" rx="2"/>'
    yield f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    yield f'<text class="value" x="{high + 8:.1f}" y="{baseline}">{bar.value.median:.3g} µs{over}</text>'
