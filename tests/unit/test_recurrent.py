"""What recurrent layers remember: carried by `DarknetModule.step` and by the ONNX file's own inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from slow_layers import logistic, net
from test_rare_layers import LSTM, conv_lstm, small_model

from workbench.model import Model
from workbench.onnx_model import INPUT, OnnxOptions, build_graph, write_onnx
from workbench.runners.onnxruntime import open_session
from workbench.torch_model import build

NUMBERS = "[net]\ninputs=5\n"
NETWORKS = {
    "rnn": NUMBERS + "[rnn]\nhidden=3\noutput=4\nbatch_normalize=1\nactivation=leaky\n[connected]\noutput=2\n",
    "rnn shortcut": NUMBERS + "[rnn]\nhidden=3\noutput=4\nshortcut=1\nactivation=tanh\n",
    "gru": NUMBERS + "[gru]\noutput=3\nbatch_normalize=1\n[gru]\noutput=4\n",
    "lstm": NUMBERS + "[lstm]\noutput=3\nbatch_normalize=1\n[softmax]\n[cost]\n",
    "crnn": net(3, 5, 4) + "[crnn]\nsize=3\npad=1\nhidden=2\noutput=4\nbatch_normalize=1\nactivation=leaky\n",
    "conv_lstm": net(3, 4, 5) + LSTM.format(1),
}


def inputs(model: Model, steps: int = 4) -> list[np.ndarray]:
    network = model.network
    shape = (steps, 2, network.channels, network.height, network.width)
    return list(np.random.default_rng(5).normal(0, 1, shape).astype(np.float32))


def torch_steps(model: Model, xs: list[np.ndarray]) -> list[np.ndarray]:
    module, states, found = build(model), None, []
    for x in xs:
        with torch.inference_mode():
            (y,), states = module.step(torch.from_numpy(x), states)
        found.append(y.numpy())
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_carries_the_same_states(name: str, tmp_path: Path) -> None:
    model, path = small_model(NETWORKS[name]), tmp_path / "a.onnx"
    graph, xs = build_graph(model, OnnxOptions("raw")), inputs(model)
    write_onnx(graph, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = open_session(path)
    states, found = {}, []
    (result,) = graph.output_layers
    remembered = [value.name for value in graph.states_after]
    for x in xs:
        y, *after = session.run([result, *remembered], {INPUT: x, **states})
        states = {name.removesuffix("_after"): value for name, value in zip(remembered, after, strict=True)}
        found.append(y)
    expected = torch_steps(model, xs)
    assert set(states) == {value.name for value in graph.states}
    assert max(np.abs(a - b).max() for a, b in zip(expected, found, strict=True)) <= 2e-6
    # What was remembered matters, and nothing remembered is a beginning.
    assert np.abs(expected[1] - torch_steps(model, xs[1:])[0]).max() > 1e-4
    with torch.inference_mode():
        assert np.array_equal(expected[0], build(model)(torch.from_numpy(xs[0]))[0].numpy())


def test_gru_by_hand() -> None:
    """h' = z*h + (1-z)*candidate with a logistic candidate of r*h, two steps in float64."""
    model = small_model(NUMBERS + "[gru]\noutput=3\n")
    xs, h = inputs(model, 2), np.zeros((2, 3))
    w = {span.field: model.weights[0, span.field].astype(np.float64) for span in model.weights.ledger.spans}

    def part(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[name + ".weights"].T + w[name + ".biases"]

    for x, y in zip(xs, torch_steps(model, xs), strict=True):
        x = x[:, :, 0, 0].astype(np.float64)
        z, r = (logistic(part(f"input.{k}", x) + part(f"state.{k}", h)) for k in "zr")
        h = z * h + (1 - z) * logistic(part("input.h", x) + part("state.h", r * h))
        assert np.abs(y[:, :, 0, 0] - h).max() <= 1e-6


def test_conv_lstm_by_hand() -> None:
    model = small_model(NETWORKS["conv_lstm"])
    xs, h, c = inputs(model, 3), np.zeros((2, 2, 4, 5)), np.zeros((2, 2, 4, 5))
    for x, y in zip(xs, torch_steps(model, xs), strict=True):
        h, c = conv_lstm(model, x.astype(np.float64), h, c, True)
        assert np.abs(y - h).max() <= 1e-6


def test_the_forks_store_the_gates_in_their_own_order() -> None:
    text = NUMBERS + "[gru]\noutput=3\n[lstm]\noutput=2\n"

    def order(dialect: str) -> list[str]:
        spans = small_model(text, dialect).weights.ledger.spans
        return [span.field.removesuffix(".biases") for span in spans if span.field.endswith("biases")]

    gru, lstm = ["z", "r", "h"], {"alexeyab": "figo", "pjreddie": "ifog"}
    for dialect, sides in (("alexeyab", ("input", "state")), ("pjreddie", ("state", "input"))):
        cells = [f"{side}.{gate}" for side in ("state", "input") for gate in lstm[dialect]]
        assert order(dialect) == [f"{side}.{gate}" for side in sides for gate in gru] + cells
