"""`[Gaussian_yolo]`: a `[yolo]` head that also says how sure it is of each coordinate. No tensors.

Channels of each anchor: x, its sigma, y, its sigma, w, its sigma, h, its sigma, objectness, classes: 9 + classes.
Logistic on all of them but w and h; then x and y, not their sigmas, are scaled with `scale_x_y` as in `[yolo]`
(AlexeyAB src/gaussian_yolo_layer.c `forward_gaussian_yolo_layer`). pjreddie's Darknet does not know the section.

    box as in [yolo]; with yolo_point=left_top or right_bottom x and y are that corner instead of the centre
    probability of a class = objectness * class * (1 - mean of the four sigmas), 0 where not above the threshold

Goes wrong naively: 5 + classes channels assumed, which shifts everything; the factor 1 - sigma forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.layers.base import Context, Float32, OnnxScope, Parameters
from workbench.layers.head import (
    Boxes,
    by_anchor,
    check_channels,
    onnx_corners,
    onnx_grid,
    onnx_rows,
    read_anchors,
    read_classes,
    read_count,
    rows_of,
)
from workbench.layers.yolo import Yolo, read_nms_kind

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

POINTS = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}
"""`yolo_point=` -> what lies between x, y and the centre, in widths and heights of the box."""


@dataclass(frozen=True, kw_only=True)
class GaussianYolo(Yolo):
    """A head with uncertainties; `shift` is the way from x, y to the centre, in sizes of the box."""

    kinds: ClassVar[tuple[str, ...]] = ("gaussian_yolo",)

    shift: float = 0.0

    @classmethod
    def parse(cls, context: Context) -> GaussianYolo:
        o = context.options
        classes, num = read_classes(context), o.integer("num", 1, least=1, most=1024)
        mask = o.integers("mask") or tuple(range(num))
        anchors = read_anchors(context, read_count(context, num, mask))
        check_channels(context, len(mask), 9 + classes, fields=9)
        point = o.text("yolo_point", "center")
        if point not in POINTS:
            raise context.error(
                "yolo_point", f"yolo_point={point} is not known", expected=", ".join(POINTS), found=point
            )
        return cls(
            **cls.common(context),
            output_shape=context.shape_of(context.before),
            classes=classes,
            anchors=tuple(anchors[i] for i in mask),
            mask=mask,
            scale_x_y=o.number("scale_x_y", 1.0),
            new_coords=False,
            nms_kind=read_nms_kind(context),
            beta_nms=o.number("beta_nms", 0.6),
            shift=POINTS[point],
        )

    @property
    def entries(self) -> int:
        """Channels per anchor."""
        return 9 + self.classes

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import cat

        x = by_anchor(xs[0], len(self.anchors), self.entries)
        parts = [*(x[:, :, i : i + 1] for i in range(8)), x[:, :, 8:]]
        for i, part in enumerate(parts):
            if i not in (4, 6):
                parts[i] = part.sigmoid()
            if i in (0, 2) and self.scale_x_y != 1:
                parts[i] = parts[i] * self.scale_x_y - 0.5 * (self.scale_x_y - 1)
        return cat(parts, 2).flatten(1, 2)

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        rows = rows_of(output, len(self.anchors), self.entries)
        row, column, anchor = np.nonzero(rows[..., 8] > np.float32(thresh))
        t = rows[row, column, anchor]
        cells = np.array([output.shape[2], output.shape[1]], np.float32)
        net = np.array([net_width, net_height], np.float32)
        with np.errstate(over="ignore"):
            size = (np.exp(t[:, 4:7:2].astype(np.float64)) * np.array(self.anchors, np.float32)[anchor] / net).astype(
                np.float32
            )
        centre = (np.stack([column, row], 1).astype(np.float32) + t[:, 0:3:2]) / cells + np.float32(self.shift) * size
        sigma = t[:, 1:8:2].sum(1, dtype=np.float32) / np.float64(4)
        probabilities = (t[:, 8:9] * t[:, 9:] * (1 - sigma)[:, None]).astype(np.float32)
        probabilities[probabilities <= np.float32(thresh)] = 0
        return Boxes(np.concatenate([centre, size], 1), t[:, 8].copy(), probabilities)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        n, entries = len(self.anchors), self.entries
        x = g.node("Reshape", xs[0], g.constant("split_anchors", [0, n, entries, -1], "int64"))
        parts = self._onnx_parts(g, x, 2)
        return str(g.node("Reshape", g.node("Concat", *parts, axis=2), g.node("Shape", xs[0])))

    def _onnx_parts(self, g: OnnxScope, x: str, axis: int) -> list[str]:
        """The nine parts of an anchor along `axis`, activated."""
        widths = g.constant("fields", [1] * 8 + [1 + self.classes], "int64")
        parts: list[str] = g.node("Split", x, widths, outputs=9, axis=axis)
        for i in (0, 2):
            parts[i] = self._activate(g, parts[i])
        for i in (1, 3, 5, 7, 8):
            parts[i] = g.node("Sigmoid", parts[i])
        return parts

    def onnx_decode(self, g: OnnxScope, x: str, image: str) -> tuple[str, str]:
        rows = onnx_rows(g, x, len(self.anchors), self.entries)
        px, sx, py, sy, pw, sw, ph, sh, rest = self._onnx_parts(g, rows, 3)
        grid, stride = onnx_grid(g, x, image, self.output_shape[1:])
        size = self._onnx_size(g, g.node("Concat", pw, ph, axis=3))
        centre = g.node("Mul", g.node("Add", g.node("Concat", px, py, axis=3), grid), stride)
        if self.shift:
            centre = g.node("Add", centre, g.node("Mul", size, g.constant("shift", self.shift)))
        sigma = g.node("Mul", g.node("Sum", sx, sy, sw, sh), g.constant("quarter", 0.25))
        sure = g.node("Sub", g.constant("certain", 1.0), sigma)
        objectness, classes = g.node("Split", rest, g.constant("rest", [1, self.classes], "int64"), outputs=2, axis=3)
        scores = g.node("Mul", g.node("Mul", objectness, classes), sure)
        by_row = g.constant("by_row_classes", [0, -1, self.classes], "int64")
        return onnx_corners(g, centre, size), str(g.node("Reshape", scores, by_row))
