"""Model -> ONNX, directly from the cfg: every node and value carries its layer's name (`013_convolutional/Conv`).

Nothing is traced. Each layer writes its own nodes; batch normalisation is folded into the convolution in float64 in the
model's dialect; batch, height and width stay open unless a size is asked for. Weights are computed one tensor at a time
while the file is written, so that a model never lies in memory twice (`onnx_wire.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper

from workbench.dialects import Dialect
from workbench.errors import OptionError, WeightsError, WorkbenchError
from workbench.files import atomic_write
from workbench.layers import Layer, OnnxScope
from workbench.layers.base import Float32, StateSpec
from workbench.memory import require_memory
from workbench.model import Model
from workbench.onnx_wire import Initializer, Make, write_model

Outputs = Literal["raw", "decoded", "nms", "layers"]
OPSETS = range(17, 22)
INPUT = "images"


@dataclass(frozen=True)
class OnnxOptions:
    """What to build. outputs: "raw" (what goes into each head), "decoded" (boxes and scores), "nms" (detections) or
    "layers" (every layer's output, for comparing). size: fixed (width, height), or None for an open size."""

    outputs: Outputs = "decoded"
    opset: int = 17
    size: tuple[int, int] | None = None
    fold: bool = True
    thresh: float | None = None

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise OptionError(
                "opset", "not supported", expected=f"{OPSETS.start} to {OPSETS.stop - 1}", found=self.opset
            )
        if self.outputs not in ("raw", "decoded", "nms", "layers"):
            raise OptionError("outputs", "not known", expected="raw, decoded or nms", found=self.outputs)


@dataclass
class OnnxGraph:
    """An ONNX graph without weight values. `values` maps each layer to the value that holds its output."""

    model: Model
    options: OnnxOptions
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, Initializer] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    output_layers: dict[str, int] = field(default_factory=dict)
    """Name of each output that is a layer's -> its index."""
    states: list[onnx.ValueInfoProto] = field(default_factory=list)
    """Inputs for what recurrent layers remember, zero where not given; outputs of the same name end in `_after`."""
    states_after: list[onnx.ValueInfoProto] = field(default_factory=list)

    @property
    def image_shape(self) -> list[int | str]:
        """Shape of the input, (n, c, h, w), open dimensions by name."""
        c = self.model.network.channels
        size: list[int | str] = (
            [self.options.size[1], self.options.size[0]] if self.options.size else ["height", "width"]
        )
        return ["batch", c, *size]


class _Scope:
    """One layer's place in the graph: the `OnnxScope` that layers write into."""

    def __init__(self, graph: OnnxGraph, layer: int, prefix: str) -> None:
        self._graph, self._layer, self._prefix = graph, layer, prefix
        self._counts: dict[str, int] = {}
        self.dialect: Dialect = graph.model.dialect
        self.opset, self.fold = graph.options.opset, graph.options.fold
        self.size = (graph.options.size[1], graph.options.size[0]) if graph.options.size else None

    def tensor(self, name: str) -> Float32:
        model = self._graph.model
        return model.weights[model.network.layers[self._layer].owner, name]

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str | None = None, **attributes: Any) -> Any:
        count = self._counts[op] = self._counts.get(op, 0) + 1
        label = name or f"{self._prefix}/{op}" + (f"_{count}" if count > 1 else "")
        names = [label] if outputs == 1 else [f"{label}:{i}" for i in range(outputs)]
        self._graph.nodes.append(helper.make_node(op, list(inputs), names, name=label, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        array = np.asarray(value, dtype)
        return self._add(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype), lambda: array)

    def weight(self, name: str, shape: Sequence[int], make: Callable[[], Float32 | Iterable[Float32]]) -> str:
        def named() -> Float32 | Iterable[Float32]:
            try:
                return make()
            except WorkbenchError as error:
                layer = self._graph.model.network.layers[self._layer]
                place = f"layer {layer.index} ({self._graph.model.network.cfg.source}:{layer.line})"
                error.where = f"{place} {error.where}"
                error.args = (error._sentence(),)
                raise

        return self._add(name, tuple(shape), onnx.TensorProto.FLOAT, named)

    def read_state(self, spec: StateSpec) -> str:
        zero = np.zeros((1, spec.shape[0], 1, 1), np.float32)
        name = self._add(spec.name, zero.shape, onnx.TensorProto.FLOAT, lambda: zero)
        self._graph.states.append(self._state_info(spec, name, "_before"))
        return name

    def write_state(self, spec: StateSpec, value: str) -> None:
        name = self.node("Identity", value, name=f"{self._prefix}/{spec.name}_after")
        self._graph.states_after.append(self._state_info(spec, name, ""))

    def _state_info(self, spec: StateSpec, name: str, rows: str) -> onnx.ValueInfoProto:
        """Where nothing is given, one row of zeros serves every row of the batch, so the names of dimensions differ."""
        fixed = self._layer in self._graph.model.network.fixed_layers and not rows
        size = list(spec.shape[1:]) if fixed else [f"{name}:height", f"{name}:width"]
        return helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, [f"{name}:batch" if rows else "batch", spec.shape[0], *size]
        )

    def _add(self, name: str, shape: tuple[int, ...], dtype: int, make: Make) -> str:
        label = f"{self._prefix}/{name}"
        known = self._graph.initializers.setdefault(label, Initializer(label, shape, dtype, make))
        if (known.shape, known.dtype) != (shape, dtype):
            raise AssertionError(f"{label} names two different values")
        return label


def build_graph(model: Model, options: OnnxOptions | None = None) -> OnnxGraph:
    """The graph of `model`; raises OptionError where the options do not fit the network."""
    options = options or default_options(model)
    if options.size:
        model = model.at_size(*options.size)
    elif not model.network.any_size:
        options = replace(options, size=(model.network.width, model.network.height))
    if options.size:  # then the grids of the heads are constants
        require_memory(model.network, output_layers(model))
    graph = OnnxGraph(model, options)
    needed = _needed_layers(model, options.outputs)
    graph.values[-1] = INPUT
    for layer in model.network.layers:
        if layer.index in needed:
            scope: OnnxScope = _Scope(graph, layer.index, layer.prefix)
            graph.values[layer.index] = layer.onnx(scope, *(graph.values[i] for i in layer.inputs))
    _WRITE_OUTPUTS[options.outputs](graph)
    return graph


def default_options(model: Model) -> OnnxOptions:
    """Boxes and scores where every head's decoding can be written, else the raw result, as of a classifier."""
    heads = model.network.heads
    return OnnxOptions("decoded" if heads and all(head.has_onnx_decode for head in heads) else "raw")


def output_layers(model: Model) -> tuple[int, ...]:
    """The layers whose outputs are the raw result: what goes into each head, or the last layer that computes."""
    network = model.network
    return tuple(head.inputs[0] for head in network.heads) or (network.result,)


def _needed_layers(model: Model, outputs: Outputs) -> set[int]:
    """Layers that some wanted output depends on; heads themselves are decoded instead of written."""
    layers = model.network.layers
    if outputs == "layers":
        return {layer.index for layer in layers}
    needed, pending = set[int](), list(output_layers(model))
    while pending:
        index = pending.pop()
        if index >= 0 and index not in needed:
            needed.add(index)
            pending.extend(layers[index].inputs)
    return needed


def _write_raw(graph: OnnxGraph) -> None:
    for index in output_layers(graph.model):
        _add_layer_output(graph, index)


def _write_layers(graph: OnnxGraph) -> None:
    seen: set[str] = {INPUT}
    for layer in graph.model.network.layers:
        if graph.values[layer.index] not in seen:
            seen.add(graph.values[layer.index])
            _add_layer_output(graph, layer.index)
    if not graph.outputs:  # every layer passes the input on, and a graph needs an output
        _add_layer_output(graph, graph.model.network.layers[-1].index)


def _add_layer_output(graph: OnnxGraph, index: int) -> None:
    name = graph.values[index]
    if name == INPUT:  # a network that only passes its input on
        name = _Scope(graph, index, graph.model.network.layers[index].prefix).node("Identity", INPUT)
    if name not in graph.output_layers:
        graph.output_layers[name] = index
        graph.outputs.append(_value_info(graph, name, graph.model.network.layers[index]))


def _value_info(graph: OnnxGraph, name: str, layer: Layer) -> onnx.ValueInfoProto:
    c, h, w = layer.output_shape
    fixed = graph.options.size or layer.index in graph.model.network.fixed_layers
    size: list[int | str] = [h, w] if fixed else [f"{layer.prefix}_height", f"{layer.prefix}_width"]
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", c, *size])


def _write_decoded(graph: OnnxGraph) -> None:
    boxes, scores = _decode_heads(graph)
    scope = _Scope(graph, -1, "output")
    for name, value in (("boxes", boxes), ("scores", scores)):
        scope.node(
            "Identity" if len(value) == 1 else "Concat", *value, name=name, **({} if len(value) == 1 else {"axis": 1})
        )
    rows, classes = _rows(graph), graph.model.network.heads[0].classes
    graph.outputs.append(helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, ["batch", rows, 4]))
    graph.outputs.append(helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", rows, classes]))


def _decode_heads(graph: OnnxGraph) -> tuple[list[str], list[str]]:
    heads = graph.model.network.heads
    if not heads:
        raise OptionError(
            graph.model.network.cfg.source,
            "has no head to decode",
            expected="--outputs raw",
            found=graph.options.outputs,
        )
    if len({head.classes for head in heads}) > 1:
        raise OptionError(
            graph.model.network.cfg.source, "has heads with different numbers of classes", expected="--outputs raw"
        )
    pairs = [
        head.onnx_decode(_Scope(graph, head.index, head.prefix), graph.values[head.inputs[0]], INPUT) for head in heads
    ]
    return [boxes for boxes, _ in pairs], [scores for _, scores in pairs]


def _rows(graph: OnnxGraph) -> int | str:
    if not graph.options.size:
        return "rows"
    return sum(head.boxes for head in graph.model.network.heads)


def _write_nms(graph: OnnxGraph) -> None:
    """NonMaxSuppression over each class; rows of `detections` are batch, class, score, x1, y1, x2, y2."""
    all_boxes, all_scores = _decode_heads(graph)
    g = _Scope(graph, -1, "output")
    boxes, scores = (v[0] if len(v) == 1 else g.node("Concat", *v, axis=1) for v in (all_boxes, all_scores))
    by_class = g.node("Transpose", scores, perm=[0, 2, 1])
    thresh = graph.model.thresh if graph.options.thresh is None else graph.options.thresh
    most = g.constant("most_per_class", [np.iinfo(np.int32).max], "int64")
    limits = (most, g.constant("iou_threshold", [graph.model.nms.thresh]), g.constant("score_threshold", [thresh]))
    chosen = g.node("NonMaxSuppression", boxes, by_class, *limits)
    batch, class_id, row = g.node("Split", chosen, g.constant("columns", [1, 1, 1], "int64"), outputs=3, axis=1)
    score = g.node("GatherND", by_class, chosen)
    box = g.node("GatherND", boxes, g.node("Concat", batch, row, axis=1))
    left = [g.node("Cast", value, to=onnx.TensorProto.FLOAT) for value in (batch, class_id)]
    column = g.node("Unsqueeze", score, g.constant("second", [1], "int64"))
    g.node("Concat", *left, column, box, axis=1, name="detections")
    graph.outputs.append(helper.make_tensor_value_info("detections", onnx.TensorProto.FLOAT, ["detections", 7]))


_WRITE_OUTPUTS: dict[Outputs, Callable[[OnnxGraph], None]] = {
    "raw": _write_raw,
    "layers": _write_layers,
    "decoded": _write_decoded,
    "nms": _write_nms,
}


# ------------------------------------------------------------------------------------------ writing the file


def write_onnx(
    graph: OnnxGraph,
    path: str | Path,
    metadata: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
    approve: Callable[[str], None] | None = None,
    hashed: bool = True,
) -> str:
    """Write the file and return the sha256 of its graph, which does not change with the metadata.

    metadata: or a function that is asked for them when the graph is written. `approve` is given that sha256 before the
    file appears under its name, and may raise to keep it away. hashed=False saves the time and returns "".
    Raises OptionError where it would exceed protobuf's 2 GiB, WeightsError where a tensor cannot be folded.
    """
    model = graph.model
    tell = metadata if callable(metadata) else lambda: metadata or {}
    with atomic_write(path, inputs=[model.weights.path, model.network.cfg_path]) as file:
        initializers = graph.initializers.values()
        try:
            graph_sha256 = write_model(file, _skeleton(graph), initializers, graph.options.opset, tell, hashed)
        except WeightsError as error:
            raise error.inside(model.weights.source) from error
        if approve:
            approve(graph_sha256)
    return graph_sha256


def _skeleton(graph: OnnxGraph) -> onnx.GraphProto:
    """The GraphProto without its initializers."""
    proto = onnx.GraphProto(name=Path(graph.model.network.cfg.source).stem or "darknet")
    proto.node.extend(graph.nodes)
    proto.input.append(helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, graph.image_shape))
    proto.input.extend(graph.states)
    proto.output.extend((*graph.outputs, *graph.states_after))
    known = {INPUT, *(value.name for value in (*proto.input, *proto.output))}
    for layer in graph.model.network.layers:
        name = graph.values.get(layer.index)
        if name and name not in known:
            known.add(name)
            proto.value_info.append(_value_info(graph, name, layer))
    return proto
