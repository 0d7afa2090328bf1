"""What the two reference engines have in common: how a Model becomes a cfg and weights on disk, how their answers
become arrays and detections in the workbench's own shapes.

An engine reads files, so it can only be asked about a model that its cfg describes. Tensors changed in memory are
written out for it; a layer changed in memory cannot be, and is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Candidates, Detections, select, suppress
from workbench.dialects import Epsilon
from workbench.errors import OptionError, ReferenceRefused, RunnerFailed
from workbench.network import build_network
from workbench.runners.engine_cfg import write_engine_cfg
from workbench.runners.worker import TIME_LIMIT_S, Answer, EngineError, Worker
from workbench.weights import build_ledger

if TYPE_CHECKING:
    from workbench.image import Placement
    from workbench.model import Model

Float32 = NDArray[np.float32]

OWN_SUPPRESSION = frozenset({"sort", "obj", "none"})
"""The kinds that both engines have; for the others they give candidates and the workbench suppresses."""


def changed_layer(model: Model) -> str | None:
    """Why no engine that reads a cfg can run this model: a layer is not what the cfg says. None where all are."""
    network = model.network
    told = build_network(network.cfg, network.width, network.height)
    for layer, as_told in zip(network.layers, told.layers, strict=True):
        if layer != as_told:
            where = f"{network.cfg.source}:{layer.line}"
            return f"{where}: layer {layer.index} [{layer.kind}] was changed in memory, and an engine reads the cfg"
    return None


class EngineRunner:
    """An engine in a child process, loaded with one model; a context manager.

    time_limit_s: for each call. memory_limit_bytes: address space of the child, None for all memory of the machine.
    Raises RunnerFailed when the engine dies or exceeds the limit, ReferenceRefused when it rejects the cfg.
    """

    name: str
    epsilon: Epsilon | None
    extra: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def __init__(
        self, model: Model, *, time_limit_s: float = TIME_LIMIT_S, memory_limit_bytes: int | None = None
    ) -> None:
        self.model = model
        self._worker = Worker(
            self.name,
            where=f"{self.name}: {model.network.cfg.source}",
            time_limit_s=time_limit_s,
            memory_limit_bytes=memory_limit_bytes,
        )
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process and remove its files; harmless when repeated."""
        self._worker.close()

    @property
    def suppression(self) -> str:
        """Who removes overlapping boxes in `detect`, for reports."""
        kind = self.model.nms.kind
        return f"{self.name}, {kind}" if kind in OWN_SUPPRESSION else f"the workbench: {self.name} has no {kind}"

    def run(self, x: Float32) -> dict[int, Float32]:
        """Outputs of every layer that the engine shows: float32 (n, c, h, w), from x float32 (n, c, h, w).

        Raises OptionError for an x of another shape: engines do not check it.
        """
        network = self.model.network
        shape = (network.channels, network.height, network.width)
        if x.ndim != 4 or x.shape[1:] != shape or not len(x) or x.dtype != np.float32:
            raise OptionError(
                self.name,
                "not an input of this network",
                expected=f"float32 (n, {', '.join(map(str, shape))}), n of 1 or more",
                found=f"{x.dtype} {x.shape}",
            )
        arrays = self._worker.ask("run", {"x": x}).arrays
        indices = [index for index in sorted(map(int, arrays)) if self._is_comparable(index)]
        return {index: self._fit(index, arrays[str(index)]) for index in indices}

    def detect(self, picture: NDArray[np.uint8], thresh: float) -> Detections:
        """Boxes in pixels of the picture (uint8 (H, W, 3) RGB), the whole pipeline as this engine does it."""
        raise NotImplementedError

    def _is_comparable(self, index: int) -> bool:
        """Whether the engine's output of this layer is the same quantity as the model's."""
        return True

    def _load(self) -> None:
        network = self.model.network
        cfg = self._worker.folder / "network.cfg"
        text = write_engine_cfg(network.cfg, network.width, network.height, network.channels, self.extra)
        cfg.write_text(text, encoding="ascii", errors="replace", newline="\n")
        kinds = [layer.kind for layer in network.layers]
        last = [layer for layer in network.layers if layer.kind != "cost"][-1]
        outputs = int(np.prod(last.output_shape))
        try:
            self._worker.ask("load", cfg=str(cfg), weights=str(self._weights()), kinds=kinds, outputs=outputs)
        except EngineError as error:
            raise ReferenceRefused(self.name, f"it rejects {network.cfg.source}", found=error.found) from error

    def _weights(self) -> Path:
        """The weights in place where the file holds what the model has, else a copy from memory.

        In place means a link with a plain name: a path may hold characters that an engine cannot take.
        """
        model, path = self.model, self._worker.folder / "network.weights"
        natural = build_ledger(model.network, model.dialect, model.weights.header.size)
        file = model.weights.path
        if file and file.is_file() and not model.weights.changed and model.weights.ledger == natural:
            if os.name != "posix":
                return file  # there a link needs a privilege
            path.symlink_to(file.absolute())
            return path
        with path.open("wb") as copy:
            copy.write(model.weights.header.pack())
            for span in natural.spans:
                copy.write(np.ascontiguousarray(model.weights[span.layer, span.field], "<f4").tobytes())
        return path

    def _fit(self, index: int, output: Float32) -> Float32:
        """In the shape of the model's layer; raises RunnerFailed where the engine has another number of values."""
        layer = self.model.network.layers[index]
        shape = (len(output), *layer.output_shape)
        if output.size != np.prod(shape):
            where = f"{self.name}: {self.model.network.cfg.source}:{layer.line}"
            raise RunnerFailed(
                where,
                f"layer {index} [{layer.kind}] has another shape there",
                expected=" x ".join(map(str, layer.output_shape)),
                found=" x ".join(map(str, output.shape[1:])),
            )
        return output.reshape(shape)

    def _suppress(self, answer: Answer, placement: Placement, thresh: float) -> Detections:
        """Detections from rows that the engine left overlapping: every row its own candidate, of one class."""
        rows = answer.arrays["rows"]
        classes = rows[:, 5].astype(np.intp)
        probabilities = np.zeros((len(rows), classes.max(initial=0) + 1), np.float32)
        probabilities[np.arange(len(rows)), classes] = rows[:, 4]
        candidates = Candidates(rows[:, :4], rows[:, 4], probabilities)
        return select(suppress(candidates, self.model.nms), placement, thresh)


def to_detections(boxes: Float32, rows: NDArray[Any]) -> Detections:
    """Detections from boxes in pixels of the picture and rows x, y, w, h, score, class."""
    return Detections(boxes, rows[:, 4], rows[:, 5].astype(np.int64))
