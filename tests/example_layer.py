"""`[channel_scale]`: each channel times a learned number, then the activation. One tensor: scales (c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Layer, OnnxScope, Parameters, TensorSpec

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class ChannelScale(Layer):
    kinds: ClassVar[tuple[str, ...]] = ("channel_scale",)

    activation: str

    @classmethod
    def parse(cls, context: Context) -> ChannelScale:
        shape = context.shape_of(context.before)
        return cls(**cls.common(context), output_shape=shape, activation=read_activation(context, "linear"))

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        return (TensorSpec("scales", self.output_shape[:1]),)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.activation].torch_(xs[0] * p["scales"][:, None, None])

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        c = self.output_shape[0]
        scales = g.weight("scales", (c, 1, 1), lambda: g.tensor("scales").reshape(c, 1, 1))
        return ACTIVATIONS[self.activation].onnx_(g, g.node("Mul", xs[0], scales))
