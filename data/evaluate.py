"""How well an engine finds the drawn objects: mean average precision at an overlap of 0.5, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.draw import Scene
from data.shapes import NAMES
from workbench.runners import Runner

THRESH = 0.01
"""Detections below this probability are not asked for; average precision wants the doubtful ones too."""


Rows = list[dict[str, object]]


def measure_map(runner: Runner, scenes: Iterable[Scene]) -> float:
    """Return mAP@.5, 0 to 1: the average precision at IoU 0.5, averaged over the six classes.

    Pictures go through the engine's whole pipeline (`Runner.detect`) at their own sizes.
    """
    images: Rows = []
    truth: Rows = []
    found: Rows = []
    for number, scene in enumerate(scenes, start=1):
        height, width = scene.picture.shape[:2]
        images.append({"id": number, "width": width, "height": height})
        for klass, (left, top, right, bottom) in zip(scene.classes.tolist(), scene.boxes.tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            truth.append({"id": len(truth) + 1, "image_id": number, "category_id": klass, "bbox": box,
                          "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        detections = runner.detect(scene.picture, THRESH)
        corners, sizes = detections.xyxy[:, :2].tolist(), detections.boxes[:, 2:].tolist()
        for klass, score, corner, size in zip(
            detections.classes.tolist(), detections.scores.tolist(), corners, sizes, strict=True
        ):
            found.append({"image_id": number, "category_id": klass, "bbox": corner + size, "score": score})
    return _average_precision(images, truth, found)


def _average_precision(images: Rows, truth: Rows, found: Rows) -> float:
    """Hand everything to pycocotools, which prints, and take its second number: AP at IoU 0.5."""
    if not found:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": images,
            "annotations": truth,
            "categories": [{"id": klass, "name": name} for klass, name in enumerate(NAMES)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])
