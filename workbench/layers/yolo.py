"""`[yolo]`: logistic on x, y, objectness and classes; width and height stay raw. No tensors.

The output keeps the shape of the input, (anchors * (5 + classes), h, w), anchor by anchor: x, y, w, h, objectness,
classes. `mask=` picks which of the `anchors=` (pixels of the network input) this head uses. With `scale_x_y=s`
(AlexeyAB) x and y become s*x - (s-1)/2; with `new_coords=1` nothing is activated here because the convolution before
already did, and width and height are (2w)^2 * anchor instead of exp(w) * anchor
(pjreddie src/yolo_layer.c `forward_yolo_layer`, `get_yolo_box`; AlexeyAB the same functions).

    box: x = (column + x) / w, y = (row + y) / h, relative to the network input; width = exp(w) * anchor / net width
    probability of a class = objectness * class, 0 where not above the threshold

PyTorch and ONNX have no such layer. Goes wrong naively: masks of another head, anchors of another cfg or w and h
swapped, scale_x_y forgotten, sigmoid twice, `row = i / w` with the height, probability without the objectness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.layers.base import Context, Float32, OnnxScope, Parameters
from workbench.layers.head import (
    Boxes,
    Head,
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

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

NMS_KINDS = ("default", "greedynms", "diounms", "cornersnms")


@dataclass(frozen=True, kw_only=True)
class Yolo(Head):
    """One YOLOv3 or v4 head. `nms_kind` and `beta_nms` count for the whole network in the last head."""

    kinds: ClassVar[tuple[str, ...]] = ("yolo",)
    anchor_unit: ClassVar[str] = "pixels of the network input"
    training_keys: ClassVar[frozenset[str]] = frozenset(
        "jitter ignore_thresh truth_thresh random map max label_smooth_eps objectness_smooth iou_thresh "
        "iou_loss iou_normalizer iou_thresh_kind cls_normalizer obj_normalizer delta_normalizer max_delta "
        "focal_loss resize counters_per_class embedding_layer track_history_size sim_thresh dets_for_show "
        "dets_for_track track_ciou_norm uc_normalizer beta1 show_details".split()
    )

    mask: tuple[int, ...]
    scale_x_y: float
    new_coords: bool
    nms_kind: str
    beta_nms: float

    @classmethod
    def parse(cls, context: Context) -> Yolo:
        o = context.options
        classes, num = read_classes(context), o.integer("num", 1, least=1, most=1024)
        mask = o.integers("mask") or tuple(range(num))
        anchors = read_anchors(context, read_count(context, num, mask))
        check_channels(context, len(mask), 5 + classes)
        return cls(
            **cls.common(context),
            output_shape=context.shape_of(context.before),
            classes=classes,
            anchors=tuple(anchors[i] for i in mask),
            mask=mask,
            scale_x_y=o.number("scale_x_y", 1.0),
            new_coords=bool(o.integer("new_coords", 0)),
            nms_kind=read_nms_kind(context),
            beta_nms=o.number("beta_nms", 0.6),
        )

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import cat

        x = by_anchor(xs[0], len(self.anchors), self.entries)
        xy, wh, rest = x[:, :, :2], x[:, :, 2:4], x[:, :, 4:]
        if not self.new_coords:
            xy, rest = xy.sigmoid(), rest.sigmoid()
        if self.scale_x_y != 1:
            xy = xy * self.scale_x_y - 0.5 * (self.scale_x_y - 1)
        return cat((xy, wh, rest), 2).flatten(1, 2)

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        rows = rows_of(output, len(self.anchors), self.entries)
        row, column, anchor = np.nonzero(rows[..., 4] > np.float32(thresh))
        t = rows[row, column, anchor]
        cells = np.array([output.shape[2], output.shape[1]], np.float32)
        net = np.array([net_width, net_height], np.float32)
        sizes = np.array(self.anchors, np.float32)[anchor]
        centre = (np.stack([column, row], 1).astype(np.float32) + t[:, :2]) / cells
        # exp is a double in C, and so is its product with the anchor; rounded once when stored.
        growth = np.square(t[:, 2:4]) * 4 if self.new_coords else np.exp(t[:, 2:4].astype(np.float64))
        with np.errstate(over="ignore"):
            size = (growth * sizes / net).astype(np.float32)
        probabilities = t[:, 4:5] * t[:, 5:]
        probabilities[probabilities <= np.float32(thresh)] = 0
        return Boxes(np.concatenate([centre, size], 1), t[:, 4].copy(), probabilities)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        n, entries = len(self.anchors), self.entries
        x = g.node("Reshape", xs[0], g.constant("split_anchors", [0, n, entries, -1], "int64"))
        xy, wh, rest = g.node("Split", x, g.constant("fields", [2, 2, entries - 4], "int64"), outputs=3, axis=2)
        xy, rest = self._activate(g, xy), rest if self.new_coords else g.node("Sigmoid", rest)
        joined = g.node("Concat", xy, wh, rest, axis=2)
        return str(g.node("Reshape", joined, g.node("Shape", xs[0])))

    def onnx_decode(self, g: OnnxScope, x: str, image: str) -> tuple[str, str]:
        rows = onnx_rows(g, x, len(self.anchors), self.entries)
        widths = g.constant("widths", [2, 2, 1, self.classes], "int64")
        xy, wh, objectness, classes = g.node("Split", rows, widths, outputs=4, axis=3)
        grid, stride = onnx_grid(g, x, image, self.output_shape[1:])
        centre = g.node("Mul", g.node("Add", self._activate(g, xy), grid), stride)
        boxes = onnx_corners(g, centre, self._onnx_size(g, wh))
        if not self.new_coords:
            objectness, classes = g.node("Sigmoid", objectness), g.node("Sigmoid", classes)
        scores = g.node("Mul", objectness, classes)
        return boxes, str(g.node("Reshape", scores, g.constant("by_row_classes", [0, -1, self.classes], "int64")))

    def _activate(self, g: OnnxScope, xy: str) -> str:
        y = xy if self.new_coords else g.node("Sigmoid", xy)
        if self.scale_x_y == 1:
            return str(y)
        scaled = g.node("Mul", y, g.constant("scale_x_y", self.scale_x_y))
        return str(g.node("Sub", scaled, g.constant("scale_x_y_shift", 0.5 * (self.scale_x_y - 1))))

    def _onnx_size(self, g: OnnxScope, wh: str) -> str:
        factor = 4.0 if self.new_coords else 1.0
        growth = g.node("Mul", wh, wh) if self.new_coords else g.node("Exp", wh)
        anchors = np.array(self.anchors, np.float32).reshape(1, 1, -1, 2) * np.float32(factor)
        return str(g.node("Mul", growth, g.constant("anchors", anchors)))


def read_nms_kind(context: Context) -> str:
    """`nms_kind=`; raises CfgError where it is none of Darknet's."""
    kind = context.options.text("nms_kind", "default")
    if kind not in NMS_KINDS:
        raise context.error("nms_kind", f"nms_kind={kind} is not known", expected=", ".join(NMS_KINDS), found=kind)
    return kind
