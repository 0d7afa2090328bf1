"""One layer at a time, on somebody else's numbers: what a layer of ours would have made of their input.

Judging every layer by the inputs that they gave it keeps errors from adding up: each mistake shows where it is made,
and nowhere else. Many hypotheses share most of their layers, so results are remembered by what they depend on.
"""

from __future__ import annotations

import warnings
import zlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from workbench.dialects import Dialect, Epsilon
from workbench.errors import RunnerFailed
from workbench.layers.base import Float32
from workbench.layers.head import Head
from workbench.model import Model
from workbench.torch_model import LayerModule
from workbench.weights import Weights

MOST_BYTES = 400_000_000
"""Of predictions kept in memory."""

ANY_EPSILON = Epsilon(0.0, inside=True)


class DoesNotFit(RunnerFailed):
    """A pitfall's layer that cannot take the values it is given: then it is not the explanation."""


@dataclass(frozen=True, eq=False)
class Signal:
    """An array (1, c, h, w) on its way through a network; `token` is equal where the array is bound to be."""

    token: int
    array: Float32


class Memory:
    """What was computed before, shared by all hypotheses about one piece of evidence."""

    def __init__(self) -> None:
        self._tokens: dict[Hashable, int] = {}
        self._arrays: OrderedDict[int, Float32] = OrderedDict()
        self._bytes = 0
        self._sums: dict[tuple[int, int], tuple[int, ...]] = {}
        self._weights: list[Weights] = []
        self.results: dict[Hashable, Any] = {}

    def token(self, key: Hashable) -> int:
        """A number that is equal for equal keys."""
        return self._tokens.setdefault(key, len(self._tokens))

    def checksums(self, model: Model, owner: int) -> tuple[int, ...]:
        """Of the tensors of one layer; most hypotheses share their weights, and then they are summed once."""
        key = (id(model.weights), owner)
        if key not in self._sums:
            self._weights.append(model.weights)  # kept, so that no other object gets its id
            self._sums[key] = tuple(
                zlib.crc32(np.ascontiguousarray(model.weights[owner, spec.field]).view(np.uint8).data)
                for spec in model.network.layers[owner].tensors(model.dialect)
            )
        return self._sums[key]

    def get(self, token: int) -> Float32 | None:
        """The array kept under this token, unless it was dropped."""
        if token in self._arrays:
            self._arrays.move_to_end(token)
        return self._arrays.get(token)

    def keep(self, token: int, array: Float32) -> None:
        """Keep an array; the ones not used for longest are dropped."""
        self._arrays[token] = array
        self._bytes += array.nbytes
        while self._bytes > MOST_BYTES and len(self._arrays) > 1:
            self._bytes -= self._arrays.popitem(last=False)[1].nbytes


class Hypothesis:
    """A model that may be theirs: ours with some pitfalls switched on."""

    def __init__(self, model: Model, names: tuple[str, ...], memory: Memory) -> None:
        self.model, self.names, self.memory = model, names, memory
        self._owners: dict[int, int] = {}
        self._reads_dialect = {layer.index for layer in model.network.layers if layer.tensors(model.dialect)}

    def _module(self, index: int) -> LayerModule:
        """One layer alone; with `share_index=` it gets the tensors of the layer named there."""
        model = self.model
        layer = model.network.layers[index]
        specs = model.network.layers[layer.owner].tensors(model.dialect)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # read-only tensors: nothing here writes to them
            tensors = {spec.field: torch.from_numpy(model.weights[layer.owner, spec.field]) for spec in specs}
        return LayerModule(layer, tensors, model.dialect, trainable=False).eval()

    def owner(self, index: int) -> int:
        """A token for everything that layer `index` computes with: its options, tensors and arithmetic."""
        if index not in self._owners:
            layer, dialect = self.model.network.layers[index], self.model.dialect
            sums = self.memory.checksums(self.model, layer.owner)
            key = ("layer", layer, _arithmetic(dialect, bool(sums)), sums)
            self._owners[index] = self.memory.token(key)
        return self._owners[index]

    def predict(self, index: int, inputs: tuple[Signal, ...]) -> Signal:
        """What layer `index` makes of these inputs."""
        token = self.memory.token(("made by", self.owner(index), *(signal.token for signal in inputs)))
        array = self.memory.get(token)
        if array is None:
            array = self._compute(index, inputs)
            self.memory.keep(token, array)
        return Signal(token, array)

    def _compute(self, index: int, inputs: tuple[Signal, ...]) -> Float32:
        module = self._module(index)
        try:
            with torch.inference_mode(), np.errstate(all="ignore"):
                made = module(*(torch.from_numpy(signal.array) for signal in inputs))
        except (RuntimeError, IndexError, ValueError) as error:  # what torch raises for inputs of another shape
            raise DoesNotFit(
                f"layer {index}", "cannot compute with their values", found=str(error).splitlines()[0]
            ) from error
        return np.asarray(made.numpy(), np.float32)

    def decoding_token(self, raw: tuple[int, ...]) -> int:
        """A token for all boxes made from these raw heads."""
        model = self.model
        heads = tuple(layer for layer in model.network.layers if isinstance(layer, Head))
        pieces = (type(model), heads, replace(model.dialect, epsilon=ANY_EPSILON), model.nms)
        return self.memory.token(("decoded", pieces, raw))


def _arithmetic(dialect: Dialect, has_tensors: bool) -> Dialect:
    """The dialect without what no layer computes with."""
    plain = replace(dialect, letterbox=False, thresh=0.0, nms_thresh=0.0, about="", name="")
    return plain if has_tensors else replace(plain, epsilon=ANY_EPSILON)
