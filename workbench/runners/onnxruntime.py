"""The model in ONNX Runtime: the file that the direct builder writes, or one that lies on the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from workbench.detections import Detections
from workbench.dialects import Epsilon
from workbench.errors import RunnerFailed
from workbench.layers.base import Float32
from workbench.memory import require_memory
from workbench.model import Model
from workbench.onnx_model import INPUT, OnnxOptions, build_graph, write_onnx


def open_session(path: str | Path) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU; raises RunnerFailed where it refuses the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions share no base but Exception
        raise RunnerFailed(str(path), "ONNX Runtime refuses the file", found=str(error).splitlines()[0]) from error


def run_session(
    session: onnxruntime.InferenceSession, names: list[str] | None, x: Float32, where: str
) -> list[Float32]:
    """The outputs `names` (all where None) for the input x (n, c, h, w).

    Raises RunnerFailed where ONNX Runtime gives up.
    """
    try:
        outputs: list[Float32] = session.run(names, {session.get_inputs()[0].name: x})
    except Exception as error:  # as above
        raise RunnerFailed(where, "ONNX Runtime cannot run it", found=str(error).splitlines()[0]) from error
    return outputs


class OnnxRunner:
    """Every layer of the model as an output of one graph, folded or not."""

    name = "onnxruntime"
    epsilon: Epsilon | None = None

    def __init__(self, model: Model, fold: bool = True, opset: int = 17) -> None:
        self.model = model
        self._heads = [head.index for head in model.network.heads]
        require_memory(model.network, self._heads, tensors=model.weights.ledger.bytes)
        graph = build_graph(model, OnnxOptions("layers", opset, fold=fold))
        self._layer_of = graph.output_layers
        self._value_of = graph.values
        with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
            path = Path(folder) / "layers.onnx"
            write_onnx(graph, path)
            self._session = open_session(path)

    def run(self, x: Float32) -> dict[int, Float32]:
        """Every layer's output; layers that pass their input on share one array."""
        require_memory(self.model.network, batch=len(x))
        names = list(self._layer_of)
        values = dict(zip(names, self._ask(names, x), strict=True))
        values[INPUT] = x
        return {i: values[name] for i, name in self._value_of.items() if i >= 0}

    def detect(self, picture: NDArray[np.uint8], thresh: float) -> Detections:
        """The model's own preprocessing and decoding around ONNX Runtime's network."""
        require_memory(self.model.network, self._heads)
        x = self.model.preprocessing.apply(picture)[None]
        outputs = self._ask([self._value_of[i] for i in self._heads], x)
        placement = self.model.preprocessing.placement(picture.shape[1], picture.shape[0])
        return self.model.detections({i: y[0] for i, y in zip(self._heads, outputs, strict=True)}, placement, thresh)

    def _ask(self, names: list[str], x: Float32) -> list[Float32]:
        return run_session(self._session, names, x, self.model.network.cfg.source)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> OnnxRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def refusal(model: Model) -> str | None:
    """ONNX Runtime runs whatever the builder writes."""
    return None


def open_runner(model: Model) -> OnnxRunner:
    """A runner for `model`."""
    return OnnxRunner(model)
