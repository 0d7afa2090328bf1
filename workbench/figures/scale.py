"""The logarithmic axis of differences, which also has a place for zero and for infinity. Knows no matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.comparison import LayerDifference

MOST_TICKS = 14
OUTERMOST_POWER = 300
"""Beyond 1e±300 a float64 has no room left for the decades around a value."""


@dataclass(frozen=True)
class LogScale:
    """Whole decades. floor: where an exact zero stands; ceiling: where infinity and NaN stand."""

    floor: float
    ceiling: float

    @property
    def ticks(self) -> tuple[float, ...]:
        """Powers of ten from floor to ceiling: every one of them, or every second, third, … where they are many."""
        first, last = round(math.log10(self.floor)), round(math.log10(self.ceiling))
        step = -(-(last - first) // MOST_TICKS)
        return tuple(10.0**power for power in (*range(first, last, step), last))

    def labels(self) -> list[tuple[float, str]]:
        """Ticks with their text: the floor is called 0, the ceiling ∞."""
        middle = [(tick, f"1e{round(math.log10(tick))}") for tick in self.ticks[1:-1]]
        return [(self.floor, "0"), *middle, (self.ceiling, "∞")]

    def place(self, value: float) -> float:
        """The height of `value` on the axis."""
        return min(max(value, self.floor), self.ceiling) if math.isfinite(value) else self.ceiling

    def fraction(self, value: float) -> float:
        """The height of `value` as 0 (floor) to 1 (ceiling)."""
        return math.log(self.place(value) / self.floor) / math.log(self.ceiling / self.floor)


def scale_for(values: Sequence[float], limit: float | None = None) -> LogScale:
    """The decades that hold every value that is neither zero nor infinite, and the limit; never fewer than three."""
    shown = [value for value in (*values, limit or 0.0) if math.isfinite(value) and value > 0] or [1e-6]
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
    floor = max(low - 1, -OUTERMOST_POWER)
    return LogScale(10.0**floor, 10.0 ** max(min(high + 1, OUTERMOST_POWER), floor + 3))


def first_beyond(rows: Sequence[LayerDifference], limit: float) -> LayerDifference | None:
    """The first row that is not within the limit; NaN and infinity are beyond every limit."""
    return next((row for row in rows if not row.max_over_std <= limit), None)
