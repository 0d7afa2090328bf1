"""Every layer of real networks against what two forks of Darknet computed with the same weights and input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from oracle import Golden, find_golden

from workbench.dialects import ALEXEYAB, PJREDDIE, Dialect
from workbench.runners.onnxruntime import OnnxRunner
from workbench.runners.torch import TorchRunner

ALEXEYAB_NETS = ["yolov3", "yolov3-spp", "yolov4", "yolov4-tiny", "yolov4-csp", "yolov4x-mish", "yolov7-tiny"]
EPSILON_NETS = [("alexeyab", "yolov3-tiny"), ("alexeyab", "yolov4-tiny"), ("pjreddie", "yolov3-tiny")]


def assert_within(golden: Golden) -> None:
    """Every layer in torch, unfolded, and in the direct ONNX builder's folded graph."""
    model, x = golden.model(), golden.input()
    for runner in (TorchRunner, OnnxRunner):
        with runner(model) as engine:
            verdict = golden.check(engine.run(x))
        compared = [row.index for row in verdict.rows]
        assert compared == [layer.index for layer in model.network.layers]
        assert verdict.first_bad is None, f"{golden.cfg} in {engine.name}: {verdict.first_bad}"


@pytest.mark.parametrize("name", ALEXEYAB_NETS)
def test_alexeyab(shared: Path, name: str) -> None:
    assert_within(find_golden(shared, "alexeyab", f"AlexeyAB/{name}"))


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov2"])
def test_pjreddie(shared: Path, name: str) -> None:
    assert_within(find_golden(shared, "pjreddie", f"AlexeyAB/{name}"))


@pytest.mark.parametrize(("fork", "name"), EPSILON_NETS)
def test_variances_of_1e_4(shared: Path, fork: str, name: str) -> None:
    assert_within(find_golden(shared, fork, f"AlexeyAB/{name}", "epsilon"))


@pytest.mark.parametrize(("fork", "other"), [("alexeyab", PJREDDIE), ("pjreddie", ALEXEYAB)])
def test_the_other_fork_s_epsilon_is_far_off_there(shared: Path, fork: str, other: Dialect) -> None:
    golden = find_golden(shared, fork, "AlexeyAB/yolov3-tiny", "epsilon")
    model = golden.model()
    with TorchRunner(replace(model, dialect=replace(model.dialect, epsilon=other.epsilon))) as engine:
        verdict = golden.check(engine.run(golden.input()))
    assert verdict.first_bad == verdict.rows[0]
    assert 0.2 < verdict.rows[0].over_std < 1
    assert verdict.worst > 2
