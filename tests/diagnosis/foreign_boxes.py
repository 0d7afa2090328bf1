"""The whole pipeline of such a port, from photograph to boxes in its pixels, with a suppression of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from tests.diagnosis.foreign_head import Exported

Array = np.ndarray[Any, np.dtype[np.float32]]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class ForeignDetector:
    """Photograph uint8 (H, W, 3) RGB in; rows of score, class and box (centre and size, pixels of it) out."""

    def __init__(self, module: Exported, letterbox: bool, thresh: float, mistakes: Iterable[str]) -> None:
        assert module.layout == "corners relative"
        self.module, self.thresh, self.mistakes = module.eval(), thresh, frozenset(mistakes)
        self.width, self.height = module.net.size
        stretched = {"stretch", "stretch-corrected-as-letterbox"} & self.mistakes
        self.letterbox = (letterbox or "letterbox" in self.mistakes) and not stretched

    def detect(self, picture: np.ndarray[Any, np.dtype[np.uint8]]) -> list[dict[str, Any]]:
        """As a list that `json` can write."""
        with torch.no_grad():
            corners, scores = self.module(self.prepare(picture))
        x1, y1, x2, y2 = corners[0, :, 0].double().numpy().T
        boxes = self._to_picture(np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1), picture.shape)
        keep = self._suppress(boxes, scores[0].numpy())
        return [
            {"score": float(s), "class": int(k), **dict(zip("xywh", map(float, boxes[row]), strict=True))}
            for row, k, s in keep
        ]

    # ------------------------------------------------------------------------------------------ picture to tensor

    def prepare(self, picture: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
        """The network's input (1, 3, h, w)."""
        new_w, new_h = self._inside(picture.shape) if self.letterbox else (self.width, self.height)
        resized = torch.from_numpy(self._resize(picture, new_w, new_h).astype(np.float32) / np.float32(255)).permute(
            2, 0, 1
        )
        fill = (
            0.0 if "letterbox-fill-0" in self.mistakes else 114 / 255 if "letterbox-fill-114" in self.mistakes else 0.5
        )
        x = torch.full((1, 3, self.height, self.width), fill)
        left, top = (self.width - new_w) // 2, (self.height - new_h) // 2
        if "letterbox-corner" in self.mistakes:
            left = top = 0
        x[0, :, top : top + new_h, left : left + new_w] = resized
        if "bgr" in self.mistakes:
            x = x.flip(1)
        if "imagenet-normalised" in self.mistakes:
            x = (x - MEAN) / STD
        if "not-divided" in self.mistakes:
            x = x * 255
        if "divided-by-225" in self.mistakes:
            x = x * 255 / 225
        if "hwc" in self.mistakes:
            x = x.permute(0, 2, 3, 1).reshape(x.shape)
        return x.contiguous()

    def _inside(self, shape: tuple[int, ...]) -> tuple[int, int]:
        h, w = shape[:2]
        if "letterbox-rounded" in self.mistakes:
            ratio = min(self.width / w, self.height / h)
            return round(w * ratio), round(h * ratio)
        if self.width / w < self.height / h:
            return self.width, h * self.width // w
        return w * self.height // h, self.height

    def _resize(self, picture: np.ndarray[Any, np.dtype[np.uint8]], w: int, h: int) -> Array:
        if "resize-nearest" in self.mistakes:
            return np.asarray(cv2.resize(picture, (w, h), interpolation=cv2.INTER_NEAREST), np.float32)
        if "resize-antialiased" in self.mistakes:
            return np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.BILINEAR), np.float32)
        x = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
        if "resize-half-pixel" in self.mistakes:
            return F.interpolate(x, (h, w), mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
        y = F.interpolate(x, (h, w), mode="bilinear", align_corners=True)[0].permute(1, 2, 0).numpy().copy()
        # Darknet drops the second neighbour of the last row; where the position rounds down, that row goes dark.
        position = np.float32(h - 1) * (np.float32(picture.shape[0] - 1) / np.float32(h - 1))
        if int(position) < picture.shape[0] - 1:
            y[-1] *= np.float32(1) - (position - np.float32(int(position)))
            across = F.interpolate(x[:, :, int(position)][:, :, None], (1, w), mode="bilinear", align_corners=True)
            y[-1] = across[0, :, 0].T.numpy() * (1 - (position - int(position)))
        return y

    # ------------------------------------------------------------------------------------------ and back

    def _to_picture(self, boxes: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Relative to the input -> pixels of the photograph."""
        h, w = shape[:2]
        if "boxes-in-network-pixels" in self.mistakes:
            return boxes * [self.width, self.height, self.width, self.height]
        believed = (self.letterbox or "stretch-corrected-as-letterbox" in self.mistakes) and (
            "letterbox-uncorrected" not in self.mistakes
        )
        new_w, new_h = self._inside(shape) if believed else (self.width, self.height)
        left, top = (self.width - new_w) / 2, (self.height - new_h) / 2
        if "letterbox-corner" in self.mistakes:
            left = top = 0.0
        if "letterbox-tidy-margin" in self.mistakes:
            left, top = float(int(left)), float(int(top))
        centre = (boxes[:, :2] * [self.width, self.height] - [left, top]) / [new_w, new_h] * [w, h]
        return np.concatenate([centre, boxes[:, 2:] * [self.width / new_w * w, self.height / new_h * h]], 1)

    def _suppress(self, boxes: np.ndarray[Any, Any], scores: Array) -> list[tuple[int, int, float]]:
        """Greedy, class by class: (row, class, score) of what stays."""
        limit = 0.7 if "nms-thresh-0.7" in self.mistakes else 0.2 if "nms-thresh-0.2" in self.mistakes else 0.45
        kept: list[tuple[int, int, float]] = []
        for row, k in sorted(np.argwhere(scores > self.thresh).tolist(), key=lambda pair: -scores[pair[0], pair[1]]):
            rivals = [other for other, other_k, _ in kept if other_k == k]
            if "nms-missing" in self.mistakes or all(overlap(boxes[row], boxes[other]) <= limit for other in rivals):
                kept.append((row, k, float(scores[row, k])))
        return kept


def overlap(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Intersection over union of two boxes of centre and size."""
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    both = float(np.prod(np.maximum(high - low, 0)))
    union = float(a[2] * a[3] + b[2] * b[3]) - both
    return both / union if union > 0 else 0.0
