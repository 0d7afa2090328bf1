"""Heads that turn numbers into boxes as mistaken code does: what `decoding.py` mixes into a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from workbench.errors import OptionError
from workbench.layers.base import Float32, Layer, OnnxScope, Parameters
from workbench.layers.head import Boxes, Head
from workbench.layers.yolo import Yolo
from workbench.model import Model
from workbench.options import Options
from workbench.pitfalls.base import Mistake, change_layers, mix

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

Decode = Callable[[Float32, int, int, float, "Dialect"], Boxes]
Pairs = tuple[tuple[float, float], ...]

V3: Pairs = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
V4: Pairs = ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401))
"""Anchors of yolov3.cfg and yolov4.cfg, the same at every input size."""


class OnlyHere(Mistake):
    """A mistake that is not written into exported files: there it would be nobody's example."""

    def onnx_decode(self, g: OnnxScope, x: str, image: str) -> tuple[str, str]:
        raise OptionError(
            self.prefix,
            f"decodes with a mistake ({type(self).__name__}) that is not exported",
            expected="--outputs raw",
        )


class TransposedGrid(OnlyHere):
    """x counts rows and y counts columns."""

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        c, h, w = output.shape
        if self.kind == "region" and dialect.region_flattened:
            turned = np.ascontiguousarray(output.reshape(h, w, c).transpose(1, 0, 2)).reshape(c, w, h)
        else:
            turned = np.ascontiguousarray(output.transpose(0, 2, 1))
        found: Boxes = super().decode(turned, net_width, net_height, thresh, dialect)  # type: ignore[misc]
        # `turned` has h columns and w rows, the mistaken code divides by the true ones; sizes keep their unit.
        size = found.boxes[:, 2:] * (_region_unit(h, w) if self.kind == "region" else np.float32(1))
        centre = found.boxes[:, :2] * np.array([h / w, w / h], np.float32)
        return found._replace(boxes=np.concatenate([centre, size], 1))


def _region_unit(h: int, w: int) -> Float32:
    """[region] divides the size of a box by the cells of its grid, which were exchanged."""
    return np.array([h / w, w / h], np.float32)


class ClassOnly(OnlyHere):
    """The probability of a class without the objectness, which only opens the door."""

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        found = _open_boxes(super().decode, output, net_width, net_height, thresh, dialect)  # type: ignore[misc]
        probabilities = found.probabilities / found.objectness[:, None]
        probabilities[probabilities <= np.float32(thresh)] = 0
        return found._replace(probabilities=probabilities)


class ObjectnessOnly(OnlyHere):
    """The objectness as the probability of the likeliest class."""

    def decode(self, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect) -> Boxes:
        found = _open_boxes(super().decode, output, net_width, net_height, thresh, dialect)  # type: ignore[misc]
        probabilities = np.zeros_like(found.probabilities)
        rows = np.arange(len(probabilities))
        probabilities[rows, found.probabilities.argmax(1) if rows.size else 0] = found.objectness
        return found._replace(probabilities=probabilities)


def _open_boxes(
    decode: Decode, output: Float32, net_width: int, net_height: int, thresh: float, dialect: Dialect
) -> Boxes:
    """Boxes with objectness above `thresh`, all their class probabilities kept."""
    found: Boxes = decode(output, net_width, net_height, 0.0, dialect)
    return Boxes(*(part[found.objectness > np.float32(thresh)] for part in found))


class RawCentre(Mistake):
    """No sigmoid on x and y; those of the rest stay."""

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import cat

        head = cast(Yolo, self)
        shape = (-1, len(head.anchors), head.entries, *xs[0].shape[2:])
        x, y = xs[0].reshape(shape), super().forward(p, *xs).reshape(shape)
        xy = x[:, :, :2]
        if head.scale_x_y != 1:
            xy = xy * head.scale_x_y - 0.5 * (head.scale_x_y - 1)
        return cat((xy, y[:, :, 2:]), 2).flatten(1, 2)

    def _activate(self, g: OnnxScope, xy: str) -> str:
        scale = cast(Yolo, self).scale_x_y
        if scale == 1:
            return xy
        scaled = g.node("Mul", xy, g.constant("scale_x_y", scale))
        return str(g.node("Sub", scaled, g.constant("scale_x_y_shift", 0.5 * (scale - 1))))


class DoubleSigmoid(OnlyHere):
    """Sigmoid on x, y, objectness and classes again, after the layer did it."""

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import cat

        head = cast(Yolo, self)
        shape = (-1, len(head.anchors), head.entries, *xs[0].shape[2:])
        y = super().forward(p, *xs).reshape(shape)
        return cat((y[:, :, :2].sigmoid(), y[:, :, 2:4], y[:, :, 4:].sigmoid()), 2).flatten(1, 2)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        head = cast(Yolo, self)
        split = g.constant("split_again", [0, len(head.anchors), head.entries, -1], "int64")
        parts = g.constant("fields_again", [2, 2, head.entries - 4], "int64")
        xy, wh, rest = g.node("Split", g.node("Reshape", super().onnx(g, *xs), split), parts, outputs=3, axis=2)
        joined = g.node("Concat", g.node("Sigmoid", xy), wh, g.node("Sigmoid", rest), axis=2)
        return str(g.node("Reshape", joined, g.node("Shape", xs[0])))


# ------------------------------------------------------------------------------------------ anchors and masks


def all_anchors(model: Model, head: Head) -> Pairs:
    """Every anchor that the head's section names, not only those of its mask."""
    values = Options(model.network.cfg.sections[head.index]).numbers("anchors")
    return tuple(zip(values[0::2], values[1::2], strict=False))


def exchange_masks(model: Model) -> Model:
    """Each head with the anchors of its opposite."""
    heads = model.network.heads
    opposite = {head.index: other for head, other in zip(heads, heads[::-1], strict=True)}

    def change(layer: Layer) -> Layer:
        other = opposite.get(layer.index)
        if other is None or not isinstance(layer, Yolo) or not isinstance(other, Yolo):
            return layer
        return replace(layer, anchors=other.anchors, mask=other.mask) if len(other.mask) == len(layer.mask) else layer

    return change_layers(model, change)


def use_mask(model: Model, mask: tuple[int, ...]) -> Model:
    """The head with the smallest anchors uses those of `mask`."""
    heads = [head for head in model.network.heads if isinstance(head, Yolo) and len(head.mask) == len(mask)]
    if not heads:
        return model
    finest = min(heads, key=lambda head: min(head.mask))
    anchors = all_anchors(model, finest)
    if max(mask) >= len(anchors):
        return model
    chosen = replace(finest, mask=mask, anchors=tuple(anchors[i] for i in mask))
    return change_layers(model, lambda layer: chosen if layer.index == finest.index else layer)


def use_other_anchors(model: Model) -> Model:
    """The anchors of yolov3.cfg by number, or of yolov4.cfg where they are the model's own."""
    heads = [head for head in model.network.heads if isinstance(head, Yolo)]
    own = {anchor for head in heads for anchor in all_anchors(model, head)}
    table = V4 if own <= set(V3) else V3

    def change(layer: Layer) -> Layer:
        if not isinstance(layer, Yolo) or max(layer.mask) >= len(table):
            return layer
        return replace(layer, anchors=tuple(table[i] for i in layer.mask))

    return change_layers(model, change)


def swap_anchors(layer: Layer) -> Layer:
    """Height for width."""
    return replace(layer, anchors=tuple((h, w) for w, h in layer.anchors)) if isinstance(layer, Head) else layer


def divide_anchors(model: Model) -> Model:
    """Anchors divided by the pixels that one cell covers."""

    def change(layer: Layer) -> Layer:
        if not isinstance(layer, Head):
            return layer
        _, rows, columns = layer.output_shape
        across, down = model.network.width / columns, model.network.height / rows
        return replace(layer, anchors=tuple((w / across, h / down) for w, h in layer.anchors))

    return change_layers(model, change)


def ignore_scale(layer: Layer) -> Layer:
    """scale_x_y=1."""
    return replace(layer, scale_x_y=1.0) if isinstance(layer, Yolo) else layer


def ignore_new_coords(layer: Layer) -> Layer:
    """new_coords=0: sigmoid again, and exp for the size."""
    return replace(layer, new_coords=False) if isinstance(layer, Yolo) else layer


def mix_heads(mistake: type[Mistake], *kinds: str) -> Callable[[Layer], Layer]:
    """A change that mixes `mistake` into heads of these kinds."""
    return lambda layer: mix(layer, mistake) if layer.kind in kinds else layer
