"""One array as strangers store it: the ways in which the values of a layer (c, h, w) lie in somebody else's tensor, and
how far two arrays are apart. Names and ranks are ignored; only the number of values and their order count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.comparison import scale_of
from workbench.layers.base import Float32, Shape

SAMPLES = 768
"""Values compared before all of them are."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How the values are stored: as an array `stored`, whose axes in the order `axes` are (c, h, w) once joined."""

    name: str
    stored: tuple[int, ...]
    axes: tuple[int, ...]
    shape: Shape

    def view(self, array: Array) -> Float32:
        """Their array, whatever its rank -> float32 (1, c, h, w)."""
        moved = array.reshape(self.stored).transpose(self.axes)
        return np.ascontiguousarray(moved.reshape(1, *self.shape), np.float32)


@dataclass(frozen=True)
class Residual:
    """How far an array is from a reference: in units of the reference's standard deviation, and their correlation.

    All is counted over finite values; where one side alone has NaN or infinity the distances are infinite.
    """

    max_over_std: float
    rms_over_std: float
    correlation: float
    max_abs: float = 0.0
    finite: bool = True

    def __str__(self) -> str:
        return f"max {self.max_over_std:.3g} std, rms {self.rms_over_std:.3g} std, correlation {self.correlation:.5f}"


NOTHING_ALIKE = Residual(float("inf"), float("inf"), 0.0, float("inf"))


@lru_cache(maxsize=4096)
def layouts_of(shape: Shape, anchors: int = 0) -> tuple[Layout, ...]:
    """Every way that exporters store (c, h, w): NCHW, NHWC, and for heads one anchor after the other with the entries
    last; flattened or cut into more axes, these are the same values in the same order."""
    c, h, w = shape
    found = [Layout("NCHW", shape, (0, 1, 2), shape)]
    if c > 1 and h * w > 1:
        found.append(Layout("NHWC", (h, w, c), (2, 0, 1), shape))
    if anchors > 1 and h * w > 1 and c % anchors == 0:
        found.append(Layout("anchor, y, x, entry", (anchors, h, w, c // anchors), (0, 3, 1, 2), shape))
    return tuple(found)


@lru_cache(maxsize=4096)
def _sample_of(layout: Layout) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions in the flat (c, h, w) and the same values' positions in what is stored."""
    size = int(np.prod(layout.shape))
    if size <= SAMPLES:
        here = np.arange(size)
    else:
        here = np.sort(np.random.default_rng(0).choice(size, SAMPLES, replace=False))
    where = np.unravel_index(here, tuple(layout.stored[axis] for axis in layout.axes))
    stored = [part for _, part in sorted(zip(layout.axes, where, strict=True), key=lambda pair: pair[0])]
    return here, np.asarray(np.ravel_multi_index(stored, layout.stored))


def compare_samples(reference: Float32, theirs: Array, layout: Layout) -> Residual:
    """A cheap look: some hundred values of each."""
    here, there = _sample_of(layout)
    return residual_of(reference.reshape(-1)[here], theirs.reshape(-1)[there].astype(np.float32))


def residual_of(reference: Array, theirs: Array) -> Residual:
    """The distance of two arrays of equal size."""
    reference, theirs = reference.reshape(-1), theirs.reshape(-1)
    usable = np.isfinite(reference) & np.isfinite(theirs)
    whole = bool(usable.all())
    if not whole:
        same = np.array_equal(np.isnan(reference), np.isnan(theirs))
        if not same or not np.array_equal(reference[np.isinf(reference)], theirs[np.isinf(reference)]):
            return NOTHING_ALIKE
        if not usable.any():
            return Residual(0.0, 0.0, 1.0, finite=False)
        reference, theirs = reference[usable], theirs[usable]
    with np.errstate(all="ignore"):
        difference = theirs - reference
        scale = scale_of(reference)
        largest = float(np.abs(difference).max(initial=0))
        rms = float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))
        correlation = _correlation(reference, theirs, difference)
    return Residual(largest / scale, rms / scale, correlation, largest, whole)


def _correlation(reference: Array, theirs: Array, difference: Array) -> float:
    """From the variances of both and of their difference, without another product of long arrays."""
    ours, other, apart = (float(array.var(dtype=np.float64)) for array in (reference, theirs, difference))
    if not ours or not other:
        return 1.0 if not difference.any() else 0.0
    found = (ours + other - apart) / (2 * np.sqrt(ours * other))
    return float(found) if np.isfinite(found) else 0.0
