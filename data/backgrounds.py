"""Busy backgrounds for the drawn scenes: a ground, then clutter that is none of the classes.

Grounds are gradients, stripes, checks and clouds; clutter is lines, dots and rows of made-up letters; grain goes over
it all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data.raster import fill_rings, stroke

Picture = NDArray[np.float32]
"""(H, W, 3), RGB, 0 to 1."""


def draw_background(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Return a new picture (height, width, 3) with a random ground and random clutter."""
    ground = GROUNDS[int(rng.integers(len(GROUNDS)))]
    picture = np.ascontiguousarray(ground(rng, width, height), np.float32)
    for clutter, chance in CLUTTER:
        if rng.uniform() < chance:
            clutter(rng, picture)
    return picture


def add_grain(rng: np.random.Generator, picture: Picture) -> Picture:
    """Return the picture with noise of every pixel and channel, up to 0.06 strong, still 0 to 1."""
    strength = np.float32(max(0.0, rng.uniform(-0.03, 0.06)))
    noise = rng.random(picture.shape, dtype=np.float32) - np.float32(0.5)
    noisy: Picture = np.clip(picture + noise * (2 * strength), 0.0, 1.0)
    return noisy


def _colors(rng: np.random.Generator, count: int, spread: float = 0.5) -> NDArray[np.float32]:
    """Return `count` colours (count, 3) around one random colour, at most `spread` / 2 away in each channel."""
    middle = rng.uniform(0.1, 0.9, 3)
    return np.clip(middle + rng.uniform(-0.5, 0.5, (count, 3)) * spread, 0.0, 1.0).astype(np.float32)


def _axis(width: int, height: int, angle: float) -> NDArray[np.float32]:
    """Return (H, W): the distance of each pixel along a direction, in parts of the longer side, centre at 0."""
    x = (np.arange(width) + 0.5 - width / 2) / max(width, height)
    y = (np.arange(height) + 0.5 - height / 2) / max(width, height)
    return (x[None, :] * round(math.cos(angle), 4) + y[:, None] * round(math.sin(angle), 4)).astype(np.float32)


def _mix(amount: NDArray[np.float32], colors: NDArray[np.float32]) -> Picture:
    """Return (H, W, 3): colour 0 where `amount` (H, W) is 0, colour 1 where it is 1."""
    mixed: Picture = colors[0] + (colors[1] - colors[0]) * amount[:, :, None]
    return mixed


def _gradient(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A linear gradient between two colours."""
    amount = np.clip(_axis(width, height, rng.uniform(0, 2 * math.pi)) + 0.5, 0.0, 1.0)
    return _mix(amount, _colors(rng, 2, 0.9))


def _glow(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A round gradient around a random place."""
    x = (np.arange(width) - rng.uniform(0, width)) / max(width, height)
    y = (np.arange(height) - rng.uniform(0, height)) / max(width, height)
    amount = np.sqrt(x[None, :] ** 2 + y[:, None] ** 2).clip(0.0, 1.0).astype(np.float32)
    return _mix(amount, _colors(rng, 2, 0.9))


def _stripes(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Stripes of two related colours."""
    waves = _axis(width, height, rng.uniform(0, 2 * math.pi)) * np.float32(rng.uniform(5, 30))
    sharp = np.float32(rng.uniform(2, 12))
    triangle_wave = np.abs(waves - np.floor(waves) - np.float32(0.5)) * 4 - 1
    return _mix(np.clip(triangle_wave * sharp + np.float32(0.5), 0.0, 1.0), _colors(rng, 2, 0.5))


def _checks(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A chessboard of two related colours."""
    cell = rng.uniform(0.03, 0.12) * max(width, height)
    parity = (np.arange(width) // cell)[None, :] + (np.arange(height) // cell)[:, None]
    return _mix((parity % 2).astype(np.float32), _colors(rng, 2, 0.35))


def _clouds(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Random colours on coarse grids, interpolated and added up."""
    picture = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 0.55), (8, 0.3), (20, 0.15)):
        grid = rng.uniform(0.0, 1.0, (cells + 1, cells + 1, 3)).astype(np.float32)
        picture += np.float32(weight) * _spread(grid, width, height)
    return picture


def _spread(grid: NDArray[np.float32], width: int, height: int) -> Picture:
    """Interpolate a (n, n, 3) grid linearly to (height, width, 3)."""
    for axis, size in ((0, height), (1, width)):
        at = np.linspace(0.0, grid.shape[axis] - 1.001, size)
        low = at.astype(np.int64)
        part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        grid = np.take(grid, low, axis) * (1 - part) + np.take(grid, low + 1, axis) * part
    return grid


def _lines(rng: np.random.Generator, picture: Picture) -> None:
    """Up to a dozen straight lines across the picture."""
    height, width = picture.shape[:2]
    for color in _colors(rng, int(rng.integers(2, 13)), 1.0):
        x0, x1 = rng.uniform(-0.1, 1.1, 2) * width
        y0, y1 = rng.uniform(-0.1, 1.1, 2) * height
        fill_rings(picture, [stroke(x0, y0, x1, y1, rng.uniform(0.8, 4.0))], color, rng.uniform(0.3, 0.9))


def _dots(rng: np.random.Generator, picture: Picture) -> None:
    """Up to eighty specks, far smaller than any object."""
    height, width = picture.shape[:2]
    for color in _colors(rng, int(rng.integers(10, 80)), 1.0):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.003, 0.008) * max(width, height)
        fill_rings(picture, [stroke(x - radius / 2, y, x + radius / 2, y, radius)], color, rng.uniform(0.4, 1.0))


def _letters(rng: np.random.Generator, picture: Picture) -> None:
    """A few rows of letters of an alphabet that does not exist: three strokes each on a 3 by 4 grid of knots."""
    height, width = picture.shape[:2]
    for color in _colors(rng, int(rng.integers(1, 5)), 1.0):
        em = rng.uniform(0.025, 0.06) * max(width, height)
        x, y = rng.uniform(-0.1, 0.7) * width, rng.uniform(0, 1) * height
        strokes = []
        for _ in range(int(rng.integers(4, 14))):
            for _ in range(3):
                (c0, c1), (r0, r1) = rng.integers(0, 3, 2), rng.integers(0, 4, 2)
                strokes.append(stroke(x + c0 * em / 4, y + r0 * em / 3, x + c1 * em / 4, y + r1 * em / 3, em * 0.12))
            x += em * (1.2 if rng.uniform() < 0.15 else 0.75)
        fill_rings(picture, strokes, color, 0.9)


GROUNDS: tuple[Callable[[np.random.Generator, int, int], Picture], ...] = (_gradient, _glow, _stripes, _checks, _clouds)
CLUTTER: tuple[tuple[Callable[[np.random.Generator, Picture], None], float], ...] = (
    (_lines, 0.6),
    (_dots, 0.4),
    (_letters, 0.6),
)
