"""Fill polygons into a picture with exact antialiasing, in numpy alone.

Everything in the drawn scenes (shapes, lines, letters) is a set of closed rings, so one function is the whole
drawing engine. It is written here rather than taken from a drawing library so that a seed gives the same
bytes in every version of every library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""A closed polygon: (n, 2) corners x, y in pixels; pixel (0, 0) covers 0..1 in both directions."""

SUBROWS = 4
"""Scan lines per row of pixels; horizontally the coverage is exact."""

BAND = 32
"""Rows filled at a time, so that a long slanting line costs the pixels around it and not its whole bounding box."""


def snap(points: Ring) -> Ring:
    """Round corners to 1/64 pixel, so that the last bit of a platform's sine cannot reach a pixel."""
    snapped: Ring = np.round(np.asarray(points, np.float64) * 64.0) / 64.0
    return snapped


def fill_rings(
    picture: NDArray[np.float32], rings: Sequence[Ring], color: NDArray[np.float32], opacity: float = 1.0
) -> None:
    """Blend `color` (3,) into `picture` (H, W, 3), in place, wherever `rings` wind around a pixel.

    Rings of the same direction add up; a ring inside another with the opposite direction is a hole.
    """
    height, width = picture.shape[:2]
    lines, xs, turns = _crossings([snap(ring) for ring in rings], height)
    xs = np.clip(xs, 0.0, float(width))
    bands = lines // (BAND * SUBROWS)
    for band in np.unique(bands):
        chosen = bands == band
        top, left, right = int(band) * BAND, math.floor(xs[chosen].min()), math.ceil(xs[chosen].max())
        rows = min(BAND, height - top)
        cover = coverage(lines[chosen] - top * SUBROWS, xs[chosen] - left, turns[chosen], rows, right - left)
        part = picture[top : top + rows, left:right]
        part += (cover * np.float32(opacity))[:, :, None] * (color - part)


def coverage(
    lines: NDArray[np.int64], xs: NDArray[np.float64], turns: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float32]:
    """Return how much of each pixel of a (height, width) window is wound around, 0 to 1, from the crossings in it.

    A crossing at x changes the winding of pixel floor(x) by the part right of x and that of all pixels after it by one,
    so a running sum along the scan line finishes it.
    """
    pixel = np.floor(xs).astype(np.int64)
    part = xs - pixel
    steps = np.zeros((height * SUBROWS, width + 2))
    np.add.at(steps, (lines, pixel), turns * (1.0 - part))
    np.add.at(steps, (lines, pixel + 1), turns * part)
    inside = np.minimum(np.abs(np.cumsum(steps, axis=1)[:, :width]), 1.0)
    cover: NDArray[np.float32] = inside.reshape(height, SUBROWS, width).mean(axis=1).astype(np.float32)
    return cover


def _crossings(
    rings: Sequence[Ring], height: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (scan line, x, +1 downwards or -1 upwards) for every place where a scan line crosses an edge."""
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    first = max(math.floor(start[:, 1].min()) * SUBROWS, 0)
    last = min(math.ceil(start[:, 1].max()), height) * SUBROWS
    y = (np.arange(first, max(last, first)) + 0.5) / SUBROWS
    above_start, above_end = y[:, None] < start[None, :, 1], y[:, None] < end[None, :, 1]
    lines, edges = np.nonzero(above_start != above_end)
    (x0, y0), (x1, y1) = start[edges].T, end[edges].T
    xs = x0 + (y[lines] - y0) * (x1 - x0) / (y1 - y0)
    return lines + first, xs, np.sign(y1 - y0)


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
