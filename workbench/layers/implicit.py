"""`[implicit]`: learned constants (filters, atoms, 1), whatever the picture is: YOLOR's implicit knowledge.

One tensor: weights (filters, atoms) (AlexeyAB src/representation_layer.c `forward_implicit_layer`). pjreddie's Darknet
does not know the section. PyTorch: a parameter, repeated over the batch. ONNX: an initializer, `Expand`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.layers.base import Context, Layer, OnnxScope, Parameters, TensorSpec

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class Implicit(Layer):
    """Constants. The input is looked at for its batch only."""

    kinds: ClassVar[tuple[str, ...]] = ("implicit",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"mean", "std"})
    fixes_size: ClassVar[bool] = True

    @classmethod
    def parse(cls, context: Context) -> Implicit:
        o = context.options
        shape = (o.integer("filters", 128, least=1, most=1 << 20), o.integer("atoms", 1, least=1, most=1 << 16), 1)
        return cls(**cls.common(context), output_shape=shape)

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        return (TensorSpec("weights", self.output_shape[:2]),)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return p["weights"][None, :, :, None].expand(xs[0].shape[0], -1, -1, -1)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        shape = (1, *self.output_shape)
        weights = g.weight("weights", shape, lambda: np.asarray(g.tensor("weights")).reshape(shape))
        batch = g.node("Shape", xs[0], end=1)
        ones = g.constant("one_each", [1, 1, 1], "int64")
        return str(g.node("Expand", weights, g.node("Concat", batch, ones, axis=0)))
