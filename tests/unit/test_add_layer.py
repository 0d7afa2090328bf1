"""The README's example of a new layer: it is one file, and it works in PyTorch, in ONNX and in the byte ledger."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from slow_layers import run
from test_rare_layers import small_model

import workbench.layers
from workbench.layers import layer_classes
from workbench.onnx_model import OnnxOptions, build_graph, write_onnx

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests" / "example_layer.py"


@pytest.fixture
def channel_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as a file of workbench/layers, for one test."""
    shutil.copy(EXAMPLE, tmp_path / "channel_scale.py")
    monkeypatch.setattr(workbench.layers, "__path__", [*workbench.layers.__path__, str(tmp_path)])
    layer_classes.cache_clear()
    yield
    monkeypatch.undo()
    layer_classes.cache_clear()


@pytest.mark.usefixtures("channel_scale")
def test_the_example_is_a_layer(tmp_path: Path) -> None:
    text = "[net]\nwidth=3\nheight=2\nchannels=4\n[channel_scale]\nactivation=leaky\n"
    model = small_model(text)
    assert [span.field for span in model.weights.ledger.spans] == ["scales"]
    x = np.random.default_rng(1).normal(0, 1, (2, 4, 2, 3)).astype(np.float32)
    scaled = x * model.weights[0, "scales"][:, None, None]
    expected = np.where(scaled > 0, scaled, scaled * np.float32(0.1))
    for engine in ("torch", "onnx17"):
        assert np.abs(run(engine, model, x)[0] - expected).max() <= 1e-6
    path = tmp_path / "a.onnx"
    write_onnx(build_graph(model, OnnxOptions("raw")), path)
    onnx.checker.check_model(str(path), full_check=True)


def test_the_readme_shows_the_example() -> None:
    readme = (ROOT / "README.md").read_text()
    if "@@ADD_LAYER@@" in readme or "## Adding a layer" not in readme:
        pytest.skip("the README is not finished")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert EXAMPLE.read_text() in blocks
