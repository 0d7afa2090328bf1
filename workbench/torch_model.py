"""Model -> torch.nn.Module: one submodule per layer, its tensors under Darknet's names.

The module is a view on the mapped file: building it copies nothing. Its state dict reads
`012_convolutional.rolling_mean` and so on; batch normalisation stays unfolded, in the dialect's own arithmetic.
`trainable=True` copies the tensors and lets `.train()` use batch statistics, as Darknet does while training.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection

import torch
from torch import Tensor, nn

from workbench.dialects import Dialect
from workbench.layers import Layer
from workbench.model import Model

RUNNING = ("rolling_mean", "rolling_variance")


class LayerModule(nn.Module):
    """One layer with its tensors; the computation is `Layer.forward`."""

    def __init__(self, layer: Layer, tensors: dict[str, Tensor], dialect: Dialect, trainable: bool) -> None:
        super().__init__()
        self.layer, self.dialect = layer, dialect
        for field, tensor in tensors.items():
            if field.endswith(RUNNING):
                self.register_buffer(_attribute(field), tensor)
            else:
                self.register_parameter(_attribute(field), nn.Parameter(tensor, requires_grad=trainable))

    def __getitem__(self, field: str) -> Tensor:
        """The tensor of that Darknet name."""
        tensor: Tensor = getattr(self, _attribute(field))
        return tensor

    def forward(self, *xs: Tensor) -> Tensor:
        """Inputs and output are (n, c, h, w)."""
        return self.layer.forward(self, *xs)

    def extra_repr(self) -> str:
        return (
            f"[{self.layer.kind}] line {self.layer.line}, inputs {list(self.layer.inputs)} -> {self.layer.output_shape}"
        )


class DarknetModule(nn.Module):
    """A whole network. Calling it gives the outputs of the layers in `outputs`, the heads by default.

    `forward` drops every intermediate output after its last use; `run` keeps those asked for.
    """

    def __init__(self, model: Model, outputs: Collection[int] | None = None, trainable: bool = False) -> None:
        super().__init__()
        network = model.network
        self.outputs = tuple(sorted(outputs)) if outputs is not None else default_outputs(model)
        self._last_use = network.last_use()
        for layer in network.layers:
            tensors = {
                spec.field: _tensor(model, layer.index, spec.field, trainable) for spec in layer.tensors(model.dialect)
            }
            self.add_module(layer.prefix, LayerModule(layer, tensors, model.dialect, trainable))
        self.train(trainable)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x float32 (n, c, h, w), values 0 to 1 -> one tensor for each of `outputs`."""
        kept = self.run(x, self.outputs)
        return tuple(kept[i] for i in self.outputs)

    def run(self, x: Tensor, keep: Collection[int]) -> dict[int, Tensor]:
        """Outputs of the layers in `keep`; the rest is forgotten as soon as nobody needs it any more."""
        live: dict[int, Tensor] = {-1: x}
        wanted = set(keep)
        last = max(wanted, default=-1)
        for module in self.children():
            assert isinstance(module, LayerModule)
            layer = module.layer
            if layer.index > last:
                break
            live[layer.index] = module(*(live[i] for i in layer.inputs))
            for i in {*layer.inputs, layer.index} - wanted:
                if i >= 0 and self._last_use[i] == layer.index:
                    del live[i]
        return {i: live[i] for i in wanted}


def build(model: Model, outputs: Collection[int] | None = None, *, trainable: bool = False) -> DarknetModule:
    """The model as a torch module; raises WeightsError where a tensor cannot be read."""
    return DarknetModule(model, outputs, trainable)


def default_outputs(model: Model) -> tuple[int, ...]:
    """The heads, or the last layer that computes something where there is none."""
    network = model.network
    return tuple(head.index for head in network.heads) or (network.result,)


def _tensor(model: Model, layer: int, field: str, copy: bool) -> Tensor:
    array = model.weights[layer, field]
    with warnings.catch_warnings():
        # Tensors that a caller put in place may be read-only; nothing here writes to them.
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch.from_numpy(array)
    return tensor.clone() if copy else tensor


def _attribute(field: str) -> str:
    """PyTorch allows no dot in a parameter's name."""
    return field.replace(".", "_")
