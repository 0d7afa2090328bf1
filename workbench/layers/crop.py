"""`[crop]`: the middle of the picture, and values 0..1 stretched to -1..1. No tensors.

While training, Darknet cuts anywhere, flips, turns and changes colours; at inference it takes the rows from (h -
crop_height) / 2 and the columns from (w - crop_width) / 2, in whole numbers, and maps x to 2x - 1 unless `noadjust=1`
(pjreddie src/crop_layer.c `forward_crop_layer`).

PyTorch: a slice, `* 2 - 1`. ONNX: `Slice`, `Mul`, `Sub`.
Goes wrong naively: the mapping to -1..1 forgotten, because the section looks like augmentation only; a resize instead
of a cut. Boxes of a head after a crop count within the cut-out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Crop(Layer):
    """A cut-out of fixed size from the middle; `adjust` maps 0..1 to -1..1."""

    kinds: ClassVar[tuple[str, ...]] = ("crop",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"flip", "angle", "saturation", "exposure", "shift"})
    any_size: ClassVar[bool] = False  # where the middle lies depends on the size

    adjust: bool

    @classmethod
    def parse(cls, context: Context) -> Crop:
        o = context.options
        c, h, w = context.shape_of(context.before)
        height, width = o.integer("crop_height", 1, least=1), o.integer("crop_width", 1, least=1)
        if height > h or width > w:
            key = "crop_height" if height > h else "crop_width"
            raise context.error(
                key, "the cut-out is larger than what comes in", expected=f"at most {w}x{h}", found=f"{width}x{height}"
            )
        return cls(**cls.common(context), output_shape=(c, height, width), adjust=not o.integer("noadjust", 0))

    @property
    def corner(self) -> tuple[int, int]:
        """First row and column."""
        (_, h, w), (_, height, width) = self.input_shapes[0], self.output_shape
        return (h - height) // 2, (w - width) // 2

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        (top, left), (_, height, width) = self.corner, self.output_shape
        y = xs[0][:, :, top : top + height, left : left + width]
        return y * 2 - 1 if self.adjust else y

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        (top, left), (_, height, width) = self.corner, self.output_shape
        limits = (("start", [top, left]), ("stop", [top + height, left + width]), ("axes", [2, 3]))
        y = g.node("Slice", xs[0], *(g.constant(name, value, "int64") for name, value in limits))
        if not self.adjust:
            return str(y)
        return str(g.node("Sub", g.node("Mul", y, g.constant("two", 2.0)), g.constant("one", 1.0)))
