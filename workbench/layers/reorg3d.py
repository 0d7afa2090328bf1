"""`[reorg3d]`: true space-to-depth, as everybody but `[reorg]` means it. No tensors.

Channel k of the output is channel k mod c of the input, of the phase k / c: phase / stride rows down, phase mod stride
columns right (AlexeyAB src/blas.c `reorg_cpu`, src/reorg_layer.c; its `[reorg]` is reorg_old_layer.c, YOLOv2's own
order). `reverse=1` is the inverse. pjreddie's Darknet does not know the section.

PyTorch: `reshape`, `permute`, `reshape`; `pixel_unshuffle` has another order of channels. ONNX: `SpaceToDepth`,
`DepthToSpace`. Goes wrong naively: taken for `[reorg]`; `pixel_unshuffle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Reorg3d(Layer):
    """Space to depth, or with `reverse` depth to space."""

    kinds: ClassVar[tuple[str, ...]] = ("reorg3d",)

    stride: int
    reverse: bool

    @classmethod
    def parse(cls, context: Context) -> Reorg3d:
        o = context.options
        s, reverse = o.integer("stride", 1, least=1, most=64), bool(o.integer("reverse", 0))
        c, h, w = context.shape_of(context.before)
        if reverse and c % (s * s):
            raise context.error(
                "stride", f"{c} channels cannot be cut in {s * s} parts", expected=f"a multiple of {s * s}", found=c
            )
        if not reverse and (h % s or w % s):
            raise context.error(
                "stride", f"a {w}x{h} map cannot be cut by {s}", expected=f"multiples of {s}", found=f"{w}x{h}"
            )
        shape = (c // (s * s), h * s, w * s) if reverse else (c * s * s, h // s, w // s)
        return cls(**cls.common(context), output_shape=shape, stride=s, reverse=reverse)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        x, s = xs[0], self.stride
        n, c, h, w = x.shape
        if self.reverse:
            y = x.reshape(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2)
            return y.reshape(n, c // (s * s), h * s, w * s)
        y = x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * s * s, h // s, w // s)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        if self.reverse:
            return str(g.node("DepthToSpace", xs[0], blocksize=self.stride, mode="DCR"))
        return str(g.node("SpaceToDepth", xs[0], blocksize=self.stride))
