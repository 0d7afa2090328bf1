"""`[cost]`: compares the output with the truth while training; at inference it computes nothing. No tensors.

Darknet leaves the layer's own output unwritten then (pjreddie src/cost_layer.c `forward_cost_layer` returns where
there is no truth). Here it passes its input on and never counts as the result of a network: that is the layer before.
PyTorch and ONNX: nothing. Goes wrong naively: taking the last layer's buffer, which is zeros, for the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Cost(Layer):
    """The identity at inference."""

    kinds: ClassVar[tuple[str, ...]] = ("cost",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"type", "scale", "ratio", "noobj", "thresh"})
    only_training: ClassVar[bool] = True

    @classmethod
    def parse(cls, context: Context) -> Cost:
        return cls(**cls.common(context), output_shape=context.shape_of(context.before))

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return xs[0]

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return xs[0]
