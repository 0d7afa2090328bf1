"""`[region]`: YOLOv2's head. Logistic on objectness, softmax over the classes; anchors in grid cells. No tensors.

pjreddie's layer keeps (anchors * (coords + 1 + classes), h, w) and activates x and y here (src/region_layer.c
`forward_region_layer`); AlexeyAB's flattens to (h*w, anchors * (...)) and leaves x and y raw until boxes are made.

    box: x = (column + logistic(x)) / w, width = exp(w) * anchor / w: the anchors count grid cells, not pixels
    probability of a class = objectness * softmax, 0 where not above the threshold

With `tree=` (YOLO9000) the softmax is taken within each group of the tree, and a box gets the one class that walking
down the tree ends at, with the box's objectness. pjreddie's CPU code computes NaN for such a head (src/region_layer.c
`forward_region_layer`, the branch of `softmax_tree`); here it is done right, as in AlexeyAB's fork.

Goes wrong naively: anchors taken as pixels; sigmoid instead of softmax on the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.errors import OptionError
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
    rows_of,
)
from workbench.layers.tree import Tree

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

TREE_THRESH = 0.5
"""Darknet's `hier_thresh`: how likely a class has to be to be named instead of the one above it."""


@dataclass(frozen=True, kw_only=True)
class Region(Head):
    """One YOLOv2 head."""

    kinds: ClassVar[tuple[str, ...]] = ("region",)
    anchor_unit: ClassVar[str] = "grid cells"
    training_keys: ClassVar[frozenset[str]] = frozenset(
        "bias_match jitter rescore object_scale noobject_scale mask_scale class_scale coord_scale absolute "
        "random thresh log sqrt max focal_loss map classfix".split()
    )

    softmax: bool
    tree: Tree | None = None

    @classmethod
    def parse(cls, context: Context) -> Region:
        o = context.options
        classes, num = read_classes(context), o.integer("num", 1, least=1, most=1024)
        if o.integer("coords", 4) != 4:
            raise context.error(
                "coords", "only boxes of four coordinates are supported", expected=4, found=o.integer("coords", 4)
            )
        if o.integer("background", 0):
            raise context.error("background", "background= in [region] is not supported")
        check_channels(context, num, 5 + classes)
        return cls(
            **cls.common(context),
            output_shape=context.shape_of(context.before),
            classes=classes,
            anchors=read_anchors(context, num),
            softmax=bool(o.integer("softmax", 0)),
            tree=Tree.read(context, classes),
        )

    @property
    def has_onnx_decode(self) -> bool:
        return self.tree is None

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import cat

        x = by_anchor(xs[0], len(self.anchors), self.entries)
        xy, wh, objectness, classes = x[:, :, :2], x[:, :, 2:4], x[:, :, 4:5].sigmoid(), x[:, :, 5:]
        if not p.dialect.region_flattened:
            xy = xy.sigmoid()
        if self.tree:
            classes = self.tree.softmax(classes, 2)
        elif self.softmax:
            classes = classes.softmax(2)
        joined = cat((xy, wh, objectness, classes), 2).flatten(1, 2)
        # AlexeyAB's memory order: place by place. The shape stays (c, h, w), as Darknet's own l.out_c says.
        return joined.permute(0, 2, 3, 1).reshape(joined.shape) if p.dialect.region_flattened else joined

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        _, h, w = output.shape
        if dialect.region_flattened:
            rows = output.reshape(h, w, len(self.anchors), self.entries)
        else:
            rows = rows_of(output, len(self.anchors), self.entries)
        row, column, anchor = np.nonzero(rows[..., 4] > np.float32(thresh))
        t = rows[row, column, anchor]
        xy = 1 / (1 + np.exp(-t[:, :2])) if dialect.region_flattened else t[:, :2]
        cells = np.array([w, h], np.float32)
        sizes = np.array(self.anchors, np.float32)[anchor]
        centre = (np.stack([column, row], 1).astype(np.float32) + xy) / cells
        with np.errstate(over="ignore"):
            size = (np.exp(t[:, 2:4].astype(np.float64)) * sizes / cells).astype(np.float32)
        probabilities = self._walk(t) if self.tree else t[:, 4:5] * t[:, 5:]
        probabilities[probabilities <= np.float32(thresh)] = 0
        return Boxes(np.concatenate([centre, size], 1), t[:, 4].copy(), probabilities)

    def _walk(self, t: Float32) -> Float32:
        """Each box has one class of the tree, with the box's objectness."""
        assert self.tree is not None
        probabilities = np.zeros_like(t[:, 5:])
        for row, values in enumerate(t):
            probabilities[row, self.tree.top(self.tree.absolute(values[5:]), TREE_THRESH)] = values[4]
        return probabilities

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        n, entries = len(self.anchors), self.entries
        x = g.node("Reshape", xs[0], g.constant("split_anchors", [0, n, entries, -1], "int64"))
        xy, wh, objectness, classes = g.node(
            "Split", x, g.constant("fields", [2, 2, 1, self.classes], "int64"), outputs=4, axis=2
        )
        if not g.dialect.region_flattened:
            xy = g.node("Sigmoid", xy)
        if self.tree:
            classes = self.tree.onnx_softmax(g, classes, 2, 4)
        elif self.softmax:
            classes = g.node("Softmax", classes, axis=2)
        y = g.node(
            "Reshape", g.node("Concat", xy, wh, g.node("Sigmoid", objectness), classes, axis=2), g.node("Shape", xs[0])
        )
        if g.dialect.region_flattened:
            y = g.node("Reshape", g.node("Transpose", y, perm=[0, 2, 3, 1]), g.node("Shape", xs[0]))
        return str(y)

    def onnx_decode(self, g: OnnxScope, x: str, image: str) -> tuple[str, str]:
        if self.tree:
            raise OptionError(
                f"layer {self.index} (line {self.line})",
                "a tree of classes is walked box by box, which ONNX cannot say",
                expected="--outputs raw",
            )
        rows = onnx_rows(g, x, len(self.anchors), self.entries)
        widths = g.constant("widths", [2, 2, 1, self.classes], "int64")
        xy, wh, objectness, classes = g.node("Split", rows, widths, outputs=4, axis=3)
        grid, stride = onnx_grid(g, x, image, self.output_shape[1:])
        centre = g.node("Mul", g.node("Add", g.node("Sigmoid", xy), grid), stride)
        anchors = g.constant("anchors", np.array(self.anchors, np.float32).reshape(1, 1, -1, 2))
        size = g.node("Mul", g.node("Mul", g.node("Exp", wh), anchors), stride)
        scores = g.node(
            "Mul", g.node("Sigmoid", objectness), g.node("Softmax", classes, axis=3) if self.softmax else classes
        )
        by_row = g.constant("by_row_classes", [0, -1, self.classes], "int64")
        return onnx_corners(g, centre, size), str(g.node("Reshape", scores, by_row))
