"""What `[rnn]`, `[gru]`, `[lstm]`, `[crnn]` and `[conv_lstm]` share: something remembered from one call to the next.

A recurrent layer names what it remembers (`states`) and computes one step from it. Called alone it starts from zero, as
Darknet does at the first picture of a batch. In PyTorch `DarknetModule.step` carries the states; in ONNX each is a
graph input `003_gru/state` and an output `003_gru/state_after`, the input being zero where nothing is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.layers.base import Layer, OnnxScope, Parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Recurrent(Layer):
    """A layer with a memory; every state is a map (n, c, h, w) whose n, h and w may be 1 where it is zero."""

    def step(
        self, p: Parameters, states: tuple[torch.Tensor, ...], x: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Output, and the states after this step; `states` in the order of `self.states`."""
        raise NotImplementedError

    def onnx_step(self, g: OnnxScope, states: tuple[str, ...], x: str) -> tuple[str, tuple[str, ...]]:
        """The same as nodes."""
        raise NotImplementedError

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        zeros = tuple(xs[0].new_zeros(1, spec.shape[0], 1, 1) for spec in self.states(p.dialect))
        return self.step(p, zeros, xs[0])[0]

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        before = tuple(g.read_state(spec) for spec in self.states(g.dialect))
        y, after = self.onnx_step(g, before, xs[0])
        for spec, value in zip(self.states(g.dialect), after, strict=True):
            g.write_state(spec, value)
        return y
