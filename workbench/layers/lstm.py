"""`[lstm]`: long short-term memory.

    f, i, o = logistic(state.?(h) + input.?(x)),  g = tanh(state.g(h) + input.g(x)),  c' = f * c + i * g
    output = h' = o * tanh(c')

Eight `[connected]` layers in file order, four from the state, then four from the input: pjreddie i f o g, AlexeyAB f i
g o (src/parser.c, the branch of LSTM in `load_weights_upto`; src/lstm_layer.c `forward_lstm_layer`).

PyTorch: `Linear` and arithmetic; ONNX: `Gemm`. Their own LSTM has the same equations but no batch normalisation at each
matrix. Goes wrong naively: gates in PyTorch's order i f g o or ONNX's i o f c; the weights of the other fork.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.layers.base import Context, OnnxScope, Parameters, StateSpec, TensorSpec
from workbench.layers.connected import Dense, as_map, rows_of_numbers
from workbench.layers.recurrent import Recurrent

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect


@dataclass(frozen=True, kw_only=True)
class Lstm(Recurrent):
    """One LSTM layer; it remembers its output and its cells."""

    kinds: ClassVar[tuple[str, ...]] = ("lstm",)
    any_size: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = True

    inputs_count: int
    batch_normalize: bool

    @classmethod
    def parse(cls, context: Context) -> Lstm:
        o = context.options
        c, h, w = context.shape_of(context.before)
        output = o.integer("output", 1, least=1, most=1 << 24)
        return cls(
            **cls.common(context),
            output_shape=(output, 1, 1),
            inputs_count=c * h * w,
            batch_normalize=bool(o.integer("batch_normalize", 0)),
        )

    def states(self, dialect: Dialect) -> tuple[StateSpec, ...]:
        return (StateSpec("state", self.output_shape), StateSpec("cell", self.output_shape))

    def _part(self, side: str, gate: str) -> Dense:
        n = self.output_shape[0]
        return Dense(f"{side}.{gate}.", self.inputs_count if side == "input" else n, n, self.batch_normalize)

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        gates = "figo" if dialect.gates_alexeyab else "ifog"
        parts = (self._part(side, gate) for side in ("state", "input") for gate in gates)
        return tuple(spec for part in parts for spec in part.tensors())

    def step(
        self, p: Parameters, states: tuple[torch.Tensor, ...], x: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        x, (old, cell) = x.flatten(1), (state.flatten(1) for state in states)
        f, i, g, o = (self._part("state", k).forward(p, old) + self._part("input", k).forward(p, x) for k in "figo")
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        new = (o.sigmoid() * cell.tanh())[:, :, None, None]
        return new, (new, cell[:, :, None, None])

    def onnx_step(self, g: OnnxScope, states: tuple[str, ...], x: str) -> tuple[str, tuple[str, ...]]:
        x, (old, cell) = rows_of_numbers(g, x), (rows_of_numbers(g, state) for state in states)
        gates = {}
        for k in "figo":
            total = g.node("Add", self._part("state", k).onnx(g, old), self._part("input", k).onnx(g, x))
            gates[k] = g.node("Tanh" if k == "g" else "Sigmoid", total)
        cell = g.node("Add", g.node("Mul", gates["f"], cell), g.node("Mul", gates["i"], gates["g"]))
        new = as_map(g, g.node("Mul", gates["o"], g.node("Tanh", cell)))
        return new, (new, as_map(g, cell))
