"""`[local]`: a convolution whose weights differ from place to place, then the activation.

Tensors in file order: biases (filters, out_h, out_w), weights (out_h * out_w, filters, c, size, size): a whole set of
filters for every place, row by row (pjreddie src/parser.c `load_local_weights`, src/local_layer.c
`forward_local_layer`). `pad=1` is one pixel, not size/2 as in `[convolutional]`. YOLOv1 has one of these before its
connected layers.

PyTorch: `unfold` and a batched matrix product. ONNX has no such operator: a grouped `Conv` with one-hot weights gathers
each place's window, `MatMul` multiplies it with the place's own matrix.
Goes wrong naively: taken for a convolution; `pad` doubled; the network run at another size, which has other weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Float32, Layer, OnnxScope, Parameters, TensorSpec

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class Local(Layer):
    """A locally connected layer. `padding` in pixels."""

    kinds: ClassVar[tuple[str, ...]] = ("local",)
    any_size: ClassVar[bool] = False

    filters: int
    size: int
    stride: int
    padding: int
    activation: str

    @classmethod
    def parse(cls, context: Context) -> Local:
        o = context.options
        _, h, w = context.shape_of(context.before)
        size, stride = o.integer("size", 1, least=1, most=1024), o.integer("stride", 1, least=1, most=1024)
        padding, filters = (
            min(o.integer("pad", 0, least=0, most=1024), 1),
            o.integer("filters", 1, least=1, most=1 << 20),
        )
        # Darknet counts the places as if a padded window were three wide, whatever its size is.
        counted = [(n - (1 if padding else size)) // stride + 1 for n in (h, w)]
        real = [(n + 2 * padding - size) // stride + 1 for n in (h, w)]
        if counted != real:
            raise context.error(
                "size",
                "Darknet counts other places than windows fit",
                expected=f"{counted[1]}x{counted[0]}",
                found=f"{real[1]}x{real[0]}",
                cause="In [local], pad=1 is one pixel and fits size=3 only; Darknet would read beyond its memory.",
            )
        out_h, out_w = context.size("size", real[0], "height"), context.size("size", real[1], "width")
        return cls(
            **cls.common(context),
            output_shape=(filters, out_h, out_w),
            filters=filters,
            size=size,
            stride=stride,
            padding=padding,
            activation=read_activation(context),
        )

    @property
    def window(self) -> int:
        """Values that one place looks at."""
        return self.input_shapes[0][0] * self.size * self.size

    @property
    def places(self) -> int:
        """Places of the output, each with its own weights."""
        return self.output_shape[1] * self.output_shape[2]

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        shape = (self.places, self.filters, self.input_shapes[0][0], self.size, self.size)
        return (TensorSpec("biases", self.output_shape), TensorSpec("weights", shape))

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import unfold

        columns = unfold(xs[0], self.size, padding=self.padding, stride=self.stride)  # (n, window, places)
        y = p["weights"].flatten(2) @ columns.permute(2, 1, 0)  # (places, filters, n)
        y = y.permute(2, 1, 0).reshape(-1, *self.output_shape) + p["biases"]
        return ACTIVATIONS[self.activation].torch_(y)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        c, k, p = self.input_shapes[0][0], self.size, self.padding
        pick = g.weight("pick", (self.window, 1, k, k), self._one_hot)
        columns = g.node("Conv", xs[0], pick, kernel_shape=[k, k], strides=[self.stride] * 2, pads=[p] * 4, group=c)
        columns = g.node("Reshape", columns, g.constant("by_place", [0, self.window, self.places], "int64"))
        matrices = (self.places, self.filters, self.window)
        weights = g.weight("weights", matrices, lambda: g.tensor("weights").reshape(matrices))
        y = g.node("MatMul", weights, g.node("Transpose", columns, perm=[2, 1, 0]))
        y = g.node("Transpose", y, perm=[2, 1, 0])
        y = g.node("Reshape", y, g.constant("as_map", [-1, *self.output_shape], "int64"))
        biases = g.weight("biases", self.output_shape, lambda: g.tensor("biases"))
        return ACTIVATIONS[self.activation].onnx_(g, str(g.node("Add", y, biases)))

    def _one_hot(self) -> Float32:
        """Weights of a convolution that only gathers: channel, row and column of the window become channels."""
        square = self.size * self.size
        one = np.eye(square, dtype=np.float32).reshape(square, 1, self.size, self.size)
        return np.tile(one, (self.input_shapes[0][0], 1, 1, 1))
