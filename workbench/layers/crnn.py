"""`[crnn]`: `[rnn]` with convolutions instead of matrices.

state = f(input(x)) + f(self(state)), output = f(output(state)); three convolutions in file order: input (c -> hidden),
self (hidden -> hidden), output (hidden -> output), each stored as `[convolutional]` is (pjreddie and AlexeyAB
src/crnn_layer.c `forward_crnn_layer`). With `shortcut=1` the old state is added to the new one. AlexeyAB reads
`size=`, `pad=`, `stride=`, `dilation=`; pjreddie's are always 3x3 with one pixel of padding, which also holds here
where a cfg says neither.

PyTorch: three `Conv2d`; ONNX: three `Conv`.
Goes wrong naively: the state forgotten between pictures, which is what such a net was trained for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, OnnxScope, Parameters, StateSpec, TensorSpec
from workbench.layers.convolutional import Filters
from workbench.layers.recurrent import Recurrent

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class Crnn(Recurrent):
    """One convolutional recurrent layer; `parts` are the input, self and output convolutions."""

    kinds: ClassVar[tuple[str, ...]] = ("crnn",)

    parts: tuple[Filters, Filters, Filters]
    activation: str
    shortcut: bool

    @classmethod
    def parse(cls, context: Context) -> Crnn:
        o = context.options
        channels, h, w = context.shape_of(context.before)
        output, hidden = (o.integer(key, 1, least=1, most=1 << 20) for key in ("output", "hidden"))
        one = read_same_size(context, channels, hidden, output)
        sizes = (channels, hidden, hidden, output)
        names = ("input.", "self.", "output.")
        first, again, last = (one(name, sizes[i], sizes[i + 1]) for i, name in enumerate(names))
        return cls(
            **cls.common(context),
            output_shape=(output, h, w),
            parts=(first, again, last),
            activation=read_activation(context),
            shortcut=bool(o.integer("shortcut", 0)),
        )

    def states(self, dialect: Dialect) -> tuple[StateSpec, ...]:
        return (StateSpec("state", (self.parts[0].filters, *self.output_shape[1:])),)

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        return tuple(spec for part in self.parts for spec in part.tensors())

    def step(
        self, p: Parameters, states: tuple[torch.Tensor, ...], x: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        f = ACTIVATIONS[self.activation].torch_
        enter, again, leave = self.parts
        state = f(enter.forward(p, x)) + f(again.forward(p, states[0]))
        state = state + states[0] if self.shortcut else state
        return f(leave.forward(p, state)), (state,)

    def onnx_step(self, g: OnnxScope, states: tuple[str, ...], x: str) -> tuple[str, tuple[str, ...]]:
        f = ACTIVATIONS[self.activation].onnx_
        enter, again, leave = self.parts
        state = g.node("Add", f(g, enter.onnx(g, x)), f(g, again.onnx(g, states[0])))
        state = g.node("Add", state, states[0]) if self.shortcut else state
        return f(g, leave.onnx(g, state)), (state,)


@dataclass(frozen=True)
class SameSize:
    """Makes convolutions that keep height and width; called with a prefix, the channels and the filters."""

    size: int
    padding: int
    dilation: int
    groups: int
    batch_normalize: bool

    def __call__(self, prefix: str, channels: int, filters: int) -> Filters:
        return Filters(
            prefix, channels, filters, self.size, (1, 1), self.padding, self.dilation, self.groups, self.batch_normalize
        )


def read_same_size(context: Context, *channels: int) -> SameSize:
    """size, pad, padding, stride, dilation and groups of a recurrent convolution; raises CfgError where it would
    shrink, or where groups= does not divide all the `channels` that go in and out.
    """
    o = context.options
    size, stride = o.integer("size", 3, least=1, most=1024), o.integer("stride", 1, least=1, most=1024)
    says_nothing = not any(key in o for key in ("size", "pad", "padding"))
    padding = size // 2 if o.integer("pad", 0) or says_nothing else o.integer("padding", 0, least=0, most=1024)
    o.ignore("padding")
    if o.integer("xnor", 0):
        raise context.error("xnor", f"xnor= in [{context.section.kind}] is not supported")
    if stride != 1 or 2 * padding + 1 != size:
        raise context.error(
            "size",
            f"[{context.section.kind}] has to keep the size, because its state comes in again",
            expected="stride=1, an odd size=, pad=1",
            found=f"size {size}, stride {stride}, padding {padding}",
        )
    dilation = o.integer("dilation", 1, least=1, most=1024) if size > 1 else 1
    groups = max(o.integer("groups", 1, least=0), 1)
    if any(count % groups for count in channels):
        counts = ", ".join(map(str, channels))
        raise context.error("groups", f"groups={groups} does not divide all of {counts}", expected="a divisor")
    return SameSize(size, padding, dilation, groups, bool(o.integer("batch_normalize", 0)))
