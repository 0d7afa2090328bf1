"""Layers and options that no public golden exercises, against the C loops written out in numpy, in PyTorch and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from slow_layers import F64, logistic, net, run

from workbench.cfg import parse_cfg, read_cfg
from workbench.dialects import find_dialect
from workbench.errors import CfgError
from workbench.model import Model, model_from
from workbench.network import build_network
from workbench.weights import build_ledger, make_weights

ENGINES = ["torch", "onnx17", "onnx21"]
Outputs = dict[int, F64]


def small_model(text: str, dialect: str = "alexeyab", seed: int = 0) -> Model:
    """Random weights; variances around 1."""
    chosen, rng = find_dialect(dialect), np.random.default_rng(seed)
    network, tensors = build_network(parse_cfg(text, "small.cfg"), dialect=find_dialect(dialect)), {}
    for span in build_ledger(network, chosen).spans:
        positive = span.field.endswith(("scales", "rolling_variance"))
        values = rng.uniform(0.5, 1.5, span.shape) if positive else rng.normal(0, 0.3, span.shape)
        tensors[span.layer, span.field] = values.astype(np.float32)
    return model_from(text, make_weights(network, tensors, chosen), chosen, (), "small.cfg")


def conv(model: Model, layer: int, prefix: str, x: F64, padding: int) -> F64:
    """Convolution, batch normalisation of AlexeyAB where there is one, no activation."""
    w = {f: model.weights[layer, prefix + f].astype(np.float64) for f in _fields(model, layer, prefix)}
    weights, (b, c, h, v) = w["weights"], x.shape
    size = weights.shape[2]
    padded = np.zeros((b, c, h + 2 * padding, v + 2 * padding))
    padded[:, :, padding : padding + h, padding : padding + v] = x
    out = np.zeros((b, len(weights), h + 2 * padding - size + 1, v + 2 * padding - size + 1))
    for i, j in np.ndindex(out.shape[2:]):
        out[:, :, i, j] = np.tensordot(padded[:, :, i : i + size, j : j + size], weights, ([1, 2, 3], [1, 2, 3]))
    if "scales" in w:
        out = (out - _column(w["rolling_mean"])) / np.sqrt(_column(w["rolling_variance"]) + 1e-5) * _column(w["scales"])
    return out + _column(w["biases"])


def _fields(model: Model, layer: int, prefix: str) -> list[str]:
    fields = [span.field for span in model.weights.ledger.by_layer[layer]]
    return [field.removeprefix(prefix) for field in fields if field.startswith(prefix)]


def _column(values: F64) -> F64:
    return values[:, None, None]


def blur(x: F64, kind: int, stride: int) -> F64:
    """Each channel alone: 1 2 1 / 2 4 2 / 1 2 1 over 16 with a border of zeros, or the mean of 2x2 without."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16 if kind == 1 else np.full((2, 2), 0.25)
    padding, size = (1, 3) if kind == 1 else (0, 2)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((n - size) // stride + 1 for n in padded.shape[2:])
    out = np.zeros((*x.shape[:2], rows, columns))
    for i, j in np.ndindex(rows, columns):
        y, z = i * stride, j * stride
        out[:, :, i, j] = (padded[:, :, y : y + size, z : z + size] * kernel).sum((2, 3))
    return out


def deepest(x: F64, channels: int) -> F64:
    return np.stack([x[:, g::channels].max(1) for g in range(channels)], 1)


def weighted_sum(model: Model, layer: int, sources: list[F64], normalise: str) -> F64:
    """shortcut_multilayer_cpu, value by value; a source with fewer channels ends earlier."""
    weights, out = model.weights[layer, "weights"].astype(np.float64), np.zeros_like(sources[0])
    weights = weights.reshape(len(sources), -1)
    for b, c, i, j in np.ndindex(out.shape):
        w = weights[:, c if weights.shape[1] > 1 else 0]
        if normalise == "relu":
            w = np.maximum(w, 0) / (np.maximum(w, 0).sum() + 0.0001)
        if normalise == "softmax":
            w = np.exp(w - w.max()) / (np.exp(w - w.max()).sum() + 0.0001)
        out[b, c, i, j] = sum(w[k] * s[b, c, i, j] for k, s in enumerate(sources) if c < s.shape[1])
    return out


def conv_lstm(model: Model, x: F64, h: F64, c: F64, peephole: bool) -> tuple[F64, F64]:
    """forward_conv_lstm_layer: one step from h and c."""

    def gate(name: str, cells: F64) -> F64:
        total = conv(model, 0, f"w{name}.", h, 1) + conv(model, 0, f"u{name}.", x, 1)
        return total + conv(model, 0, f"v{name}.", cells, 1) if peephole and name != "g" else total

    cells = logistic(gate("f", c)) * c + logistic(gate("i", c)) * np.tanh(gate("g", c))
    return logistic(gate("o", cells)) * np.tanh(cells), cells


def space_to_depth(x: F64, stride: int) -> F64:
    """reorg_cpu of AlexeyAB, index by index."""
    n, c, h, w = x.shape
    out = np.zeros((n, c * stride * stride, h // stride, w // stride))
    for b, k, j, i in np.ndindex(out.shape):
        offset = k // c
        out[b, k, j, i] = x[b, k % c, j * stride + offset // stride, i * stride + offset % stride]
    return out


def mean_inside(x: F64, size: int, stride: int) -> F64:
    """forward_local_avgpool_layer: padding size-1, places outside are not counted."""
    before, (n, c, h, w) = (size - 1) // 2, x.shape
    out = np.zeros((n, c, (h - 1) // stride + 1, (w - 1) // stride + 1))
    for b, k, i, j in np.ndindex(out.shape):
        y, z = i * stride - before, j * stride - before
        out[b, k, i, j] = x[b, k, max(y, 0) : y + size, max(z, 0) : z + size].mean()
    return out


def places(model: Model, x: F64) -> F64:
    """forward_local_layer: 3x3, one pixel of padding, each place its own filters."""
    weights, biases = (model.weights[0, name].astype(np.float64) for name in ("weights", "biases"))
    out = np.zeros((len(x), *biases.shape))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for b, f, i, j in np.ndindex(out.shape):
        window = padded[b, :, i : i + 3, j : j + 3]
        out[b, f, i, j] = (weights[i * out.shape[3] + j, f] * window).sum() + biases[f, i, j]
    return out


def picked(x: F64, other: F64) -> F64:
    """shortcut_cpu of pjreddie where the earlier map is twice as large: its pixels 0, 2, 4, the common channels."""
    out, common = x.copy(), min(x.shape[1], other.shape[1])
    for j, i in np.ndindex(x.shape[2:]):
        out[:, :common, j, i] += other[:, :common, 2 * j, 2 * i]
    return out


def spread(x: F64, other: F64) -> F64:
    """The same where it is half as large: only every second pixel of the output gets something."""
    out, common = x.copy(), min(x.shape[1], other.shape[1])
    for j, i in np.ndindex(other.shape[2:]):
        out[:, :common, 2 * j, 2 * i] += other[:, :common, j, i]
    return out


def signs(model: Model, x: F64) -> F64:
    """XNOR in pjreddie's dialect: signs of the stored weights times their mean, 0 outside the picture."""
    weights = model.weights[0, "weights"].astype(np.float64)
    mean = np.abs(weights).mean((1, 2, 3), keepdims=True)
    weights, x = np.where(weights > 0, mean, -mean), np.where(x > 0, 1.0, -1.0)
    padded, out = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), np.zeros((len(x), len(weights), *x.shape[2:]))
    for i, j in np.ndindex(out.shape[2:]):
        out[:, :, i, j] = np.tensordot(padded[:, :, i : i + 3, j : j + 3], weights, ([1, 2, 3], [1, 2, 3]))
    return out + _column(model.weights[0, "biases"].astype(np.float64))


@dataclass(frozen=True)
class Case:
    """The last layer of `text` is compared with `reference(model, outputs)`; outputs[-1] is the network input."""

    text: str
    reference: Callable[[Model, Outputs], F64]
    dialect: str = "alexeyab"


CONV = "[convolutional]\nfilters=3\nsize=3\npad=1\nstride={stride}\nactivation=linear\n"
PLAIN = CONV.format(stride=1)
HALF = CONV.format(stride=2).replace("filters=3", "filters=2")
ZERO = np.zeros((2, 2, 4, 5))
LSTM = "[conv_lstm]\noutput=2\nsize=3\npad=1\nbatch_normalize=1\npeephole={}\n"

CASES = {
    "conv antialiasing=1": Case(
        net(2, 8, 6) + CONV.format(stride=2) + "antialiasing=1\n", lambda m, o: blur(conv(m, 0, "", o[-1], 1), 1, 2)
    ),
    "conv antialiasing=2": Case(
        net(2, 8, 6) + CONV.format(stride=2) + "antialiasing=2\n", lambda m, o: blur(conv(m, 0, "", o[-1], 1), 2, 2)
    ),
    "maxpool antialiasing": Case(
        net(2, 6, 6) + "[maxpool]\nsize=1\nstride=2\nantialiasing=1\n", lambda m, o: blur(o[-1], 1, 2)
    ),
    "maxpool_depth": Case(
        net(6, 4, 3) + "[maxpool]\nmaxpool_depth=1\nout_channels=2\n", lambda m, o: deepest(o[-1], 2)
    ),
    "maxpool_depth, a rest": Case(
        net(7, 4, 3) + "[maxpool]\nmaxpool_depth=1\nout_channels=3\n", lambda m, o: deepest(o[-1], 3)
    ),
    "shortcut per_feature": Case(
        net(3, 4, 4) + PLAIN * 2 + "[shortcut]\nfrom=-2\nweights_type=per_feature\nactivation=linear\n",
        lambda m, o: weighted_sum(m, 2, [o[1], o[0]], "none"),
    ),
    "shortcut per_channel relu, three": Case(
        net(3, 4, 4) + PLAIN * 3
        + "[shortcut]\nfrom=-2,-3\nweights_type=per_channel\nweights_normalization=relu\nactivation=linear\n",
        lambda m, o: weighted_sum(m, 3, [o[2], o[1], o[0]], "relu"),
    ),
    "shortcut per_channel softmax, fewer channels": Case(
        net(3, 4, 4) + PLAIN.replace("filters=3", "filters=2") + PLAIN
        + "[shortcut]\nfrom=-2\nweights_type=per_channel\nweights_normalization=softmax\nactivation=linear\n",
        lambda m, o: weighted_sum(m, 2, [o[1], o[0]], "softmax"),
    ),
    "shortcut per_channel, more channels": Case(
        net(3, 4, 4) + PLAIN.replace("filters=3", "filters=5") + PLAIN
        + "[shortcut]\nfrom=-2\nweights_type=per_channel\nactivation=linear\n",
        lambda m, o: weighted_sum(m, 2, [o[1], o[0][:, :3]], "none"),
    ),
    "shortcut from a larger map": Case(
        net(3, 8, 6) + PLAIN + HALF + "[shortcut]\nfrom=-2\nactivation=linear\n",
        lambda m, o: picked(o[1], o[0]),
        "pjreddie",
    ),
    "shortcut from a larger, deeper map of odd size": Case(
        net(3, 9, 7) + PLAIN + HALF.replace("pad=1", "pad=0") + "[shortcut]\nfrom=-2\nactivation=linear\n",
        lambda m, o: picked(o[1], o[0]),
        "pjreddie",
    ),
    "shortcut from a smaller map": Case(
        net(3, 8, 6) + HALF + "[upsample]\nstride=2\n[shortcut]\nfrom=-2\nactivation=linear\n",
        lambda m, o: spread(o[1], o[0]),
        "pjreddie",
    ),
    "conv_lstm": Case(
        net(3, 4, 5) + LSTM.format(0), lambda m, o: conv_lstm(m, o[-1], ZERO, ZERO, False)[0]
    ),
    "conv_lstm peephole": Case(
        net(3, 4, 5) + LSTM.format(1), lambda m, o: conv_lstm(m, o[-1], ZERO, ZERO, True)[0]
    ),
    "reorg3d": Case(net(3, 4, 6) + "[reorg3d]\nstride=2\n", lambda m, o: space_to_depth(o[-1], 2)),
    "local_avgpool": Case(net(2, 7, 6) + "[local_avgpool]\nsize=4\nstride=2\n", lambda m, o: mean_inside(o[-1], 4, 2)),
    "local": Case(
        net(2, 4, 3) + "[local]\nfilters=3\nsize=3\npad=1\nactivation=linear\n", lambda m, o: places(m, o[-1])
    ),
    "implicit": Case(
        net(2, 4, 3) + "[implicit]\nfilters=5\natoms=2\n",
        lambda m, o: np.stack([m.weights[0, "weights"].astype(np.float64)[:, :, None]] * 2),
    ),
    "xnor, pjreddie": Case(
        net(3, 5, 4) + PLAIN + "xnor=1\n", lambda m, o: signs(m, o[-1]), "pjreddie",
    ),
    "empty": Case(net(2, 3, 3) + "[silence]\n", lambda m, o: o[-1]),
    "activation": Case(
        net(2, 3, 3) + "[activation]\nactivation=leaky\n", lambda m, o: np.where(o[-1] > 0, o[-1], o[-1] / 10)
    ),
    "share_index": Case(
        net(3, 5, 5) + PLAIN * 2 + PLAIN + "share_index=0\n", lambda m, o: conv(m, 0, "", o[1], 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_layer(name: str, engine: str) -> None:
    case = CASES[name]
    model = small_model(case.text, case.dialect)
    network = model.network
    x = np.random.default_rng(3).normal(0, 2, (2, network.channels, network.height, network.width)).astype(np.float32)
    outputs = run(engine, model, x)
    everything = {-1: x.astype(np.float64), **{i: y.astype(np.float64) for i, y in outputs.items()}}
    reference, layer = case.reference(model, everything), network.layers[-1]
    assert outputs[layer.index].shape == reference.shape == (2, *layer.output_shape)
    assert np.abs(outputs[layer.index] - reference).max() <= 3e-6 * np.abs(reference).max()


def test_shared_tensors_are_in_the_file_once() -> None:
    model = small_model(CASES["share_index"].text)
    assert {span.layer for span in model.weights.ledger.spans} == {0, 1}


def test_bin_output_is_turned_off_by_a_later_route() -> None:
    xnor = PLAIN.replace("linear", "leaky") + "xnor=1\nbin_output=1\n"
    dialect = find_dialect("alexeyab")
    for last, activation in (("", "linear"), ("[route]\nlayers=0\n", "leaky"), ("[shortcut]\nfrom=-3\n", "leaky")):
        network = build_network(parse_cfg(net(3, 4, 4) + xnor + PLAIN * 2 + last, "a.cfg"))
        assert network.layers[0]._activation(dialect) == activation  # type: ignore[attr-defined]


def test_an_unequal_shortcut_without_a_whole_stride_is_refused() -> None:
    text = net(3, 8, 6) + PLAIN + PLAIN.replace("stride=1", "stride_x=2\nstride_y=1") + "[shortcut]\nfrom=-2\n"
    with pytest.raises(
        CfgError, match="layer 0 has another size than the layer before, and no whole stride lies between"
    ):
        build_network(parse_cfg(text, "a.cfg"))


def test_a_tree_is_looked_for_beside_and_above_the_cfg(tmp_path: Path) -> None:
    folder, data = tmp_path / "cfgs" / "deep", tmp_path / "data"
    folder.mkdir(parents=True)
    data.mkdir()
    cfg = folder / "a.cfg"
    cfg.write_text(net(3, 1, 1) + "[softmax]\ntree=data/three.tree\n")
    with pytest.raises(
        CfgError, match=r"a\.cfg:6: tree=data/three\.tree is not there; expected three\.tree beside the cfg"
    ):
        build_network(read_cfg(cfg))
    (data / "three.tree").write_text("a -1\nb -1\nc 0\n")
    softmax = build_network(read_cfg(cfg)).layers[0]
    assert softmax.tree.groups == ((0, 2), (2, 3))  # type: ignore[attr-defined]
    (data / "three.tree").write_text("a -1\nb 4\nc 0\n")
    with pytest.raises(CfgError, match=r"three\.tree:2: not a line of a tree; expected a name and the number"):
        build_network(read_cfg(cfg))
    (data / "three.tree").write_text("a -1\nb -1\n")
    with pytest.raises(
        CfgError, match=r"three\.tree is not the tree of these classes; expected 3 classes, found 2 lines"
    ):
        build_network(read_cfg(cfg))
