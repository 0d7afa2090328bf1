"""`[convolutional]`: a convolution, then batch normalisation where asked for, then the activation.

Tensors in file order: biases (n), and with `batch_normalize=1` scales (n), rolling_mean (n), rolling_variance (n); then
weights (n, c/groups, size, size). The biases are batch normalisation's beta where there is one: Darknet has no other
(pjreddie src/parser.c `load_convolutional_weights`, src/convolutional_layer.c `forward_convolutional_layer`).

    y = activation((conv(x) - rolling_mean) / denominator(rolling_variance) * scales + biases)

The denominator is the dialect's (`batchnorm.py`). Folding, exact in real numbers: weights' = weights * scales /
denominator, biases' = biases - rolling_mean * scales / denominator.

AlexeyAB only: `groups`, `stride_x`, `stride_y`; `dilation=d` spreads the kernel and multiplies the padding by d, so
the size stays; `share_index=i` stores nothing and computes with the tensors of layer i; `antialiasing`
(`antialiasing.py`). Both: `binary=1` and `xnor=1` compute with signs (`binary.py`); `flipped=1` stores the weights
transposed.

PyTorch: `Conv2d` + `BatchNorm2d` + activation. ONNX: `Conv` (+ `BatchNormalization` where not folded) + activation.
Goes wrong naively: weights read before the batch normalisation tensors; PyTorch's order weight, bias, mean, variance;
`pad=1` taken as one pixel (it means size/2; `padding=` is in pixels); leaky 0.01; PyTorch's epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.antialiasing import Blur
from workbench.layers.base import Context, Layer, OnnxScope, Parameters, Shape, TensorSpec
from workbench.layers.batchnorm import fold_biases, fold_blocks, norm_tensors, normalise, write_batch_normalization
from workbench.layers.binary import NO_SIGNS, Signs

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

UNSUPPORTED = ("deform", "sway", "rotate", "stretch", "stretch_sway", "coordconv", "cbn", "dontload", "dontloadscales")


@dataclass(frozen=True)
class Filters:
    """Filters with biases and perhaps batch normalisation: what `[convolutional]`, `[crnn]` and `[conv_lstm]` are made
    of.

    (n, channels, h, w) -> (n, filters, h', w'). `padding` is in pixels, before the dilation multiplies it; `stride` is
    (vertical, horizontal); `prefix` starts the names of the tensors (`input.weights`).
    """

    prefix: str
    channels: int
    filters: int
    size: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    batch_normalize: bool = False
    flipped: bool = False
    signs: Signs = NO_SIGNS

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the weights."""
        return (self.filters, self.channels // self.groups, self.size, self.size)

    def output(self, context: Context, h: int, w: int) -> Shape:
        """(filters, height, width); raises CfgError where nothing is left. Darknet leaves the dilation out of this."""
        out_h = context.size("size", (h + 2 * self.padding - self.size) // self.stride[0] + 1, "height")
        return (
            self.filters,
            out_h,
            context.size("size", (w + 2 * self.padding - self.size) // self.stride[1] + 1, "width"),
        )

    def tensors(self) -> tuple[TensorSpec, ...]:
        """In file order."""
        norm = norm_tensors(self.prefix, self.filters) if self.batch_normalize else ()
        weights = TensorSpec(self.prefix + "weights", self.shape, "always" if self.flipped else "never")
        return (TensorSpec(self.prefix + "biases", (self.filters,)), *norm, weights)

    def forward(self, p: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Without the activation."""
        from torch.nn.functional import conv2d

        pre = self.prefix
        weights, biases = p[pre + "weights"], p[pre + "biases"]
        normalised_after = self.batch_normalize
        if self.signs and not p.training:
            x, weights, biases, normalised_after = self.signs.torch(
                p, pre, x, self.padding * self.dilation, self.batch_normalize
            )
        padding = 0 if self.signs.pads(p.dialect) and not p.training else self.padding * self.dilation
        y = conv2d(x, weights, None if normalised_after else biases, self.stride, padding, self.dilation, self.groups)
        return normalise(p, y, pre) if normalised_after else y

    def onnx(self, g: OnnxScope, x: str) -> str:
        """The same as nodes."""
        pre, n = self.prefix, (self.filters,)
        folded = self.batch_normalize and (g.fold or self.signs.folds(g.dialect))
        make = (lambda: fold_blocks(g, pre)) if folded and not self.signs else (lambda: g.tensor(pre + "weights"))
        if self.signs:
            make = self.signs.weights(g, pre, self.batch_normalize)
        padding = self.padding * self.dilation
        if self.signs:
            x = self.signs.onnx(g, x, padding)
        inputs = [x, g.weight(pre + "weights", self.shape, make)]
        if folded or not self.batch_normalize:
            inputs.append(
                g.weight(pre + "biases", n, lambda: fold_biases(g, pre) if folded else g.tensor(pre + "biases"))
            )
        pads = [0 if self.signs.pads(g.dialect) else padding] * 4
        y = str(
            g.node(
                "Conv",
                *inputs,
                kernel_shape=[self.size] * 2,
                strides=list(self.stride),
                group=self.groups,
                pads=pads,
                dilations=[self.dilation] * 2,
            )
        )
        return write_batch_normalization(g, y, self.filters, pre) if self.batch_normalize and not folded else y


@dataclass(frozen=True, kw_only=True)
class Convolutional(Layer):
    """One convolution. `bin_output`: AlexeyAB leaves the activation out, because only signs of it are used."""

    kinds: ClassVar[tuple[str, ...]] = ("convolutional",)
    training_keys: ClassVar[frozenset[str]] = frozenset(
        {"dot", "assisted_excitation", "grad_centr", "reverse", "angle", "stream", "wait_stream"}
    )

    convolution: Filters
    activation: str
    blur: Blur | None = None
    share_index: int | None = None
    bin_output: bool = False

    @classmethod
    def parse(cls, context: Context) -> Convolutional:
        for key in UNSUPPORTED:
            if key in context.options and context.options.integer(key, 0):
                raise context.error(key, f"{key}= in [convolutional] is not supported")
        _, h, w = context.shape_of(context.before)
        convolution, blur = read_filters(context), Blur.read(context)
        if blur:
            blur, convolution = Blur(blur.kind, convolution.stride), replace(convolution, stride=(1, 1))
        shape = convolution.output(context, h, w)
        if blur:
            shape = (shape[0], *blur.output(context, *shape[1:]))
        return cls(
            **cls.common(context),
            output_shape=shape,
            convolution=convolution,
            activation=read_activation(context),
            blur=blur,
            share_index=_read_share_index(context, convolution),
            bin_output=_read_bin_output(context),
        )

    @property
    def owner(self) -> int:
        return self.index if self.share_index is None else self.share_index

    @property
    def filters(self) -> int:
        """Number of filters: channels of the output."""
        return self.convolution.filters

    @property
    def size(self) -> int:
        """Height and width of the kernel."""
        return self.convolution.size

    @property
    def batch_normalize(self) -> bool:
        """Whether batch normalisation follows."""
        return self.convolution.batch_normalize

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        return self.convolution.tensors() if self.share_index is None else ()

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        y = ACTIVATIONS[self._activation(p.dialect)].torch_(self.convolution.forward(p, xs[0]))
        return self.blur.forward(y) if self.blur else y

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        y = ACTIVATIONS[self._activation(g.dialect)].onnx_(g, self.convolution.onnx(g, xs[0]))
        return self.blur.onnx(g, y, self.filters) if self.blur else y

    def _activation(self, dialect: Dialect) -> str:
        return "linear" if self.bin_output and dialect.folds_xnor else self.activation


def read_filters(context: Context) -> Filters:
    """The convolution that a `[convolutional]` section describes; raises CfgError."""
    o = context.options
    channels = context.shape_of(context.before)[0]
    size = o.integer("size", 1, least=1, most=1024)
    padding = size // 2 if o.integer("pad", 0) else o.integer("padding", 0, least=0, most=1024)
    o.ignore("padding")
    stride = o.integer("stride", 1, least=1, most=1024)
    strides = (o.integer("stride_y", stride, least=1), o.integer("stride_x", stride, least=1))
    filters, groups = o.integer("filters", 1, least=1, most=1 << 20), max(o.integer("groups", 1, least=0), 1)
    signs = Signs(bool(o.integer("binary", 0)), bool(o.integer("xnor", 0)))
    groups = 1 if signs.xnor else groups  # Darknet turns groups off for XNOR nets
    if channels % groups or filters % groups:
        raise context.error(
            "groups",
            f"groups={groups} divides neither",
            expected=f"a divisor of {channels} inputs and {filters} filters",
            found=groups,
        )
    return Filters(
        "",
        channels,
        filters,
        size,
        strides,
        padding,
        o.integer("dilation", 1, least=1, most=1024) if size > 1 else 1,
        groups,
        bool(o.integer("batch_normalize", 0)),
        bool(o.integer("flipped", 0)),
        signs,
    )


def _read_share_index(context: Context, convolution: Filters) -> int | None:
    if "share_index" not in context.options:
        return None
    index = context.references("share_index")[0]
    other = context.previous[index]
    if not isinstance(other, Convolutional):
        raise context.error(
            "share_index",
            f"layer {index} is [{other.kind}]",
            expected="a [convolutional] layer",
            found=f"line {other.line}",
        )
    theirs, ours = (f"{f.filters} filters {f.shape[1]}x{f.size}x{f.size}" for f in (other.convolution, convolution))
    if theirs != ours or other.batch_normalize != convolution.batch_normalize:
        raise context.error(
            "share_index",
            f"layer {index} (line {other.line}) has other weights",
            expected=ours,
            found=theirs,
            cause="AlexeyAB's Darknet stops here too; share_index= counts from a cfg with other layers?",
        )
    return other.owner


def _read_bin_output(context: Context) -> bool:
    """`bin_output=1`, unless a later `[route]` or `[shortcut]` reads this layer: then AlexeyAB turns it off."""
    if not context.options.integer("bin_output", 0) or not context.options.integer("xnor", 0):
        return False
    return not context.is_named_later({"route": "layers", "shortcut": "from"})
