"""`[convolutional]`: a convolution, then batch normalisation where asked for, then the activation.

Tensors in file order: biases (n), and with `batch_normalize=1` scales (n), rolling_mean (n), rolling_variance (n); then
weights (n, c/groups, size, size). The biases are batch normalisation's beta where there is one: Darknet has no other
(pjreddie src/parser.c `load_convolutional_weights`, src/convolutional_layer.c `forward_convolutional_layer`).

    y = activation((conv(x) - rolling_mean) / denominator(rolling_variance) * scales + biases)

The denominator is the dialect's: sqrt(v) + 1e-6 in pjreddie's CPU code, sqrt(v + 1e-5) in AlexeyAB's. Folding, exact in
real numbers: weights' = weights * scales / denominator, biases' = biases - rolling_mean * scales / denominator.

PyTorch: `Conv2d` + `BatchNorm2d` + activation. ONNX: `Conv` (+ `BatchNormalization` where not folded) + activation.
Goes wrong naively: weights read before the batch normalisation tensors; PyTorch's order weight, bias, mean, variance;
`pad=1` taken as one pixel (it means size/2; `padding=` is in pixels); leaky 0.01; PyTorch's epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.errors import WeightsError
from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Float32, Layer, OnnxScope, Parameters, TensorSpec

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect, Epsilon


@dataclass(frozen=True, kw_only=True)
class Convolutional(Layer):
    """One convolution. `size`, `padding` in pixels; `stride` is (vertical, horizontal)."""

    kinds: ClassVar[tuple[str, ...]] = ("convolutional",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"flipped", "dot", "assisted_excitation"})

    filters: int
    groups: int
    size: int
    stride: tuple[int, int]
    padding: int
    dilation: int
    batch_normalize: bool
    activation: str

    @classmethod
    def parse(cls, context: Context) -> Convolutional:
        o = context.options
        c, h, w = context.shape_of(context.before)
        size = o.integer("size", 1, least=1, most=1024)
        padding = size // 2 if o.integer("pad", 0) else o.integer("padding", 0, least=0, most=1024)
        if "padding" in o and o.integer("pad", 0):
            o.ignore("padding")
        stride = o.integer("stride", 1, least=1, most=1024)
        strides = (o.integer("stride_y", stride, least=1), o.integer("stride_x", stride, least=1))
        filters, groups = o.integer("filters", 1, least=1, most=1 << 20), max(o.integer("groups", 1, least=0), 1)
        dilation = o.integer("dilation", 1, least=1, most=1024) if size > 1 else 1
        _refuse_unsupported(context)
        if c % groups or filters % groups:
            raise context.error("groups", f"groups={groups} divides neither", expected=f"a divisor of {c} inputs and {filters} filters", found=groups)
        out_h = context.size("size", (h + 2 * padding - size) // strides[0] + 1, "height")
        out_w = context.size("size", (w + 2 * padding - size) // strides[1] + 1, "width")
        return cls(
            **cls.common(context), output_shape=(filters, out_h, out_w), filters=filters, groups=groups, size=size,
            stride=strides, padding=padding, dilation=dilation, batch_normalize=bool(o.integer("batch_normalize", 0)),
            activation=read_activation(context),
        )

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        n, c = self.filters, self.input_shapes[0][0]
        norm = [TensorSpec(name, (n,)) for name in ("scales", "rolling_mean", "rolling_variance")] if self.batch_normalize else []
        return (TensorSpec("biases", (n,)), *norm, TensorSpec("weights", (n, c // self.groups, self.size, self.size)))

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import conv2d

        bias = None if self.batch_normalize else p["biases"]
        padding, dilation = self.padding * self.dilation, self.dilation
        y = conv2d(xs[0], p["weights"], bias, self.stride, padding, dilation, self.groups)
        if self.batch_normalize:
            y = normalise(p, y)
        return ACTIVATIONS[self.activation].torch_(y)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        n, c = self.filters, self.input_shapes[0][0]
        shape = (n, c // self.groups, self.size, self.size)
        folded = self.batch_normalize and g.fold
        weights = g.weight("weights", shape, lambda: fold_weights(g) if folded else g.tensor("weights"))
        inputs = [xs[0], weights]
        if folded or not self.batch_normalize:
            inputs.append(g.weight("biases", (n,), lambda: fold_biases(g) if folded else g.tensor("biases")))
        y = g.node(
            "Conv", *inputs, kernel_shape=[self.size] * 2, strides=list(self.stride), group=self.groups,
            pads=[self.padding * self.dilation] * 4, dilations=[self.dilation] * 2,
        )
        if self.batch_normalize and not g.fold:
            y = write_batch_normalization(g, y)
        return ACTIVATIONS[self.activation].onnx_(g, y)


def _refuse_unsupported(context: Context) -> None:
    for key in ("xnor", "binary", "antialiasing", "deform", "sway", "rotate", "stretch", "stretch_sway", "share_index", "dontload", "dontloadscales"):
        if key in context.options and (context.options.integer(key, 0) or key == "share_index"):
            raise context.error(key, f"{key}= in [convolutional] is not supported")


# ---------------------------------------------------------------------------------- batch normalisation, shared


def normalise(p: Parameters, y: torch.Tensor) -> torch.Tensor:
    """Batch normalisation in the dialect's arithmetic; with batch statistics while training."""
    from torch.nn.functional import batch_norm

    epsilon = p.dialect.epsilon
    mean, variance = p["rolling_mean"], p["rolling_variance"]
    if p.training:
        return batch_norm(y, mean, variance, p["scales"], p["biases"], True, 0.05, epsilon.value if epsilon.inside else 1e-12)
    if not epsilon.inside:
        # (sqrt(v) + e)^2 is the variance whose plain root is the wanted denominator; +0 makes -0 and denormals harmless.
        variance, value = (variance.sqrt() + epsilon.value).square(), 0.0
    else:
        value = epsilon.value
    return batch_norm(y, mean, variance, p["scales"], p["biases"], False, 0.0, value)


def multiplier(g: OnnxScope) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """scales / denominator in float64, or a WeightsError where that is no number: it must not become NaN silently."""
    variance = g.tensor("rolling_variance")
    denominator = g.dialect.epsilon.denominator(variance)
    bad = np.flatnonzero(~(denominator > 0))
    if bad.size:
        raise WeightsError(
            "rolling_variance", f"{bad.size} channels have no root in the dialect {g.dialect}, {g.dialect.epsilon}",
            expected="variances of 0 or more", found=f"{variance[bad[0]]:g} in channel {bad[0]}",
            cause="A damaged file, tensors read in the wrong order, or the dialect of another fork.",
        )
    return np.asarray(g.tensor("scales").astype(np.float64) / denominator)


def fold_weights(g: OnnxScope) -> Float32:
    """weights * scales / denominator, computed in float64 and rounded once."""
    weights = g.tensor("weights")
    factor = multiplier(g).reshape(-1, *[1] * (weights.ndim - 1))
    return np.asarray((weights * factor).astype(np.float32))


def fold_biases(g: OnnxScope) -> Float32:
    """biases - rolling_mean * scales / denominator, computed in float64 and rounded once."""
    return np.asarray((g.tensor("biases") - g.tensor("rolling_mean") * multiplier(g)).astype(np.float32))


def write_batch_normalization(g: OnnxScope, y: str) -> str:
    """Batch normalisation as its own node. ONNX adds epsilon inside the root, so an outer one is squared into the variance."""
    n = (g.tensor("scales").size,)
    parts = [g.weight(name, n, lambda name=name: g.tensor(name)) for name in ("scales", "biases", "rolling_mean")]  # type: ignore[misc]
    variance = g.weight("rolling_variance", n, lambda: variance_for(g, g.dialect.epsilon))
    return str(g.node("BatchNormalization", y, *parts, variance, epsilon=g.dialect.epsilon.value if g.dialect.epsilon.inside else 0.0))


def variance_for(g: OnnxScope, epsilon: Epsilon) -> Float32:
    """The variance to store so that sqrt(variance + ONNX's epsilon) is the dialect's denominator."""
    multiplier(g)  # raises where there is no root
    squared = np.square(epsilon.denominator(g.tensor("rolling_variance")))
    return np.asarray((squared - epsilon.value if epsilon.inside else squared).astype(np.float32))
