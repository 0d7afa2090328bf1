"""The layer chart as SVG in the page's own colours: the twin of `figures.draw_layers`, with a word for each point."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.comparison import LayerDifference
from workbench.figures.palette import KIND_STYLES, KindStyle, style_of
from workbench.figures.scale import LogScale, first_beyond, scale_for
from workbench.report.markup import number, text

WIDTH, HEIGHT = 1000, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 984, 16, 332


def layer_chart(rows: Sequence[LayerDifference], limit: float | None) -> str:
    """Legend and chart; a point's title tells its layer. The table beside it holds the same numbers."""
    scale = scale_for([layer.max_over_std for layer in rows], limit)
    parts = [_grid(scale), _limit(scale, limit), _line(scale, rows), _first(scale, rows, limit)]
    parts += [_point(scale, rows, layer) for layer in rows] + [_layer_numbers(rows)]
    present = {style_of(layer.kind).key for layer in rows}
    legend = "".join(_key(style) for style in KIND_STYLES if style.key in present)
    title = f'<title id="chart-title">{text(_summary(rows, limit))}</title>'
    return (
        f'<div class="legend">{legend}</div>'
        f'<div class="chart" role="region" tabindex="0" aria-label="Chart of all layers">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="chart-title">{title}'
        + "\n".join(parts) + "</svg></div>"
    )  # fmt: skip


def _summary(rows: Sequence[LayerDifference], limit: float | None) -> str:
    worst = max(rows, key=lambda layer: layer.max_over_std)
    said = (
        f"{len(rows)} layers differ by at most {number(worst.max_over_std)} standard deviations, at layer {worst.index}"
    )
    if limit is None:
        return said
    first = first_beyond(rows, limit)
    return f"{said}; " + (
        f"layer {first.index} [{first.kind}] is the first beyond the limit" if first else "all are within the limit"
    )


def _x(rows: Sequence[LayerDifference], index: int) -> float:
    first, last = rows[0].index, rows[-1].index
    return LEFT + 16 + (RIGHT - LEFT - 32) * (index - first) / max(last - first, 1)


def _y(scale: LogScale, value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * scale.fraction(value)


def _grid(scale: LogScale) -> str:
    lines = []
    for value, label in scale.labels():
        y = _y(scale, value)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        lines.append(f'<text class="tick end" x="{LEFT - 8}" y="{y + 4:.1f}">{label}</text>')
    return "".join(lines)


def _limit(scale: LogScale, limit: float | None) -> str:
    if limit is None:
        return ""
    y = _y(scale, limit)
    return (
        f'<rect class="beyond" x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{y - TOP:.1f}"/>'
        f'<path class="limit" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        f'<text class="limit-name end" x="{RIGHT - 4}" y="{y - 6:.1f}">limit {number(limit)}</text>'
    )


def _line(scale: LogScale, rows: Sequence[LayerDifference]) -> str:
    points = " ".join(f"{_x(rows, layer.index):.1f},{_y(scale, layer.max_over_std):.1f}" for layer in rows)
    return f'<polyline class="thread" points="{points}"/>'


def _point(scale: LogScale, rows: Sequence[LayerDifference], layer: LayerDifference) -> str:
    style, x, y = style_of(layer.kind), _x(rows, layer.index), _y(scale, layer.max_over_std)
    return (
        f'<g transform="translate({x:.1f} {y:.1f})"><title>{text(layer)}</title>'
        f'<circle class="hit" r="11"/><path class="k-{style.key}" d="{style.path}"/></g>'
    )


def _first(scale: LogScale, rows: Sequence[LayerDifference], limit: float | None) -> str:
    """The ring, the plumb line and the name of the first layer beyond the limit."""
    first = first_beyond(rows, limit) if limit is not None else None
    if first is None:
        return ""
    x, y = _x(rows, first.index), _y(scale, first.max_over_std)
    on_right = x > (LEFT + RIGHT) / 2
    below = y < (TOP + BOTTOM) / 2
    at, anchor = (x - 16, "end") if on_right else (x + 16, "")
    lines = (
        f"first divergence: layer {first.index} {first.kind}",
        f"cfg line {first.line}, {number(first.max_over_std)} std",
    )
    base = y + 44 if below else y - 48
    said = "".join(
        f'<text class="first {anchor}" x="{at:.1f}" y="{base + 18 * i:.1f}">{text(line)}</text>'
        for i, line in enumerate(lines)
    )
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="11"/>'
    return f'<path class="plumb" d="M{x:.1f} {TOP}V{BOTTOM}"/>{ring}{said}'


def _layer_numbers(rows: Sequence[LayerDifference]) -> str:
    first, last = rows[0].index, rows[-1].index
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if (last - first) / step <= 26), 200)
    marks = [
        f'<text class="tick middle" x="{_x(rows, index):.1f}" y="{BOTTOM + 20}">{index}</text>'
        for index in range(-(-first // step) * step, last + 1, step)
    ]
    return "".join(marks) + f'<text class="tick middle" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}">layer</text>'


def _key(style: KindStyle) -> str:
    mark = f'<svg viewBox="-7 -7 14 14" aria-hidden="true"><path class="k-{style.key}" d="{style.path}"/></svg>'
    return f"<span>{mark}{text(style.label)}</span>"
