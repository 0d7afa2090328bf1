"""`[reorg]`: makes a map stride times smaller and stride^2 times deeper, in an order of Darknet's own. No tensors.

It is not space-to-depth: the memory of the (c, h, w) input is first reinterpreted as (c/stride^2, h*stride, w*stride),
then cut into stride x stride phases (pjreddie src/blas.c `reorg_cpu` called with forward=0). YOLOv2's passthrough was
trained with it, so it has to be copied. `reverse=1` is the inverse. AlexeyAB's `[reorg3d]` is true space-to-depth.
PyTorch: `reshape`, `permute`, `reshape`. ONNX: `Reshape`, `Transpose`, `Reshape`.

With `extra=n` pjreddie's layer does something else: it passes its input on as one row with n zeros after it, (inputs +
n, 1, 1), as the pass of a Go player's net (src/reorg_layer.c `forward_reorg_layer`). AlexeyAB's fork ignores the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Reorg(Layer):
    """Darknet's passthrough reordering."""

    kinds: ClassVar[tuple[str, ...]] = ("reorg",)

    stride: int
    reverse: bool

    @classmethod
    def parse(cls, context: Context) -> Layer:
        o = context.options
        extra = o.integer("extra", 0, least=0, most=1 << 24)
        if extra and context.net.dialect and context.net.dialect.reorg_extra:
            c, h, w = context.shape_of(context.before)
            o.ignore("stride", "reverse", "flatten")
            return WithZeros(**cls.common(context), output_shape=(c * h * w + extra, 1, 1), extra=extra)
        stride, reverse = o.integer("stride", 1, least=1, most=64), bool(o.integer("reverse", 0))
        if "flatten" in o and o.integer("flatten", 0):
            raise context.error("flatten", "flatten= in [reorg] is not supported")
        c, h, w = context.shape_of(context.before)
        square = stride * stride
        if c % square:
            raise context.error(
                "stride", f"{c} channels cannot be cut in {square} parts", expected=f"a multiple of {square}", found=c
            )
        if not reverse and (h % stride or w % stride):
            raise context.error(
                "stride",
                f"a {w}x{h} map cannot be cut by {stride}",
                expected=f"multiples of {stride}",
                found=f"{w}x{h}",
            )
        shape = (c // square, h * stride, w * stride) if reverse else (c * square, h // stride, w // stride)
        return cls(**cls.common(context), output_shape=shape, stride=stride, reverse=reverse)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        x, s = xs[0], self.stride
        n, c, h, w = x.shape
        if self.reverse:
            y = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
            return y.reshape(n, c // (s * s), h * s, w * s)
        y = x.reshape(n, c // (s * s), h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * s * s, h // s, w // s)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        s, c = self.stride, self.input_shapes[0][0]
        n_and_size = g.node("Shape", xs[0])
        parts = g.node("Split", n_and_size, g.constant("parts", [1, 1, 1, 1], "int64"), outputs=4, axis=0)
        n, height, width = parts[0], parts[2], parts[3]
        stride, depth = g.constant("stride", [s], "int64"), g.constant("depth", [c // (s * s)], "int64")
        six = (n, stride, stride, depth, height, width) if self.reverse else (n, depth, height, stride, width, stride)
        order = [0, 3, 4, 1, 5, 2] if self.reverse else [0, 3, 5, 1, 2, 4]
        y = g.node("Transpose", g.node("Reshape", xs[0], g.node("Concat", *six, axis=0)), perm=order)
        change = "Mul" if self.reverse else "Div"
        channels = g.constant("channels", [self.output_shape[0]], "int64")
        out = (n, channels, g.node(change, height, stride), g.node(change, width, stride))
        return str(g.node("Reshape", y, g.node("Concat", *out, axis=0)))


@dataclass(frozen=True, kw_only=True)
class WithZeros(Layer):
    """What `[reorg]` with `extra=` is in pjreddie's Darknet: its input as one row, and `extra` zeros."""

    any_size: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = True

    extra: int

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import pad

        return pad(xs[0].flatten(1), (0, self.extra))[:, :, None, None]

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        row = g.node("Pad", g.node("Flatten", xs[0], axis=1), g.constant("zeros", [0, 0, 0, self.extra], "int64"))
        return str(g.node("Unsqueeze", row, g.constant("height_and_width", [2, 3], "int64")))
