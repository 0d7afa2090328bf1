"""`[detection]`: YOLOv1's head. A copy of its input; softmax over the classes of each cell only with `softmax=1`. No
tensors.

The side x side cells share one row of numbers: classes of every cell, then `num` confidences of every cell, then `num`
boxes x, y, w, h of every cell (pjreddie src/detection_layer.c `forward_detection_layer`, `get_detection_detections`).

    box: x = (column + x) / side, width = w * w where `sqrt=1`, else w; relative to the picture, as Darknet's `yolo
    test` stretches it: no anchors, no logistic probability of a class = confidence * class, 0 where not above the
    threshold; no box is left out before

PyTorch and ONNX have no such layer. Goes wrong naively: numbers taken as (cell, everything of it); widths not squared;
letterboxed pictures, which Darknet's own program for these nets never uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.layers.base import Context, Float32, OnnxScope, Parameters
from workbench.layers.head import Boxes, Head, onnx_corners

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class Detection(Head):
    """One YOLOv1 head with `num` boxes in each of side x side cells."""

    kinds: ClassVar[tuple[str, ...]] = ("detection",)
    any_size: ClassVar[bool] = False
    anchor_unit: ClassVar[str] = "none"
    stretches: ClassVar[bool] = True
    training_keys: ClassVar[frozenset[str]] = frozenset(
        "jitter rescore object_scale noobject_scale class_scale coord_scale random forced max resize reorg".split()
    )

    side: int
    num: int
    softmax: bool
    sqrt: bool

    @classmethod
    def parse(cls, context: Context) -> Detection:
        o = context.options
        classes, num = o.integer("classes", 1, least=1, most=1 << 20), o.integer("num", 1, least=1, most=1024)
        side, coords = o.integer("side", 7, least=1, most=4096), o.integer("coords", 1)
        if coords != 4:
            raise context.error("coords", "only boxes of four coordinates are supported", expected=4, found=coords)
        shape = context.shape_of(context.before)
        wanted = side * side * (classes + num * 5)
        if shape[0] * shape[1] * shape[2] != wanted:
            raise context.error(
                None,
                f"[detection] needs {side} x {side} x ({classes} + {num} x 5) numbers from layer {context.before}",
                expected=f"output={wanted}",
                found=shape[0] * shape[1] * shape[2],
                cause="classes=, num= or side= was changed without the output= above.",
            )
        return cls(
            **cls.common(context),
            output_shape=shape,
            classes=classes,
            anchors=(),
            side=side,
            num=num,
            softmax=bool(o.integer("softmax", 0)),
            sqrt=bool(o.integer("sqrt", 0)),
        )

    @property
    def boxes(self) -> int:
        """Boxes for one picture, before any threshold."""
        return self.side * self.side * self.num

    @property
    def parts(self) -> list[int]:
        """How many numbers are classes, confidences and coordinates."""
        cells = self.side * self.side
        return [cells * self.classes, cells * self.num, cells * self.num * 4]

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import cat

        if not self.softmax:
            return xs[0]
        flat = xs[0].flatten(1)
        classes, rest = flat[:, : self.parts[0]], flat[:, self.parts[0] :]
        return cat((classes.reshape(len(classes), -1, self.classes).softmax(2).flatten(1), rest), 1).reshape(
            xs[0].shape
        )

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        cells, side = self.side * self.side, np.float32(self.side)
        classes, confidence, boxes = np.split(output.reshape(-1), np.cumsum(self.parts[:2]))
        rows, columns = np.divmod(np.arange(cells, dtype=np.float32), side)
        t = boxes.reshape(cells, self.num, 4)
        centre = (t[..., :2] + np.stack([columns, rows], 1)[:, None]) / side
        size = np.square(t[..., 2:]) if self.sqrt else t[..., 2:]
        scale = confidence.reshape(cells, self.num, 1)
        probabilities = (scale * classes.reshape(cells, 1, self.classes)).reshape(-1, self.classes)
        probabilities[probabilities <= np.float32(thresh)] = 0
        return Boxes(np.concatenate([centre, size], 2).reshape(-1, 4), confidence.copy(), probabilities)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        if not self.softmax:
            return xs[0]
        flat = g.node("Flatten", xs[0], axis=1)
        widths = g.constant("parts", [self.parts[0], self.parts[1] + self.parts[2]], "int64")
        classes, rest = g.node("Split", flat, widths, outputs=2, axis=1)
        y = g.node("Concat", self._onnx_classes(g, classes), rest, axis=1)
        return str(g.node("Reshape", y, g.node("Shape", xs[0])))

    def _onnx_classes(self, g: OnnxScope, classes: str) -> str:
        by_cell = g.node("Reshape", classes, g.constant("by_cell", [0, -1, self.classes], "int64"))
        return str(g.node("Flatten", g.node("Softmax", by_cell, axis=2), axis=1))

    def onnx_decode(self, g: OnnxScope, x: str, image: str) -> tuple[str, str]:
        cells, net_h, net_w = self.side * self.side, *(g.size or (1, 1))
        flat = g.node("Flatten", x, axis=1)
        classes, confidence, boxes = g.node(
            "Split", flat, g.constant("all_parts", self.parts, "int64"), outputs=3, axis=1
        )
        if self.softmax:
            classes = self._onnx_classes(g, classes)
        t = g.node("Reshape", boxes, g.constant("cell_box", [0, cells, self.num, 4], "int64"))
        xy, wh = g.node("Split", t, g.constant("halves", [2, 2], "int64"), outputs=2, axis=3)
        rows, columns = np.divmod(np.arange(cells), self.side)
        grid = g.constant("grid", np.stack([columns, rows], 1).reshape(1, cells, 1, 2))
        pixels = np.array([net_w, net_h], np.float32)
        centre = g.node("Mul", g.node("Add", xy, grid), g.constant("cell_pixels", pixels / self.side))
        size = g.node("Mul", g.node("Mul", wh, wh) if self.sqrt else wh, g.constant("pixels", pixels))
        scale = g.node("Reshape", confidence, g.constant("cell_scale", [0, cells, self.num, 1], "int64"))
        each = g.node("Reshape", classes, g.constant("cell_classes", [0, cells, 1, self.classes], "int64"))
        scores = g.node(
            "Reshape", g.node("Mul", scale, each), g.constant("by_row_classes", [0, -1, self.classes], "int64")
        )
        return onnx_corners(g, centre, size), str(scores)
