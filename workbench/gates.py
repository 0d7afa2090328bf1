"""The gates: each is one question about a conversion, answered with the worst number found and where.

A gate is a function of a Trial, which holds what several gates need (engines, pictures, the file). The tolerances are
here and nowhere else; each was measured as a few times the noise of float32 between correct implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbench.certificate import Gate
from workbench.comparison import Comparison, LayerDifference, PictureComparison, compare, compare_layers, merge_worst
from workbench.detections import Nms
from workbench.dialects import Epsilon
from workbench.errors import WorkbenchError
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.onnx_file import batches, run_aligned
from workbench.onnx_model import OnnxGraph, OnnxOptions
from workbench.onnx_truth import expected_outputs, output_difference
from workbench.runners import Runner
from workbench.runners.onnxruntime import OnnxRunner, open_session
from workbench.runners.torch import TorchRunner

LAYER_LIMIT = 2e-4
"""max|difference| / std(reference) of a layer alone: four times the worst noise measured on eight real models (4.9e-5),
and below what a wrong epsilon does to the first layer of yolov3-tiny (3.6e-4 for 1e-6 inside the root)."""
NETWORK_LIMIT = 2e-5
"""rms(difference) / std(reference) with all layers in a row: three times the worst noise measured (6.2e-6). The largest
single difference is no measure there: after 130 layers Darknet itself is 2.4e-4 away from exact arithmetic."""
HEAD_LIMIT = 2e-5
"""Absolute, on what [yolo] puts out after its logistic."""
BOX_LIMIT_PX = 1e-3
"""Pixels, for pictures up to 1000 pixels; larger ones in proportion, since float32 has no more digits there."""
SCORE_LIMIT = 1e-5
OUTPUT_LIMIT = 2e-5
"""ONNX against PyTorch: max|difference| / max|reference| of each output."""
THRESHOLDS = (0.5, 0.25)


@dataclass
class Trial:
    """What the gates look at: a model, pictures by name, a reference (None where there is none), the ONNX file."""

    model: Model
    pictures: Mapping[str, NDArray[np.uint8]]
    reference: Runner
    graph: OnnxGraph
    file: Path
    options: OnnxOptions
    remarks: list[str] = field(default_factory=list)

    @cached_property
    def in_reference_arithmetic(self) -> Model:
        """The model with the epsilon and the suppression that the reference computes."""
        model = self.model
        if self.reference.epsilon is not None:
            model = replace(model, dialect=replace(model.dialect, epsilon=self.reference.epsilon))
        return model

    @cached_property
    def comparison(self) -> Comparison:
        """The torch model against the reference, on every picture, in the reference's arithmetic."""
        with TorchRunner(self.in_reference_arithmetic) as candidate:
            return compare(self.reference, candidate, self.pictures, THRESHOLDS)

    @property
    def compared(self) -> Comparison | None:
        """The comparison where it was made; None where the reference failed on the way."""
        found: Comparison | None = self.__dict__.get("comparison")
        return found

    @cached_property
    def inputs(self) -> dict[str, Float32]:
        """The network input (1, c, h, w) of every picture."""
        return {name: self.model.preprocessing.apply(picture)[None] for name, picture in self.pictures.items()}

    @cached_property
    def torch(self) -> TorchRunner:
        """The unfolded model in its own dialect."""
        return TorchRunner(self.model)


def check_ledger(model: Model) -> tuple[Gate, list[str]]:
    """No finding about the file is an error: every byte is read, no NaN, no negative variance. And the warnings."""
    findings = model.weights.findings()
    errors = [finding for finding in findings if finding.level == "error"]
    read = f"{model.weights.size} bytes, {model.weights.unread_bytes} unread"
    gate = Gate("ledger", not errors, len(errors), 0, str(errors[0]) if errors else "", read)
    return gate, [str(finding) for finding in findings if finding.level != "error"]


def layers(trial: Trial) -> Gate:
    """Each layer alone, fed with what the reference fed into it, in the reference's arithmetic."""
    rows = trial.comparison.alone
    if not rows:
        return Gate("layers", False, detail=f"{trial.reference.name} shows no layer")
    _remark_epsilon(trial)
    first = next((row for row in rows if not row.max_over_std <= LAYER_LIMIT), None)
    worst = max(rows, key=lambda row: row.max_over_std)
    where = f"first divergence at {first}" if first else str(worst)
    detail = f"{len(rows)} of {len(trial.model.network.layers)} layers against {trial.reference.name}, each alone"
    return Gate("layers", first is None, worst.max_over_std, LAYER_LIMIT, where, detail)


def network(trial: Trial) -> Gate:
    """All layers one after the other, as the network runs, against the reference."""
    return _by_mean(
        "network", trial.comparison.layers, f"all layers in a row against {trial.reference.name}, root mean square"
    )


def heads(trial: Trial) -> Gate | None:
    """What each head puts out, with the layer in front, absolutely; left out where the reference shows none."""
    indices = {head.index for head in trial.model.network.heads}
    rows = [row for row in trial.comparison.alone if row.index in indices]
    if not rows:
        if indices:
            trial.remarks.append(f"{trial.reference.name} shows no raw head; its boxes are compared instead")
        return None
    worst = max(rows, key=lambda row: row.max_abs)
    return Gate(
        "heads", worst.max_abs <= HEAD_LIMIT, worst.max_abs, HEAD_LIMIT, str(worst), f"{len(rows)} heads, absolute"
    )


def detections(trial: Trial) -> list[Gate]:
    """On each picture and threshold the same boxes, then their positions, then their probabilities."""
    rows = trial.comparison.pictures
    if not rows:
        return []
    count = sum(len(row.match.pairs.reference) for row in rows)
    unmatched = [(row, _lone(trial, row)) for row in rows]
    lost = next(((row, n) for row, n in unmatched if n), None)
    detail = f"{count} boxes on {len(trial.pictures)} pictures at {' and '.join(f'{t:g}' for t in THRESHOLDS)}"
    if count == 0:
        trial.remarks.append(
            "no box was found on any picture, so boxes prove nothing: give pictures of your own with --image"
        )
    offset = max(rows, key=lambda row: row.match.max_offset_px / _box_limit_px(trial, row))
    limit_px = _box_limit_px(trial, offset)
    score = max(rows, key=lambda row: row.match.max_dscore)
    same = Gate(
        "same boxes",
        lost is None,
        sum(n for _, n in unmatched),
        0,
        f"{lost[0].picture} at {lost[0].thresh:g}: {len(lost[0].reference)} and {len(lost[0].candidate)}"
        if lost
        else "",
        detail,
    )
    where = f"{offset.picture} at {offset.thresh:g}"
    positions = Gate(
        "box positions",
        offset.match.max_offset_px <= limit_px,
        offset.match.max_offset_px,
        limit_px,
        where,
        "pixels of the picture",
    )
    where = f"{score.picture} at {score.thresh:g}"
    return [
        same,
        positions,
        Gate("probabilities", score.match.max_dscore <= SCORE_LIMIT, score.match.max_dscore, SCORE_LIMIT, where),
    ]


def _box_limit_px(trial: Trial, row: PictureComparison) -> float:
    side: int = max(trial.pictures[row.picture].shape[:2])
    return BOX_LIMIT_PX * max(1.0, side / 1000)


def _lone(trial: Trial, row: PictureComparison) -> int:
    """Detections on one side only, but for those that lie within the noise of the threshold itself."""
    edge = row.thresh + SCORE_LIMIT
    lone = [*row.reference.scores[row.match.only_reference], *row.candidate.scores[row.match.only_candidate]]
    return sum(score > edge for score in lone)


def folded(trial: Trial) -> Gate:
    """Every layer of the folded ONNX graph against the unfolded torch model, both in the model's own dialect."""
    with OnnxRunner(trial.model, opset=trial.options.opset) as candidate:
        rows = merge_worst(
            [compare_layers(trial.model, trial.torch.run(x), candidate.run(x)) for x in trial.inputs.values()]
        )
    return _by_mean("folded", rows, "folded ONNX against unfolded PyTorch, every layer, root mean square")


def checker(trial: Trial) -> Gate:
    """The ONNX checker with full shape inference accepts the file, and infers the shapes that the cfg promises."""
    import onnx

    try:
        onnx.checker.check_model(str(trial.file), full_check=True)
        inferred = onnx.shape_inference.infer_shapes(onnx.load(str(trial.file)), strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return Gate("onnx checker", False, where=str(error).splitlines()[0])
    nodes = len(inferred.graph.node)
    return Gate(
        "onnx checker", True, where="", detail=f"{nodes} nodes, opset {trial.options.opset}, full shape inference"
    )


def onnxruntime(trial: Trial) -> Gate:
    """The file itself in ONNX Runtime against torch, at two sizes and two batches where they are open."""
    session = open_session(trial.file)
    worst, where, count = 0.0, "", 0
    for model, x in _shapes(trial, batches(session)):
        count += 1
        expected = expected_outputs(model, trial.options, x)
        outputs = run_aligned(session, x, expected)
        for name in expected:
            difference = output_difference(name, expected, outputs, model)
            if not difference <= worst:
                worst, where = difference, f"{name} at {x.shape[3]}x{x.shape[2]}, batch {x.shape[0]}"
    _remark_suppression(trial)
    return Gate(
        "onnxruntime",
        worst <= OUTPUT_LIMIT,
        worst,
        OUTPUT_LIMIT,
        where,
        f"{count} inputs of different size and batch, relative to each output's scale",
    )


def traced(trial: Trial) -> Gate:
    """The other road: `torch.onnx.export(dynamo=True)` of the torch model against the direct builder's raw heads."""
    from workbench.traced import compare_roads

    worst, where, nodes = compare_roads(trial.model, next(iter(trial.inputs.values())), trial.options.opset)
    return Gate(
        "two roads", worst <= OUTPUT_LIMIT, worst, OUTPUT_LIMIT, where, f"traced by torch.onnx.export, {nodes} nodes"
    )


GATES: tuple[tuple[str, Callable[[Trial], Gate | list[Gate] | None]], ...] = (
    ("every layer", layers),
    ("the whole network", network),
    ("heads", heads),
    ("detections", detections),
    ("folding", folded),
    ("the ONNX checker", checker),
    ("ONNX Runtime", onnxruntime),
    ("the traced road", traced),
)
"""What is done, for progress bars, and the function that does it."""


def run_gate(trial: Trial, name: str, gate: Callable[[Trial], Gate | list[Gate] | None]) -> list[Gate]:
    """The gate's results; an engine that fails inside it is a failed gate, not the end of the validation."""
    try:
        result = gate(trial)
    except WorkbenchError as error:
        return [Gate(name, False, where=str(error))]
    return result if isinstance(result, list) else [result] if result else []


def _by_mean(name: str, rows: Sequence[LayerDifference], text: str) -> Gate:
    """Passed where no layer's root mean square difference exceeds the limit, in units of the layer's spread."""
    worst = max(rows, key=lambda row: row.rms_over_std)
    first = next((row for row in rows if not row.rms_over_std <= NETWORK_LIMIT), None)
    where = f"first divergence at {first}" if first else str(worst)
    return Gate(name, first is None, worst.rms_over_std, NETWORK_LIMIT, where, text)


def _remark_epsilon(trial: Trial) -> None:
    """Say what the model's own epsilon changes on top of the reference's; it is shown, never hidden in a tolerance."""
    theirs: Epsilon | None = trial.reference.epsilon
    ours = trial.model.dialect.epsilon
    if theirs is None or theirs == ours:
        return
    with TorchRunner(trial.in_reference_arithmetic) as other:
        rows = merge_worst(
            [compare_layers(trial.model, other.run(x), trial.torch.run(x)) for x in trial.inputs.values()]
        )
    worst = max(rows, key=lambda row: row.max_over_std)
    trial.remarks.append(
        f"{trial.reference.name} computes {theirs}, the dialect {trial.model.dialect} {ours}: the layers were compared "
        f"with the reference's; the dialect's own changes them by up to {worst.max_over_std:.3g} std "
        f"({worst.max_abs:.3g}) at layer {worst.index}"
    )


def _remark_suppression(trial: Trial) -> None:
    """ONNX has plain IoU only: say where the model's own suppression keeps other boxes than the file's."""
    if trial.options.outputs != "nms" or trial.model.nms.kind == "sort":
        return
    plain = replace(trial.model, nms=Nms("sort", trial.model.nms.thresh))
    counts = []
    for picture in trial.pictures.values():
        counts.append([len(TorchRunner(model).detect(picture, trial.model.thresh)) for model in (trial.model, plain)])
    own, file = (sum(column) for column in zip(*counts, strict=True))
    trial.remarks.append(
        f"the file suppresses by plain IoU, ONNX has nothing else; on these pictures it keeps {file} boxes, "
        f"the model's own nms_kind={trial.model.nms.kind} keeps {own}"
    )


def _shapes(trial: Trial, batch_sizes: tuple[int, ...]) -> Iterator[tuple[Model, Float32]]:
    """The model at its own size and a second one, in each batch size: the pictures first, filled up with noise."""
    rng = np.random.default_rng(0)
    for model in _sizes(trial):
        net = model.preprocessing
        pictures = [net.apply(picture)[None] for picture in trial.pictures.values()]
        for batch in batch_sizes:
            noise = rng.random((batch - 1, net.channels, net.height, net.width), dtype=np.float32)
            for x in pictures if batch == 1 and net == trial.model.preprocessing else pictures[:1]:
                yield model, np.concatenate([x, noise])


def _sizes(trial: Trial) -> list[Model]:
    model = trial.model.at_size(*trial.options.size) if trial.options.size else trial.model
    network = model.network
    if trial.options.size or not network.any_size:
        return [model]
    step = network.stride
    width, height = max(network.width - step, step), network.height + step
    return [model, model.at_size(width, height)]
