"""Pitfalls together, in ONNX Runtime, and beside real Darknet of 2018 with a cfg that it does not understand."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from engine_models import random_input, random_model
from pitfall_models import detect, open_menagerie

from workbench.comparison import compare_layers
from workbench.errors import OptionError, WeightsError
from workbench.onnx_model import OnnxOptions, build_graph
from workbench.pitfalls import PITFALLS, switch_on
from workbench.runners.darknet import DarknetRunner
from workbench.runners.engine import EngineRunner
from workbench.runners.onnxruntime import OnnxRunner
from workbench.runners.torch import TorchRunner

# -------------------------------------------------------------------------------------------------- combinations

EXCLUSIVE = (
    "epsilon- variance-trick",
    "header-",
    "weights-before batchnorm-pytorch heads- blocks-",
    "maxpool-",
    "upsample-",
    "mask anchors-",
    "not-divided divided-by",
    "stretch letterbox boxes-in",
    "resize-",
    "nms-",
    "probability objectness",
    "no-sigmoid double-sigmoid new-coords",
)
"""By how their names start: of these the last one counts, or they spoil each other's place."""


def family(name: str) -> str:
    return next((words for words in EXCLUSIVE if name.startswith(tuple(words.split()))), name)


def test_two_pitfalls_make_the_same_model_in_either_order() -> None:
    model = open_menagerie()
    for one, other in itertools.combinations(PITFALLS, 2):
        if family(one) == family(other):
            continue
        a, b = switch_on(model, one, other), switch_on(model, other, one)
        assert a.network.layers == b.network.layers, (one, other)
        assert (a.preprocessing, a.nms, a.dialect) == (b.preprocessing, b.nms, b.dialect), (one, other)
        assert a.weights.ledger == b.weights.ledger, (one, other)
        assert getattr(a.weights, "views", {}).keys() == getattr(b.weights, "views", {}).keys(), (one, other)


def test_a_handful_at_once_runs_and_each_is_in_it() -> None:
    model = open_menagerie()
    names = (
        "bgr",
        "leaky-0.01",
        "route-reversed",
        "fp16-overflow",
        "maxpool-zero-padded",
        "grid-transposed",
        "nms-missing",
    )
    faulty = switch_on(model, *names)
    assert all(PITFALLS[name].apply(faulty).network.layers == faulty.network.layers for name in names[1:2] + names[3:])
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    suppressed = detect(switch_on(faulty, "nms-thresh-0.2", "nms-kind-ignored"), picture, 0.05)
    assert 0 < len(suppressed) < len(detect(faulty, picture, 0.05))


# ---------------------------------------------------------------------------------------------------------- ONNX

NO_ROOT = (
    "header-12 header-16 header-24 weights-before-batchnorm heads-last heads-reversed route-groups-ignored"
).split()


@pytest.mark.parametrize("name", [n for n, p in PITFALLS.items() if p.stage in ("weights", "network", "decoding")])
def test_onnx_runtime_makes_the_same_mistake(name: str) -> None:
    model = open_menagerie()
    faulty, x = switch_on(model, name), random_input(model)
    if name in NO_ROOT:
        with pytest.raises(WeightsError, match="have no root in the dialect alexeyab"):
            OnnxRunner(faulty, fold=False)
        return
    theirs, ours = OnnxRunner(faulty, fold=False).run(x), TorchRunner(faulty).run(x)
    limit = 1e-2 if name == "fp16-overflow" else 2e-5  # one step of float16 is 1e-3 of a value
    assert max(float(np.abs(ours[i] - y).max() / ours[i].std()) for i, y in theirs.items()) < limit


@pytest.mark.parametrize("name", ["grid-transposed", "double-sigmoid", "probability-without-objectness"])
def test_boxes_decoded_wrongly_are_not_exported(name: str) -> None:
    with pytest.raises(OptionError, match=r"decodes with a mistake .* that is not exported; expected --outputs raw"):
        build_graph(switch_on(open_menagerie(), name), OnnxOptions("decoded"))


# ------------------------------------------------------------------------------------------------- real Darknet

MISUNDERSTOOD = """[net]
width=32
height=24
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=mish
[route]
layers=-1
groups=2
group_id=1
[convolutional]
batch_normalize=1
filters=6
size=3
pad=1
activation=swish
[convolutional]
filters=4
size=1
activation=linear
"""


class CarelessDarknet(DarknetRunner):
    """Real Darknet, its complaints overheard as everybody does."""

    def _load(self) -> None:
        EngineRunner._load(self)


def test_darknet_of_2018_itself_makes_two_of_these_mistakes(darknet: Path) -> None:
    """It prints 'Unused field' and 'going with ReLU'. It gets the cfg as it is, and the file with zeros after it."""
    model = random_model(MISUNDERSTOOD)
    x, faulty = random_input(model), switch_on(model, "mish-as-relu", "route-groups-ignored")
    assert faulty.weights.size < faulty.weights.ledger.bytes
    with CarelessDarknet(faulty) as runner:
        theirs = runner.run(x)
    rows = compare_layers(faulty, theirs, TorchRunner(faulty).run(x))
    assert [row.index for row in rows] == [0, 1, 2, 3]
    assert max(row.max_over_std for row in rows) < 2e-5
    assert compare_layers(model, {0: theirs[0]}, TorchRunner(model).run(x))[0].max_over_std > 0.1
