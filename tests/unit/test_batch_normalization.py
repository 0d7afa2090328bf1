"""Batch normalisation where the epsilon decides everything: tiny, zero, denormal and negative variances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_models import variance_model
from slow_layers import run

from workbench.dialects import ALEXEYAB, DIALECTS, PJREDDIE, Dialect, Epsilon
from workbench.errors import WeightsError
from workbench.runners.onnxruntime import OnnxRunner

OPENCV = replace(PJREDDIE, name="opencv", epsilon=Epsilon(1e-6, inside=True))
VARIANCES = [1e-12, 1e-8, 1e-4, 0, 5e-45, -7e-44, -1.1e-38, 1]
# Measured on real builds with a 1x1 convolution of one; 0 and denormals count as 0 (-Ofast flushes them).
DENOMINATORS = {
    "pjreddie": [2.0e-6, 1.01e-4, 1.0001e-2, 1e-6, 1e-6, 1e-6, 1e-6, 1.000001],
    "alexeyab": [3.1623e-3, 3.1639e-3, 1.0488e-2, 3.1623e-3, 3.1623e-3, 3.1623e-3, 3.1623e-3, 1.000005],
    "hankai": [3.1623e-3, 3.1639e-3, 1.0488e-2, 3.1623e-3, 3.1623e-3, 3.1623e-3, 3.1623e-3, 1.000005],
    "opencv": [1.0e-3, 1.00499e-3, 1.00499e-2, 1e-3, 1e-3, 1e-3, 1e-3, 1.0000005],
}


@pytest.mark.parametrize("dialect", [*DIALECTS.values(), OPENCV], ids=str)
@pytest.mark.parametrize(("engine", "fold"), [("torch", False), ("onnx17", False), ("onnx17", True), ("onnx21", True)])
def test_tiny_variances(dialect: Dialect, engine: str, fold: bool) -> None:
    model = replace(variance_model(VARIANCES), dialect=dialect)
    x = np.ones((1, len(VARIANCES), 4, 4), np.float32)
    denominators = 1 / run(engine, model, x, fold)[0][0, :, 0, 0].astype(np.float64)
    np.testing.assert_allclose(denominators, DENOMINATORS[dialect.name], rtol=3e-5)


@pytest.mark.parametrize("fold", [True, False])
def test_a_negative_variance_is_never_written(fold: bool) -> None:
    model = variance_model([1, -1e-3, -1])
    with pytest.raises(WeightsError) as caught:
        OnnxRunner(model, fold=fold)
    assert str(caught.value) == (
        "weights: layer 0 (small.cfg:5) rolling_variance: 2 channels have no root in the dialect pjreddie, "
        "sqrt(variance) + 1e-06; expected "
        "variances of 0 or more, found -0.001 in channel 1. "
        "A damaged file, tensors read in the wrong order, or the dialect of another fork."
    )


def test_a_negative_variance_in_torch_is_nan_as_in_darknet() -> None:
    found = run("torch", variance_model([1, -1e-3]), np.ones((1, 2, 4, 4), np.float32))[0]
    assert np.isfinite(found[0, 0]).all()
    assert np.isnan(found[0, 1]).all()


def test_a_slightly_negative_variance_has_a_root_in_alexeyab_s() -> None:
    """sqrt(-1e-6 + 1e-5) = 3e-3."""
    model = replace(variance_model([-1e-6]), dialect=ALEXEYAB)
    for engine in ("torch", "onnx17"):
        found = run(engine, model, np.ones((1, 1, 4, 4), np.float32))[0]
        np.testing.assert_allclose(found, 1 / 3e-3, rtol=1e-5)
