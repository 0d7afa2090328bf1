"""Which way, and how far, matched boxes have moved: arrows, far too small to see unless magnified."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from workbench.detections import Detections, Match
from workbench.figures.canvas import new_figure, styled
from workbench.figures.palette import FAINT, GREY, REFERENCE, VERMILION


def magnification(largest_px: float, picture_width: int) -> float:
    """1, 2 or 5 times a power of ten that makes the largest offset about a tenth of the picture; 1 for none at all."""
    if not (math.isfinite(largest_px) and largest_px > 0):
        return 1.0
    exact = picture_width / 8 / largest_px
    power = 10.0 ** math.floor(math.log10(exact))
    return next(step * power for step in (5.0, 2.0, 1.0) if step * power <= exact)


@styled
def draw_offsets(picture: NDArray[np.uint8], reference: Detections, match: Match) -> Figure:
    """An arrow (dx, dy) from the centre of each matched box of the reference, magnified; a dot where nothing moved."""
    height, width = picture.shape[:2]
    moves = match.pairs.offsets[:, :2]
    largest = float(np.hypot(*moves.T).max(initial=0))
    factor = magnification(largest, width)
    tall = max(round(720 * height / width), 80) + 70
    figure = new_figure(720, tall)
    axes = figure.add_axes((0.01, 0.01, 0.98, 1 - 70 / tall))
    axes.imshow(picture, extent=(0, width, height, 0), alpha=0.25, aspect="auto")
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    boxes = reference.boxes[match.pairs.reference]
    for cx, cy, w, h in boxes.tolist():
        axes.plot(
            cx + w / 2 * np.array([-1, 1, 1, -1, -1]),
            cy + h / 2 * np.array([-1, -1, 1, 1, -1]),
            color=GREY,
            linewidth=0.8,
        )
    still = ~moves.any(axis=1)
    axes.scatter(boxes[still, 0], boxes[still, 1], 26, REFERENCE, edgecolors="white", zorder=3)
    axes.quiver(
        *boxes[~still, :2].T, *(moves[~still] * factor).T, angles="xy", scale_units="xy", scale=1, color=VERMILION,
        edgecolor=FAINT, linewidth=0.4, width=0.005, zorder=3,
    )  # fmt: skip
    figure.text(0.012, 1 - 20 / tall, _headline(len(moves), factor, largest), va="center", weight="bold")
    words = "arrow: dx, dy of the candidate's box centre; dot: did not move at all"
    figure.text(0.012, 1 - 45 / tall, words, va="center", color=GREY)
    return figure


def _headline(count: int, factor: float, largest: float) -> str:
    if not count:
        return "No box has a partner"
    if not largest:
        return f"{count} matched boxes, none moved"
    return f"{count} matched boxes, arrows × {factor:g}: the longest is {largest:.3g} pixels of the picture"
