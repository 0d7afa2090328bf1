"""`[sam]`: the layer before times an earlier layer of the same shape, value by value (spatial attention).

AlexeyAB src/sam_layer.c `forward_sam_layer`; pjreddie's Darknet does not know the section. No tensors.
PyTorch: `*`. ONNX: `Mul`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Sam(Layer):
    """Element-wise product of two maps."""

    kinds: ClassVar[tuple[str, ...]] = ("sam",)

    activation: str

    @classmethod
    def parse(cls, context: Context) -> Sam:
        source = context.references("from")[0]
        here, shape = context.shape_of(context.before), context.shape_of(source)
        if here != shape:
            raise context.error(
                "from", f"layer {source} has another shape than the layer before", expected=here, found=shape
            )
        activation = read_activation(context, "linear")
        return cls(**cls.common(context, (context.before, source)), output_shape=shape, activation=activation)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.activation].torch_(xs[0] * xs[1])

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return ACTIVATIONS[self.activation].onnx_(g, str(g.node("Mul", xs[0], xs[1])))
