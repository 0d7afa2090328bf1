"""`[local_avgpool]`: the mean of each window, over the places that lie inside the picture. No tensors.

The geometry is that of `[maxpool]`: `padding=` is the total, size-1 by default, floor(padding/2) of it left and above
(AlexeyAB src/maxpool_layer.c `forward_local_avgpool_layer`). pjreddie's Darknet does not know the section.

PyTorch: `AvgPool2d(count_include_pad=False)` with the padding added unevenly. ONNX: `AveragePool` with `pads`.
Goes wrong naively: padded places counted; no padding at all, which gives a smaller map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters
from workbench.layers.maxpool import Window

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class LocalAvgpool(Layer):
    """Average pooling over windows."""

    kinds: ClassVar[tuple[str, ...]] = ("local_avgpool",)

    window: Window

    @classmethod
    def parse(cls, context: Context) -> LocalAvgpool:
        window = Window.read(context)
        c, h, w = context.shape_of(context.before)
        return cls(**cls.common(context), output_shape=(c, *window.output(context, h, w)), window=window)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import ones_like
        from torch.nn.functional import avg_pool2d, pad

        size, stride = self.window.size, self.window.stride

        def add(x: torch.Tensor) -> torch.Tensor:
            return avg_pool2d(pad(x, self.window.torch_pads), size, stride, divisor_override=1)

        return add(xs[0]) / add(ones_like(xs[0][:1, :1]))

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return str(g.node("AveragePool", xs[0], count_include_pad=0, **self.window.onnx_attributes))
