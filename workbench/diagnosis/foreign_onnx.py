"""A stranger's ONNX file with its lid off: every value that it computes, in order, for one input.

Each node's result becomes an output of a copy in memory, ONNX Runtime's own optimisations are switched off, and the
file runs once per picture. What the input wants (NHWC, 0 to 255, 8 bits, BGR) is tried, not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from workbench.diagnosis.attempt import start
from workbench.diagnosis.evidence import Evidence, Precision, Value, make_values
from workbench.diagnosis.layouts import Array
from workbench.errors import OptionError, RunnerFailed
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.pitfalls import PITFALLS

QUANTISED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger",
}  # fmt: skip
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(double)": np.float64,
}


@dataclass(frozen=True)
class Convention:
    """What a file may want of its input; `feed` turns ours (n, c, h, w), RGB, 0 to 1, into it."""

    name: str
    feed: Callable[[Float32], Float32]
    accept: Callable[[Float32], Float32]


AS_DARKNET = Convention("RGB, 0 to 1", lambda x: x, lambda x: x)
CONVENTIONS = (
    AS_DARKNET,
    Convention("RGB, 0 to 255", lambda x: x * np.float32(255), lambda x: x / np.float32(255)),
    Convention("BGR, 0 to 1", lambda x: x[:, ::-1], lambda x: x[:, ::-1]),
    Convention("BGR, 0 to 255", lambda x: x[:, ::-1] * np.float32(255), lambda x: x[:, ::-1] / np.float32(255)),
)


class ForeignOnnx:
    """Runs the file; raises OptionError where its input is no picture, RunnerFailed where ONNX Runtime refuses it."""

    def __init__(self, path: str | Path, inputs: Mapping[str, Float32] | None = None) -> None:
        """inputs: picture name -> the tensor (1, c, h, w) that they feed, where it is known."""
        self.path, self.inputs = Path(path), dict(inputs or {})
        proto = _load(self.path)
        self.precision = _precision(proto)
        self._outputs = {output.name for output in proto.graph.output}
        self._session = _open(_expose(proto), str(path))
        entry = self._session.get_inputs()[0]
        self._name, self._shape = entry.name, entry.shape
        self._dtype: Any = DTYPES.get(entry.type, np.float32)
        self._check_input()

    def _check_input(self) -> None:
        inputs = [entry for entry in self._session.get_inputs()]
        if len(inputs) != 1 or len(self._shape) != 4:
            raise OptionError(
                str(self.path), "its input is no picture", expected="one input of 4 axes",
                found=[entry.shape for entry in inputs],
            )  # fmt: skip

    @property
    def channels_last(self) -> bool:
        """True where the input is (n, h, w, c)."""
        return self._shape[3] in (1, 3) and self._shape[1] not in (1, 3)

    def size(self) -> tuple[int, int] | None:
        """Fixed width and height of the input in pixels, None where open."""
        height, width = self._shape[1:3] if self.channels_last else self._shape[2:4]
        return (width, height) if isinstance(width, int) and isinstance(height, int) else None

    def evidence(self, model: Model, pictures: Mapping[str, NDArray[np.uint8]]) -> list[Evidence]:
        """Fed with our own input, or with theirs where it was given; what the file wants of it is found by trying."""
        found = []
        for name, picture in pictures.items():
            given = self.inputs.get(name)
            x = model.preprocessing.apply(picture)[None] if given is None else given
            values, convention = self._choose(model, x)
            remark = () if convention is AS_DARKNET else (f"the file wants its input as {convention.name}",)
            found.append(Evidence(name, picture, x, given is None, values, None, self.precision, remark))
        return found

    def _choose(self, model: Model, x: Float32) -> tuple[tuple[Value, ...], Convention]:
        """The convention under which the first layer comes out most like ours; Darknet's own where none does."""
        best: tuple[float, tuple[Value, ...], Convention] | None = None
        for convention in CONVENTIONS:
            values = self.watch(x, convention)
            alike = start(model, Evidence("", None, x, True, values, None, self.precision))
            if best is None or alike > best[0] + 1e-3:
                best = (alike, values, convention)
            if alike > 0 and self.precision == "float32":
                break
        assert best is not None
        return best[1:] if best[0] > 0 else self._choose_with_a_mistake(model, x, best[1:])

    def _choose_with_a_mistake(
        self, model: Model, x: Float32, otherwise: tuple[tuple[Value, ...], Convention]
    ) -> tuple[tuple[Value, ...], Convention]:
        """Where the first layer is ours under no convention, the one under which some known mistake explains it."""
        pitfalls = [pitfall for pitfall in PITFALLS.values() if pitfall.stage in ("weights", "network")]
        faulty = [pitfall.apply(model) for pitfall in pitfalls if pitfall.idle(model) is None]
        for convention in CONVENTIONS:
            values = self.watch(x, convention)
            evidence = Evidence("", None, x, True, values, None, self.precision)
            if any(start(other, evidence) > 0 for other in faulty):
                return values, convention
        return otherwise

    @property
    def wants_bytes(self) -> bool:
        """True where the input is uint8."""
        return self._dtype is np.uint8

    def watch(self, x: Float32, convention: Convention = AS_DARKNET) -> tuple[Value, ...]:
        """x float32 (1, c, h, w), RGB, 0 to 1 -> every floating point value of the file in the order of its nodes."""
        fed = convention.feed(x)
        fed = fed.transpose(0, 2, 3, 1) if self.channels_last else fed
        batch = self._shape[0] if isinstance(self._shape[0], int) else 1
        fed = np.repeat(np.rint(fed) if self.wants_bytes else fed, batch, 0)
        try:
            found = self._session.run(None, {self._name: np.ascontiguousarray(fed.astype(self._dtype))})
        except Exception as error:  # the runtime's own exceptions share no base but Exception
            raise RunnerFailed(str(self.path), "ONNX Runtime fails on it", found=str(error).splitlines()[0]) from error
        names = [output.name for output in self._session.get_outputs()]
        return make_values(
            [(name, _first(value, batch), name in self._outputs) for name, value in zip(names, found, strict=True)
             if isinstance(value, np.ndarray)]
        )  # fmt: skip


def _first(value: Array, batch: int) -> Array:
    return value[:1] if batch > 1 and value.ndim and value.shape[0] == batch else value


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's DecodeError, OSError and onnx' own share no useful base
        raise OptionError(str(path), "cannot be read as ONNX", found=str(error).splitlines()[0]) from error


def _precision(proto: onnx.ModelProto) -> Precision:
    if any(node.op_type in QUANTISED for node in proto.graph.node):
        return "int8"
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in proto.graph.initializer)
    return "float16" if half else "float32"


def _expose(proto: onnx.ModelProto) -> bytes:
    """Every node's results as outputs, in the order of the nodes (ONNX sorts them topologically)."""
    known = {output.name: output for output in proto.graph.output}
    names = [name for node in proto.graph.node for name in node.output if name]
    passed_on = [name for name in known if name not in names]
    del proto.graph.output[:]
    for name in (*names, *passed_on):
        proto.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    try:
        data: bytes = proto.SerializeToString()
        return data
    except ValueError as error:
        raise OptionError("onnx", "is too large to be opened up", found=str(error)) from error


def _open(data: bytes, where: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions share no base but Exception
        raise RunnerFailed(where, "ONNX Runtime refuses the file", found=str(error).splitlines()[0]) from error
