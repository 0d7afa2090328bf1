"""Layers that compute as mistaken code does: what `network.py` mixes into a network, in PyTorch and in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from workbench.layers.base import Float32, Layer, OnnxScope, Parameters
from workbench.layers.maxpool import Maxpool, Window
from workbench.layers.upsample import Upsample
from workbench.pitfalls.base import Mistake, mix

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

FLOAT32, FLOAT16 = 1, 10
"""ONNX's numbers for its types."""


@dataclass(frozen=True)
class LeftWindow(Window):
    """The larger half of the padding lies left and above."""

    @property
    def before(self) -> int:
        return self.padding - self.padding // 2

    @property
    def after(self) -> int:
        return self.padding // 2


@dataclass(frozen=True)
class BareWindow(Window):
    """No padding; `lost` pixels were there, right and below or on both sides."""

    lost: int = 0


class ZeroPadded(Mistake):
    """Max-pooling after padding with zeros: 0 wins over negative values."""

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import pad

        window = _window(self)
        return _bare(self, window).forward(p, pad(xs[0], window.torch_pads))

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        window, x = _window(self), xs[0]
        for axis in (2, 3):
            x = _join_zeros(g, x, axis, window.before, window.after)
        return _bare(self, window).onnx(g, x)


def _join_zeros(g: OnnxScope, x: str, axis: int, before: int, after: int) -> str:
    """Rows or columns of zeros around `x`, without a Pad: ONNX Runtime 1.31 takes a Pad of zeros into the MaxPool that
    follows, where it means minus infinity, and so undoes the mistake."""
    limits = [
        g.constant(f"{name}_{axis}", [value], "int64") for name, value in (("first", 0), ("second", 1), ("axis", axis))
    ]
    zeros = g.node("Mul", g.node("Slice", x, *limits), g.constant("nothing", 0.0))
    parts = [*[zeros] * before, x, *[zeros] * after]
    return x if len(parts) == 1 else str(g.node("Concat", *parts, axis=axis))


class Unpadded(Mistake):
    """Max-pooling without padding; what is missing of the output then is zero, right and below."""

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import pad

        y, (right, below) = super().forward(p, *xs), self._missing(xs[0].shape[3], xs[0].shape[2])
        return pad(y, (0, right, 0, below))

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        _, h, w = self.input_shapes[0]
        right, below = self._missing(w, h)
        pads = g.constant("lost", [0, 0, 0, 0, 0, 0, below, right], "int64")
        return str(g.node("Pad", super().onnx(g, *xs), pads))

    def _missing(self, *sizes: int) -> tuple[int, ...]:
        window = cast("BareWindow", _window(self))
        return tuple(
            (n + window.lost - window.size) // stride - (n - window.size) // stride
            for n, stride in zip(sizes, window.stride[::-1], strict=True)
        )


def _window(layer: Layer) -> Window:
    return cast(Maxpool, layer).window


def _bare(layer: Layer, window: Window) -> Maxpool:
    """The plain pool of the same size and stride, without padding."""
    pool = cast(Maxpool, layer)
    return Maxpool(
        index=pool.index, kind=pool.kind, line=pool.line, inputs=pool.inputs, input_shapes=pool.input_shapes,
        output_shape=pool.output_shape, window=Window(window.size, window.stride, 0), blur=pool.blur,
    )  # fmt: skip


class Bilinear(Mistake):
    """Bilinear upsampling, `align_corners=False`."""

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return _interpolate(cast(Upsample, self), xs[0], corners=False)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return _resize(cast(Upsample, self), g, xs[0], "half_pixel")


class BilinearCorners(Mistake):
    """Bilinear upsampling, `align_corners=True`."""

    rank = 1

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return _interpolate(cast(Upsample, self), xs[0], corners=True)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        return _resize(cast(Upsample, self), g, xs[0], "align_corners")


def _interpolate(layer: Upsample, x: torch.Tensor, corners: bool) -> torch.Tensor:
    from torch.nn.functional import interpolate

    return interpolate(x, scale_factor=float(layer.stride), mode="bilinear", align_corners=corners) * layer.scale


def _resize(layer: Upsample, g: OnnxScope, x: str, coordinates: str) -> str:
    scales = g.constant("scales", [1.0, 1.0, float(layer.stride), float(layer.stride)])
    y = g.node("Resize", x, "", scales, mode="linear", coordinate_transformation_mode=coordinates)
    return str(g.node("Mul", y, g.constant("scale", layer.scale)))


class HalfPrecision(Mistake):
    """Tensors and outputs rounded to float16: what exceeds 65504 becomes infinite. Sums stay float32, as on a GPU."""

    rank = 9

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        return _round_to_half(super().forward(HalfParameters(p), *xs))

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        y = super().onnx(cast(OnnxScope, HalfScope(g)), *xs)
        return str(g.node("Cast", g.node("Cast", y, to=FLOAT16), to=FLOAT32))


class HalfParameters:
    """A layer's tensors, rounded to float16."""

    def __init__(self, parameters: Parameters) -> None:
        self.dialect: Dialect = parameters.dialect
        self.training = parameters.training
        self._parameters = parameters

    def __getitem__(self, field: str) -> torch.Tensor:
        return _round_to_half(self._parameters[field])


class HalfScope:
    """A layer's place in a graph, its weights rounded to float16 as they are written, after folding."""

    def __init__(self, scope: OnnxScope) -> None:
        self._scope = scope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scope, name)

    def weight(self, name: str, shape: Sequence[int], make: Callable[[], Float32 | Iterable[Float32]]) -> str:
        """As `OnnxScope.weight`."""

        def rounded() -> Float32 | Iterable[Float32]:
            values = make()
            return _half(values) if isinstance(values, np.ndarray) else map(_half, values)

        return self._scope.weight(name, shape, rounded)


def _half(values: Float32) -> Float32:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def _round_to_half(x: torch.Tensor) -> torch.Tensor:
    return x.half().to(x.dtype)


def pad_nothing(layer: Maxpool) -> Maxpool:
    """The pool without its padding, where that changes the size of what comes out, and something comes out."""
    window, (_, h, w) = layer.window, layer.input_shapes[0]
    pairs = zip((h, w), window.stride, strict=True)
    smaller = any((n + window.padding - window.size) // s != (n - window.size) // s for n, s in pairs)
    if layer.depth or not smaller or min(h, w) < window.size:
        return layer
    bare = BareWindow(window.size, window.stride, 0, lost=window.padding)
    return cast(Maxpool, mix(replace(layer, window=bare), Unpadded))
