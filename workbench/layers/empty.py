"""`[empty]`, also `[silence]`: nothing; the output is the input. No tensors.

AlexeyAB src/parser.c makes it a place in the list of layers and no more (`empty_func`). PyTorch and ONNX: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Empty(Layer):
    """The identity."""

    kinds: ClassVar[tuple[str, ...]] = ("empty",)

    @classmethod
    def parse(cls, context: Context) -> Empty:
        return cls(**cls.common(context), output_shape=context.shape_of(context.before))

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return xs[0]

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return xs[0]
