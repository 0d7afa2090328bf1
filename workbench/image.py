"""From a picture on disk to the numbers a network reads, and back from the network's boxes to the picture.

Every step repeats Darknet's arithmetic in float32, its peculiarities included: the dark last row of `resize_image`, the
half pixel between where `letterbox_image` puts a picture and where `correct_yolo_boxes` looks for it. Anything tidier
moves boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.errors import OptionError, PictureError
from workbench.picture_file import U8, load_picture

__all__ = ["Placement", "Preprocessing", "letterbox", "load_picture", "resize", "stretch", "to_chw"]

F32: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = Callable[[npt.NDArray[np.intp]], F32]

LETTERBOX_FILL = np.float32(0.5)


def to_chw(picture: U8, channels: int = 3) -> F32:
    """Picture uint8 (H, W, 3) RGB -> float32 (channels, H, W) in 0..1, C-contiguous: `(float)value/255.`.

    channels=1 gives the grey of OpenCV's cvtColor. AlexeyAB's detector reads a picture in grey for a network with
    `channels=1` and gets a JPEG's own luma from cv::imread: up to 10/255 away on photographs, and lost after RGB.

    Raises OptionError for another array or another number of channels.
    Source: pjreddie src/image_opencv.cpp mat_to_image; AlexeyAB src/detector.c test_detector (load_image(…, net.c)).
    """
    _check_picture(picture)
    if channels == 3:
        return _divide(picture.transpose(2, 0, 1))
    if channels == 1:
        return _divide(_to_grey(picture)[None])
    raise OptionError(
        "to_chw",
        "a picture cannot feed this network",
        expected="channels=1 or channels=3",
        found=f"channels={channels}",
        next_step="Pass an array of that shape to the network instead of a picture.",
    )


def _divide(values: U8) -> F32:
    # The C divides in double and rounds once; for all 256 values a float32 division gives the same bits.
    return np.divide(values, 255, dtype=np.float32, order="C")


def _check_picture(picture: npt.NDArray[Any]) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise OptionError(
            "picture",
            "not an RGB picture",
            expected="uint8 (H, W, 3)",
            found=f"{picture.dtype} {picture.shape}",
            next_step="Read it with load_picture.",
        )


def _to_grey(picture: U8) -> U8:
    weights = np.array([9798, 19235, 3735], np.int32)  # .299 .587 .114 in 15 bits, as OpenCV 4 rounds them
    return ((picture @ weights + (1 << 14)) >> 15).astype(np.uint8)


@dataclass(frozen=True)
class _Axis:
    """Where one side of a resized picture reads: two neighbours and their float32 weights for every output index."""

    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    weight_low: F32
    weight_high: F32


def _columns(source: int, target: int) -> _Axis:
    """Column c reads c*(source-1)/(target-1); the last column is the last column."""
    low, part = _positions(source, target)
    low[-1:], part[-1:] = source - 1, 0
    return _Axis(low, np.minimum(low + 1, source - 1), np.float32(1) - part, part)


def _rows(source: int, target: int) -> _Axis:
    """Row r likewise, but the last row keeps its rounded position and loses its second neighbour: at times dark."""
    low, part = _positions(source, target)
    second = part.copy()
    second[-1:] = 0
    return _Axis(low, np.minimum(low + 1, source - 1), np.float32(1) - part, second)


def _positions(source: int, target: int) -> tuple[npt.NDArray[np.intp], F32]:
    scale = np.divide(source - 1, max(target - 1, 1), dtype=np.float32)
    position = np.arange(target, dtype=np.float32) * scale
    low = position.astype(np.intp)
    return low, position - low.astype(np.float32)


def _resample(read_rows: Rows, source: tuple[int, int], target: tuple[int, int]) -> F32:
    """Darknet's two passes, the horizontal one only on rows that the vertical one reads. Sizes are (width, height)."""
    (width, height), (new_width, new_height) = source, target
    if new_height == 1 or new_width < 1 or new_height < 1:
        raise OptionError(
            "resize",
            f"cannot resize {width}x{height} to {new_width}x{new_height}",
            expected="width of at least 1, height of at least 2",
            cause="Darknet's resize_image divides by height - 1 and then reads outside the picture.",
        )
    across, down = _columns(width, new_width), _rows(height, new_height)
    used, place = np.unique(np.concatenate([down.low, down.high]), return_inverse=True)
    rows = read_rows(used)
    part = rows[:, :, across.low] * across.weight_low + rows[:, :, across.high] * across.weight_high
    resized: F32 = part[:, place[:new_height]] * down.weight_low[:, None]
    resized += part[:, place[new_height:]] * down.weight_high[:, None]
    return resized


def resize(chw: F32, width: int, height: int) -> F32:
    """Darknet's `resize_image` to the bit: float32 (C, H, W) -> (C, height, width), bilinear with corners aligned.

    Nothing is averaged when shrinking. When (height-1)*scale rounds below the last row, Darknet forgets the second
    neighbour there and that row comes out almost black (448 -> 416, 512 -> 384, 720 -> 288 rows, ...). For equal sizes
    AlexeyAB returns a copy; pjreddie computes, and for finite values gets the same bits.

    Raises OptionError for height 1, where the C divides by zero, and for sizes below 1.
    Source: pjreddie and AlexeyAB src/image.c resize_image.
    """
    return _resample(lambda rows: chw[:, rows], (chw.shape[2], chw.shape[1]), (width, height))


def stretch(chw: F32, width: int, height: int) -> F32:
    """Resize without keeping the aspect ratio: AlexeyAB's default. float32 (C, H, W) -> (C, height, width)."""
    return resize(chw, width, height)


def letterbox(chw: F32, width: int, height: int) -> F32:
    """Resize with the aspect ratio kept, centred on grey .5 (pjreddie's way). float32 (C, H, W) -> (C, height, width).

    Raises PictureError for a picture so long that it has less than 1 column or 2 rows inside the network.
    Source: pjreddie src/image.c letterbox_image.
    """
    place = Preprocessing(width, height, chw.shape[0], letterbox=True).placement(chw.shape[2], chw.shape[1])
    return place.embed(resize(chw, place.new_w, place.new_h))


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in the network's input: all sizes in pixels, `new_*` is the picture after resizing."""

    net_w: int
    net_h: int
    new_w: int
    new_h: int
    picture_w: int
    picture_h: int

    def embed(self, resized: F32) -> F32:
        """float32 (C, new_h, new_w) -> (C, net_h, net_w), the rest .5; an odd margin is rounded down, as in C."""
        if (self.new_w, self.new_h) == (self.net_w, self.net_h):
            return resized
        boxed = np.full((resized.shape[0], self.net_h, self.net_w), LETTERBOX_FILL, np.float32)
        left, top = (self.net_w - self.new_w) // 2, (self.net_h - self.new_h) // 2
        boxed[:, top : top + self.new_h, left : left + self.new_w] = resized
        return boxed

    def to_picture(self, boxes: npt.ArrayLike) -> F32:
        """Boxes (n, 4) cx, cy, w, h relative to the network's input (0..1) -> pixels of the picture, float32 (n, 4).

        Half of an odd margin keeps its half pixel here, though `embed` rounded it down: so do Darknet's boxes.
        Source: pjreddie src/yolo_layer.c correct_yolo_boxes with relative=0. These are the C's types and order; a
        binary built with -Ofast takes approximate reciprocals and differs in the last bits.
        """
        boxes = _as_boxes(boxes)
        margin, inside, grow, picture = self._constants()
        with np.errstate(all="ignore"):  # an untrained network answers inf and NaN
            centre = ((boxes[:, :2].astype(np.float64) - margin) / inside).astype(np.float32)
            return np.concatenate([centre * picture, boxes[:, 2:] * grow * picture], axis=1)

    def to_network(self, boxes: npt.ArrayLike) -> F32:
        """The inverse: boxes (n, 4) in pixels of the picture -> relative to the network's input (0..1), float32."""
        boxes = _as_boxes(boxes).astype(np.float64)
        margin, inside, _, picture = self._constants()
        with np.errstate(all="ignore"):
            centre, size = boxes[:, :2] / picture * inside + margin, boxes[:, 2:] / picture * inside
        return np.concatenate([centre, size], axis=1).astype(np.float32)

    def _constants(self) -> tuple[npt.NDArray[np.float64], F32, F32, F32]:
        """Margin in double, the rest in float32: the types that the C expressions have."""
        net, new = np.array([self.net_w, self.net_h], np.float32), np.array([self.new_w, self.new_h], np.float32)
        margin = (net.astype(np.float64) - new) / 2.0 / net
        return margin, new / net, net / new, np.array([self.picture_w, self.picture_h], np.float32)


def _as_boxes(boxes: npt.ArrayLike) -> F32:
    array = np.asarray(boxes, np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise OptionError("boxes", "not a list of boxes", expected="shape (n, 4)", found=f"shape {array.shape}")
    return array


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input: its size in pixels, its channels, letterbox or stretch."""

    width: int
    height: int
    channels: int
    letterbox: bool

    def apply(self, picture: U8) -> F32:
        """Picture uint8 (H, W, 3) RGB -> float32 (channels, height, width): to_chw, then letterbox or stretch.

        Only the rows that are read become floats, so a large photograph costs a few hundredths of a second.
        Raises OptionError for another array, PictureError as `letterbox`.
        """
        _check_picture(picture)
        place = self.placement(picture.shape[1], picture.shape[0])
        size = (place.picture_w, place.picture_h)
        resized = _resample(lambda rows: to_chw(picture[rows], self.channels), size, (place.new_w, place.new_h))
        return place.embed(resized)

    def placement(self, picture_w: int, picture_h: int) -> Placement:
        """Where a picture of this size (pixels) comes to lie. Raises PictureError as `letterbox`."""
        new_w, new_h = self._size_inside(picture_w, picture_h) if self.letterbox else (self.width, self.height)
        return Placement(self.width, self.height, new_w, new_h, picture_w, picture_h)

    def _size_inside(self, picture_w: int, picture_h: int) -> tuple[int, int]:
        wider = np.float32(self.width) / np.float32(picture_w) < np.float32(self.height) / np.float32(picture_h)
        new_w = self.width if wider else picture_w * self.height // picture_h
        new_h = picture_h * self.width // picture_w if wider else self.height
        if new_w < 1 or new_h < 2:
            raise PictureError(
                f"picture of {picture_w}x{picture_h}",
                f"too long for a letterbox of {self.width}x{self.height}",
                expected="at least 1 column and 2 rows inside it",
                found=f"{new_w}x{new_h}",
                next_step="Crop the picture, or stretch it.",
            )
        return new_w, new_h
