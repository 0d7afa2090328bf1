"""Small pictures, boxes and layers, and what can be read back from a figure, for the tests of the figures."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from workbench.comparison import LayerDifference
from workbench.detections import Detections
from workbench.figures import (
    to_png,
)


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """What the PNG really holds, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(to_png(figure))).convert("RGB"))


def words(figure: Figure) -> list[str]:
    """Every text of the figure and of its axes."""
    return [text.get_text() for owner in (figure, *figure.axes) for text in owner.texts]


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 90, np.uint8)


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Rows of centre x, centre y, width, height, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def layer(index: int, kind: str, over_std: float, line: int = 0) -> LayerDifference:
    return LayerDifference(index, kind, line or 10 * index + 1, over_std / 2, over_std, (0, 0, 0), 64)
