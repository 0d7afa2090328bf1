"""Draw the scenes that the shipped detectors were trained on, are tested with, and that ship as pictures.

A scene is decided by two numbers, a stream and an index; the streams for training, for the held-out set and for the
shipped pictures never meet. `python -m data.draw` writes `data/pictures/` and its `labels.json` again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.backgrounds import add_grain, draw_background
from data.shapes import NAMES, Shape, make_shape

TRAINING, HELD_OUT, SHIPPED = 1, 2, 3
"""The streams."""

PICTURES = Path(__file__).parent / "pictures"

OVERLAP = 0.2
"""At most this part of the smaller of two boxes is covered by the other."""


@dataclass(frozen=True)
class Scene:
    """A drawn picture with the truth about it."""

    picture: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    boxes: NDArray[np.float32]
    """(n, 4): left, top, right, bottom in pixels of the picture."""
    classes: NDArray[np.int64]
    """(n,): indices into `NAMES`."""


def draw_scene(stream: int, index: int, size: tuple[int, int] | None = None) -> Scene:
    """Draw scene `index` of `stream`; `size` is (width, height) in pixels, random and never square when None."""
    rng = np.random.Generator(np.random.PCG64([stream, index]))
    width, height = size or _random_size(rng)
    picture = draw_background(rng, width, height)
    shapes: list[Shape] = []
    for _ in range(int(rng.integers(3, 10))):
        shape = _place(rng, picture, shapes)
        if shape is not None:
            shape.paint(picture)
            shapes.append(shape)
    grainy = add_grain(rng, picture)
    return Scene(
        np.round(grainy * np.float32(255.0)).astype(np.uint8),
        np.array([shape.box for shape in shapes], np.float32).reshape(-1, 4),
        np.array([shape.klass for shape in shapes], np.int64),
    )


def held_out(count: int) -> Iterator[Scene]:
    """Yield the first `count` scenes of the held-out set, which no training step has seen."""
    return (draw_scene(HELD_OUT, index) for index in range(count))


def _random_size(rng: np.random.Generator) -> tuple[int, int]:
    """Return a width and height: the longer side 240 to 640 pixels, the shorter at least half of it."""
    longer = int(rng.integers(240, 641))
    shorter = int(longer * rng.uniform(0.5, 0.97))
    return (longer, shorter) if rng.uniform() < 0.6 else (shorter, longer)


def _place(rng: np.random.Generator, picture: NDArray[np.float32], others: list[Shape]) -> Shape | None:
    """Return a shape that fits inside the picture and hardly overlaps `others`, or None after 20 tries."""
    height, width = picture.shape[:2]
    klass = int(rng.integers(len(NAMES)))
    for _ in range(20):
        size = float(np.exp(rng.uniform(np.log(0.14), np.log(0.42)))) * max(width, height)
        size = min(size, 0.75 * min(width, height))
        x, y = rng.uniform(0.0, width - size), rng.uniform(0.0, height - size)
        ground = picture[int(y) : int(y + size) : 4, int(x) : int(x + size) : 4].mean(axis=(0, 1))
        shape = make_shape(rng, klass, size, ground)
        span = shape.ring.max(axis=0)
        corner = np.array([x, y])
        corner = np.floor(np.minimum(corner, (width - span[0], height - span[1])) * 64.0) / 64.0
        moved = Shape(klass, shape.ring + corner, shape.color, shape.outline, shape.style, shape.band)
        if (corner >= 0).all() and all(_covered(moved, other) <= OVERLAP for other in others):
            return moved
    return None


def _covered(one: Shape, other: Shape) -> float:
    """Return the common area of two boxes as a part of the smaller one."""
    a, b = one.box, other.box
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


SHIPPED_PICTURES: dict[str, tuple[int, tuple[int, int]]] = {
    "clouds-333x250.png": (1, (333, 250)),
    "checks-417x299.png": (101, (417, 299)),
    "meadow-640x427.jpg": (204, (640, 427)),
    "notebook-301x401.png": (303, (301, 401)),
    "square-384x384.jpg": (407, (384, 384)),
    "dusk-512x384.jpg": (500, (512, 384)),
    "tower-270x540.jpg": (603, (270, 540)),
    "shelf-629x317.jpg": (703, (629, 317)),
}
"""File name: (index in the stream SHIPPED, (width, height))."""


def write_pictures(folder: Path = PICTURES) -> None:
    """Write the shipped pictures and `labels.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    for name, (index, size) in SHIPPED_PICTURES.items():
        scene = draw_scene(SHIPPED, index, size)
        (folder / name).write_bytes(encode_picture(scene.picture, name))
        labels[name] = scene_labels(scene)
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n", encoding="utf-8")


def encode_picture(picture: NDArray[np.uint8], name: str) -> bytes:
    """Return a file's bytes for a picture (H, W, 3): PNG or good JPEG, as the ending of `name` says."""
    file = io.BytesIO()
    kind = "PNG" if name.endswith(".png") else "JPEG"
    Image.fromarray(picture).save(file, kind, quality=90, subsampling=0, optimize=True)
    return file.getvalue()


def scene_labels(scene: Scene) -> dict[str, object]:
    """Return what `labels.json` says about a scene: its size and each object's class and box in pixels."""
    height, width = scene.picture.shape[:2]
    objects = [
        {"class": NAMES[klass], "box": [round(float(v), 2) for v in box]}
        for klass, box in zip(scene.classes, scene.boxes, strict=True)
    ]
    return {"width": width, "height": height, "objects": objects}


if __name__ == "__main__":
    write_pictures()
