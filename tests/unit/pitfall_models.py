"""What the tests of pitfalls share: a small network that has a place for every one, and how boxes are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from engine_models import random_model
from numpy.typing import NDArray

from data.train import DIALECTS, FOLDER
from workbench.comparison import compare_layers
from workbench.detections import Detections
from workbench.errors import RunnerFailed
from workbench.image import load_picture
from workbench.layers.base import Float32
from workbench.model import Model, open_model
from workbench.runners.torch import TorchRunner

Picture = NDArray[np.uint8]

MENAGERIE = """
[net]
width=64
height=48
channels=3
[convolutional]  # 0
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]  # 1
batch_normalize=1
filters=8
size=3
pad=1
activation=mish
[convolutional]  # 2
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[shortcut]  # 3
from=-3
activation=leaky
[maxpool]  # 4
size=2
stride=2
[route]  # 5
layers=-1
groups=2
group_id=1
[convolutional]  # 6
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[route]  # 7
layers=-1,4
[maxpool]  # 8
size=2
stride=1
[maxpool]  # 9
size=3
stride=1
[convolutional]  # 10
batch_normalize=1
filters=10
size=3
stride=2
pad=1
activation=swish
[convolutional]  # 11
filters=21
size=1
activation=linear
[yolo]  # 12
mask=3,4,5
anchors=5,9, 12,7, 14,20, 22,31, 40,24, 50,45
classes=2
num=6
scale_x_y=1.2
[route]  # 13
layers=10
[convolutional]  # 14
batch_normalize=1
filters=6
size=1
activation=leaky
[upsample]  # 15
stride=2
[route]  # 16
layers=-1,9
[convolutional]  # 17
filters=21
size=1
activation=logistic
[yolo]  # 18
mask=1,2,3
anchors=5,9, 12,7, 14,20, 22,31, 40,24, 50,45
classes=2
num=6
new_coords=1
"""


def open_menagerie(dialect: str = "alexeyab") -> Model:
    """Random weights; every pitfall but those of the dialect finds something to spoil."""
    return random_model("\n".join(line.split("  #")[0] for line in MENAGERIE.strip().splitlines()), dialect)


def open_shipped(name: str) -> Model:
    """The shipped model in the dialect it was trained for."""
    return open_model(FOLDER / f"{name}.cfg", FOLDER / f"{name}.weights", dialect=DIALECTS[name])


def load_shipped_pictures() -> dict[str, Picture]:
    """The eight drawn pictures."""
    return {path.stem: load_picture(path) for path in sorted((Path(FOLDER) / "pictures").glob("*-*.*"))}


def detect(model: Model, picture: Picture, thresh: float = 0.25) -> Detections:
    """The model's boxes; none where its heads answer NaN, which Darknet passes over in silence."""
    try:
        return TorchRunner(model).detect(picture, thresh)
    except RunnerFailed as error:
        assert "no finite numbers" in str(error)
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


def first_difference(healthy: Model, faulty: Model, x: Float32, limit: float = 1e-4) -> int | None:
    """The first layer whose output differs on the same input, or has another shape; None where none does."""
    ours, theirs = TorchRunner(healthy).run(x), TorchRunner(faulty).run(x)
    for layer in healthy.network.layers:
        if ours[layer.index].shape != theirs[layer.index].shape:
            return layer.index
        one = {layer.index: ours[layer.index]}
        if not compare_layers(healthy, one, theirs)[0].max_over_std <= limit:
            return layer.index
    return None
