"""Fill polygons into a picture with exact antialiasing, in numpy alone.

Everything in the drawn scenes (shapes, lines, letters) is a set of rings filled by the even-odd rule, so one function
is the whole drawing engine. It is written here rather than taken from a drawing library so that a seed gives the same
bytes in every version of every library.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""A closed polygon: (n, 2) corners x, y in pixels; pixel (0, 0) covers 0..1 in both directions."""

SUBROWS = 4
"""Scan lines per row of pixels; horizontally the coverage is exact."""


def snap(points: Ring) -> Ring:
    """Round corners to 1/64 pixel, so that the last bit of a platform's sine cannot reach a pixel."""
    snapped: Ring = np.round(np.asarray(points, np.float64) * 64.0) / 64.0
    return snapped


def fill_rings(
    picture: NDArray[np.float32], rings: list[Ring], color: NDArray[np.float32], opacity: float = 1.0
) -> None:
    """Blend `color` (3,) into `picture` (H, W, 3), in place, where the even-odd rule says that `rings` are inside."""
    height, width = picture.shape[:2]
    corners = np.concatenate(rings)
    left, top = (max(math.floor(v), 0) for v in corners.min(axis=0))
    right = min(math.ceil(float(corners[:, 0].max())), width)
    bottom = min(math.ceil(float(corners[:, 1].max())), height)
    if left >= right or top >= bottom:
        return
    shifted = [snap(ring) - (left, top) for ring in rings]
    cover = coverage(shifted, bottom - top, right - left) * np.float32(opacity)
    part = picture[top:bottom, left:right]
    part += cover[:, :, None] * (color - part)


def coverage(rings: list[Ring], height: int, width: int) -> NDArray[np.float32]:
    """Return how much of each pixel of a (height, width) window lies inside `rings`, 0 to 1.

    Each scan line crosses the edges at sorted x; odd crossings enter, even ones leave. A crossing at x changes the
    coverage of pixel floor(x) by the part right of x and that of all pixels after it by one, so a running sum finishes
    the line.
    """
    lines, xs = _crossings(rings, height)
    order = np.lexsort((xs, lines))
    lines, xs = lines[order], np.clip(xs[order], 0.0, float(width))
    sign = 1.0 - 2.0 * (np.arange(len(xs)) % 2)
    pixel = np.floor(xs).astype(np.int64)
    part = xs - pixel
    steps = np.zeros((height * SUBROWS, width + 2))
    np.add.at(steps, (lines, pixel), sign * (1.0 - part))
    np.add.at(steps, (lines, pixel + 1), sign * part)
    inside = np.cumsum(steps, axis=1)[:, :width]
    cover: NDArray[np.float32] = inside.reshape(height, SUBROWS, width).mean(axis=1).astype(np.float32)
    return np.clip(cover, 0.0, 1.0)


def _crossings(rings: list[Ring], height: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (scan line, x) for every place where a scan line crosses an edge; each line has an even number of them."""
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    y = (np.arange(height * SUBROWS) + 0.5) / SUBROWS
    above_start, above_end = y[:, None] < start[None, :, 1], y[:, None] < end[None, :, 1]
    lines, edges = np.nonzero(above_start != above_end)
    (x0, y0), (x1, y1) = start[edges].T, end[edges].T
    xs = x0 + (y[lines] - y0) * (x1 - x0) / (y1 - y0)
    return lines, xs


def stroke(x0: float, y0: float, x1: float, y1: float, thickness: float) -> Ring:
    """Return the ring of a straight line of `thickness` pixels with square ends."""
    dx, dy = x1 - x0, y1 - y0
    length = max(math.hypot(dx, dy), 1e-6)
    ux, uy = dx / length * thickness / 2, dy / length * thickness / 2
    return np.array(
        [
            (x0 - ux - uy, y0 - uy + ux),
            (x1 + ux - uy, y1 + uy + ux),
            (x1 + ux + uy, y1 + uy - ux),
            (x0 - ux + uy, y0 - uy - ux),
        ]
    )
