"""What batch normalisation's epsilon does to channels of small variance: nothing to most, everything to a few."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from workbench.dialects import Epsilon
from workbench.figures.canvas import drawable, new_figure, styled
from workbench.figures.palette import CLASS_COLOURS, GREY

LINES = ("-", "--", ":", "-.")


@styled
def draw_epsilons(variances: NDArray[np.float32], epsilons: Mapping[str, Epsilon]) -> Figure:
    """How far each epsilon moves the divisor away from sqrt(variance); below, where the model's own variances lie.

    variances: any shape. A change of 1 doubles the divisor, so the normalised value is half of what it would be.
    """
    figure = new_figure(760, 430)
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    x = np.logspace(-12, 2, 300, dtype=np.float32)
    for number, (name, epsilon) in enumerate(epsilons.items()):
        change = np.abs(epsilon.denominator(x) / np.sqrt(x.astype(np.float64)) - 1)
        colour, line = CLASS_COLOURS[-1 - number % len(CLASS_COLOURS)], LINES[number % len(LINES)]
        axes.loglog(x, np.maximum(change, 1e-9), line, linewidth=2, color=colour, label=drawable(f"{name}: {epsilon}"))
    axes.set_ylim(1e-9, 1e4)
    axes.yaxis.set_major_formatter(FuncFormatter(_power))
    axes.grid(axis="y")
    axes.set_ylabel("relative change of the divisor")
    axes.legend(loc="upper right")
    axes.set_title("What epsilon changes, by the variance of the channel")
    _draw_variances(histogram, np.asarray(variances, np.float64).ravel())
    figure.subplots_adjust(0.1, 0.12, 0.97, 0.93, hspace=0.12)
    return figure


def _draw_variances(axes: Axes, values: NDArray[np.float64]) -> None:
    positive = values[np.isfinite(values) & (values > 0)]
    low = np.count_nonzero(positive < 1e-12)
    axes.hist(positive, bins=list(np.logspace(-12, 2, 57)), color=GREY)
    axes.xaxis.set_major_formatter(FuncFormatter(_power))
    axes.set_ylabel("channels")
    axes.set_xlabel(
        f"rolling_variance: {positive.size} of {values.size} channels are positive, {low} of them below 1e-12"
    )


def _power(value: float, _: int | None) -> str:
    """1e-6: formulas are switched off."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
