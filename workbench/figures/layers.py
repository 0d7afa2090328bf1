"""The difference of every layer along the network: where two engines part company."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.comparison import LayerDifference
from workbench.figures.canvas import drawable, new_figure, styled
from workbench.figures.palette import FAINT, GREY, INK, KIND_STYLES, VERMILION, style_of
from workbench.figures.scale import LogScale, first_beyond, scale_for


@styled
def draw_layers(rows: Sequence[LayerDifference], limit: float | None = None, title: str = "") -> Figure:
    """max|difference| / std(reference) of each layer on a logarithmic axis, `limit` as a line.

    Layers without any difference stand at the floor, infinite ones at the ceiling; the first beyond the limit is named.
    """
    scale = scale_for([row.max_over_std for row in rows], limit)
    figure = new_figure(960, 420)
    axes = figure.add_axes((0.08, 0.13, 0.89, 0.68))
    _draw_axes(axes, scale, rows)
    _draw_rows(axes, scale, rows)
    if limit is not None:
        axes.axhline(limit, color=VERMILION, linewidth=1.2, linestyle=(0, (6, 3)))
        axes.axhspan(limit, scale.ceiling, color=VERMILION, alpha=0.06, linewidth=0)
        axes.annotate(f"limit {limit:g}", (1, limit), (-3, 3), axes.get_yaxis_transform(), "offset points", ha="right")
        _mark_first(axes, scale, rows, limit)
    figure.text(0.08, 0.95, drawable(title or "Difference of each layer"), weight="bold", va="center", fontsize=11)
    if rows:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.01), ncols=len(KIND_STYLES), handletextpad=0.3, columnspacing=1.2
        )
    return figure


def _draw_axes(axes: Axes, scale: LogScale, rows: Sequence[LayerDifference]) -> None:
    indices = [row.index for row in rows] or [0]
    axes.set_yscale("log")
    axes.set_ylim(scale.floor / 1.6, scale.ceiling * 1.6)
    axes.set_yticks(list(scale.ticks), [label for _, label in scale.labels()], minor=False)
    axes.minorticks_off()
    axes.set_xlim(indices[0] - 0.8, indices[-1] + 0.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=24, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    axes.set_xlabel("layer")
    axes.set_ylabel("max|difference| / std(reference)")


def _draw_rows(axes: Axes, scale: LogScale, rows: Sequence[LayerDifference]) -> None:
    heights = [scale.place(row.max_over_std) for row in rows]
    axes.plot([row.index for row in rows], heights, color=FAINT, linewidth=1, zorder=1)
    for style in KIND_STYLES:
        chosen = [(row.index, y) for row, y in zip(rows, heights, strict=True) if style_of(row.kind) is style]
        if chosen:
            x, y = zip(*chosen, strict=True)
            size = 90 if style.marker == "*" else 36
            axes.scatter(
                x,
                y,
                size,
                style.colour,
                marker=style.marker,
                label=style.label,
                edgecolors="white",
                linewidths=0.5,
                zorder=3,
            )
    if not rows:
        axes.text(0.5, 0.5, "no layer was compared", transform=axes.transAxes, ha="center", color=GREY)


def _mark_first(axes: Axes, scale: LogScale, rows: Sequence[LayerDifference], limit: float) -> None:
    row = first_beyond(rows, limit)
    if row is None:
        return
    y = scale.place(row.max_over_std)
    axes.axvline(row.index, color=INK, linewidth=0.8, linestyle=":", zorder=0)
    axes.scatter([row.index], [y], 160, marker="o", facecolors="none", edgecolors=INK, linewidths=1.2, zorder=4)
    right = row.index > (rows[0].index + rows[-1].index) / 2
    above = math.log(y / scale.floor) < 0.5 * math.log(scale.ceiling / scale.floor)
    name = drawable(f"layer {row.index} {row.kind}")
    axes.annotate(
        f"first divergence: {name}\ncfg line {row.line}, {row.max_over_std:.3g} std",
        (row.index, y),
        (-12 if right else 12, 14 if above else -20),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if above else "top",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": FAINT, "alpha": 0.95},
        zorder=5,
    )
