"""`[maxpool]`: the largest value of each window; what lies outside the picture never wins.

`padding=` is the total, size-1 by default; floor(padding/2) of it lies left and above, so a 2/1 pool pads right and
below only (pjreddie src/maxpool_layer.c `forward_maxpool_layer`, AlexeyAB src/maxpool_layer.c; `w_offset = -pad/2`).
Output: floor((n + padding - size) / stride) + 1. No tensors.

PyTorch: pad with minus infinity, then `MaxPool2d`. ONNX: `MaxPool`, whose `pads` mean minus infinity by definition.
Goes wrong naively: padding with zeros (a leaky output is often negative, and 0 then wins), `MaxPool2d(3, 1, 1)` for the
2/1 pool, Caffe's ceiling. AlexeyAB built with AVX itself computes stride 1 wrongly at the left border
(`forward_maxpool_layer_avx` skips eight lanes when the first lies outside).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Maxpool(Layer):
    """Max-pooling; `before` and `after` are the pixels of padding on each side, `stride` is (vertical, horizontal)."""

    kinds: ClassVar[tuple[str, ...]] = ("maxpool",)

    size: int
    stride: tuple[int, int]
    padding: int

    @classmethod
    def parse(cls, context: Context) -> Maxpool:
        o = context.options
        c, h, w = context.shape_of(context.before)
        stride = o.integer("stride", 1, least=1, most=1024)
        strides = (o.integer("stride_y", stride, least=1), o.integer("stride_x", stride, least=1))
        size = o.integer("size", stride, least=1, most=1024)
        padding = o.integer("padding", size - 1, least=0, most=2048)
        for key in ("maxpool_depth", "antialiasing"):
            if key in o and o.integer(key, 0):
                raise context.error(key, f"{key}= in [maxpool] is not supported")
        if padding - padding // 2 >= size and size > 1:
            raise context.error("padding", "whole windows would lie outside the picture", expected=f"padding below {2 * size - 1}", found=padding)
        out_h = context.size("size", (h + padding - size) // strides[0] + 1, "height")
        out_w = context.size("size", (w + padding - size) // strides[1] + 1, "width")
        return cls(**cls.common(context), output_shape=(c, out_h, out_w), size=size, stride=strides, padding=padding)

    @property
    def before(self) -> int:
        """Pixels of padding left and above."""
        return self.padding // 2

    @property
    def after(self) -> int:
        """Pixels of padding right and below."""
        return self.padding - self.padding // 2

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import max_pool2d, pad

        x = xs[0]
        if self.before == self.after <= self.size // 2:
            return max_pool2d(x, self.size, self.stride, self.before)
        return max_pool2d(pad(x, (self.before, self.after) * 2, value=float("-inf")), self.size, self.stride)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        pads = [self.before] * 2 + [self.after] * 2
        return str(g.node("MaxPool", xs[0], kernel_shape=[self.size] * 2, strides=list(self.stride), pads=pads))
