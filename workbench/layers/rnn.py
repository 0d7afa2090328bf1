"""`[rnn]`: the plain recurrent layer. state = f(input(x)) + f(self(state)), output = f(output(state)).

Three `[connected]` layers in file order, each with its own biases, weights and batch normalisation: input (inputs ->
hidden), self (hidden -> hidden), output (hidden -> output); f is `activation=` in all three (pjreddie src/rnn_layer.c
`forward_rnn_layer`). pjreddie's Darknet ignores `hidden=` and takes `output=` for it. With `shortcut=1` the old state
is added to the new one.

PyTorch: three `Linear`; ONNX: three `Gemm`. Neither's own RNN has this form: tanh of one sum there, two activations
here. Goes wrong naively: taken for `torch.nn.RNN`; the activation applied once to the sum; the state forgotten between
calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.activations import ACTIVATIONS, read_activation
from workbench.layers.base import Context, OnnxScope, Parameters, StateSpec, TensorSpec
from workbench.layers.connected import Dense, as_map, rows_of_numbers
from workbench.layers.recurrent import Recurrent

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class Rnn(Recurrent):
    """One recurrent layer of `hidden` states."""

    kinds: ClassVar[tuple[str, ...]] = ("rnn",)
    any_size: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = True

    inputs_count: int
    hidden: int
    batch_normalize: bool
    activation: str
    shortcut: bool

    @classmethod
    def parse(cls, context: Context) -> Rnn:
        o = context.options
        c, h, w = context.shape_of(context.before)
        if o.integer("logistic", 0):
            raise context.error("logistic", "logistic= in [rnn] is not supported")
        output = o.integer("output", 1, least=1, most=1 << 24)
        hidden = o.integer("hidden", output, least=1, most=1 << 24)
        return cls(
            **cls.common(context),
            output_shape=(output, 1, 1),
            inputs_count=c * h * w,
            hidden=hidden,
            batch_normalize=bool(o.integer("batch_normalize", 0)),
            activation=read_activation(context),
            shortcut=bool(o.integer("shortcut", 0)),
        )

    def _hidden(self, dialect: Dialect) -> int:
        return self.hidden if dialect.rnn_hidden else self.output_shape[0]

    def parts(self, dialect: Dialect) -> tuple[Dense, Dense, Dense]:
        """input, self and output, in file order."""
        sizes = (self.inputs_count, hidden := self._hidden(dialect), hidden, self.output_shape[0])
        names = ("input.", "self.", "output.")
        a, b, c = (Dense(name, sizes[i], sizes[i + 1], self.batch_normalize) for i, name in enumerate(names))
        return a, b, c

    def states(self, dialect: Dialect) -> tuple[StateSpec, ...]:
        return (StateSpec("state", (self._hidden(dialect), 1, 1)),)

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        return tuple(spec for part in self.parts(dialect) for spec in part.tensors())

    def step(
        self, p: Parameters, states: tuple[torch.Tensor, ...], x: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        f = ACTIVATIONS[self.activation].torch_
        enter, again, leave = self.parts(p.dialect)
        old = states[0].flatten(1)
        state = f(enter.forward(p, x.flatten(1))) + f(again.forward(p, old))
        state = state + old if self.shortcut else state
        return f(leave.forward(p, state))[:, :, None, None], (state[:, :, None, None],)

    def onnx_step(self, g: OnnxScope, states: tuple[str, ...], x: str) -> tuple[str, tuple[str, ...]]:
        f = ACTIVATIONS[self.activation].onnx_
        enter, again, leave = self.parts(g.dialect)
        old = rows_of_numbers(g, states[0])
        state = g.node("Add", f(g, enter.onnx(g, rows_of_numbers(g, x))), f(g, again.onnx(g, old)))
        state = g.node("Add", state, old) if self.shortcut else state
        return as_map(g, f(g, leave.onnx(g, state))), (as_map(g, state),)
