"""What a difference looks like when nothing known explains it: which channels, which pixels, and the straight line from
our values to theirs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workbench.diagnosis.attempt import Fault
from workbench.layers.base import Float32

SAME = 2e-4
"""In standard deviations of our output."""
MOST_NAMED = 8


def describe(fault: Fault) -> tuple[str, ...]:
    """A few sentences with numbers about one fault."""
    if fault.row is None:
        if fault.columns:
            return (
                f"wrong column: {', '.join(fault.columns)}, by up to {fault.residual.max_over_std:.3g} of their spread",
            )
        return (str(fault.residual),)
    if fault.row.value is None:
        return ("no value of theirs has its size",)
    return describe_arrays(fault.row.made.array[0], fault.row.signal.array[0])


def describe_arrays(ours: Float32, theirs: Float32) -> tuple[str, ...]:
    """`ours` and `theirs` (c, h, w): the layer computed from their own input, and what they have."""
    broken = ~np.isfinite(theirs) & np.isfinite(ours)
    sentences = []
    if broken.any():
        sentences.append(f"{int(broken.sum())} of {broken.size} of their values are NaN or infinite")
    usable = np.isfinite(theirs) & np.isfinite(ours)
    if not usable.any():
        return tuple(sentences)
    scale = float(ours[usable].std()) or 1.0
    wrong = (np.abs(theirs - ours) > SAME * scale) & usable
    channels = np.flatnonzero(wrong.any((1, 2)))
    named = ", ".join(map(str, channels[:MOST_NAMED])) + (", ..." if len(channels) > MOST_NAMED else "")
    sentences.append(
        f"{len(channels)} of {len(ours)} channels differ: {named}"
        if len(channels) < len(ours)
        else "all channels differ"
    )
    sentences.append(_where(wrong))
    sentences.append(_line(ours[usable], theirs[usable]))
    return tuple(sentence for sentence in sentences if sentence)


def _where(wrong: NDArray[np.bool_]) -> str:
    places: NDArray[np.bool_] = np.asarray(wrong.any(0))
    inside = places[1:-1, 1:-1]
    if min(places.shape) < 3 or not places.any():
        return ""
    if not inside.any():
        edges = {"top": places[0], "bottom": places[-1], "left": places[:, 0], "right": places[:, -1]}
        named = [name for name, edge in edges.items() if edge[1:-1].any()]
        return f"only the border differs: {', '.join(named) or 'the corners'}"
    return f"{100 * float(places.mean()):.0f} % of the pixels differ, {100 * float(wrong.mean()):.1f} % of the values"


def _line(ours: Float32, theirs: Float32) -> str:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    variance = float(a.var())
    if not variance:
        return ""
    slope = float(((a - a.mean()) * (b - b.mean())).mean() / variance)
    shift = float(b.mean() - slope * a.mean())
    rest = float((b - slope * a - shift).std() / (b.std() or 1.0))
    negative = a < 0
    text = f"theirs = {slope:.5g} x ours {shift:+.3g}, which leaves {rest:.2g} of their spread"
    if negative.any() and (~negative).any() and rest > SAME:
        halves = [float((a[part] @ b[part]) / (a[part] @ a[part] or 1.0)) for part in (negative, ~negative)]
        text += f"; where ours is negative theirs = {halves[0]:.4g} x ours, elsewhere {halves[1]:.4g} x"
    return text
