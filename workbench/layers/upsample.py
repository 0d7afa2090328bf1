"""`[upsample]`: each pixel becomes stride x stride equal pixels, times `scale=` (1 by default). No tensors.

pjreddie src/blas.c `upsample_cpu`. PyTorch: `interpolate(mode="nearest")`. ONNX: `Resize` nearest, asymmetric, floor.
Goes wrong naively: bilinear interpolation, and half-pixel rounding in `Resize`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Upsample(Layer):
    """Nearest-neighbour upsampling."""

    kinds: ClassVar[tuple[str, ...]] = ("upsample",)

    stride: int
    scale: float

    @classmethod
    def parse(cls, context: Context) -> Upsample:
        stride = context.options.integer("stride", 2, least=-64, most=64)
        if stride < 1:
            raise context.error(
                "stride", "an upsample that makes the map smaller is not supported", expected="1 or more", found=stride
            )
        c, h, w = context.shape_of(context.before)
        scale = context.options.number("scale", 1.0)
        return cls(**cls.common(context), output_shape=(c, h * stride, w * stride), stride=stride, scale=scale)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import interpolate

        y = interpolate(xs[0], scale_factor=float(self.stride), mode="nearest")
        return y if self.scale == 1 else y * self.scale

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        scales = g.constant("scales", [1.0, 1.0, float(self.stride), float(self.stride)])
        y = g.node(
            "Resize",
            xs[0],
            "",
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return str(y if self.scale == 1 else g.node("Mul", y, g.constant("scale", self.scale)))
