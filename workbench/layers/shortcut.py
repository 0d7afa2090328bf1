"""`[shortcut]`: adds an earlier layer to the layer before, then the activation. No tensors.

The output has the shape of the layer before. Where the earlier layer has other channels, the common ones are added
(pjreddie and AlexeyAB src/blas.c `shortcut_cpu`). Where it has another size, pjreddie's Darknet takes every
stride-th pixel of the larger one; AlexeyAB's refuses to load.
PyTorch: `+`. ONNX: `Add`.
Goes wrong naively: `from=` counted from the wrong layer; the `activation=` after the sum forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Shortcut(Layer):
    """Residual addition; alpha and beta weigh the layer before and the earlier one (pjreddie only)."""

    kinds: ClassVar[tuple[str, ...]] = ("shortcut",)

    activation: str
    alpha: float
    beta: float

    @classmethod
    def parse(cls, context: Context) -> Shortcut:
        o = context.options
        sources = (context.before, *context.references("from"))
        if "weights_type" in o and o.text("weights_type", "none") != "none":
            raise context.error("weights_type", "a weighted shortcut is not supported")
        here = context.shape_of(context.before)
        for source in sources[1:]:
            _, h, w = context.shape_of(source)
            if (h, w) != here[1:]:
                raise context.error(
                    "from", f"layer {source} has another size than the layer before",
                    expected=f"{here[2]}x{here[1]}", found=f"{w}x{h}", cause="from= counts from the wrong layer?",
                )
        return cls(
            **cls.common(context, sources), output_shape=here, activation=read_activation(context, "linear"),
            alpha=o.number("alpha", 1.0), beta=o.number("beta", 1.0),
        )

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        y = xs[0] if self.alpha == 1 else xs[0] * self.alpha
        for x in xs[1:]:
            y = y + self._fit(x if self.beta == 1 else x * self.beta)
        return ACTIVATIONS[self.activation].torch_(y)

    def _fit(self, x: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import pad

        c, channels = x.shape[1], self.output_shape[0]
        return x if c == channels else x[:, :channels] if c > channels else pad(x, (0, 0, 0, 0, 0, channels - c))

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        y = xs[0] if self.alpha == 1 else g.node("Mul", xs[0], g.constant("alpha", self.alpha))
        for number, x in enumerate(xs[1:], start=1):
            scaled = x if self.beta == 1 else g.node("Mul", x, g.constant("beta", self.beta))
            y = g.node("Add", y, self._onnx_fit(g, scaled, number))
        return ACTIVATIONS[self.activation].onnx_(g, str(y))

    def _onnx_fit(self, g: OnnxScope, x: str, number: int) -> str:
        c, channels = self.input_shapes[number][0], self.output_shape[0]
        if c > channels:
            limits = (g.constant("zero", [0], "int64"), g.constant(f"channels_{number}", [channels], "int64"), g.constant("axis", [1], "int64"))
            return str(g.node("Slice", x, *limits))
        if c < channels:
            return str(g.node("Pad", x, g.constant(f"pads_{number}", [0, 0, 0, 0, 0, channels - c, 0, 0], "int64")))
        return x
