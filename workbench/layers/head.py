"""What `[yolo]`, `[region]` and their kin share: a grid of cells, each with some anchors, each with a box and classes.

A head turns its own output into boxes (`decode`, in Darknet's float32 arithmetic) and writes the same as ONNX nodes
(`onnx_decode`). Boxes before suppression are Darknet's: centre and size, relative to the network input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from workbench.cfg import Note
from workbench.layers.base import Context, Float32, Layer, OnnxScope

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


class Boxes(NamedTuple):
    """boxes float32 (n, 4) x, y, w, h relative to the network input; objectness (n,); probabilities (n, classes)."""

    boxes: Float32
    objectness: Float32
    probabilities: Float32


@dataclass(frozen=True, kw_only=True)
class Head(Layer):
    """A layer whose output is decoded into boxes. `anchors` are the (w, h) of the anchors this head uses."""

    is_head: ClassVar[bool] = True
    anchor_unit: ClassVar[str] = ""
    stretches: ClassVar[bool] = False
    """True where Darknet never letterboxes the picture for this head, whatever the dialect."""

    @property
    def has_onnx_decode(self) -> bool:
        """False where `onnx_decode` can only raise, because ONNX has no way to say what Darknet does."""
        return True

    classes: int
    anchors: tuple[tuple[float, float], ...]

    @property
    def boxes(self) -> int:
        """Boxes for one picture, before any threshold."""
        _, h, w = self.output_shape
        return len(self.anchors) * h * w

    @property
    def entries(self) -> int:
        """Channels per anchor: x, y, w, h, objectness and the classes."""
        return 5 + self.classes

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        """Boxes with objectness above `thresh` from the head's output (c, h, w); row order is y, x, anchor as in
        Darknet.
        """
        raise NotImplementedError

    def onnx_decode(self, g: OnnxScope, x: str, image: str) -> tuple[str, str]:
        """Nodes from the head's *input* to boxes (n, rows, 4) x1 y1 x2 y2 in pixels of the network input, and scores
        (n, rows, classes); `image` is the name of the network input. Row order as in `decode`."""
        raise NotImplementedError


def read_classes(context: Context) -> int:
    """`classes=`, 20 by default."""
    return context.options.integer("classes", 20, least=1, most=1 << 20)


def check_channels(context: Context, anchors: int, entries: int, fields: int = 5) -> None:
    """The layer before must have anchors x entries channels; Darknet ends with an assertion otherwise."""
    channels = context.shape_of(context.before)[0]
    if channels != anchors * entries:
        raise context.error(
            None,
            f"[{context.section.kind}] needs {anchors} x ({fields} + {entries - fields}) channels "
            f"from layer {context.before}",
            expected=f"filters={anchors * entries}",
            found=f"filters={channels}",
            cause="classes=, mask= or num= was changed without the filters= above.",
        )


def read_count(context: Context, num: int, mask: tuple[int, ...]) -> int:
    """How many anchors to read: `num=`, or more where `mask=` goes beyond it; raises CfgError for a negative one.

    Darknet then takes numbers from beyond its memory. cfgs such as AlexeyAB's cspx-p7-mish list the anchors and say a
    smaller num=, so that the listed ones are meant.
    """
    if min(mask) < 0 or max(mask) >= 1024:
        raise context.error(
            "mask", "mask= names no anchor", expected="0 to 1023", found=min(mask) if min(mask) < 0 else max(mask)
        )
    if max(mask) >= num:
        where, last = context.section.where("mask"), max(mask)
        context.notes.append(
            Note(where, f"mask= names anchor {last}, num={num} has 0 to {num - 1}; Darknet reads beyond its memory")
        )
    return max(num, max(mask) + 1)


def read_anchors(context: Context, num: int) -> tuple[tuple[float, float], ...]:
    """`anchors=` as `num` pairs: numbers too many are ignored, missing ones are 0.5, as in AlexeyAB's `parse_yolo`.

    pjreddie's Darknet writes the ones too many past the end of its memory.
    """
    values = context.options.numbers("anchors")
    if len(values) != 2 * num:
        remark = "the rest is ignored" if len(values) > 2 * num else "the missing ones are 0.5, as in Darknet"
        context.notes.append(
            Note(
                context.section.where("anchors"),
                f"anchors= has {len(values)} numbers, num={num} needs {2 * num}; {remark}",
            )
        )
    padded = (*values[: 2 * num], *[0.5] * (2 * num - len(values)))
    return tuple(zip(padded[0::2], padded[1::2], strict=True))


def by_anchor(x: torch.Tensor, anchors: int, entries: int) -> torch.Tensor:
    """(n, c, h, w) -> (n, anchors, entries, h, w), a view."""
    return x.reshape(x.shape[0], anchors, entries, *x.shape[2:])


def rows_of(output: Float32, anchors: int, entries: int) -> Float32:
    """(c, h, w) -> (h, w, anchors, entries), a view."""
    _, h, w = output.shape
    return output.reshape(anchors, entries, h, w).transpose(2, 3, 0, 1)


# ---------------------------------------------------------------------------------- ONNX pieces of a grid


def onnx_rows(g: OnnxScope, x: str, anchors: int, entries: int) -> str:
    """(n, c, h, w) -> (n, h*w, anchors, entries)."""
    shaped = g.node("Reshape", x, g.constant("by_anchor", [0, anchors, entries, -1], "int64"))
    return str(g.node("Transpose", shaped, perm=[0, 3, 1, 2]))


def onnx_grid(g: OnnxScope, x: str, image: str, shape: tuple[int, int]) -> tuple[str, str]:
    """Column and row of each cell (1, h*w, 1, 2), and the pixels of network input per cell (2,), both float32.

    Constants where the size is fixed; otherwise computed from the shapes of `x` and `image`.
    """
    if g.size is not None:
        h, w = shape
        rows, columns = np.divmod(np.arange(h * w), w)
        grid = np.stack([columns, rows], axis=-1).reshape(1, h * w, 1, 2)
        return g.constant("grid", grid), g.constant("stride", [g.size[1] / w, g.size[0] / h])
    width_height = [_onnx_size(g, name, start) for name in (x, image) for start in (2,)]
    cells, pixels = (g.node("Cast", size, to=1) for size in width_height)
    stride = g.node("Div", pixels, cells)  # (2,) vertical, horizontal
    h, w = (g.node("Squeeze", part) for part in g.node("Split", width_height[0], outputs=2, axis=0, **_halves(g)))
    zero, one = g.constant("zero", 0, "int64"), g.constant("one", 1, "int64")
    count = g.node("Range", zero, g.node("Mul", h, w), one)
    rows_, columns_ = g.node("Div", count, w), g.node("Mod", count, w)
    pairs = [g.node("Reshape", part, g.constant("cell", [1, -1, 1, 1], "int64")) for part in (columns_, rows_)]
    flipped = g.node("Gather", stride, g.constant("x_then_y", [1, 0], "int64"), axis=0)
    return str(g.node("Cast", g.node("Concat", *pairs, axis=3), to=1)), str(flipped)


def _onnx_size(g: OnnxScope, x: str, start: int) -> str:
    return str(g.node("Shape", x, start=start))


def _halves(g: OnnxScope) -> dict[str, Any]:
    return {"num_outputs": 2} if g.opset >= 18 else {}


def onnx_corners(g: OnnxScope, centre: str, size: str) -> str:
    """Centre and size (n, cells, anchors, 2) each -> corners (n, rows, 4)."""
    half = g.node("Mul", size, g.constant("half", 0.5))
    corners = g.node("Concat", g.node("Sub", centre, half), g.node("Add", centre, half), axis=3)
    return str(g.node("Reshape", corners, g.constant("by_row", [0, -1, 4], "int64")))
