"""`binary=1` and `xnor=1` of `[convolutional]`: computing with signs.

The weights of a filter become +m where positive and -m elsewhere, m being the mean of their absolute values. With
`xnor` the input becomes its sign too, 0 counting as -1 (pjreddie src/convolutional_layer.c `binarize_weights`,
`binarize_cpu`). The forks differ in what they take the signs of:

    pjreddie: of the weights in the file; then batch normalisation; the padding stays 0
    AlexeyAB, as its test command runs: of the weights with batch normalisation folded in (src/network.c
    `fuse_conv_batchnorm`, `calculate_binary_weights`); the padding, having no sign bit, counts as -1

PyTorch and ONNX: an ordinary convolution with weights of two values, on an input of two values.
Goes wrong naively: sign(0) = 0; the mean over all filters; zero padding in AlexeyAB's dialect. Where an input lies
within rounding of 0, another engine's rounding flips the whole value: such nets agree layer by layer only near their
beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.layers.base import Float32, OnnxScope, Parameters
from workbench.layers.batchnorm import NORM_FIELDS, fold_weights, multiplier

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True)
class Signs:
    """Which of weights (`binary`) or weights and input (`xnor`) are reduced to signs; false where neither."""

    binary: bool = False
    xnor: bool = False

    def __bool__(self) -> bool:
        return self.binary or self.xnor

    def folds(self, dialect: Dialect) -> bool:
        """Whether batch normalisation goes into the weights before their signs are taken."""
        return self.xnor and dialect.folds_xnor

    def pads(self, dialect: Dialect) -> bool:
        """Whether the input has been padded, with -1, before the convolution."""
        return self.folds(dialect)

    def torch(
        self, p: Parameters, prefix: str, x: torch.Tensor, padding: int, batch_normalize: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        """Input, weights and biases for a plain convolution, and whether batch normalisation still has to follow."""
        from torch.nn.functional import pad

        weights, biases = p[prefix + "weights"], p[prefix + "biases"]
        fold = batch_normalize and self.folds(p.dialect)
        if fold:
            weights, biases = _fold(p, prefix)
        mean = weights.abs().mean((1, 2, 3), keepdim=True)
        weights = mean.where(weights > 0, -mean)
        if self.xnor:
            x = (x > 0).to(x.dtype) * 2 - 1
            x = pad(x, (padding,) * 4, value=-1.0) if self.pads(p.dialect) else x
        return x, weights, biases, batch_normalize and not fold

    def onnx(self, g: OnnxScope, x: str, padding: int) -> str:
        """Nodes that take the signs of the input."""
        if not self.xnor:
            return x
        positive = g.node("Greater", x, g.constant("zero", 0.0))
        y = g.node("Where", positive, g.constant("plus", 1.0), g.constant("minus", -1.0))
        if not (self.pads(g.dialect) and padding):
            return str(y)
        pads = g.constant("pads", [0, 0, padding, padding] * 2, "int64")
        return str(g.node("Pad", y, pads, g.constant("minus", -1.0)))

    def weights(self, g: OnnxScope, prefix: str, batch_normalize: bool) -> Callable[[], Float32]:
        """Makes the weights of two values, with batch normalisation folded in where the dialect or the graph wants
        it.
        """
        before = batch_normalize and self.folds(g.dialect)

        def make() -> Float32:
            source = fold_weights(g, prefix) if before else g.tensor(prefix + "weights")
            mean = np.abs(source).mean((1, 2, 3), keepdims=True, dtype=np.float64)
            values = np.where(source > 0, mean, -mean)
            if batch_normalize and g.fold and not before:
                values = values * multiplier(g, prefix).reshape(-1, 1, 1, 1)
            return np.asarray(values.astype(np.float32))

        return make


NO_SIGNS = Signs()


def _fold(p: Parameters, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and biases with batch normalisation folded in, in double precision as AlexeyAB does."""
    scales, mean, variance = (p[prefix + field].double() for field in NORM_FIELDS)
    epsilon = p.dialect.epsilon
    factor = scales / ((variance + epsilon.value).sqrt() if epsilon.inside else variance.sqrt() + epsilon.value)
    weights = p[prefix + "weights"].double() * factor[:, None, None, None]
    return weights.float(), (p[prefix + "biases"].double() - mean * factor).float()
