"""`[batchnorm]`: batch normalisation as a layer of its own, and the arithmetic that every layer with
`batch_normalize=1` shares.

    y = (x - rolling_mean) / denominator(rolling_variance) * scales + biases

Tensors in file order: biases (c) in AlexeyAB's fork only (pjreddie's loader leaves them out and they stay 0), then
scales (c), rolling_mean (c), rolling_variance (c) (pjreddie and AlexeyAB src/parser.c `load_batchnorm_weights`,
src/batchnorm_layer.c `forward_batchnorm_layer`). The denominator is the dialect's: sqrt(v) + 1e-6 in pjreddie's CPU
code, sqrt(v + 1e-5) in AlexeyAB's (src/blas.c `normalize_cpu`).

PyTorch: `BatchNorm2d`. ONNX: `BatchNormalization`, or one `Mul` and one `Add` where folded.
Goes wrong naively: PyTorch's order weight, bias, mean, variance; the epsilon on the wrong side of the root; Keras'
1e-3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WeightsError
from workbench.layers.base import Context, Float32, Layer, OnnxScope, Parameters, TensorSpec

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect, Epsilon

NORM_FIELDS = ("scales", "rolling_mean", "rolling_variance")

BLOCK_BYTES = 1 << 18

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, kw_only=True)
class Batchnorm(Layer):
    """Batch normalisation alone, without an activation."""

    kinds: ClassVar[tuple[str, ...]] = ("batchnorm",)

    @classmethod
    def parse(cls, context: Context) -> Batchnorm:
        return cls(**cls.common(context), output_shape=context.shape_of(context.before))

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        c = self.output_shape[0]
        fields = ("biases", *NORM_FIELDS) if dialect.stores_batchnorm_biases else NORM_FIELDS
        return tuple(TensorSpec(field, (c,)) for field in fields)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import zeros

        if p.dialect.stores_batchnorm_biases:
            return normalise(p, xs[0])
        return normalise(p, xs[0], biases=zeros(self.output_shape[0], device=xs[0].device))

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        c = self.output_shape[0]

        def biases() -> Float32:
            return g.tensor("biases") if g.dialect.stores_batchnorm_biases else np.zeros(c, np.float32)

        if not g.fold:
            return write_batch_normalization(g, xs[0], c, biases=biases)
        factor = g.weight("factor", (c, 1, 1), lambda: multiplier(g).astype(np.float32).reshape(c, 1, 1))
        shift = g.weight("shift", (c, 1, 1), lambda: _shift(g, "", biases()).reshape(c, 1, 1))
        return str(g.node("Add", g.node("Mul", xs[0], factor), shift))


def norm_tensors(prefix: str, n: int) -> tuple[TensorSpec, ...]:
    """scales, rolling_mean, rolling_variance in file order, names starting with `prefix`."""
    return tuple(TensorSpec(prefix + field, (n,)) for field in NORM_FIELDS)


def normalise(p: Parameters, y: torch.Tensor, prefix: str = "", biases: torch.Tensor | None = None) -> torch.Tensor:
    """Batch normalisation in the dialect's arithmetic; with batch statistics while training."""
    from torch.nn.functional import batch_norm

    epsilon = p.dialect.epsilon
    scales, mean, variance = (p[prefix + field] for field in NORM_FIELDS)
    biases = p[prefix + "biases"] if biases is None else biases
    if p.training:
        return batch_norm(y, mean, variance, scales, biases, True, 0.05, epsilon.value if epsilon.inside else 1e-12)
    if not epsilon.inside:
        # (sqrt(v) + e)^2 is the variance whose plain root is the wanted denominator. Denormals, also negative ones
        # as in real files, count as 0: Darknet is built with -Ofast, which flushes them.
        variance = variance.masked_fill(variance.abs() < SMALLEST_NORMAL, 0)
        variance, value = (variance.sqrt() + epsilon.value).square(), 0.0
    else:
        value = epsilon.value
    return batch_norm(y, mean, variance, scales, biases, False, 0.0, value)


def multiplier(g: OnnxScope, prefix: str = "") -> NDArray[np.float64]:
    """scales / denominator in float64, or a WeightsError where that is no number: it must not become NaN silently."""
    variance = g.tensor(prefix + "rolling_variance")
    denominator = g.dialect.epsilon.denominator(variance)
    bad = np.flatnonzero(~(denominator > 0))
    if bad.size:
        raise WeightsError(
            prefix + "rolling_variance",
            f"{bad.size} channels have no root in the dialect {g.dialect}, {g.dialect.epsilon}",
            expected="variances of 0 or more",
            found=f"{variance[bad[0]]:g} in channel {bad[0]}",
            cause="A damaged file, tensors read in the wrong order, or the dialect of another fork.",
        )
    return np.asarray(g.tensor(prefix + "scales").astype(np.float64) / denominator)


def fold_weights(g: OnnxScope, prefix: str = "") -> Float32:
    """weights * scales / denominator, computed in float64 and rounded once."""
    return np.concatenate(list(fold_blocks(g, prefix))).reshape(g.tensor(prefix + "weights").shape)


def fold_blocks(g: OnnxScope, prefix: str = "") -> Iterator[Float32]:
    """The same, some filters at a time: what is in float64 stays in the processor's cache."""
    weights = g.tensor(prefix + "weights")
    return multiply_rows(weights.reshape(len(weights), -1), multiplier(g, prefix)[:, None])


def multiply_rows(values: Float32, factors: NDArray[np.float64]) -> Iterator[Float32]:
    """values (n, m) * factors (n, 1) as blocks of rows, each product rounded once to float32."""
    n, m = values.shape
    rows = min(n, max(1, BLOCK_BYTES // (m * values.itemsize)))
    exact = np.empty((rows, m))
    for start in range(0, n, rows):
        block = values[start : start + rows]
        products = exact[: len(block)]
        np.copyto(products, block)
        products *= factors[start : start + rows]
        yield products.astype(np.float32)


def fold_biases(g: OnnxScope, prefix: str = "") -> Float32:
    """biases - rolling_mean * scales / denominator, computed in float64 and rounded once."""
    return _shift(g, prefix, g.tensor(prefix + "biases"))


def _shift(g: OnnxScope, prefix: str, biases: Float32) -> Float32:
    return np.asarray((biases - g.tensor(prefix + "rolling_mean") * multiplier(g, prefix)).astype(np.float32))


def write_batch_normalization(
    g: OnnxScope, y: str, n: int, prefix: str = "", biases: Callable[[], Float32] | None = None
) -> str:
    """Batch normalisation as its own node. ONNX adds epsilon inside the root, so an outer one is squared into the
    variance.
    """

    def tensor(name: str) -> str:
        return g.weight(prefix + name, (n,), lambda: g.tensor(prefix + name))

    shift = g.weight(prefix + "biases", (n,), biases) if biases else tensor("biases")
    variance = g.weight(prefix + "rolling_variance", (n,), lambda: variance_for(g, g.dialect.epsilon, prefix))
    epsilon = g.dialect.epsilon.value if g.dialect.epsilon.inside else 0.0
    return str(
        g.node("BatchNormalization", y, tensor("scales"), shift, tensor("rolling_mean"), variance, epsilon=epsilon)
    )


def variance_for(g: OnnxScope, epsilon: Epsilon, prefix: str = "") -> Float32:
    """The variance to store so that sqrt(variance + ONNX's epsilon) is the dialect's denominator."""
    multiplier(g, prefix)  # raises where there is no root
    squared = np.square(epsilon.denominator(g.tensor(prefix + "rolling_variance")))
    return np.asarray((squared - epsilon.value if epsilon.inside else squared).astype(np.float32))
