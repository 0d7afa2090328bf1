"""A weights file as a strip of its spans: a lane for each field, so that the order inside a layer can be seen."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from workbench.figures.canvas import drawable, new_figure, styled
from workbench.figures.palette import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION
from workbench.ledger import Ledger, Span

FIELD_COLOURS = {
    "header": INK,
    "biases": ORANGE,
    "scales": GREEN,
    "rolling_mean": PURPLE,
    "rolling_variance": VERMILION,
    "weights": BLUE,
}
WIDTH, STRIP = 960, 0.83
"""Pixels of the figure, and the part of it that is the strip."""


@styled
def draw_ledger(
    ledger: Ledger, size_bytes: int | None = None, window: tuple[int, int] | None = None, title: str = ""
) -> Figure:
    """Bytes from left to right, a lane for each field in the order of the file; spans with room carry their layer.

    size_bytes: where the file really ends, marked where that is not where the cfg says. window: the bytes shown,
    [start, stop); all by default. A span narrower than two pixels is drawn two pixels wide.
    """
    start, stop = window or (0, max(ledger.bytes, size_bytes or 0))
    header = Span(-1, "header", 0, "header", 0, ledger.header_bytes, ())
    spans = [span for span in (header, *ledger.spans) if span.stop > start and span.start < stop]
    fields = list(dict.fromkeys(span.field for span in spans))
    height = 130 + 26 * len(fields)
    figure = new_figure(WIDTH, height)
    axes = figure.add_axes((0.14, 62 / height, STRIP, 1 - 110 / height))
    axes.set_xlim(start, stop)
    for span in spans:
        _draw_span(axes, span, fields.index(span.field), (stop - start) / (WIDTH * STRIP))
    if size_bytes is not None and size_bytes != ledger.bytes:
        axes.axvline(size_bytes, color=INK, linestyle="--", linewidth=1.4)
        axes.annotate(f"file ends at {size_bytes:#x} ", (size_bytes, 0), ha="right", va="center", annotation_clip=False)
    _draw_axes(axes, fields)
    heading = title or f"{_spaced(ledger.bytes)} bytes, {len(ledger.spans)} tensors"
    figure.text(0.14, 1 - 22 / height, drawable(heading), weight="bold", va="center", fontsize=11)
    return figure


def _draw_span(axes: Axes, span: Span, lane: int, pixel: float) -> None:
    """pixel: how many bytes one pixel is."""
    width = max(span.stop - span.start, 2 * pixel)
    edge = 0.5 if width > 6 * pixel else 0
    colour = FIELD_COLOURS.get(span.field, SKY)
    axes.broken_barh([(span.start, width)], (lane - 0.4, 0.8), facecolors=colour, edgecolors="white", linewidths=edge)
    start, stop = axes.get_xlim()
    left, right = max(span.start, start), min(span.stop, stop)
    for label in (f"{span.layer} {span.kind}", f"{span.layer}"):
        if span.layer >= 0 and right - left > (8 * len(label) + 8) * pixel:
            axes.text(
                (left + right) / 2,
                lane,
                drawable(label),
                ha="center",
                va="center",
                color="white",
                fontsize=8,
                weight="bold",
            )
            return


def _draw_axes(axes: Axes, fields: list[str]) -> None:
    start, stop = axes.get_xlim()
    axes.set_ylim(len(fields) - 0.5, -0.5)
    axes.set_yticks(range(len(fields)), [drawable(field) for field in fields])
    axes.tick_params(axis="y", length=0)
    # Powers of two, so that the hexadecimal numbers are round ones.
    axes.xaxis.set_major_locator(MultipleLocator(2.0 ** max(math.ceil(math.log2((stop - start) / 10)), 0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value):#x}\n{_spaced(int(value))}"))
    axes.set_xlabel("byte offset, hexadecimal and decimal")


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")
