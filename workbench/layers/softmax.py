"""`[softmax]`: exp(x / temperature), divided by its sum within each of `groups=` equal parts. No tensors.

pjreddie src/softmax_layer.c `forward_softmax_layer`, src/blas.c `softmax`. PyTorch: `softmax`. ONNX: `Softmax`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
    """Softmax over all values of the input, or over each group of them."""

    kinds: ClassVar[tuple[str, ...]] = ("softmax",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"noloss"})
    any_size: ClassVar[bool] = False

    groups: int
    temperature: float

    @classmethod
    def parse(cls, context: Context) -> Softmax:
        o = context.options
        for key in ("tree", "spatial"):
            if key in o and o.text(key, "") not in ("", "0"):
                raise context.error(key, f"{key}= in [softmax] is not supported")
        shape = context.shape_of(context.before)
        count, groups = shape[0] * shape[1] * shape[2], o.integer("groups", 1, least=1)
        if count % groups:
            raise context.error("groups", f"{count} values cannot be cut in {groups} groups")
        return cls(**cls.common(context), output_shape=shape, groups=groups, temperature=o.number("temperature", 1.0) or 1.0)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        x = xs[0].flatten(1).unflatten(1, (self.groups, -1))
        return (x / self.temperature).softmax(2).reshape(xs[0].shape)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        x = g.node("Reshape", xs[0], g.constant("by_group", [0, self.groups, -1], "int64"))
        if self.temperature != 1:
            x = g.node("Div", x, g.constant("temperature", self.temperature))
        return str(g.node("Reshape", g.node("Softmax", x, axis=2), g.node("Shape", xs[0])))
