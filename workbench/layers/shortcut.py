"""`[shortcut]`: adds one or more earlier layers to the layer before, then the activation.

The output has the shape of the layer before. Where an earlier layer has other channels, the common ones are added
(pjreddie and AlexeyAB src/blas.c `shortcut_cpu`, AlexeyAB `shortcut_multilayer_cpu`). Where it has another size,
pjreddie's Darknet takes every stride-th pixel of a larger one, from the first on, or adds a smaller one to every
stride-th pixel; AlexeyAB's refuses to load (assertion in src/shortcut_layer.c). That is how the resnet cfgs shrink.
pjreddie reads `alpha=` and `beta=`, AlexeyAB several layers in `from=`; each ignores the other's.

No tensors, but with AlexeyAB's `weights_type=`: weights (1 + sources) for `per_feature` or `per_layer`, (1 + sources,
c) for `per_channel`, the layer before first; `weights_normalization=` divides by the sum of relu(w) or exp(w - max),
plus 0.0001. PyTorch: `+`. ONNX: `Add`, after `Slice`, `Pad` or `ConvTranspose` where shapes differ. Goes wrong
naively: `from=` counted from the wrong layer; the `activation=` after the sum forgotten; averaging instead of picking
pixels; only the first of several sources added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Float32, Layer, OnnxScope, Parameters, Shape, TensorSpec

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

WEIGHTS_TYPES = ("none", "per_feature", "per_layer", "per_channel")
NORMALIZATIONS = {"none": "none", "relu": "relu", "avg_relu": "relu", "softmax": "softmax"}
SUM_EPSILON = 0.0001
"""What AlexeyAB adds to the sum of the weights."""


@dataclass(frozen=True)
class Step:
    """How a map of another size meets the output: every `take`-th pixel of it, at every `give`-th of the output."""

    take: int
    give: int

    @classmethod
    def between(cls, context: Context, source: int, shape: Shape, here: Shape) -> Step:
        """The strides between two shapes; raises CfgError where height and width disagree."""
        takes, gives = [shape[i] // here[i] for i in (1, 2)], [here[i] // shape[i] for i in (1, 2)]
        if takes[0] != takes[1] or gives[0] != gives[1]:
            raise context.error(
                "from",
                f"layer {source} has another size than the layer before, and no whole stride lies between",
                expected=f"{here[2]}x{here[1]}",
                found=f"{shape[2]}x{shape[1]}",
                cause="from= counts from the wrong layer?",
            )
        return cls(max(takes[0], 1), max(gives[0], 1))


@dataclass(frozen=True, kw_only=True)
class Shortcut(Layer):
    """Residual addition. alpha and beta weigh the layer before and the earlier ones where the dialect reads them."""

    kinds: ClassVar[tuple[str, ...]] = ("shortcut",)

    activation: str
    alpha: float
    beta: float
    steps: tuple[Step, ...]
    weights_type: str = "none"
    normalization: str = "none"

    @classmethod
    def parse(cls, context: Context) -> Shortcut:
        o = context.options
        sources = context.references("from")
        here = context.shape_of(context.before)
        steps = tuple(Step.between(context, source, context.shape_of(source), here) for source in sources)
        kind = o.text("weights_type", "none")
        normalization = o.text("weights_normalization", "none")
        for key, value, known in (
            ("weights_type", kind, WEIGHTS_TYPES),
            ("weights_normalization", normalization, tuple(NORMALIZATIONS)),
        ):
            if value not in known:
                raise context.error(key, f"{key}={value} is not known", expected=", ".join(known), found=value)
        layer = cls(
            **cls.common(context, (context.before, *sources)),
            output_shape=here,
            activation=read_activation(context, "linear"),
            alpha=o.number("alpha", 1.0),
            beta=o.number("beta", 1.0),
            steps=steps,
            weights_type=kind,
            normalization=NORMALIZATIONS[normalization],
        )
        unequal = any(shape != here for shape in layer.input_shapes)
        if layer.alpha != 1 and unequal:
            raise context.error(
                "alpha",
                "alpha= together with unequal shapes is not supported",
                cause="Darknet scales only some of the values then.",
            )
        if layer.weighted and any(shape[1:] != here[1:] for shape in layer.input_shapes):
            raise context.error(
                "weights_type",
                "a weighted shortcut needs maps of one size",
                expected=here,
                found=layer.input_shapes[1:],
            )
        return layer

    @property
    def weighted(self) -> bool:
        """Whether each source is multiplied with a learned weight."""
        return self.weights_type != "none"

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        if not self.weighted:
            return ()
        per_channel = (self.output_shape[0],) if self.weights_type == "per_channel" else ()
        return (TensorSpec("weights", (len(self.inputs), *per_channel)),)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        if self.weighted:
            weights = self._normalise(p["weights"]).reshape(len(xs), 1, -1, 1, 1)
            xs = tuple(x * self._common(weights[i], x.shape[1]) for i, x in enumerate(xs))
        alpha, beta = self._factors(p.dialect)
        y = xs[0] if alpha == 1 else xs[0] * alpha
        for number, x in enumerate(xs[1:]):
            y = y + self._fit(x if beta == 1 else x * beta, number)
        return ACTIVATIONS[self.activation].torch_(y)

    def _factors(self, dialect: Dialect) -> tuple[float, float]:
        return (self.alpha, self.beta) if dialect.reads_alpha_beta else (1.0, 1.0)

    def _common(self, weights: torch.Tensor, channels: int) -> torch.Tensor:
        """Weights of the channels that a source has; those it has too many are cut off afterwards."""
        from torch.nn.functional import pad

        count = weights.shape[1]
        return weights if count == 1 else pad(weights[:, :channels], (0, 0, 0, 0, 0, max(channels - count, 0)))

    def _normalise(self, weights: torch.Tensor) -> torch.Tensor:
        if self.normalization == "none":
            return weights
        parts = weights.relu() if self.normalization == "relu" else (weights - weights.amax(0)).exp()
        return parts / (parts.sum(0) + SUM_EPSILON)

    def _fit(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """A source in the shape of the output: pixels picked or spread, channels cut off or zero."""
        from torch.nn.functional import conv_transpose2d, pad

        step, (channels, h, w) = self.steps[number], self.output_shape
        if step.take > 1 or x.shape[2] > h:
            x = x[:, :, :: step.take, :: step.take]
        if step.give > 1:
            ones = x.new_ones(x.shape[1], 1, 1, 1)
            x = conv_transpose2d(x, ones, stride=step.give, output_padding=step.give - 1, groups=x.shape[1])
        if self._odd(number):
            x = x[:, :, :h, :w]
        missing = [
            *((0, w - x.shape[3], 0, h - x.shape[2]) if self._odd(number) else (0, 0, 0, 0)),
            0,
            channels - x.shape[1],
        ]
        x = x[:, :channels]
        return pad(x, [max(n, 0) for n in missing]) if max(missing) > 0 else x

    def _odd(self, number: int) -> bool:
        """Whether strides alone do not make the sizes equal, so that rows and columns have to be cut off or added."""
        step, (_, h, w), (_, height, width) = self.steps[number], self.input_shapes[number + 1], self.output_shape
        return (h * step.give, w * step.give) != (height * step.take, width * step.take)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        if self.weighted:
            xs = tuple(g.node("Mul", x, self._onnx_weight(g, i)) for i, x in enumerate(xs))
        alpha, beta = self._factors(g.dialect)
        y = xs[0] if alpha == 1 else g.node("Mul", xs[0], g.constant("alpha", alpha))
        for number, x in enumerate(xs[1:]):
            scaled = x if beta == 1 else g.node("Mul", x, g.constant("beta", beta))
            y = g.node("Add", y, self._onnx_fit(g, scaled, number))
        return ACTIVATIONS[self.activation].onnx_(g, str(y))

    def _onnx_weight(self, g: OnnxScope, number: int) -> str:
        count = self.input_shapes[number][0] if self.weights_type == "per_channel" else 1

        def make() -> Float32:
            from torch import from_numpy

            weights = self._normalise(from_numpy(np.array(g.tensor("weights"))).reshape(len(self.inputs), 1, -1, 1, 1))
            return np.asarray(self._common(weights[number], count)[0].numpy())

        return g.weight(f"weight_{number}", (count, 1, 1), make)

    def _onnx_fit(self, g: OnnxScope, x: str, number: int) -> str:
        step, (channels, h, w), c = self.steps[number], self.output_shape, self.input_shapes[number + 1][0]

        def numbers(name: str, values: list[int]) -> str:
            return g.constant(f"{name}_{number}", values, "int64")

        if step.take > 1:
            far = [np.iinfo(np.int32).max] * 2
            limits = (
                numbers("first", [0, 0]),
                numbers("far", far),
                numbers("map", [2, 3]),
                numbers("take", [step.take] * 2),
            )
            x = g.node("Slice", x, *limits)
        if step.give > 1:
            ones = g.constant(f"ones_{number}", np.ones((c, 1, 1, 1)))
            x = g.node("ConvTranspose", x, ones, strides=[step.give] * 2, output_padding=[step.give - 1] * 2, group=c)
        if self._odd(number):
            x = g.node("Slice", x, numbers("top", [0, 0]), numbers("bottom", [h, w]), numbers("axes", [2, 3]))
        have = [-(-n // step.take) * step.give for n in self.input_shapes[number + 1][1:]]
        rows, columns = (max(h - have[0], 0), max(w - have[1], 0)) if self._odd(number) else (0, 0)
        if c > channels:
            x = g.node("Slice", x, numbers("zero", [0]), numbers("channels", [channels]), numbers("axis", [1]))
        if c < channels or rows or columns:
            x = g.node("Pad", x, numbers("pads", [0] * 4 + [0, max(channels - c, 0), rows, columns]))
        return x
