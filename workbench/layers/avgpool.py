"""`[avgpool]`: the mean of each channel over the whole map; (c, h, w) becomes (c, 1, 1). No tensors.

pjreddie src/avgpool_layer.c `forward_avgpool_layer`. PyTorch: `AdaptiveAvgPool2d(1)`. ONNX: `GlobalAveragePool`.
Goes wrong naively: taken for a windowed pool; Darknet's `[avgpool]` has no size or stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Avgpool(Layer):
    """Global average pooling."""

    kinds: ClassVar[tuple[str, ...]] = ("avgpool",)
    fixes_size: ClassVar[bool] = True

    @classmethod
    def parse(cls, context: Context) -> Avgpool:
        return cls(**cls.common(context), output_shape=(context.shape_of(context.before)[0], 1, 1))

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return xs[0].mean((2, 3), keepdim=True)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return str(g.node("GlobalAveragePool", xs[0]))
