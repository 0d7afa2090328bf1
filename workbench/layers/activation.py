"""`[activation]`: an activation alone, value by value. No tensors.

pjreddie and AlexeyAB src/activation_layer.c `forward_activation_layer`; `activation=` is linear by default here, unlike
`[convolutional]`. PyTorch and ONNX: the function of that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ActivationLayer(Layer):
    """One activation function."""

    kinds: ClassVar[tuple[str, ...]] = ("activation",)

    activation: str

    @classmethod
    def parse(cls, context: Context) -> ActivationLayer:
        shape = context.shape_of(context.before)
        return cls(**cls.common(context), output_shape=shape, activation=read_activation(context, "linear"))

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.activation].torch_(xs[0])

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return ACTIVATIONS[self.activation].onnx_(g, xs[0])
