"""Model -> torch.nn.Module: one submodule per layer, its tensors under Darknet's names.

The module is a view on the mapped file: building it copies nothing. Its state dict reads
`012_convolutional.rolling_mean` and so on; batch normalisation stays unfolded, in the dialect's own arithmetic.
`trainable=True` copies the tensors and lets `.train()` use batch statistics, as Darknet does while training.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from workbench.dialects import Dialect
from workbench.layers import Layer
from workbench.layers.recurrent import Recurrent
from workbench.model import Model

RUNNING = ("rolling_mean", "rolling_variance")


class LayerModule(nn.Module):
    """One layer with its tensors; the computation is `Layer.forward`."""

    def __init__(
        self,
        layer: Layer,
        tensors: dict[str, Tensor],
        dialect: Dialect,
        trainable: bool,
        owner: LayerModule | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.dialect = layer, dialect
        # In a tuple, so that the tensors of `share_index=` stay in the state dict of their owner alone.
        self._owner = (owner,)
        for field, tensor in tensors.items():
            if field.endswith(RUNNING):
                self.register_buffer(_attribute(field), tensor)
            else:
                self.register_parameter(_attribute(field), nn.Parameter(tensor, requires_grad=trainable))

    def __getitem__(self, field: str) -> Tensor:
        """The tensor of that Darknet name; with `share_index=` that of the layer named there."""
        if self._owner[0] is not None:
            return self._owner[0][field]
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

    `forward` drops every intermediate output after its last use; `run` keeps those asked for; `step` carries what
    recurrent layers remember.
    """

    def __init__(self, model: Model, outputs: Collection[int] | None = None, trainable: bool = False) -> None:
        super().__init__()
        network = model.network
        self.outputs = tuple(sorted(outputs)) if outputs is not None else default_outputs(model)
        self._last_use = network.last_use()
        modules: list[LayerModule] = []
        for layer in network.layers:
            tensors = {
                spec.field: _tensor(model, layer.index, spec.field, trainable) for spec in layer.tensors(model.dialect)
            }
            owner = modules[layer.owner] if layer.owner != layer.index else None
            modules.append(LayerModule(layer, tensors, model.dialect, trainable, owner))
            self.add_module(layer.prefix, modules[-1])
        self.train(trainable)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x float32 (n, c, h, w), values 0 to 1 -> one tensor for each of `outputs`."""
        kept = self.run(x, self.outputs)
        return tuple(kept[i] for i in self.outputs)

    def step(
        self, x: Tensor, states: Mapping[str, Tensor] | None = None
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """`forward` from what was remembered: the outputs, and the states (`003_gru/state`) to give with the next x.

        Without `states`, or with some missing, recurrent layers start from zero as in `forward`.
        """
        carried = dict(states or {})
        kept = self.run(x, self.outputs, carried)
        return tuple(kept[i] for i in self.outputs), carried

    def run(self, x: Tensor, keep: Collection[int], states: dict[str, Tensor] | None = None) -> dict[int, Tensor]:
        """Outputs of the layers in `keep`; the rest is forgotten as soon as nobody needs it any more.

        `states` is read and updated by recurrent layers; where it is None they start from zero.
        """
        live: dict[int, Tensor] = {-1: x}
        wanted = set(keep)
        last = max(wanted, default=-1)
        for module in self.children():
            assert isinstance(module, LayerModule)
            layer = module.layer
            if layer.index > last:
                break
            if states is not None and isinstance(layer, Recurrent):
                live[layer.index] = _step(module, layer, live[layer.inputs[0]], states)
            else:
                live[layer.index] = module(*(live[i] for i in layer.inputs))
            for i in {*layer.inputs, layer.index} - wanted:
                if i >= 0 and self._last_use[i] == layer.index:
                    del live[i]
        return {i: live[i] for i in wanted}


def build(model: Model, outputs: Collection[int] | None = None, *, trainable: bool = False) -> DarknetModule:
    """The model as a torch module; raises WeightsError where a tensor cannot be read."""
    return DarknetModule(model, outputs, trainable)


def _step(module: LayerModule, layer: Recurrent, x: Tensor, states: dict[str, Tensor]) -> Tensor:
    """One step of a recurrent layer from and into `states`."""
    names = {f"{layer.prefix}/{spec.name}": spec for spec in layer.states(module.dialect)}
    before = tuple(states.get(name, x.new_zeros(1, spec.shape[0], 1, 1)) for name, spec in names.items())
    y, after = layer.step(module, before, x)
    states.update(zip(names, after, strict=True))
    return y


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
