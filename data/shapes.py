"""The six classes to be found: what each shape looks like and which colours it may have.

Four classes are told apart by their outline alone. The two circles differ in nothing but colour, and exchanging the red
and blue channels turns one exactly into the other: a model fed BGR by mistake shows it at a glance.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.raster import Ring, fill_rings, snap

NAMES = ("red circle", "blue circle", "rectangle", "triangle", "star", "cross")
"""In the order of the class numbers, as in `shapes-tiny3.names`."""

NEUTRAL = ((0.05, 0.05, 0.05), (0.96, 0.96, 0.96))
"""Outlines are black or white: no colour that could turn a circle into another class."""


@dataclass(frozen=True)
class Shape:
    """One object of a scene: its class, its ring, and how it is painted. Coordinates are pixels of the picture."""

    klass: int
    ring: Ring
    color: NDArray[np.float32]
    outline: NDArray[np.float32]
    style: str
    band: float
    """Width of the outline as a part of the way from the nearest edge to the middle, 0 to 1."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the ring, in pixels."""
        (x0, y0), (x1, y1) = self.ring.min(axis=0), self.ring.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    def paint(self, picture: NDArray[np.float32]) -> None:
        """Draw into a (H, W, 3) picture, in place."""
        inner = inset(self.ring, self.band)
        if self.style == "hollow":
            fill_rings(picture, [self.ring, inner[::-1]], self.color)
        elif self.style == "bordered":
            fill_rings(picture, [self.ring], self.outline)
            fill_rings(picture, [inner], self.color)
        else:
            fill_rings(picture, [self.ring], self.color)


def make_shape(rng: np.random.Generator, klass: int, size: float, background: NDArray[np.float32]) -> Shape:
    """Return a random shape of class `klass`, about `size` pixels across, with its box's corner at the origin.

    `background` (3,) is the colour it will stand on, 0 to 1: the shape's colour is kept away from it.
    """
    unit = OUTLINES[klass](rng)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    ring = snap(unit @ turn.T * (size / 2))
    ring = ring - ring.min(axis=0)
    color = _contrasting(rng, klass, background)
    outline = np.asarray(NEUTRAL[int(background.mean() < 0.5)], np.float32)
    style = ("plain", "bordered", "hollow")[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    if float(np.abs(color - background).max()) < 0.4:
        style = "bordered"
    return Shape(klass, ring, color, outline, style, float(rng.uniform(0.3, 0.5)))


def inset(ring: Ring, part: float) -> Ring:
    """Move every edge of a ring inwards by `part` (0 to 1) of the least distance from the middle to an edge's line."""
    edge = np.roll(ring, -1, axis=0) - ring
    normal = np.stack([-edge[:, 1], edge[:, 0]], axis=1) / np.hypot(edge[:, 0], edge[:, 1])[:, None]
    reach = ((ring.mean(axis=0) - ring) * normal).sum(axis=1)
    distance = part * float(np.abs(reach).min()) * np.sign(np.median(reach))
    before = np.roll(normal, 1, axis=0)
    corner = (normal + before) / (1.0 + (normal * before).sum(axis=1))[:, None]
    return snap(ring + corner * distance)


def _contrasting(rng: np.random.Generator, klass: int, background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw colours until one differs from the background by 0.4 in some channel, or give the last after 12 tries."""
    for _ in range(12):
        color = _color(rng, klass)
        if float(np.abs(color - background).max()) >= 0.4:
            break
    return color


def _color(rng: np.random.Generator, klass: int) -> NDArray[np.float32]:
    """Return a class's colour: hue -20..25 degrees is red, its mirror image 215..260 blue, the rest any hue at all."""
    if klass < 2:
        hue, saturation, value = rng.uniform(-20.0, 25.0), rng.uniform(0.75, 1.0), rng.uniform(0.6, 1.0)
        red, green, blue = colorsys.hsv_to_rgb(hue / 360.0 % 1.0, saturation, value)
        return np.array((red, green, blue) if klass == 0 else (blue, green, red), np.float32)
    rgb = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.0, 1.0), rng.uniform(0.25, 1.0))
    return np.array(rgb, np.float32)


def _circle(rng: np.random.Generator) -> Ring:
    """A circle, at most a tenth wider than high."""
    angles = np.arange(48) * (2.0 * math.pi / 48)
    return np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.9, 1.0)], axis=1)


def _rectangle(rng: np.random.Generator) -> Ring:
    """A rectangle whose sides relate as 0.4 to 1."""
    half = rng.uniform(0.4, 1.0)
    return np.array([(-1, -half), (1, -half), (1, half), (-1, half)]) * 0.9


def _triangle(rng: np.random.Generator) -> Ring:
    """A triangle no flatter than one with equal sides times 0.7, its top moved sideways."""
    top = rng.uniform(-0.35, 0.35)
    height = rng.uniform(0.75, 1.05)
    return np.array([(-1.0, 0.6), (1.0, 0.6), (top, 0.6 - 1.6 * height)])


def _star(rng: np.random.Generator) -> Ring:
    """A star with five points."""
    angles = np.arange(10) * (math.pi / 5)
    radius = np.where(np.arange(10) % 2 == 0, 1.05, rng.uniform(0.38, 0.5))
    return np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1)


def _cross(rng: np.random.Generator) -> Ring:
    """A plus sign, its arms' half width 0.22 to 0.36 of their length."""
    a = rng.uniform(0.22, 0.36)
    quarter = [(a, a), (a, 1.0), (-a, 1.0), (-a, a), (-1.0, a), (-1.0, -a)]
    return np.array(quarter + [(-x, -y) for x, y in quarter])


OUTLINES: tuple[Callable[[np.random.Generator], Ring], ...] = (_circle, _circle, _rectangle, _triangle, _star, _cross)
"""By class number: a ring of about unit radius."""
