"""Small models made in memory, for the tests of the reference engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workbench.cfg import parse_cfg
from workbench.dialects import Dialect, find_dialect
from workbench.model import Model, model_from, open_model
from workbench.network import build_network
from workbench.weights import make_weights

NET = "[net]\nwidth=32\nheight=24\nchannels=3\n"


def random_model(cfg_text: str, dialect: str | Dialect = "pjreddie", seed: int = 0) -> Model:
    """A model with random weights; variances around 1."""
    chosen = find_dialect(dialect) if isinstance(dialect, str) else dialect
    network, rng = build_network(parse_cfg(cfg_text, "small.cfg")), np.random.default_rng(seed)
    tensors = {}
    for layer in network.layers:
        for spec in layer.tensors(chosen):
            scale = 1 if spec.field in ("scales", "rolling_variance") else 0.3
            values = rng.uniform(0.5, 1.5, spec.shape) if scale == 1 else rng.normal(0, scale, spec.shape)
            tensors[layer.index, spec.field] = values.astype(np.float32)
    return model_from(cfg_text, make_weights(network, tensors, chosen), chosen, (), "small.cfg")


def open_tiny(shared: Path, dialect: str = "pjreddie") -> Model:
    """The real yolov3-tiny."""
    folder = shared / "models" / "yolov3-tiny"
    return open_model(folder / "yolov3-tiny.cfg", folder / "yolov3-tiny.weights", dialect=dialect)


def open_face(shared: Path, dialect: str = "pjreddie") -> Model:
    """The real yoloface-50k: 56x56, one class, fast."""
    folder = shared / "models" / "yoloface-50k"
    return open_model(folder / "yoloface-50k.cfg", folder / "yoloface-50k.weights", dialect=dialect)


def random_input(model: Model, batch: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """float32 (batch, c, h, w), 0 to 1."""
    network = model.network
    shape = (batch, network.channels, network.height, network.width)
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def variance_model(variances: list[float]) -> Model:
    """A 1x1 convolution that copies its input, batch normalised by these variances: its output is x / denominator."""
    n = len(variances)
    layer = f"[convolutional]\nbatch_normalize=1\nfilters={n}\nsize=1\nactivation=linear\n"
    text = f"[net]\nwidth=4\nheight=4\nchannels={n}\n{layer}"
    network, dialect = build_network(parse_cfg(text, "small.cfg")), find_dialect("pjreddie")
    ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
    tensors = {
        (0, "biases"): zeros,
        (0, "scales"): ones,
        (0, "rolling_mean"): zeros,
        (0, "rolling_variance"): np.array(variances, np.float32),
        (0, "weights"): np.eye(n, dtype=np.float32)[:, :, None, None],
    }
    return model_from(text, make_weights(network, tensors, dialect), dialect, (), "small.cfg")


def worst_difference(reference: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> tuple[float, int]:  # type: ignore[type-arg]
    """Largest |difference| / standard deviation of the reference over the common layers, and the layer."""
    return max((float(np.abs(reference[i] - other[i]).max() / reference[i].std()), i) for i in reference if i in other)
