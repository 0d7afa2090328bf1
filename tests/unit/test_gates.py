"""The gates: a sound model passes them all, and each one is turned red by a fault that only it is there for.

No engine is imitated: a fault is another model, given as candidate while the reference runs the sound one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_models import random_model
from numpy.typing import NDArray

from workbench import gates
from workbench.certificate import Certificate, Gate, pipeline
from workbench.dialects import ALEXEYAB, PJREDDIE
from workbench.errors import NotProved
from workbench.gates import Trial, run_gate
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.nms import Nms
from workbench.onnx_model import OnnxOptions, build_graph, write_onnx
from workbench.runners import Runner, open_runner
from workbench.runners.torch import TorchRunner
from workbench.validation import validate

pytestmark = pytest.mark.usefixtures("darknet")

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride={}\npad=1\nactivation=leaky\n"
TEXT = (
    "[net]\nwidth=48\nheight=32\nchannels=3\n"
    + CONV.format(8, 2)  # 0
    + CONV.format(8, 1)  # 1
    + "[shortcut]\nfrom=-2\nactivation=linear\n"  # 2
    + CONV.format(12, 2)  # 3
    + "[maxpool]\nsize=2\nstride=1\n"  # 4
    + "[convolutional]\nfilters=16\nsize=1\nactivation=linear\n"  # 5
    + "[yolo]\nmask=0,1\nanchors=8,8, 20,14\nclasses=3\nnum=2\n"  # 6
)
SHARING = TEXT.replace("[maxpool]\nsize=2", "[maxpool]\nsize=3").replace("num=2", "num=2\nscale_x_y=1.1")


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)


PICTURES = {"one": picture(1), "two": picture(2)}


def calm(model: Model) -> Model:
    """With a head that sees something everywhere, in boxes of the size of its anchors."""
    weights, biases = (model.weights[5, field].copy() for field in ("weights", "biases"))
    biases.reshape(2, 8)[:] = [0, 0, 0, 0, 1, 1.5, 1, 0.5]
    return replace(model, weights=model.weights.replacing({(5, "weights"): weights * 0.2, (5, "biases"): biases}))


@pytest.fixture(scope="module")
def model() -> Model:
    return calm(random_model(TEXT))


@pytest.fixture(scope="module")
def certificate(model: Model) -> Certificate:
    return validate(model, PICTURES)


def changed(model: Model, layer: int, field: str, change: float, at: tuple[int, ...] = (1,)) -> Model:
    """The model with one value of one tensor changed by `change`."""
    values = model.weights[layer, field].copy()
    values[at] += np.float32(change)
    return replace(model, weights=model.weights.replacing({(layer, field): values}))


def with_layer(model: Model, index: int, **options: object) -> Model:
    """The model with other options of one layer, as nobody's cfg says."""
    layers = list(model.network.layers)
    layers[index] = replace(layers[index], **options)  # type: ignore[arg-type]
    return replace(model, network=replace(model.network, layers=tuple(layers)))


@contextmanager
def trial_of(candidate: Model, reference: Runner, tmp_path: Path, file_of: Model | None = None) -> Iterator[Trial]:
    """A trial of `candidate` against `reference`, whose file was written from `file_of`."""
    options = OnnxOptions()
    graph = build_graph(file_of or candidate, options)
    file = tmp_path / "a.onnx"
    write_onnx(graph, file)
    with reference:
        yield Trial(candidate, PICTURES, reference, graph, file, options)


def red(trial: Trial) -> dict[str, Gate]:
    """The gates that compare with the reference, where they fail."""
    steps = ("layers", "network", "heads", "detections")
    found = [gate for step in steps for gate in run_gate(trial, step, getattr(gates, step))]
    return {gate.name: gate for gate in found if not gate.passed}


# ------------------------------------------------------------------------------------------------- a sound model


NAMES = ["ledger", "layers", "network", "heads", "same boxes", "box positions", "probabilities", "folded",
         "onnx checker", "onnxruntime", "two roads"]  # fmt: skip


def test_a_sound_model_passes_against_darknet(model: Model, certificate: Certificate) -> None:
    assert [gate.name for gate in certificate.gates] == NAMES
    assert [str(gate) for gate in certificate.failed] == []
    assert (certificate.passed, certificate.reference, certificate.dialect) == (True, "darknet", "pjreddie")
    assert len(certificate.layers) == 7
    assert sum(len(row.reference) for row in certificate.pictures) > 10
    assert all(gate.worst is None or gate.limit is None or gate.worst <= gate.limit for gate in certificate.gates)
    certificate.require(model)
    certificate.require(model, certificate.graph_sha256)


def test_a_sound_model_passes_against_opencv() -> None:
    sharing = calm(random_model(SHARING, "alexeyab"))
    found = validate(sharing, PICTURES)
    assert [str(gate) for gate in found.failed] == []
    assert [gate.name for gate in found.gates] == [name for name in NAMES if name != "heads"]
    assert found.reference == "opencv"
    first, shown, epsilon, *_ = found.remarks
    assert first.startswith("not used: darknet: Darknet of 2018 cannot run this cfg truthfully: small.cfg:")
    assert first.endswith("scale_x_y=1.1 is ignored by it")
    told = "\n".join((shown, epsilon))
    assert "opencv shows no raw head; its boxes are compared instead" in told
    assert "opencv computes sqrt(variance + 1e-06), the dialect alexeyab sqrt(variance + 1e-05)" in told
    found.require(sharing)


@pytest.mark.parametrize("outputs", ["raw", "nms"])
def test_the_other_outputs_pass_too(model: Model, outputs: str) -> None:
    found = validate(model, PICTURES, options=OnnxOptions(outputs, size=(64, 32), opset=20))  # type: ignore[arg-type]
    assert [str(gate) for gate in found.failed] == []


def test_no_reference_proves_nothing(model: Model) -> None:
    """Both engines read a cfg, and no cfg says what this model computes."""
    found = validate(with_layer(model, 0, activation="relu"), PICTURES)
    (gate,) = found.gates
    assert (gate.name, gate.passed, found.reference) == ("reference", False, "none")
    words = "small.cfg:5: layer 0 [convolutional] was changed in memory, and an engine reads the cfg"
    assert gate.where.count(words) == 2
    with pytest.raises(
        NotProved, match=r"^small\.cfg: gate `reference` failed\. small\.cfg: no reference can run this cfg"
    ):
        found.require(with_layer(model, 0, activation="relu"))


# ------------------------------------------------------------------------------------------------- faults, one each


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_ledger(model: Model, value: float) -> None:
    found = validate(changed(model, 3, "weights", value, (2, 0, 1, 1)), PICTURES)
    (gate,) = found.gates
    assert (gate.name, gate.worst, gate.limit) == ("ledger", 1, 0)
    assert "weights: layer 3 (small.cfg:22) weights" in gate.where
    assert "1 values are NaN or infinite" in gate.where


FAULTS = {
    "one weight": lambda m: (changed(m, 1, "weights", 0.01, (5, 2, 1, 1)), 1),
    "one bias": lambda m: (changed(m, 3, "biases", 0.01), 3),
    "one mean": lambda m: (changed(m, 0, "rolling_mean", 0.01), 0),
    "activation": lambda m: (with_layer(m, 3, activation="relu"), 3),
    "shortcut activated": lambda m: (with_layer(m, 2, activation="relu"), 2),
    "sources of a shortcut": lambda m: (with_layer(m, 2, inputs=(1, 1)), 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_layers(model: Model, tmp_path: Path, fault: str) -> None:
    candidate, index = FAULTS[fault](model)
    with trial_of(candidate, open_runner("darknet", model), tmp_path, model) as trial:
        found = red(trial)
    kind = model.network.layers[index].kind
    line = model.network.layers[index].line
    assert found["layers"].where.startswith(
        f"first divergence at layer {index} [{kind}] (line {line}): max|difference| "
    )
    assert (found["layers"].worst or 0) > gates.LAYER_LIMIT


def test_layers_with_the_wrong_epsilon(tmp_path: Path) -> None:
    """Visible where variances are small: pjreddie's arithmetic as reference, AlexeyAB's as candidate."""
    model = calm(random_model(TEXT))
    tensors: dict[tuple[int, str], Float32] = {}
    for layer, field in model.weights.ledger.by_name:
        if field == "rolling_variance":
            tensors[layer, field] = model.weights[layer, field] * np.float32(1e-6)
            tensors[layer, "scales"] = model.weights[layer, "scales"] * np.float32(1e-3)
    model = replace(model, weights=model.weights.replacing(tensors))
    candidate = replace(model, dialect=replace(PJREDDIE, epsilon=ALEXEYAB.epsilon))
    with trial_of(candidate, TorchRunner(model), tmp_path) as trial:
        assert red(trial)["layers"].where.startswith("first divergence at layer 0 [convolutional] (line 5)")
    # Real Darknet states its arithmetic, so that the layers agree, and the difference becomes a remark.
    with trial_of(candidate, open_runner("darknet", model), tmp_path) as trial:
        assert red(trial) == {}
    (remark,) = trial.remarks
    assert remark.startswith(
        "darknet computes sqrt(variance) + 1e-06, the dialect pjreddie sqrt(variance + 1e-05): the layers were "
        "compared with the reference's; the dialect's own changes them by up to "
    )


def test_heads(model: Model, tmp_path: Path) -> None:
    """A raw width that is 6e-5 off: too little for a layer's spread, too much for a head."""
    with trial_of(changed(model, 5, "biases", 6e-5, (2,)), open_runner("darknet", model), tmp_path) as trial:
        found = red(trial)
    assert "layers" not in found
    assert found["heads"].where.startswith("layer 6 [yolo] (line 36): max|difference| 6")


def test_boxes_that_are_lost(model: Model, tmp_path: Path) -> None:
    """Without suppression there are more."""
    candidate = replace(model, nms=Nms("none", 0.45, 0.6))
    with trial_of(candidate, open_runner("darknet", model), tmp_path) as trial:
        found = red(trial)
    assert set(found) == {"same boxes"}
    assert found["same boxes"].limit == 0
    assert found["same boxes"].where.startswith("one at 0.5: ")


def test_boxes_of_other_anchors(model: Model, tmp_path: Path) -> None:
    """Layers do not see the anchors. 8.01 for 8 pixels moves no box from its twin."""
    candidate = with_layer(model, 6, anchors=((8.01, 8), (20, 14)))
    with trial_of(candidate, open_runner("darknet", model), tmp_path, model) as trial:
        found = red(trial)
    assert set(found) == {"box positions"}
    assert 1e-3 < (found["box positions"].worst or 0) < 1


def test_probabilities(model: Model, tmp_path: Path) -> None:
    with trial_of(changed(model, 5, "biases", 1e-4, (4,)), open_runner("darknet", model), tmp_path) as trial:
        found = red(trial)
    assert "layers" not in found
    assert 1e-5 < (found["probabilities"].worst or 0) < 1e-4
    assert found["probabilities"].where in [f"{name} at {t:g}" for name in PICTURES for t in gates.THRESHOLDS]


def test_folded(model: Model, tmp_path: Path) -> None:
    with trial_of(model, TorchRunner(model), tmp_path) as trial:
        assert gates.folded(trial).passed
        trial.torch = TorchRunner(changed(model, 3, "rolling_variance", 0.01))
        gate = gates.folded(trial)
    assert not gate.passed
    assert gate.where.startswith("first divergence at layer 3 [convolutional] (line 22)")


def test_onnx_checker(model: Model, tmp_path: Path) -> None:
    with trial_of(model, TorchRunner(model), tmp_path) as trial:
        assert gates.checker(trial).passed
        proto = onnx.load(trial.file)
        pool = next(node for node in proto.graph.node if node.op_type == "MaxPool")
        pool.input[0] = "nowhere"
        onnx.save(proto, trial.file)
        gate = gates.checker(trial)
    assert not gate.passed
    assert "nowhere" in gate.where


def test_onnxruntime(model: Model, tmp_path: Path) -> None:
    faulty = changed(model, 5, "biases", 0.01)
    with trial_of(model, TorchRunner(model), tmp_path, faulty) as trial:
        gate = gates.onnxruntime(trial)
    assert not gate.passed
    assert gate.where.startswith("boxes at ")


def test_an_engine_that_fails_is_a_red_gate(model: Model, tmp_path: Path) -> None:
    engine = open_runner("darknet", model)
    with trial_of(model, engine, tmp_path) as trial:
        engine.close()
        (gate,) = run_gate(trial, "every layer", gates.layers)
    assert (gate.name, gate.passed) == ("every layer", False)
    assert gate.where.startswith("darknet: small.cfg: ")


# -------------------------------------------------------------------------------------------- what a certificate covers


def refused(certificate: Certificate, model: Model, graph_sha256: str | None = None) -> str:
    with pytest.raises(NotProved) as caught:
        certificate.require(model, graph_sha256)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_another_weight_cfg_dialect_or_graph_is_not_covered(model: Model, certificate: Certificate) -> None:
    other = "small.cfg: the certificate speaks of another model or dialect; expected "
    pjreddie = "('pjreddie', 'sqrt(variance) + 1e-06')"
    assert refused(certificate, changed(model, 1, "biases", 1e-7)) == f"{other}{pjreddie}, found {pjreddie}."
    assert refused(certificate, random_model(TEXT + "[dropout]\n")) == f"{other}{pjreddie}, found {pjreddie}."
    assert refused(certificate, model.with_dialect("alexeyab")) == (
        f"{other}('alexeyab', 'sqrt(variance + 1e-05)'), found {pjreddie}."
    )
    hidden = replace(model, dialect=replace(PJREDDIE, epsilon=ALEXEYAB.epsilon))
    assert refused(certificate, hidden) == f"{other}('pjreddie', 'sqrt(variance + 1e-05)'), found {pjreddie}."
    own, other = certificate.graph_sha256, "0" * 64
    assert refused(certificate, model, other) == (
        f"small.cfg: the certificate speaks of another ONNX graph; expected {own}, found {other}."
    )


def test_what_was_changed_in_memory_is_not_covered(model: Model, certificate: Certificate) -> None:
    words = (
        "small.cfg: the certificate speaks of another model. A layer, the input size, the preprocessing or the "
        "suppression was changed since. Validate the model as it is now."
    )
    assert certificate.pipeline == pipeline(model)
    for other in (
        with_layer(model, 0, activation="relu"),
        with_layer(model, 6, anchors=((8, 8), (14, 20))),
        replace(model, preprocessing=replace(model.preprocessing, letterbox=False)),
        replace(model, nms=Nms("sort", 0.5, 0.6)),
        model.at_size(64, 64),
    ):
        assert refused(certificate, other) == words


def test_a_red_certificate_covers_nothing(model: Model, certificate: Certificate) -> None:
    gate = Gate("layers", False, 0.5, 2e-4, "first divergence at layer 3", "7 of 7 layers against darknet")
    assert refused(replace(certificate, gates=(gate,)), model) == (
        "small.cfg: gate `layers` failed; expected at most 0.0002, found 0.5. first divergence at layer 3; 7 of 7 "
        "layers against darknet. Nothing was written; --unvalidated exports all the same and says so in the file."
    )
    empty = replace(certificate, gates=())
    assert not empty.passed
    assert refused(empty, model) == "small.cfg: no gate was measured."


def test_a_gate_tells_its_number_limit_and_place() -> None:
    assert str(Gate("layers", True, 1.234e-5, 2e-4, "layer 3", "7 layers")) == (
        "passed  layers: 1.23e-05 (limit 0.0002) layer 3 7 layers"
    )
    assert str(Gate("reference", False, where="none")) == "FAILED  reference: none"
