"""A small line of the last hour, drawn as SVG without styles of its own: the policy allows nothing inline."""

from dataclasses import dataclass
from itertools import pairwise

from status.reporting import SAMPLE_EVERY, SAMPLES

WIDTH, HEIGHT = 120, 24
HOUR = SAMPLE_EVERY * SAMPLES  # seconds
GAP = 2.5 * SAMPLE_EVERY  # seconds without a sample after which the line is broken: nobody knows

Point = tuple[float, float]  # a moment in seconds since 1970, and a value


@dataclass(frozen=True)
class Plot:
    """What the template draws."""

    lines: list[str]  # for <polyline points="...">
    highest: float
    width: int = WIDTH
    height: int = HEIGHT


def plot(points: list[Point], now: float) -> Plot | None:
    """Return the plot of the points of the last hour, the oldest first; None when there is none."""
    points = [(at, value) for at, value in points if at > now - HOUR]
    if not points:
        return None
    highest = max(value for _, value in points)
    lines: list[list[str]] = []
    before = float("-inf")
    for at, value in points:
        if at - before > GAP:
            lines.append([])
        x = WIDTH * (1 - (now - at) / HOUR)
        y = HEIGHT - 1 - (HEIGHT - 2) * (value / highest if highest else 0)
        lines[-1].append(f"{x:.1f},{y:.1f}")
        before = at
    # A line of one point would not be seen.
    return Plot([" ".join(line if len(line) > 1 else line * 2) for line in lines], highest)


def per_minute(counts: list[Point]) -> list[Point]:
    """Return how fast a counter grew between two samples; not where the counter began anew, or over a gap."""
    return [
        (at, 60 * (count - before) / (at - since))
        for (since, before), (at, count) in pairwise(counts)
        if count >= before and 0 < at - since <= GAP
    ]
