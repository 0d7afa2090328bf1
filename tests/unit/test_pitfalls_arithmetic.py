"""The same mistakes written a second time, in a few lines of numpy and PyTorch: equal numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_models import random_input, random_model, variance_model
from pitfall_models import open_menagerie

from workbench.layers.base import Float32
from workbench.model import Model, open_model
from workbench.pitfalls import switch_on
from workbench.runners.torch import TorchRunner
from workbench.weights import write_weights


def run(model: Model, x: Float32 | None = None) -> dict[int, torch.Tensor]:
    """Every layer's output, and the input as -1."""
    x = random_input(model) if x is None else x
    return {i: torch.from_numpy(y) for i, y in {**TorchRunner(model).run(x), -1: x}.items()}


# ------------------------------------------------------------------------------------------- batch normalisation

VARIANCES = [1.0, 1e-4, 1e-8, 1e-12, 0.0]


@pytest.mark.parametrize(
    ("name", "denominators"),
    [
        ("epsilon-1e-5-inside", [math.sqrt(v + 1e-5) for v in VARIANCES]),
        ("epsilon-1e-6-inside", [math.sqrt(v + 1e-6) for v in VARIANCES]),
        ("epsilon-1e-3", [math.sqrt(v + 1e-3) for v in VARIANCES]),
        ("epsilon-none", [1, 1e-2, 1e-4, 1e-6, 0]),
    ],
)
def test_epsilons_on_tiny_variances(name: str, denominators: list[float]) -> None:
    y = TorchRunner(switch_on(variance_model(VARIANCES), name)).run(np.ones((1, 5, 4, 4), np.float32))[0][0, :, 0, 0]
    np.testing.assert_allclose(y[:4], 1 / np.array(denominators[:4]), rtol=2e-6)
    if denominators[4]:
        assert y[4] == pytest.approx(1 / denominators[4], rel=2e-6)
    else:
        assert not np.isfinite(y[4])


def test_a_negative_variance_is_no_number_without_epsilon_and_harmless_with_it() -> None:
    model, x = variance_model([1.0, -7e-44]), np.ones((1, 2, 4, 4), np.float32)
    assert np.isnan(TorchRunner(switch_on(variance_model([1.0, -1e-7]), "epsilon-none")).run(x)[0][0, 1]).all()
    assert TorchRunner(switch_on(model, "epsilon-1e-5-inside")).run(x)[0][0, 1, 0, 0] == pytest.approx(
        316.2278, rel=1e-5
    )
    assert TorchRunner(model).run(x)[0][0, 1, 0, 0] == pytest.approx(1e6, rel=1e-5)


def test_the_trick_is_exact_on_healthy_variances_and_has_no_bits_left_on_tiny_ones() -> None:
    """Darknet divides 1e-12 and 0 by 2e-6 and 1e-6. In float32 1e-5 - 4e-12 and 1e-5 - 1e-12 lie a few steps of 9e-13
    beside 1e-5, so the roots are those of small multiples of 9.09e-13."""
    model, x = variance_model(VARIANCES), np.ones((1, 5, 4, 4), np.float32)
    tricked = switch_on(model, "variance-trick")
    stored = tricked.weights[0, "rolling_variance"]
    assert (stored < 0).tolist() == [False, False, True, True, True]
    healthy, faulty = (TorchRunner(m).run(x)[0][0, :, 0, 0] for m in (model, tricked))
    np.testing.assert_allclose(faulty[:2], healthy[:2], rtol=1e-6)
    step = float(np.spacing(np.float32(9.9e-6)))
    for channel, steps in ((3, (4, 5)), (4, (1, 2))):
        left = (np.float64(stored[channel]) + np.float64(np.float32(1e-5))) / step
        assert round(left) in steps and left == pytest.approx(round(left), abs=1e-6)
        assert abs(faulty[channel] / healthy[channel] - 1) > 0.03


# ------------------------------------------------------------------------------------------------------ the file


def read_naively(values: Float32, model: Model, order: tuple[str, ...]) -> dict[tuple[int, str], Float32]:
    """A reader as people write it: layer after layer, the fields of normalised layers in `order`."""
    found, at = {}, 0
    for layer in model.network.layers:
        shapes = {spec.field: spec.shape for spec in layer.tensors(model.dialect)}
        for field in order if "scales" in shapes else shapes:
            n = int(np.prod(shapes[field]))
            found[layer.index, field] = values[at : at + n].reshape(shapes[field])
            at += n
    return found


@pytest.mark.parametrize(
    ("name", "header", "order"),
    [
        ("header-12", 12, "biases scales rolling_mean rolling_variance weights"),
        ("header-16", 16, "biases scales rolling_mean rolling_variance weights"),
        ("header-24", 24, "biases scales rolling_mean rolling_variance weights"),
        ("weights-before-batchnorm", 20, "weights biases scales rolling_mean rolling_variance"),
        ("batchnorm-pytorch-order", 20, "scales biases rolling_mean rolling_variance weights"),
    ],
)
def test_a_naive_reader_reads_the_same_tensors(name: str, header: int, order: str, tmp_path: Path) -> None:
    model = open_menagerie()
    write_weights(model.weights, tmp_path / "a.weights")
    (tmp_path / "a.cfg").write_text(model.cfg_text)
    model = open_model(tmp_path / "a.cfg", tmp_path / "a.weights", dialect="alexeyab")
    values = np.fromfile(tmp_path / "a.weights", "<f4", offset=header)
    read = read_naively(np.concatenate([values, np.zeros(8, np.float32)]), model, tuple(order.split()))
    weights = switch_on(model, name).weights
    assert len(read) == len(weights.ledger.spans)
    for key, tensor in read.items():
        np.testing.assert_array_equal(weights[key], tensor, err_msg=str(key))


def test_kernels_in_another_order_are_the_same_bytes_seen_through_another_shape() -> None:
    model = open_menagerie()
    raw = torch.from_numpy(model.weights[1, "weights"].copy())
    n, c, k, _ = raw.shape
    expected = {
        "kernel-cnkk": raw.view(c, n, k, k).transpose(0, 1),
        "kernel-kkcn": raw.view(k, k, c, n).permute(3, 2, 0, 1),
        "kernel-nkkc": raw.view(n, k, k, c).permute(0, 3, 1, 2),
        "kernel-columns-first": raw.transpose(2, 3),
    }
    for name, tensor in expected.items():
        assert torch.equal(torch.from_numpy(switch_on(model, name).weights[1, "weights"]), tensor), name


def test_layers_in_another_order_take_each_others_bytes() -> None:
    model = open_menagerie()
    order = {name: list(switch_on(model, name).weights.ledger.by_layer) for name in ("heads-last", "heads-reversed")}
    assert order == {"heads-last": [0, 1, 2, 6, 10, 14, 11, 17], "heads-reversed": [0, 1, 2, 6, 10, 17, 14, 11]}
    twins = switch_on(model, "blocks-exchanged").weights
    np.testing.assert_array_equal(twins[1, "weights"], model.weights[2, "weights"])
    np.testing.assert_array_equal(twins[2, "biases"], model.weights[1, "biases"])


def test_tensors_changed_in_memory_are_misread_like_those_of_a_file() -> None:
    model = open_menagerie()
    changed = model.weights.replacing({(0, "biases"): np.arange(8, dtype=np.float32)})
    faulty = switch_on(replace(model, weights=changed), "header-16")
    assert faulty.weights[0, "biases"][1:].tolist() == [0, 1, 2, 3, 4, 5, 6]


# ------------------------------------------------------------------------------------------------------- layers


def test_layers_compute_what_a_line_of_pytorch_computes() -> None:
    model = open_menagerie()

    def check(name: str, layer: int, expected: torch.Tensor) -> None:
        torch.testing.assert_close(run(switch_on(model, name))[layer], expected, rtol=1e-6, atol=1e-6)

    y = run(model)
    check("maxpool-3-1-1", 8, F.max_pool2d(y[7], 3, 1, 1))
    check("maxpool-zero-padded", 8, F.max_pool2d(F.pad(y[7], (0, 1, 0, 1)), 2, 1))
    check("maxpool-unpadded", 8, F.pad(F.max_pool2d(y[7], 2, 1), (0, 1, 0, 1)))
    check("maxpool-padded-left", 8, F.max_pool2d(F.pad(y[7], (1, 0, 1, 0), value=-1e9), 2, 1))
    check("upsample-bilinear", 15, F.interpolate(y[14], scale_factor=2, mode="bilinear", align_corners=False))
    check("upsample-align-corners", 15, F.interpolate(y[14], scale_factor=2, mode="bilinear", align_corners=True))
    check("route-reversed", 7, torch.cat((y[4], y[6]), 1))
    check("route-wrong-half", 5, torch.chunk(y[4], 2, 1)[0])
    check("route-groups-ignored", 5, y[4])
    check("shortcut-wrong-layer", 3, F.leaky_relu(y[2] + y[1], 0.1))
    check("shortcut-without-activation", 3, y[2] + y[0])
    check("leaky-0.01", 0, torch.where(y[0] < 0, y[0] / 10, y[0]))
    check("no-sigmoid-on-xy", 12, with_xy(y[12], y[11] * 1.2 - 0.1))
    check("scale-x-y-ignored", 12, with_xy(y[12], y[11].sigmoid()))
    twice = y[12].sigmoid().view(3, 7, -1)
    twice[:, 2:4] = y[11].view(3, 7, -1)[:, 2:4]
    check("double-sigmoid", 12, twice.view_as(y[12]))
    again = y[17].sigmoid().view(3, 7, -1)
    again[:, 2:4] = y[17].view(3, 7, -1)[:, 2:4]
    check("new-coords-ignored", 18, again.view_as(y[18]))


def with_xy(output: torch.Tensor, xy: torch.Tensor) -> torch.Tensor:
    """The output of a head with 3 anchors and 7 fields, x and y replaced by those of `xy`."""
    fields = output.clone().view(3, 7, -1)
    fields[:, :2] = xy.view(3, 7, -1)[:, :2]
    return fields.view_as(output)


def test_groups_ignored_makes_the_next_layer_twice_as_wide_and_the_file_too_short() -> None:
    model = open_menagerie()
    faulty = switch_on(model, "route-groups-ignored")
    assert faulty.weights[6, "weights"].shape == (8, 8, 3, 3)
    flat = model.weights.data[model.weights.ledger.offset_of(6, "weights") :].view("<f4")
    np.testing.assert_array_equal(faulty.weights[6, "weights"].ravel(), flat[: 8 * 8 * 9])
    assert faulty.weights.ledger.bytes - faulty.weights.size == 8 * 4 * 9 * 4
    assert faulty.weights[17, "weights"].ravel()[-1] == 0


def test_half_precision_ends_at_65504() -> None:
    text = "[net]\nwidth=4\nheight=4\nchannels=1\n[convolutional]\nfilters=1\nsize=1\nactivation=linear\n"
    model = random_model(text)
    tensors = {(0, "weights"): np.full((1, 1, 1, 1), 40000, np.float32), (0, "biases"): np.zeros(1, np.float32)}
    model = switch_on(replace(model, weights=model.weights.replacing(tensors)), "fp16-overflow")
    x = np.array([0.1, 1, 1.6, 2], np.float32).repeat(4).reshape(1, 1, 4, 4)
    assert TorchRunner(model).run(x)[0][0, 0, :, 0].tolist() == [4000.0, 40000.0, 64000.0, math.inf]
