"""Preprocessing as mistaken code does it: what `picture.py` switches on, one field a mistake, so that all combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workbench.image import Placement, Preprocessing, resize, to_chw
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.picture_file import U8

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class MisplacedPreprocessing(Preprocessing):
    """Preprocessing with mistakes.

    resample: a name of RESAMPLERS. fill: what lies around a letterboxed picture, 0 to 1. corner: it lies at the upper
    left. rounded: its size is rounded, not cut off. tidy: boxes are corrected by the whole pixels that it was moved by.
    believes: what boxes are corrected for, "own", "letterbox", "stretch", or "nothing" (they stay in network pixels).
    bgr, scale, imagenet, hwc: what is done to the finished input.
    """

    resample: str = "darknet"
    fill: float = 0.5
    corner: bool = False
    rounded: bool = False
    tidy: bool = False
    believes: str = "own"
    bgr: bool = False
    scale: float = 1.0
    imagenet: bool = False
    hwc: bool = False

    def apply(self, picture: U8) -> Float32:
        """As `Preprocessing.apply`, with the mistakes."""
        place = self._place(picture.shape[1], picture.shape[0], self.letterbox)
        return self._finish(place.embed(RESAMPLERS[self.resample](picture, self.channels, place.new_w, place.new_h)))

    def placement(self, picture_w: int, picture_h: int) -> Placement:
        """Where boxes are believed to lie."""
        if self.believes == "nothing":
            size = (self.width, self.height)
            return Placement(*size, *size, *size)
        letterbox = {"own": self.letterbox, "letterbox": True, "stretch": False}[self.believes]
        return self._place(picture_w, picture_h, letterbox)

    def _place(self, picture_w: int, picture_h: int, letterbox: bool) -> MisplacedPlacement:
        own = Preprocessing(self.width, self.height, self.channels, letterbox).placement(picture_w, picture_h)
        values = {item.name: getattr(own, item.name) for item in fields(own)}
        place = MisplacedPlacement(**values, fill=self.fill, corner=self.corner, tidy=self.tidy)
        return _round(place) if self.rounded and letterbox else place

    def _finish(self, chw: Float32) -> Float32:
        if self.bgr:
            chw = chw[::-1]
        if self.imagenet:
            chw = (chw - IMAGENET_MEAN[:, None, None]) / IMAGENET_STD[:, None, None]
        if self.scale != 1:
            chw = chw * np.float32(self.scale)
        if self.hwc:
            chw = chw.transpose(1, 2, 0).reshape(chw.shape)
        return np.ascontiguousarray(chw)


@dataclass(frozen=True)
class MisplacedPlacement(Placement):
    """A picture somewhere else in the network's input, or boxes corrected for somewhere else."""

    fill: float = 0.5
    corner: bool = False
    tidy: bool = False

    def embed(self, resized: Float32) -> Float32:
        """As `Placement.embed`, at the corner or with another fill."""
        boxed = np.full((resized.shape[0], self.net_h, self.net_w), self.fill, np.float32)
        left, top = (0, 0) if self.corner else ((self.net_w - self.new_w) // 2, (self.net_h - self.new_h) // 2)
        boxed[:, top : top + self.new_h, left : left + self.new_w] = resized
        return boxed

    def _constants(self) -> tuple[NDArray[np.float64], Float32, Float32, Float32]:
        margin, inside, grow, picture = super()._constants()
        net = np.array([self.net_w, self.net_h], np.float64)
        if self.corner:
            margin = np.zeros(2)
        elif self.tidy:
            margin = np.floor(margin * net + 1e-6) / net
        return margin, inside, grow, picture


def _round(place: MisplacedPlacement) -> MisplacedPlacement:
    ratio = min(place.net_w / place.picture_w, place.net_h / place.picture_h)
    return replace(place, new_w=round(place.picture_w * ratio), new_h=round(place.picture_h * ratio))


def _as_darknet(picture: U8, channels: int, width: int, height: int) -> Float32:
    return resize(to_chw(picture, channels), width, height)


def _half_pixel(picture: U8, channels: int, width: int, height: int) -> Float32:
    """Bilinear with pixel centres at half-integers: cv2.INTER_LINEAR, F.interpolate(align_corners=False)."""
    chw = to_chw(picture, channels)
    for axis, size in ((1, height), (2, width)):
        n = chw.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * (n / size) - 0.5, 0, n - 1)
        low = np.minimum(position.astype(np.intp), n - 1)
        part = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, n - 1)
        chw = chw.take(low, axis) * (1 - part) + chw.take(high, axis) * part
    return chw


def _nearest(picture: U8, channels: int, width: int, height: int) -> Float32:
    """The pixel at floor(i * source / target), rounded as cv2.INTER_NEAREST rounds the ratio."""
    rows, columns = (
        np.minimum(np.floor(np.arange(out) * (1 / (out / n))).astype(np.intp), n - 1)
        for out, n in ((height, picture.shape[0]), (width, picture.shape[1]))
    )
    return to_chw(np.ascontiguousarray(picture[rows][:, columns]), channels)


def _antialiased(picture: U8, channels: int, width: int, height: int) -> Float32:
    """Pillow's BILINEAR, which averages all pixels that a smaller picture's pixel covers; on 8 bits."""
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    return to_chw(np.asarray(resized), channels)


RESAMPLERS: dict[str, Callable[[U8, int, int, int], Float32]] = {
    "darknet": _as_darknet,
    "half-pixel": _half_pixel,
    "nearest": _nearest,
    "antialiased": _antialiased,
}


def misplace(**mistakes: Any) -> Callable[[Model], Model]:
    """An `apply` that sets fields of `MisplacedPreprocessing`, and `letterbox`."""

    def apply(model: Model) -> Model:
        own = model.preprocessing
        if not isinstance(own, MisplacedPreprocessing):
            own = MisplacedPreprocessing(**{item.name: getattr(own, item.name) for item in fields(own)})
        return replace(model, preprocessing=replace(own, **mistakes))

    return apply
