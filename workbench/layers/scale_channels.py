"""`[scale_channels]`: an earlier layer, each channel times one number from the layer before (squeeze and excitation).

The layer before is (c, 1, 1), the layer `from=` is (c, h, w) (AlexeyAB src/scale_channels_layer.c). With `scale_wh=1`
the layer before is (1, h, w) and scales the places instead. pjreddie's Darknet does not know the section. No tensors.
PyTorch: `*` with broadcasting. ONNX: `Mul`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ScaleChannels(Layer):
    """Product of an earlier map and one number a channel (or a place, with `scale_wh`)."""

    kinds: ClassVar[tuple[str, ...]] = ("scale_channels",)

    activation: str

    @classmethod
    def parse(cls, context: Context) -> ScaleChannels:
        source = context.references("from")[0]
        shape, scale = context.shape_of(source), context.shape_of(context.before)
        wanted = (1, *shape[1:]) if context.options.integer("scale_wh", 0) else (shape[0], 1, 1)
        if scale != wanted:
            raise context.error("from", f"the layer before does not fit layer {source}", expected=wanted, found=scale)
        activation = read_activation(context, "linear")
        return cls(**cls.common(context, (context.before, source)), output_shape=shape, activation=activation)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.activation].torch_(xs[1] * xs[0])

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return ACTIVATIONS[self.activation].onnx_(g, str(g.node("Mul", xs[1], xs[0])))
