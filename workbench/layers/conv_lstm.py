"""`[conv_lstm]`: long short-term memory with convolutions instead of matrices (AlexeyAB only).

    f, i = logistic(w?(h) + u?(x) [+ v?(c)]),  g = tanh(wg(h) + ug(x)),  c' = f * c + i * g
    o = logistic(wo(h) + uo(x) [+ vo(c')]),  output = h' = o * tanh(c');  what is remembered of c' is cut to
    +-state_constrain

Convolutions in file order: with `peephole=1` vf, vi, vo; then wf, wi, wg, wo (from the state), then uf, ui, ug, uo
(from the input), each stored as `[convolutional]` is and with `activation=`, linear by default, after it (AlexeyAB
src/conv_lstm_layer.c `forward_conv_lstm_layer`, src/parser.c `load_weights_upto`). `state_constrain=` is 32 times
`time_steps=` of [net] by default.

Not converted: `bottleneck=1`, `shortcut=1` and another `lstm_activation=` than tanh, which AlexeyAB's CPU code does
not compute as its GPU code does. PyTorch: `Conv2d` and arithmetic; ONNX: `Conv`. Goes wrong naively: the order of the
gates; the peephole of o fed with the old cells; the state forgotten between pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, OnnxScope, Parameters, StateSpec, TensorSpec
from workbench.layers.convolutional import Filters
from workbench.layers.crnn import read_same_size
from workbench.layers.recurrent import Recurrent

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class ConvLstm(Recurrent):
    """One convolutional LSTM layer; `parts` by name, in file order."""

    kinds: ClassVar[tuple[str, ...]] = ("conv_lstm",)
    training_keys: ClassVar[frozenset[str]] = frozenset({"time_normalizer"})

    parts: tuple[Filters, ...]
    activation: str
    state_constrain: float

    @classmethod
    def parse(cls, context: Context) -> ConvLstm:
        o = context.options
        channels, h, w = context.shape_of(context.before)
        for key in ("bottleneck", "shortcut"):
            if o.integer(key, 0):
                raise context.error(
                    key, f"{key}= in [conv_lstm] is not supported", cause="AlexeyAB computes it on the GPU only."
                )
        if o.text("lstm_activation", "tanh") != "tanh":
            raise context.error(
                "lstm_activation", "only tanh is supported in [conv_lstm]", cause="AlexeyAB's CPU code ignores the key."
            )
        output = o.integer("output", 1, least=1, most=1 << 20)
        one = read_same_size(context, channels, output)
        sides = ([("v", "fio", output)] if o.integer("peephole", 0) else []) + [
            ("w", "figo", output),
            ("u", "figo", channels),
        ]
        parts = tuple(one(f"{side}{gate}.", count, output) for side, gates, count in sides for gate in gates)
        return cls(
            **cls.common(context),
            output_shape=(output, h, w),
            parts=parts,
            activation=read_activation(context, "linear"),
            state_constrain=float(o.integer("state_constrain", 32 * context.net.time_steps, least=0)),
        )

    def states(self, dialect: Dialect) -> tuple[StateSpec, ...]:
        return (StateSpec("state", self.output_shape), StateSpec("cell", self.output_shape))

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        return tuple(spec for part in self.parts for spec in part.tensors())

    def _gate(self, gate: str) -> list[Filters]:
        """The convolutions of one gate: from the cells (perhaps), the state, the input."""
        by_name = {part.prefix: part for part in self.parts}
        return [by_name[f"{side}{gate}."] for side in "vwu" if f"{side}{gate}." in by_name]

    def step(
        self, p: Parameters, states: tuple[torch.Tensor, ...], x: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        activate = ACTIVATIONS[self.activation].torch_

        def add(gate: str, cell: torch.Tensor) -> torch.Tensor:
            sources = {"v": cell, "w": states[0], "u": x}
            first, *rest = (activate(part.forward(p, sources[part.prefix[0]])) for part in self._gate(gate))
            return sum(rest, first)

        old = states[1]
        f, i, g = add("f", old).sigmoid(), add("i", old).sigmoid(), add("g", old).tanh()
        cell = f * old + i * g
        new = add("o", cell).sigmoid() * cell.tanh()
        kept = cell.clamp(-self.state_constrain, self.state_constrain) if self.state_constrain else cell
        return new, (new, kept)

    def onnx_step(self, g: OnnxScope, states: tuple[str, ...], x: str) -> tuple[str, tuple[str, ...]]:
        activate = ACTIVATIONS[self.activation].onnx_

        def add(gate: str, cell: str) -> str:
            sources = {"v": cell, "w": states[0], "u": x}
            terms = [activate(g, part.onnx(g, sources[part.prefix[0]])) for part in self._gate(gate)]
            return str(g.node("Sum", *terms))

        old = states[1]
        forget, enter, new = (
            g.node("Sigmoid", add("f", old)),
            g.node("Sigmoid", add("i", old)),
            g.node("Tanh", add("g", old)),
        )
        cell = g.node("Add", g.node("Mul", forget, old), g.node("Mul", enter, new))
        y = g.node("Mul", g.node("Sigmoid", add("o", cell)), g.node("Tanh", cell))
        if not self.state_constrain:
            return y, (y, cell)
        limits = (g.constant("least", -self.state_constrain), g.constant("most", self.state_constrain))
        return y, (y, g.node("Clip", cell, *limits))
