"""The model in PyTorch: `torch_model`, unfolded, in the model's dialect."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.detections import Detections
from workbench.dialects import Epsilon
from workbench.errors import RunnerFailed
from workbench.layers.base import Float32
from workbench.memory import require_memory
from workbench.model import Model
from workbench.torch_model import LayerModule, build


class TorchRunner:
    """Runs on the CPU, in float32."""

    name = "torch"
    epsilon: Epsilon | None = None

    def __init__(self, model: Model) -> None:
        self.model = model
        self._module = build(model)

    def run(self, x: Float32) -> dict[int, Float32]:
        """Every layer's output."""
        return self.run_layers(x, [layer.index for layer in self.model.network.layers])

    def detect(self, picture: NDArray[np.uint8], thresh: float) -> Detections:
        """The model's own pipeline: preprocessing, network, decoding, suppression."""
        indices = [head.index for head in self.model.network.heads]
        require_memory(self.model.network, indices)
        x = self.model.preprocessing.apply(picture)[None]
        heads = self.run_layers(x, indices)
        placement = self.model.preprocessing.placement(picture.shape[1], picture.shape[0])
        return self.model.detections({i: y[0] for i, y in heads.items()}, placement, thresh)

    def run_layers(self, x: Float32, keep: Collection[int]) -> dict[int, Float32]:
        """The outputs of the layers in `keep` only; the others are forgotten on the way.

        Raises OptionError where they do not fit into memory, RunnerFailed where PyTorch gives up.
        """
        require_memory(self.model.network, keep, len(x))
        try:
            with torch.inference_mode():
                return {i: y.numpy() for i, y in self._module.run(torch.from_numpy(x), keep).items()}
        except RuntimeError as error:
            where = self.model.network.cfg.source
            raise RunnerFailed(where, "PyTorch cannot run it", found=str(error).splitlines()[0]) from error

    def run_alone(self, known: Mapping[int, Float32]) -> dict[int, Float32]:
        """Each layer by itself, fed with what `known` holds of its inputs (-1 is the network input).

        Nothing adds up from layer to layer, so that a layer that is wrong is wrong here and nowhere else. A head gets
        what its layer in front puts out here: together they are what boxes are read from.
        """
        own: dict[int, Float32] = {}
        with torch.inference_mode():
            for module in self._module.children():
                assert isinstance(module, LayerModule)
                layer = module.layer
                inputs = [own.get(i, known.get(i)) if layer.is_head else known.get(i) for i in layer.inputs]
                given = [torch.from_numpy(x) for x in inputs if x is not None]
                if len(given) == len(inputs) and layer.index in known:
                    own[layer.index] = module(*given).numpy()
        return own

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> TorchRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def refusal(model: Model) -> str | None:
    """The workbench runs whatever it can open."""
    return None


def open_runner(model: Model) -> TorchRunner:
    """A runner for `model`."""
    return TorchRunner(model)
