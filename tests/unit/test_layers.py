"""Each layer of the detection families against Darknet's C loops, in PyTorch and in ONNX at every opset.

Every case is a small cfg; what its last layer puts out is compared with the slow reference, which gets what the layers
before it put out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from engine_models import random_model
from slow_layers import (
    ENGINES,
    F64,
    add_bias,
    batch_normalise,
    conv,
    net,
    run,
    slow_conv,
    slow_maxpool,
    slow_region,
    slow_reorg,
    slow_shortcut,
    slow_upsample,
    slow_yolo,
)

from workbench.model import Model

Outputs = dict[int, F64]
CLOSE = 2e-6
"""Of the largest value: some roundings of float32."""


@dataclass(frozen=True)
class Case:
    """The last layer of `text` is compared with `reference(model, outputs)`; outputs[-1] is the network input."""

    text: str
    reference: Callable[[Model, Outputs], F64]
    dialect: str = "pjreddie"


HEAD = "anchors=10,14, 23,27, 37,58\nnum=3\nclasses=2\n"
REGION = "anchors=1.5,2, 3,4\nnum=2\nclasses=3\ncoords=4\n"

CASES = {
    # ---- convolution: size, stride, pad, padding, groups, dilation
    "conv 3x3 pad": Case(
        net(3, 6, 5) + conv(4, size=3, stride=1, pad=1),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (1, 1), 1, 1, 1)),
    ),
    "conv without pad": Case(
        net(3, 6, 7) + conv(2, size=3, stride=2), lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (2, 2), 0, 1, 1))
    ),
    "conv pad=1 is size/2": Case(
        net(2, 6, 6) + conv(2, size=5, stride=2, pad=1, padding=7),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (2, 2), 2, 1, 1)),
    ),
    "conv padding in pixels": Case(
        net(2, 5, 5) + conv(2, size=2, stride=1, padding=2),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (1, 1), 2, 1, 1)),
    ),
    "conv even size": Case(
        net(2, 6, 6) + conv(2, size=4, stride=2, pad=1),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (2, 2), 2, 1, 1)),
    ),
    "conv depthwise": Case(
        net(4, 5, 5) + conv(4, size=3, pad=1, groups=4),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (1, 1), 1, 4, 1)),
    ),
    "conv two groups": Case(
        net(4, 5, 5) + conv(6, size=3, stride=2, pad=1, groups=2),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (2, 2), 1, 2, 1)),
    ),
    "conv stride_x stride_y": Case(
        net(2, 7, 8) + conv(2, size=3, pad=1, stride_x=3, stride_y=2),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (2, 3), 1, 1, 1)),
        "alexeyab",
    ),
    "conv dilated": Case(
        # dilation multiplies the padding as well, so that the size stays (make_convolutional_layer).
        net(2, 8, 7) + conv(2, size=3, pad=1, dilation=2),
        lambda m, o: add_bias(m, 0, slow_conv(m, 0, o[-1], (1, 1), 1, 1, 2)),
        "alexeyab",
    ),
    "conv batch normalised": Case(
        net(3, 5, 5) + conv(4, size=3, pad=1, batch_normalize=1),
        lambda m, o: batch_normalise(m, 0, slow_conv(m, 0, o[-1], (1, 1), 1, 1, 1)),
    ),
    "conv batch normalised in groups": Case(
        net(4, 5, 5) + conv(4, size=3, pad=1, groups=2, batch_normalize=1),
        lambda m, o: batch_normalise(m, 0, slow_conv(m, 0, o[-1], (1, 1), 1, 2, 1)),
    ),
    "conv leaky": Case(
        net(3, 4, 4) + conv(3, "leaky", size=1),
        lambda m, o: (lambda y: np.where(y > 0, y, 0.1 * y))(
            add_bias(m, 0, slow_conv(m, 0, o[-1], (1, 1), 0, 1, 1))
        ),
    ),
    # ---- pooling, resampling
    "maxpool 2/2": Case(net(2, 6, 8) + "[maxpool]\nsize=2\nstride=2\n", lambda m, o: slow_maxpool(o[-1], 2, (2, 2), 1)),
    "maxpool 2/2 odd": Case(
        net(2, 7, 5) + "[maxpool]\nsize=2\nstride=2\n", lambda m, o: slow_maxpool(o[-1], 2, (2, 2), 1)
    ),
    "maxpool 2/1 pads right and below": Case(
        net(2, 5, 5) + "[maxpool]\nsize=2\nstride=1\n", lambda m, o: slow_maxpool(o[-1], 2, (1, 1), 1)
    ),
    "maxpool size is stride": Case(
        net(2, 6, 6) + "[maxpool]\nstride=3\n", lambda m, o: slow_maxpool(o[-1], 3, (3, 3), 2)
    ),
    "maxpool 5/1": Case(net(2, 7, 7) + "[maxpool]\nsize=5\nstride=1\n", lambda m, o: slow_maxpool(o[-1], 5, (1, 1), 4)),
    "maxpool 3/2": Case(net(2, 7, 8) + "[maxpool]\nsize=3\nstride=2\n", lambda m, o: slow_maxpool(o[-1], 3, (2, 2), 2)),
    "maxpool without padding": Case(
        net(2, 7, 8) + "[maxpool]\nsize=3\nstride=2\npadding=0\n", lambda m, o: slow_maxpool(o[-1], 3, (2, 2), 0)
    ),
    "maxpool odd padding": Case(
        net(2, 6, 6) + "[maxpool]\nsize=4\nstride=1\npadding=5\n", lambda m, o: slow_maxpool(o[-1], 4, (1, 1), 5)
    ),
    "maxpool stride_x stride_y": Case(
        net(2, 6, 7) + "[maxpool]\nsize=2\nstride_x=1\nstride_y=2\n",
        lambda m, o: slow_maxpool(o[-1], 2, (2, 1), 1),
        "alexeyab",
    ),
    "avgpool": Case(net(3, 4, 5) + "[avgpool]\n", lambda m, o: o[-1].sum((2, 3), keepdims=True) / 20),
    "upsample": Case(net(2, 3, 4) + "[upsample]\nstride=2\n", lambda m, o: slow_upsample(o[-1], 2, 1)),
    "upsample scaled": Case(
        net(2, 3, 4) + "[upsample]\nstride=3\nscale=.25\n", lambda m, o: slow_upsample(o[-1], 3, 0.25)
    ),
    "reorg": Case(net(4, 4, 6) + "[reorg]\nstride=2\n", lambda m, o: slow_reorg(o[-1], 2, False)),
    "reorg 3": Case(net(9, 6, 3) + "[reorg]\nstride=3\n", lambda m, o: slow_reorg(o[-1], 3, False)),
    "reorg reversed": Case(net(8, 3, 2) + "[reorg]\nstride=2\nreverse=1\n", lambda m, o: slow_reorg(o[-1], 2, True)),
    # ---- joining
    "route one": Case(net(3, 4, 4) + conv(2) + conv(4) + "[route]\nlayers=-2\n", lambda m, o: o[0]),
    "route order": Case(
        net(3, 4, 4) + conv(2) + conv(4) + "[route]\nlayers=-1,0\n", lambda m, o: np.concatenate([o[1], o[0]], 1)
    ),
    "route twice the same": Case(
        net(3, 4, 4) + conv(2) + conv(4) + "[route]\nlayers=0,1,0\n",
        lambda m, o: np.concatenate([o[0], o[1], o[0]], 1),
    ),
    "route second half": Case(
        net(3, 4, 4) + conv(6) + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n", lambda m, o: o[0][:, 3:], "alexeyab"
    ),
    "route groups of several": Case(
        net(3, 4, 4) + conv(6) + conv(3) + "[route]\nlayers=-2,-1\ngroups=3\ngroup_id=1\n",
        lambda m, o: np.concatenate([o[0][:, 2:4], o[1][:, 1:2]], 1),
        "alexeyab",
    ),
    "shortcut": Case(
        net(3, 4, 4) + conv(4) + conv(4) + "[shortcut]\nfrom=-2\nactivation=linear\n",
        lambda m, o: slow_shortcut(o[1], o[0]),
    ),
    "shortcut from fewer channels": Case(
        net(3, 4, 4) + conv(2) + conv(4) + "[shortcut]\nfrom=0\n", lambda m, o: slow_shortcut(o[1], o[0])
    ),
    "shortcut from more channels": Case(
        net(3, 4, 4) + conv(5) + conv(3) + "[shortcut]\nfrom=0\n", lambda m, o: slow_shortcut(o[1], o[0])
    ),
    "shortcut activated": Case(
        net(3, 4, 4) + conv(3) + conv(3) + "[shortcut]\nfrom=0\nactivation=relu\n",
        lambda m, o: np.maximum(o[0] + o[1], 0),
    ),
    "shortcut from two": Case(
        net(3, 4, 4) + conv(4) + conv(3) + conv(4) + "[shortcut]\nfrom=-3,-2\n",
        lambda m, o: slow_shortcut(slow_shortcut(o[2], o[0]), o[1]),
        "alexeyab",
    ),
    "scale_channels": Case(
        net(3, 4, 5) + conv(4) + "[avgpool]\n" + conv(4, "logistic") + "[scale_channels]\nfrom=0\n",
        lambda m, o: o[0] * o[2],
        "alexeyab",
    ),
    "scale_channels places": Case(
        net(3, 4, 5) + conv(4) + conv(1, "logistic") + "[scale_channels]\nfrom=0\nscale_wh=1\nactivation=relu\n",
        lambda m, o: np.maximum(o[0] * o[1], 0),
        "alexeyab",
    ),
    "sam": Case(
        net(3, 4, 5) + conv(4) + conv(4, "logistic") + "[sam]\nfrom=-2\n", lambda m, o: o[0] * o[1], "alexeyab"
    ),
    "dropout": Case(net(3, 4, 4) + conv(3) + "[dropout]\nprobability=.9\n", lambda m, o: o[0]),
    # ---- heads
    "yolo": Case(
        net(3, 3, 4) + conv(14) + "[yolo]\nmask=0,2\n" + HEAD, lambda m, o: slow_yolo(o[0], 2, 2, 1, False)
    ),
    "yolo scaled": Case(
        net(3, 3, 4) + conv(14) + "[yolo]\nmask=0,2\nscale_x_y=1.2\n" + HEAD,
        lambda m, o: slow_yolo(o[0], 2, 2, 1.2, False),
        "alexeyab",
    ),
    "yolo new_coords": Case(
        net(3, 3, 4) + conv(7, "logistic") + "[yolo]\nmask=1\nnew_coords=1\nscale_x_y=2\n" + HEAD,
        lambda m, o: slow_yolo(o[0], 1, 2, 2, True),
        "alexeyab",
    ),
    "yolo without mask": Case(
        net(3, 3, 4) + conv(21) + "[yolo]\n" + HEAD, lambda m, o: slow_yolo(o[0], 3, 2, 1, False)
    ),
    "region": Case(
        net(3, 3, 4) + conv(16) + "[region]\nsoftmax=1\n" + REGION, lambda m, o: slow_region(o[0], 2, 3, True, False)
    ),
    "region flattened": Case(
        net(3, 3, 4) + conv(16) + "[region]\nsoftmax=1\n" + REGION,
        lambda m, o: slow_region(o[0], 2, 3, True, True),
        "alexeyab",
    ),
    "softmax": Case(
        net(4, 2, 3) + "[softmax]\n",
        lambda m, o: np.exp(o[-1]) / np.exp(o[-1]).sum((1, 2, 3), keepdims=True),
    ),
    "softmax in groups, warm": Case(
        net(6, 1, 1) + "[softmax]\ngroups=2\ntemperature=.5\n",
        lambda m, o: (lambda e: (e / e.sum(2, keepdims=True)).reshape(-1, 6, 1, 1))(
            np.exp(o[-1] / 0.5).reshape(-1, 2, 3)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_layer(name: str, engine: str) -> None:
    case = CASES[name]
    model = random_model(case.text, case.dialect)
    network = model.network
    x = np.random.default_rng(3).normal(0, 2, (2, network.channels, network.height, network.width)).astype(np.float32)
    outputs = run(engine, model, x)
    reference = case.reference(
        model, {-1: x.astype(np.float64), **{i: y.astype(np.float64) for i, y in outputs.items()}}
    )
    layer = network.layers[-1]
    assert outputs[layer.index].shape == reference.shape == (2, *layer.output_shape)
    assert np.abs(outputs[layer.index] - reference).max() <= CLOSE * np.abs(reference).max()


def test_convolution_by_hand() -> None:
    """1 2 3 / 4 5 6 / 7 8 9 under a kernel of ones, 3x3, pad=1: the corner sees 1+2+4+5 = 12, the middle 45."""
    model = random_model(net(1, 3, 3) + conv(1, size=3, pad=1))
    ones = {(0, "weights"): np.ones((1, 1, 3, 3), np.float32), (0, "biases"): np.array([0.5], np.float32)}
    model = replace(model, weights=model.weights.replacing(ones))
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    for engine in ENGINES[:2]:
        assert run(engine, model, x)[0][0, 0].tolist() == [[12.5, 21.5, 16.5], [27.5, 45.5, 33.5], [24.5, 39.5, 28.5]]


def test_maxpool_by_hand() -> None:
    """2/1 on negative numbers: padding pads right and below, and never wins."""
    model, x = random_model(net(1, 2, 3) + "[maxpool]\nsize=2\nstride=1\n"), np.array([[-5, -1, -2], [-3, -4, -9]])
    for engine in ENGINES[:2]:
        found = run(engine, model, x.astype(np.float32)[None, None])[0][0, 0]
        assert found.tolist() == [[-1, -1, -2], [-3, -4, -9]]


def test_reorg_by_hand() -> None:
    """(4, 2, 2) holding 0..15. Darknet reads it as (1, 4, 4) and takes each second pixel: 0 2 8 10 first."""
    model, x = random_model(net(4, 2, 2) + "[reorg]\nstride=2\n"), np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2)
    for engine in ENGINES[:2]:
        found = run(engine, model, x)[0]
        assert found.shape == (1, 16, 1, 1)
        assert found.ravel().tolist() == [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]
