"""Every activation against its formula in both forks' src/activations.h, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from engine_models import random_model
from slow_layers import ENGINES, conv, net, run

from workbench.layers.activations import ACTIVATIONS

FORMULAS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "loggy": lambda x: 2 / (1 + np.exp(-x)) - 1,
    "relu": lambda x: x * (x > 0),
    "relu6": lambda x: min(max(x, 0), 6),
    "leaky": lambda x: x if x > 0 else 0.1 * x,
    "relie": lambda x: x if x > 0 else 0.01 * x,
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "tanh": lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
    "hardtan": lambda x: -1 if x < -1 else 1 if x > 1 else x,
    "lhtan": lambda x: 0.001 * x if x < 0 else 0.001 * (x - 1) + 1 if x > 1 else x,
    "plse": lambda x: 0.01 * (x + 4) if x < -4 else 0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5,
    "elu": lambda x: x if x >= 0 else np.exp(x) - 1,
    "selu": lambda x: 1.0507 * (x if x >= 0 else 1.6732 * (np.exp(x) - 1)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "stair": lambda x: np.floor(x / 2) if np.floor(x) % 2 == 0 else (x - np.floor(x)) + np.floor(x / 2),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "hard_mish": lambda x: x if x > 0 else x * x / 2 + x if x > -2 else 0,
}
"""src/activations.h of both forks, written out."""


def test_every_activation_has_its_formula() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FORMULAS)
def test_activation(name: str, engine: str) -> None:
    # Quarters, so that every bend and step is hit from both sides; and numbers whose powers leave float32.
    points = np.concatenate([np.arange(-40, 41) / 4, np.linspace(-15, 15, 97), [-200, -90, -30, 30, 90, 200]])
    model = random_model(net(1, 1, len(points)) + conv(1, name), "alexeyab")
    identity = {(0, "weights"): np.ones((1, 1, 1, 1), np.float32), (0, "biases"): np.zeros(1, np.float32)}
    model = replace(model, weights=model.weights.replacing(identity))
    x = points.astype(np.float32)
    found = run(engine, model, x.reshape(1, 1, 1, -1))[0].ravel()
    reference = np.array([FORMULAS[name](float(value)) for value in x])
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-6)
