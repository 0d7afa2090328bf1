"""`[dropout]`: nothing at inference; the output is the input. No tensors.

While training, values are zeroed with `probability=` and the rest scaled by 1/(1-probability) (pjreddie
src/dropout_layer.c). In Darknet the layer shares its memory with the layer before. PyTorch: `Dropout`, ONNX: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    """The identity at inference."""

    kinds: ClassVar[tuple[str, ...]] = ("dropout",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"dropblock", "dropblock_size_rel", "dropblock_size_abs"})

    probability: float

    @classmethod
    def parse(cls, context: Context) -> Dropout:
        probability = context.options.number("probability", 0.5)
        return cls(**cls.common(context), output_shape=context.shape_of(context.before), probability=probability)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import dropout

        return dropout(xs[0], self.probability) if p.training else xs[0]

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return xs[0]
