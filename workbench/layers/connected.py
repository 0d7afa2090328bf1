"""`[connected]`: every output is a weighted sum of every input, then batch normalisation where asked for, then the
activation.

The input (c, h, w) is taken as one row of c*h*w numbers in Darknet's memory order; the output is (output, 1, 1).
Tensors in file order: biases (output), weights (output, inputs), and with `batch_normalize=1` scales, rolling_mean and
rolling_variance *after* the weights, the other way round than in `[convolutional]` (pjreddie src/parser.c
`load_connected_weights`, src/connected_layer.c `forward_connected_layer`). Files of version 1000 and more hold the
matrix transposed.

PyTorch: `Linear`. ONNX: `Flatten`, `Gemm` (transB=1).
Goes wrong naively: tensors read in the order of `[convolutional]`; the picture flattened as (h, w, c); a file of the
old version read untransposed; the network run at another size, which is another matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Layer, OnnxScope, Parameters, TensorSpec
from workbench.layers.batchnorm import fold_biases, fold_blocks, norm_tensors, normalise, write_batch_normalization

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True)
class Dense:
    """A matrix with biases and perhaps batch normalisation: what `[connected]`, `[rnn]`, `[gru]` and `[lstm]` are made
    of.

    Rows in, rows out: (n, inputs) -> (n, outputs). `prefix` starts the names of its tensors (`input.z.weights`).
    """

    prefix: str
    inputs: int
    outputs: int
    batch_normalize: bool

    def tensors(self) -> tuple[TensorSpec, ...]:
        """In file order."""
        norm = norm_tensors(self.prefix, self.outputs) if self.batch_normalize else ()
        matrix = TensorSpec(self.prefix + "weights", (self.outputs, self.inputs), "by header")
        return (TensorSpec(self.prefix + "biases", (self.outputs,)), matrix, *norm)

    def forward(self, p: Parameters, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs) -> (n, outputs)."""
        from torch.nn.functional import linear

        if self.batch_normalize:
            return normalise(p, linear(x, p[self.prefix + "weights"]), self.prefix)
        return linear(x, p[self.prefix + "weights"], p[self.prefix + "biases"])

    def onnx(self, g: OnnxScope, x: str) -> str:
        """The same as nodes."""
        pre, shape = self.prefix, (self.outputs, self.inputs)
        folded = self.batch_normalize and g.fold
        inputs = [
            x,
            g.weight(pre + "weights", shape, lambda: fold_blocks(g, pre) if folded else g.tensor(pre + "weights")),
        ]
        if folded or not self.batch_normalize:
            make = (lambda: fold_biases(g, pre)) if folded else (lambda: g.tensor(pre + "biases"))
            inputs.append(g.weight(pre + "biases", (self.outputs,), make))
        y = str(g.node("Gemm", *inputs, transB=1))
        return write_batch_normalization(g, y, self.outputs, pre) if self.batch_normalize and not g.fold else y


@dataclass(frozen=True, kw_only=True)
class Connected(Layer):
    """A fully connected layer."""

    kinds: ClassVar[tuple[str, ...]] = ("connected",)
    any_size: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = True

    dense: Dense
    activation: str

    @classmethod
    def parse(cls, context: Context) -> Connected:
        o = context.options
        c, h, w = context.shape_of(context.before)
        output = o.integer("output", 1, least=1, most=1 << 24)
        dense = Dense("", c * h * w, output, bool(o.integer("batch_normalize", 0)))
        return cls(**cls.common(context), output_shape=(output, 1, 1), dense=dense, activation=read_activation(context))

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        return self.dense.tensors()

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.activation].torch_(self.dense.forward(p, xs[0].flatten(1)))[:, :, None, None]

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        y = ACTIVATIONS[self.activation].onnx_(g, self.dense.onnx(g, rows_of_numbers(g, xs[0])))
        return as_map(g, y)


def rows_of_numbers(g: OnnxScope, x: str) -> str:
    """(n, c, h, w) -> (n, c*h*w)."""
    return str(g.node("Flatten", x, axis=1))


def as_map(g: OnnxScope, y: str) -> str:
    """(n, outputs) -> (n, outputs, 1, 1)."""
    return str(g.node("Unsqueeze", y, g.constant("height_and_width", [2, 3], "int64")))
