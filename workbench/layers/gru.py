"""`[gru]`: a gated recurrent unit, with Darknet's own candidate.

    z = logistic(input.z(x) + state.z(h)),  r = logistic(input.r(x) + state.r(h))
    candidate = logistic(input.h(x) + state.h(r * h)),  h' = z * h + (1 - z) * candidate,  output = h'

Six `[connected]` layers in file order: pjreddie state z, r, h, then input z, r, h; AlexeyAB input first (src/parser.c,
the branch of GRU in `load_weights_upto`; src/gru_layer.c `forward_gru_layer`). pjreddie's `tanh=1` makes the candidate
tanh; AlexeyAB's has no such key.

PyTorch: `Linear` and arithmetic; ONNX: `Gemm`. Neither's own GRU fits: their candidate is tanh, each matrix has its own
batch normalisation here, and theirs is r * (W h), Darknet's W (r * h) (ONNX: linear_before_reset=0).
Goes wrong naively: taken for `torch.nn.GRU`; tanh for the candidate; z and 1 - z exchanged; the weights of the other
fork.
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
class Gru(Recurrent):
    """One gated recurrent layer; its state is its output."""

    kinds: ClassVar[tuple[str, ...]] = ("gru",)
    any_size: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = True

    inputs_count: int
    batch_normalize: bool
    tanh: bool

    @classmethod
    def parse(cls, context: Context) -> Gru:
        o = context.options
        c, h, w = context.shape_of(context.before)
        output = o.integer("output", 1, least=1, most=1 << 24)
        return cls(
            **cls.common(context),
            output_shape=(output, 1, 1),
            inputs_count=c * h * w,
            batch_normalize=bool(o.integer("batch_normalize", 0)),
            tanh=bool(o.integer("tanh", 0)),
        )

    def states(self, dialect: Dialect) -> tuple[StateSpec, ...]:
        return (StateSpec("state", self.output_shape),)

    def _side(self, side: str) -> list[Dense]:
        n = self.output_shape[0]
        inputs = self.inputs_count if side == "input" else n
        return [Dense(f"{side}.{gate}.", inputs, n, self.batch_normalize) for gate in "zrh"]

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        sides = ("input", "state") if dialect.gates_alexeyab else ("state", "input")
        return tuple(spec for side in sides for part in self._side(side) for spec in part.tensors())

    def step(
        self, p: Parameters, states: tuple[torch.Tensor, ...], x: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        x, old = x.flatten(1), states[0].flatten(1)
        uz, ur, uh = (part.forward(p, x) for part in self._side("input"))
        wz, wr, wh = self._side("state")
        z, r = (uz + wz.forward(p, old)).sigmoid(), (ur + wr.forward(p, old)).sigmoid()
        candidate = uh + wh.forward(p, r * old)
        candidate = candidate.tanh() if self.tanh and not p.dialect.gates_alexeyab else candidate.sigmoid()
        new = (z * old + (1 - z) * candidate)[:, :, None, None]
        return new, (new,)

    def onnx_step(self, g: OnnxScope, states: tuple[str, ...], x: str) -> tuple[str, tuple[str, ...]]:
        x, old = rows_of_numbers(g, x), rows_of_numbers(g, states[0])
        uz, ur, uh = (part.onnx(g, x) for part in self._side("input"))
        wz, wr, wh = self._side("state")
        z, r = (g.node("Sigmoid", g.node("Add", u, w.onnx(g, old))) for u, w in ((uz, wz), (ur, wr)))
        kind = "Tanh" if self.tanh and not g.dialect.gates_alexeyab else "Sigmoid"
        candidate = g.node(kind, g.node("Add", uh, wh.onnx(g, g.node("Mul", r, old))))
        rest = g.node("Mul", g.node("Sub", g.constant("one", 1.0), z), candidate)
        new = as_map(g, g.node("Add", g.node("Mul", z, old), rest))
        return new, (new,)
