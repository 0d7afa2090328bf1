"""`[route]`: the channels of one or more earlier layers, one after the other, in the order of `layers=`. No tensors.

Negative numbers count back from this layer. With `groups=g` and `group_id=i` (AlexeyAB) each source gives only its i-th
of g equal parts (AlexeyAB src/route_layer.c `forward_route_layer`); pjreddie's Darknet ignores both keys silently.
PyTorch: `cat(dim=1)` of slices. ONNX: `Concat` of `Slice`.
Goes wrong naively: the order of the sources reversed, groups ignored, the wrong half taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.layers.base import Context, Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Route(Layer):
    """Concatenation of earlier outputs along the channels."""

    kinds: ClassVar[tuple[str, ...]] = ("route",)

    groups: int
    group_id: int

    @classmethod
    def parse(cls, context: Context) -> Route:
        o = context.options
        groups = o.integer("groups", 1, least=1, most=1 << 20)
        return cls(**cls.joined(context, groups, o.integer("group_id", 0, least=0)))

    @classmethod
    def joined(cls, context: Context, groups: int, group_id: int) -> dict[str, Any]:
        """The arguments of a route over part `group_id` of `groups` of each source; raises CfgError where they do not
        fit.
        """
        sources = context.references("layers")
        shapes = [context.shape_of(source) for source in sources]
        if group_id >= groups:
            raise context.error("group_id", "no such group", expected=f"0 to {groups - 1}", found=group_id)
        for source, (c, h, w) in zip(sources, shapes, strict=True):
            if (h, w) != shapes[0][1:]:
                raise context.error(
                    "layers",
                    f"layer {source} has another size than layer {sources[0]}",
                    expected=f"{shapes[0][2]}x{shapes[0][1]}",
                    found=f"{w}x{h}",
                    cause="A route can only join maps of one size.",
                )
            if c % groups:
                raise context.error("groups", f"{c} channels of layer {source} cannot be cut in {groups} groups")
        channels = sum(c // groups for c, _, _ in shapes)
        shape = (channels, *shapes[0][1:])
        return {**cls.common(context, sources), "output_shape": shape, "groups": groups, "group_id": group_id}

    def part(self, channels: int) -> tuple[int, int]:
        """First and last+1 channel of the group, of a source with `channels`."""
        step = channels // self.groups
        return step * self.group_id, step * (self.group_id + 1)

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        from torch import cat

        if self.groups > 1:
            parts = [self.part(c) for c, _, _ in self.input_shapes]
            xs = tuple(x[:, start:stop] for x, (start, stop) in zip(xs, parts, strict=True))
        return xs[0] if len(xs) == 1 else cat(xs, 1)

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        if self.groups > 1:
            xs = tuple(self._slice(g, number, x) for number, x in enumerate(xs))
        return xs[0] if len(xs) == 1 else str(g.node("Concat", *xs, axis=1))

    def _slice(self, g: OnnxScope, number: int, x: str) -> str:
        start, stop = self.part(self.input_shapes[number][0])
        limits = [
            g.constant(f"{name}_{number}", [value], "int64") for name, value in (("start", start), ("stop", stop))
        ]
        return str(g.node("Slice", x, *limits, g.constant("axis", [1], "int64")))
