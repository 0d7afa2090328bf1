"""Boxes on their picture, at the picture's own resolution: one engine's, or two engines' side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from workbench.detections import Detections, Match
from workbench.figures.canvas import DPI, drawable, new_figure, styled
from workbench.figures.labels import name_of
from workbench.figures.palette import (
    CANDIDATE,
    CLASS_COLOURS,
    ONLY_CANDIDATE,
    ONLY_REFERENCE,
    PAPER,
    REFERENCE,
    ink_on,
)
from workbench.figures.placing import Plate, place_label

SOLID: tuple[float, ...] = ()
DASHED, DOTTED = (4.0, 4.0), (1.0, 1.5)


@dataclass(frozen=True)
class Mark:
    """A box: corners x1, y1, x2, y2 in pixels of the picture, `dashes` in line widths; no plate without label."""

    corners: tuple[float, ...]
    colour: str
    dashes: tuple[float, ...]
    label: str = ""
    width: float = 2.0
    casing: bool = True


@styled
def draw_detections(picture: NDArray[np.uint8], detections: Detections, names: Sequence[str] = ()) -> Figure:
    """One engine's boxes with `class 0.62`, on picture uint8 (H, W, 3) RGB; the figure has W x H pixels."""
    rows = range(len(detections))
    colours = [CLASS_COLOURS[int(kind) % len(CLASS_COLOURS)] for kind in detections.classes]
    return _draw_marks(
        picture, [Mark(_corners(detections, i), colours[i], SOLID, _label(detections, i, names)) for i in rows]
    )


@styled
def draw_match(
    picture: NDArray[np.uint8], reference: Detections, candidate: Detections, match: Match, names: Sequence[str] = ()
) -> Figure:
    """Two engines' boxes: the reference's blue and solid, the candidate's orange and dashed on top of them.

    Boxes without a partner are dotted and thick: `⊖` is only in the reference, `⊕` only in the candidate.
    """
    lost, extra = match.only_reference.tolist(), match.only_candidate.tolist()
    marks = [
        *(Mark(_corners(candidate, i), CANDIDATE, DASHED, casing=False) for i in match.pairs.candidate.tolist()),
        *(
            Mark(_corners(reference, i), REFERENCE, SOLID, _label(reference, i, names))
            for i in match.pairs.reference.tolist()
        ),
        *(
            Mark(_corners(reference, i), REFERENCE, DOTTED, f"{ONLY_REFERENCE} {_label(reference, i, names)}", 3.2)
            for i in lost
        ),
        *(
            Mark(_corners(candidate, i), CANDIDATE, DOTTED, f"{ONLY_CANDIDATE} {_label(candidate, i, names)}", 3.2)
            for i in extra
        ),
    ]
    return _draw_marks(picture, marks)


def _corners(detections: Detections, row: int) -> tuple[float, ...]:
    return tuple(detections.xyxy[row].tolist())


def _label(detections: Detections, row: int, names: Sequence[str]) -> str:
    return f"{drawable(name_of(names, int(detections.classes[row])))} {detections.scores[row]:.2f}"


def _draw_marks(picture: NDArray[np.uint8], marks: list[Mark]) -> Figure:
    """The first mark is drawn last, on top; boxes of a broken model that are nowhere (inf, NaN) are left out."""
    figure, axes = _open_picture(picture)
    unit = max(min(max(picture.shape[:2]) / 640, 8.0), 0.6) * 72 / DPI
    placed = [mark for mark in marks if np.isfinite(mark.corners).all()]
    for mark in reversed(placed):
        _draw_box(axes, mark, unit)
    taken: list[Plate] = []
    for mark in placed:
        if mark.label:
            _draw_label(axes, mark, unit, taken)
    return figure


def _open_picture(picture: NDArray[np.uint8]) -> tuple[Figure, Axes]:
    """Axes in pixels of the picture, its left upper corner at 0, 0; one pixel of the figure is one of the picture."""
    height, width = picture.shape[:2]
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1), frameon=False)
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    return figure, axes


def _draw_box(axes: Axes, mark: Mark, unit: float) -> None:
    left, top, right, bottom = mark.corners
    width = unit * mark.width
    line = (0, mark.dashes) if mark.dashes else "-"
    box = Rectangle(
        (left, top), right - left, bottom - top, fill=False, edgecolor=mark.colour, linewidth=width, linestyle=line
    )
    if mark.casing:
        box.set_path_effects(
            [patheffects.Stroke(linewidth=width + 2 * unit, foreground=PAPER, alpha=0.8), patheffects.Normal()]
        )
    axes.add_patch(box)


def _draw_label(axes: Axes, mark: Mark, unit: float, taken: list[Plate]) -> None:
    text = axes.text(
        0, 0, mark.label, fontsize=9.5 * unit / 0.72, color=ink_on(mark.colour), va="center", ha="center",
        bbox={"boxstyle": "square,pad=0.2", "facecolor": mark.colour, "edgecolor": PAPER, "linewidth": unit * 0.8},
    )  # fmt: skip
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    plate = place_label((mark.corners[0], mark.corners[1]), _size_of(axes, text), (int(width), int(height)), taken)
    text.set_position((plate.left + plate.width / 2, plate.top + plate.height / 2))
    taken.append(plate)


def _size_of(axes: Axes, text: Text) -> tuple[float, float]:
    """Width and height of the label with its plate, in pixels of the picture."""
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    extent = text.get_window_extent(canvas.get_renderer())  # type: ignore[no-untyped-call]
    pad = 0.5 * float(text.get_fontsize()) * DPI / 72
    return extent.width + pad, extent.height + pad
