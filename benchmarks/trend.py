"""Whether a figure goes up over time, told so that single outliers do not matter."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple


class Tolerance(NamedTuple):
    """How much a figure may rise from the beginning to the end, by its trend.

    Args:
        share: of its median.
        least: as much at least, in its own unit.

    """

    share: float
    least: float


def rise(points: Sequence[tuple[float, float]]) -> float:
    """Return how much the trend rises from the first point to the last: the median of all slopes (Theil and Sen)."""
    slopes = [(y - v) / (x - u) for (u, v), (x, y) in combinations(points, 2) if x != u]
    return median(slopes) * (points[-1][0] - points[0][0]) if slopes else 0.0


def goes_up(points: Sequence[tuple[float, float]], tolerance: Tolerance) -> bool:
    """Say whether a figure rises by more than is tolerated."""
    if not points:
        return False
    return rise(points) > max(tolerance.share * median(value for _, value in points), tolerance.least)
