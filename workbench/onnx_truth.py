"""What an ONNX file must answer: the torch model's outputs, decoded in numpy, in the order that the file writes them.

Independent of the builder: nothing here knows a node. The rows are Darknet's own decoding; the suppression is the plain
IoU that ONNX's operator has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.comparison import scale_of
from workbench.detections import Candidates, Nms, suppress
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.onnx_model import OnnxOptions, build_graph, output_layers
from workbench.runners.torch import TorchRunner

VISIBLE = 1e-3
"""The score below which no box is ever shown."""

Outputs = Mapping[str, NDArray[Any]]


def expected_outputs(model: Model, options: OnnxOptions, x: Float32) -> dict[str, NDArray[Any]]:
    network = model.network
    with TorchRunner(model) as runner:
        outputs = runner.run_layers(x, {*output_layers(model), *(head.index for head in network.heads)})
    if options.outputs == "raw":
        names = build_graph(model, options).output_layers
        return {name: outputs[index] for name, index in names.items()}
    decoded = [_decode_rows(model, {i: y[n] for i, y in outputs.items()}) for n in range(len(x))]
    if options.outputs == "decoded":
        return {
            "boxes": np.stack([_corners(model, c.boxes) for c in decoded]),
            "scores": np.stack([c.probabilities for c in decoded]),
        }
    thresh = model.thresh if options.thresh is None else options.thresh
    return {"detections": np.concatenate([_detection_rows(model, n, c, thresh) for n, c in enumerate(decoded)])}


def _decode_rows(model: Model, outputs: Mapping[int, Float32]) -> Candidates:
    """Every row of every head, whatever its objectness, in the order of the ONNX file's rows."""
    return model.candidates(outputs, -np.inf)


def _corners(model: Model, boxes: Float32) -> Float32:
    """x, y, w, h relative to the network input -> x1, y1, x2, y2 in its pixels."""
    scale = np.array([model.network.width, model.network.height] * 2, np.float32)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.asarray(np.concatenate([centre - half, centre + half], 1) * scale, np.float32)


def _detection_rows(model: Model, batch: int, rows: Candidates, thresh: float) -> Float32:
    """What NonMaxSuppression keeps: plain IoU within each class, whatever `nms_kind` says."""
    probabilities = np.where(rows.probabilities > thresh, rows.probabilities, 0)
    kept = suppress(replace(rows, probabilities=probabilities), Nms("sort", model.nms.thresh))
    row, class_id = np.nonzero(kept.probabilities)
    score = kept.probabilities[row, class_id]
    order = np.lexsort((-score, class_id))
    columns = [np.full(len(row), batch), class_id, score]
    return np.concatenate([np.stack(columns, 1), _corners(model, rows.boxes[row])], 1)[order].astype(np.float32)


def output_difference(name: str, expected: Outputs, outputs: Outputs, model: Model) -> float:
    """How far one output is off, in units of its scale: max|difference| / max|reference|; for scores, the scale is 1.

    Boxes count where some class has a score above VISIBLE, in units of the network input's longer side: exp makes
    numbers without meaning of the others, and a rounding of the logit becomes any number of pixels there.
    """
    reference, output = expected[name], outputs[name]
    if name == "scores":  # where nothing is found, the largest score is itself a rounding
        return relative_difference(reference, output) * float(np.abs(reference).max(initial=0))
    if name != "boxes" or reference.shape != output.shape:
        return relative_difference(reference, output)
    seen = expected["scores"].max(axis=2, initial=0) > VISIBLE
    off = np.abs(reference[seen] - output[seen]).max(initial=0)
    return float(off) / max(model.network.width, model.network.height) if np.isfinite(off) else float("inf")


def relative_difference(reference: NDArray[Any], output: NDArray[Any]) -> float:
    """max|difference| / max|reference|; infinite where the shapes differ or a number is missing."""
    if reference.shape != output.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    finite = np.isfinite(reference) & np.isfinite(output)
    if not (finite | (reference == output)).all():
        return float("inf")
    scale = float(np.abs(reference[finite]).max(initial=0)) or scale_of(reference)
    return float(np.abs(reference - output, where=finite, out=np.zeros_like(reference)).max() / scale)
