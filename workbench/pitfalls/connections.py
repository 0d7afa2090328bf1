"""Mistakes in one layer's options: which layers it reads, in which order, and what it does with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from workbench.errors import CfgError
from workbench.layers.activations import ACTIVATIONS
from workbench.layers.base import Layer
from workbench.layers.maxpool import Maxpool, Window
from workbench.layers.route import Route
from workbench.layers.shortcut import Shortcut
from workbench.layers.upsample import Upsample
from workbench.model import Model
from workbench.pitfalls.base import Mistake, change_layers, mix
from workbench.pitfalls.layers import HalfPrecision, LeftWindow, ZeroPadded, pad_nothing
from workbench.pitfalls.rebuild import drop_options, rebuild

AnyLayer = TypeVar("AnyLayer", bound=Layer)

NEVER_NEGATIVE = ("relu", "relu6", "logistic")
UNKNOWN_TO_DARKNET_2018 = ("mish", "swish", "relu6", "hard_mish", "gelu")


def reverse_route(layer: Layer) -> Layer:
    """The sources of a route in the opposite order."""
    if not isinstance(layer, Route):
        return layer
    return replace(layer, inputs=layer.inputs[::-1], input_shapes=layer.input_shapes[::-1])


def take_other_half(layer: Layer) -> Layer:
    """The next group of a route's groups."""
    if not isinstance(layer, Route) or layer.groups == 1:
        return layer
    return replace(layer, group_id=(layer.group_id + 1) % layer.groups)


def ignore_groups(model: Model) -> Model:
    """Routes give all channels; the layers after them ask for more weights."""
    return rebuild(model, drop_options("route", "groups", "group_id"))


def why_groups_stay(model: Model) -> str | None:
    """Why groups cannot be ignored: there are none, or the network that is left does not fit together."""
    if not any(isinstance(layer, Route) and layer.groups > 1 for layer in model.network.layers):
        return "no route has groups"
    try:
        ignore_groups(model)
    except CfgError as error:
        return f"without the groups no network is left: {error}"
    return None


def pool_by_three(layer: Layer) -> Layer:
    """`MaxPool2d(3, 1, 1)` for a pool of size 2 and stride 1."""
    if not isinstance(layer, Maxpool) or (layer.window.size, *layer.window.stride) != (2, 1, 1):
        return layer
    return replace(layer, window=Window(3, (1, 1), 2))


def pad_left(layer: Layer) -> Layer:
    """The larger half of an uneven padding left and above."""
    if not isinstance(layer, Maxpool) or layer.window.before == layer.window.after or not _reads_padding(layer):
        return layer
    window = layer.window
    return replace(layer, window=LeftWindow(window.size, window.stride, window.padding))


def leave_unpadded(layer: Layer) -> Layer:
    """No padding, where that changes the size of what comes out."""
    return pad_nothing(layer) if isinstance(layer, Maxpool) else layer


def pad_with_zeros(model: Model) -> Model:
    """Zeros around what is pooled, where a window reads there and something negative can come in."""

    def change(layer: Layer) -> Layer:
        reads = isinstance(layer, Maxpool) and not layer.depth and _reads_padding(layer)
        return mix(layer, ZeroPadded) if reads and not _never_negative(model, layer.inputs[0]) else layer

    return change_layers(model, change)


def _reads_padding(layer: Maxpool) -> bool:
    window, (_, *ins), (_, *outs) = layer.window, layer.input_shapes[0], layer.output_shape
    last = [(out - 1) * stride + window.size - window.before for out, stride in zip(outs, window.stride, strict=True)]
    return window.before > 0 or any(end > n for end, n in zip(last, ins, strict=True))


def _never_negative(model: Model, index: int) -> bool:
    """Whether the values of a layer are known to be 0 or more: pooling and joining keep what activations made so."""
    if index < 0:
        return True
    layer = model.network.layers[index]
    if layer.kind in ("maxpool", "route", "upsample"):
        return all(_never_negative(model, source) for source in layer.inputs)
    return getattr(layer, "activation", None) in NEVER_NEGATIVE


def relax_leaky(layer: Layer) -> Layer:
    """leaky with 0.01, which Darknet calls relie."""
    return _activate(layer, "relie") if getattr(layer, "activation", None) == "leaky" else layer


def activate_as_2018(layer: Layer) -> Layer:
    """relu for what Darknet of 2018 does not know."""
    return _activate(layer, "relu") if getattr(layer, "activation", None) in UNKNOWN_TO_DARKNET_2018 else layer


def forget_activation(layer: Layer) -> Layer:
    """A shortcut that ends with the sum."""
    return _activate(layer, "linear") if isinstance(layer, Shortcut) else layer


def _activate(layer: AnyLayer, activation: str) -> AnyLayer:
    return replace(layer, activation=ACTIVATIONS[activation].name)  # type: ignore[call-arg]


def add_wrong_layer(model: Model) -> Model:
    """Each shortcut adds the layer of the right shape that lies next to the one it means."""
    layers = model.network.layers

    def change(layer: Layer) -> Layer:
        if not isinstance(layer, Shortcut):
            return layer
        meant = layer.inputs[1]
        twins = [i for i in range(layer.index) if i != meant and layers[i].output_shape == layer.input_shapes[1]]
        if not twins:
            return layer
        nearest = min(twins, key=lambda i: (abs(i - meant), i))
        return replace(layer, inputs=(layer.inputs[0], nearest, *layer.inputs[2:]))

    return change_layers(model, change)


def upsample_by(mistake: type[Mistake]) -> Callable[[Layer], Layer]:
    """A change that computes upsampling layers with `mistake`."""
    return lambda layer: mix(layer, mistake) if isinstance(layer, Upsample) and layer.stride > 1 else layer


def compute_in_half(layer: Layer) -> Layer:
    """float16 everywhere but in the heads."""
    return layer if layer.is_head else mix(layer, HalfPrecision)
