"""`[softmax]`: exp(x / temperature), divided by its sum within each of `groups=` equal parts. No tensors.

With `tree=` the groups are those of the tree's file (`tree.py`), `groups=` does not count. With `spatial=1` the sum is
over the channels of each place alone (pjreddie src/softmax_layer.c `forward_softmax_layer`, src/blas.c `softmax`;
AlexeyAB reads `spatial` and ignores it on the CPU). PyTorch: `softmax`. ONNX: `Softmax`. Goes wrong naively: one
softmax over all 9418 classes of a tree; the temperature forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters
from workbench.layers.tree import Tree

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
    """Softmax over all values of the input, or over each group of them."""

    kinds: ClassVar[tuple[str, ...]] = ("softmax",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"noloss"})

    groups: int
    temperature: float
    tree: Tree | None = None

    @classmethod
    def parse(cls, context: Context) -> Softmax:
        o = context.options
        if o.number("spatial", 0):
            raise context.error(
                "spatial", "spatial= in [softmax] is not supported", cause="The forks compute different things for it."
            )
        shape = context.shape_of(context.before)
        count, groups = shape[0] * shape[1] * shape[2], o.integer("groups", 1, least=1)
        tree = Tree.read(context, count)
        if count % groups:
            raise context.error("groups", f"{count} values cannot be cut in {groups} groups")
        temperature = o.number("temperature", 1.0) or 1.0
        return cls(**cls.common(context), output_shape=shape, groups=groups, temperature=temperature, tree=tree)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        x = xs[0].flatten(1) / self.temperature
        if self.tree:
            return self.tree.softmax(x, 1).reshape(xs[0].shape)
        return x.reshape(x.shape[0], self.groups, -1).softmax(2).reshape(xs[0].shape)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        shape = [0, -1] if self.tree else [0, self.groups, -1]
        x = g.node("Reshape", xs[0], g.constant("by_group", shape, "int64"))
        if self.temperature != 1:
            x = g.node("Div", x, g.constant("temperature", self.temperature))
        y = self.tree.onnx_softmax(g, x, 1, 2) if self.tree else g.node("Softmax", x, axis=2)
        return str(g.node("Reshape", y, g.node("Shape", xs[0])))
