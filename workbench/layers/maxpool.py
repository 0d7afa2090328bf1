"""`[maxpool]`: the largest value of each window; what lies outside the picture never wins.

`padding=` is the total, size-1 by default; floor(padding/2) of it lies left and above, so a 2/1 pool pads right and
below only (pjreddie src/maxpool_layer.c `forward_maxpool_layer`, AlexeyAB src/maxpool_layer.c; `w_offset = -pad/2`).
Output: floor((n + padding - size) / stride) + 1. No tensors. AlexeyAB only: `stride_x`, `stride_y`; `maxpool_depth=1`
takes the largest of every out_channels-th channel at each place instead; `antialiasing=` pools with stride 1 and blurs
(`antialiasing.py`).

PyTorch: pad with minus infinity, then `MaxPool2d`. ONNX: `MaxPool`, whose `pads` mean minus infinity by definition.
Goes wrong naively: padding with zeros (a leaky output is often negative, and 0 then wins), `MaxPool2d(3, 1, 1)` for the
2/1 pool, Caffe's ceiling. AlexeyAB built with AVX itself computes stride 1 wrongly at the left border: its
src/gemm.c `forward_maxpool_layer_avx` skips eight outputs when the first of them looks outside; here it is done right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.layers.antialiasing import Blur
from workbench.layers.base import Context, Layer, OnnxScope, Parameters, Shape

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Window:
    """A pooling window: `stride` is (vertical, horizontal), `padding` the pixels on both sides together."""

    size: int
    stride: tuple[int, int]
    padding: int

    @classmethod
    def read(cls, context: Context) -> Window:
        """From `size=`, `stride=`, `stride_x=`, `stride_y=` and `padding=`."""
        o = context.options
        stride = o.integer("stride", 1, least=1, most=1024)
        strides = (o.integer("stride_y", stride, least=1), o.integer("stride_x", stride, least=1))
        size = o.integer("size", stride, least=1, most=1024)
        padding = o.integer("padding", size - 1, least=0, most=2048)
        if padding - padding // 2 >= size and size > 1:
            raise context.error(
                "padding",
                "whole windows would lie outside the picture",
                expected=f"padding below {2 * size - 1}",
                found=padding,
            )
        return cls(size, strides, padding)

    @property
    def before(self) -> int:
        """Pixels of padding left and above."""
        return self.padding // 2

    @property
    def after(self) -> int:
        """Pixels of padding right and below."""
        return self.padding - self.padding // 2

    def output(self, context: Context, h: int, w: int) -> tuple[int, int]:
        """Height and width after pooling; raises CfgError where nothing is left."""
        out_h = context.size("size", (h + self.padding - self.size) // self.stride[0] + 1, "height")
        return out_h, context.size("size", (w + self.padding - self.size) // self.stride[1] + 1, "width")

    @property
    def torch_pads(self) -> tuple[int, int, int, int]:
        """For `torch.nn.functional.pad`: left, right, top, bottom."""
        return (self.before, self.after, self.before, self.after)

    @property
    def onnx_attributes(self) -> dict[str, Any]:
        """Of ONNX's `MaxPool` and `AveragePool`."""
        pads = [self.before] * 2 + [self.after] * 2
        return {"kernel_shape": [self.size] * 2, "strides": list(self.stride), "pads": pads}


@dataclass(frozen=True, kw_only=True)
class Maxpool(Layer):
    """Max-pooling; over `depth` channels at each place instead of over windows where that is not None."""

    kinds: ClassVar[tuple[str, ...]] = ("maxpool",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"maxpool_zero_nonmax"})

    window: Window
    blur: Blur | None = None
    depth: bool = False

    @classmethod
    def parse(cls, context: Context) -> Maxpool:
        o = context.options
        c, h, w = context.shape_of(context.before)
        window, blur = Window.read(context), Blur.read(context)
        if o.integer("maxpool_depth", 0):
            channels = o.integer("out_channels", 1, least=1, most=c)
            return cls(**cls.common(context), output_shape=(channels, h, w), window=window, depth=True)
        o.ignore("out_channels")
        strided = window.stride
        if blur:
            window = Window(window.size, (1, 1), window.padding)
        shape: Shape = (c, *window.output(context, h, w))
        if blur:
            blur = Blur(blur.kind, strided)
            shape = (c, *blur.output(context, *shape[1:]))
        return cls(**cls.common(context), output_shape=shape, window=window, blur=blur)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        if self.depth:
            return self._over_channels(xs[0])
        from torch.nn.functional import max_pool2d, pad

        window, x = self.window, xs[0]
        if window.before == window.after <= window.size // 2:
            y = max_pool2d(x, window.size, window.stride, window.before)
        else:
            y = max_pool2d(pad(x, window.torch_pads, value=float("-inf")), window.size, window.stride)
        return self.blur.forward(y) if self.blur else y

    def _over_channels(self, x: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import pad

        rest = -x.shape[1] % self.output_shape[0]
        x = pad(x, (0, 0, 0, 0, 0, rest), value=float("-inf"))
        return x.reshape(x.shape[0], -1, self.output_shape[0], *x.shape[2:]).amax(1)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        if self.depth:
            return self._onnx_over_channels(g, xs[0])
        y = str(g.node("MaxPool", xs[0], **self.window.onnx_attributes))
        return self.blur.onnx(g, y, self.output_shape[0]) if self.blur else y

    def _onnx_over_channels(self, g: OnnxScope, x: str) -> str:
        channels, count = self.output_shape[0], self.input_shapes[0][0]
        parts = []
        for number, start in enumerate(range(0, count, channels)):
            limits = (("start", start), ("stop", min(start + channels, count)))
            ends = [g.constant(f"{name}_{number}", [value], "int64") for name, value in limits]
            part = g.node("Slice", x, *ends, g.constant("axis", [1], "int64"))
            missing = start + channels - count
            if missing > 0:
                pads = g.constant("missing", [0, 0, 0, 0, 0, missing, 0, 0], "int64")
                part = g.node("Pad", part, pads, g.constant("lowest", float("-inf")))
            parts.append(part)
        return str(parts[0] if len(parts) == 1 else g.node("Max", *parts))
