"""Scenes as a network sees them: drawn, letterboxed or stretched to its input, kept in memory as bytes.

Drawing costs more than a training step, so the scenes are drawn once, by two processes, and shown again in other
orientations: a mirrored or turned scene is as good as a new one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from data.draw import TRAINING, draw_scene
from workbench.image import Preprocessing

MOST_OBJECTS = 9
"""No scene has more."""


@dataclass(frozen=True)
class SceneSet:
    """Scenes at one network's input size."""

    pictures: NDArray[np.uint8]
    """(n, 3, height, width)"""
    boxes: NDArray[np.float32]
    """(n, 9, 4): centre x, centre y, width, height relative to the input, 0 to 1; unused rows are 0."""
    classes: NDArray[np.int64]
    """(n, 9): class numbers; unused rows are -1."""

    def __len__(self) -> int:
        return len(self.pictures)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield pictures float32 (size, 3, h, w), boxes and classes in random order and orientation; drops the rest."""
        order = rng.permutation(len(self))
        for start in range(0, len(self) - size + 1, size):
            chosen = np.sort(order[start : start + size])
            pictures = torch.from_numpy(self.pictures[chosen]).float().div_(255.0)
            boxes, classes = torch.from_numpy(self.boxes[chosen]), torch.from_numpy(self.classes[chosen])
            yield (*turn(pictures, boxes, rng), classes)


def turn(pictures: torch.Tensor, boxes: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror a batch left to right, top to bottom, and for a square input along the diagonal, each by a coin's toss."""
    boxes = boxes.clone()
    if rng.uniform() < 0.5:
        pictures, boxes[..., 0] = pictures.flip(3), 1 - boxes[..., 0]
    if rng.uniform() < 0.5:
        pictures, boxes[..., 1] = pictures.flip(2), 1 - boxes[..., 1]
    if pictures.shape[2] == pictures.shape[3] and rng.uniform() < 0.5:
        pictures, boxes = pictures.transpose(2, 3), boxes[..., [1, 0, 3, 2]]
    light = torch.from_numpy(rng.uniform(0.85, 1.15, (len(pictures), 1, 1, 1)).astype(np.float32))
    return (pictures * light).clamp_(0.0, 1.0), boxes


def draw_scenes(
    count: int, inputs: Sequence[Preprocessing], progress: Callable[[int], None], processes: int = 2
) -> list[SceneSet]:
    """Draw `count` training scenes and return one SceneSet for each of `inputs`; `progress` hears each index."""
    sets = [
        SceneSet(
            np.empty((count, 3, each.height, each.width), np.uint8),
            np.zeros((count, MOST_OBJECTS, 4), np.float32),
            np.full((count, MOST_OBJECTS), -1, np.int64),
        )
        for each in inputs
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for index, views in enumerate(pool.imap(partial(_draw, tuple(inputs)), range(count), chunksize=16)):
            for each, (picture, boxes, classes) in zip(sets, views, strict=True):
                each.pictures[index] = picture
                each.boxes[index, : len(boxes)] = boxes
                each.classes[index, : len(boxes)] = classes
            progress(index)
    return sets


View = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]


def _draw(inputs: tuple[Preprocessing, ...], index: int) -> list[View]:
    """Draw one training scene and return (picture, boxes, classes) for each network input."""
    scene = draw_scene(TRAINING, index)
    height, width = scene.picture.shape[:2]
    corners = scene.boxes.reshape(-1, 2, 2)
    boxes = np.concatenate([corners.mean(axis=1), corners[:, 1] - corners[:, 0]], axis=1)
    return [
        (
            np.round(each.apply(scene.picture) * np.float32(255.0)).astype(np.uint8),
            each.placement(width, height).to_network(boxes),
            scene.classes,
        )
        for each in inputs
    ]
