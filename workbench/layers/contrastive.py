"""`[contrastive]`: a loss on embeddings while training; at inference it computes nothing. No tensors.

AlexeyAB src/representation_layer.c `forward_contrastive_layer` does nothing without a truth and leaves its output
zero; its size is that of its input. Here it passes its input on, which is what a tracker reads (`embedding_layer=` of
`[yolo]`). pjreddie's Darknet does not know the section. PyTorch and ONNX: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Contrastive(Layer):
    """The identity at inference."""

    kinds: ClassVar[tuple[str, ...]] = ("contrastive",)
    training_keys: ClassVar[frozenset[str]] = frozenset(
        {"classes", "temperature", "yolo_layer", "cls_normalizer", "max_delta", "contrastive_neg_max"}
    )
    only_training: ClassVar[bool] = True

    @classmethod
    def parse(cls, context: Context) -> Contrastive:
        return cls(**cls.common(context), output_shape=context.shape_of(context.before))

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return xs[0]

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return xs[0]
