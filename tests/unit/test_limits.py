"""Absurd sizes: reading stays fast and small, and what does not fit into memory is refused before it is allocated."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import random_model
from hostile import network
from limited import HOW

from workbench import memory
from workbench.cfg import parse_cfg
from workbench.errors import OptionError, RunnerFailed
from workbench.memory import available_bytes, peak_activation_bytes, require_bytes, require_memory
from workbench.model import _require_few
from workbench.network import Network, build_network
from workbench.nms import Candidates
from workbench.onnx_model import OnnxOptions, build_graph

LIMITED = Path(__file__).resolve().parents[1] / "limited.py"
AS_DARKNET_COUNTS = "expected at most 2147483647, as Darknet counts them."
TOO_MANY = "has too many numbers; expected at most 4096, found 400001."

WANTED = {
    "layers": "a.cfg:4101: too many layers; expected at most 4096, found 100000. Many cfgs joined",
    "anchors of 4 MB": "a.cfg: too large for a cfg; expected at most 1048576 bytes, found more.",
    "anchors": f"a.cfg:13: anchors= {TOO_MANY}",
    "junk in a list": None,
    "one route": f"a.cfg:7: layers= {TOO_MANY}",
    "routes": None,
    "routes of routes": f"a.cfg:53: layer 23 puts out 8388608 x 16 x 16 values; {AS_DARKNET_COUNTS}",
    "wide": f"a.cfg:5: layer 0 puts out 1048576 x 16384 x 16384 values; {AS_DARKNET_COUNTS}",
    "upsample": f"a.cfg:7: layer 1 puts out 4 x 65536 x 65536 values; {AS_DARKNET_COUNTS}",
    "kernels": "a.cfg:5: weights of layer 0 [convolutional] would have 1048576 x 4 x 1024 x 1024 numbers; expected at",
    "connected": "a.cfg:3: weights of layer 0 [connected] would have 16777216 x 2147483647 numbers; expected at most",
    "local": "a.cfg:5: weights of layer 0 [local] would have 4194304 x 500 x 1024 x 1 x 1 numbers; expected at most",
    "lstm": "a.cfg:5: state.i.weights of layer 0 [lstm] would have 16777216 x 16777216 numbers; expected at most",
    "softmax": "a.cfg:6: 1024 values cannot be cut in 2147483647 groups",
    "one key": None,
    "keys": None,
    "digits": "a.cfg:11: scale_x_y= is out of range; expected at most 3.4e+38, found 999999",
    "word": "a.cfg:6: activation=llllll",
    "line": "a.cfg:5: neither a section, a comment nor key=value; expected key=value, found 'xxxxx",
    "header": "a.cfg:5: not a section header; expected [name], found '[[[[[",
    "blank lines": "a.cfg: no section in the file; expected [net] and layers, found 1000000 characters.",
    "ledger of gigabytes": None,
}
"""Case of `limited.py` -> how its error starts; None where the cfg is read."""

SMALLER = "Take a smaller width= and height=, or a machine with more memory."
LARGE = f"found 8.6 GB, of which layer 1 [upsample] alone has 7.5 GB. {SMALLER}"
INPUT = f"found 17.2 GB, of which the input alone has 17.2 GB. {SMALLER}"
CROWD = "a.cfg: 76800 boxes with 153600 probabilities are above 0.5; expected at most 30000 and 1000000. Weights of"
WANTED_RUNS = {
    "large outputs": ("OptionError a.cfg:10: the network needs more memory than there is at 16384x16384", LARGE),
    "large input": ("OptionError a.cfg:1: the network needs more memory than there is at 16384x16384", INPUT),
    "a crowd of boxes": (f"RunnerFailed {CROWD}", "Try a higher threshold."),
}
RUNS = [f"{case}, {how}" for case in WANTED_RUNS for how in HOW[case]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `limited.py` printed: case -> its line."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("memory is measured with Linux's /proc")
    command = [sys.executable, str(LIMITED), str(tmp_path_factory.mktemp("limited"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"exit code {done.returncode} after {done.stdout[-200:]}\n{done.stderr}"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.get("case", "growth"): line for line in lines}


@pytest.mark.parametrize("case", WANTED)
def test_reading_an_absurd_cfg(told: dict[str, Any], case: str) -> None:
    error, wanted = told[case]["error"], WANTED[case]
    assert error is None if wanted is None else error.startswith(f"CfgError {wanted}")
    assert error is None or len(error) < 3000


@pytest.mark.parametrize("case", RUNS)
def test_running_what_does_not_fit(told: dict[str, Any], case: str) -> None:
    start, end = WANTED_RUNS[case.split(",")[0]]
    assert told[case]["error"].startswith(start)
    assert told[case]["error"].endswith(end)


def test_none_takes_ten_seconds_or_a_gigabyte(told: dict[str, Any]) -> None:
    assert set(told) == {"growth", *WANTED, *RUNS}
    assert max(line["seconds"] for case, line in told.items() if case != "growth") < 10
    assert told["growth"]["growth"] < 1e9


def test_the_limit_is_the_address_space_that_is_left(told: dict[str, Any]) -> None:
    """A gigabyte was allowed: what is available is said to be less, and not much less."""
    (words,) = [told["large input, torch"]["error"]]
    available = float(words.split("expected at most ")[1].split(" GB")[0])
    assert 0.3 < available <= 1.0


# ------------------------------------------------------------------------------------------- counted by hand

CHAIN = network("conv", "conv", "shortcut from=-2", "maxpool size=2 stride=2", "dropout", "route layers=-1,-2")


def build(text: str) -> Network:
    return build_network(parse_cfg(text, "a.cfg"))


def test_peak_by_hand() -> None:
    """Input 3x16x16 = 768 floats, layers 0 to 2 8x16x16 = 2048, layer 3 8x8x8 = 512, layer 4 shares it, layer 5 1024.

    Nothing kept but the last: layer 2 needs 0 and 1 beside itself: 768 + 3 * 2048. All kept: the sum.
    """
    net = build(CHAIN)
    assert peak_activation_bytes(net, {5}) == 4 * (768 + 3 * 2048)
    assert peak_activation_bytes(net) == 4 * (768 + 3 * 2048 + 512 + 1024)
    assert peak_activation_bytes(net, {5}, batch=3) == 3 * 4 * (768 + 3 * 2048)
    assert peak_activation_bytes(build(network("conv", "conv", "conv")), {2}) == 4 * (768 + 2 * 2048)


def test_the_boundary_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    net, needed = build(CHAIN), 4 * (768 + 3 * 2048) + 100
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    require_memory(net, {5}, tensors=100)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(OptionError) as caught:
        require_memory(net, {5}, tensors=100)
    assert str(caught.value) == (
        "a.cfg:5: the network needs more memory than there is at 16x16, batch 1; expected at most 0.0 GB, "
        "found 0.0 GB, of which layer 0 [convolutional] alone has 0.0 GB. "
        "Take a smaller width= and height=, or a machine with more memory."
    )


def test_bytes_for_one_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2_000_000_000)
    require_bytes("onnx", "computing the largest tensor", 2_000_000_000)
    with pytest.raises(OptionError) as caught:
        require_bytes("onnx", "computing the largest tensor", 2_500_000_000)
    words = "onnx: computing the largest tensor needs more memory than there is; expected at most 2.0 GB, found 2.5 GB."
    assert str(caught.value) == words


def test_a_machine_that_does_not_say_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    require_memory(build(CHAIN), tensors=1 << 60)


def test_the_memory_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its limit less what its processes hold; its page cache can be given back."""
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\nfile 650000\nshmem 50000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert available_bytes() == 1_000_000 - 300_000 - 50_000
    (tmp_path / "memory.max").write_text("max\n")
    found = available_bytes()
    assert found is not None and found > 1_000_000


def test_a_fixed_size_is_refused_before_its_grids_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    text = network("convolutional filters=21 size=1", "yolo classes=2 num=3 anchors=1,1,1,1,1,1")
    model = random_model(text)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**9)
    build_graph(model, OnnxOptions(size=(64, 64)))
    with pytest.raises(OptionError, match=r"^small\.cfg:5: the network needs more memory than there is at 8192x8192"):
        build_graph(model, OnnxOptions(size=(8192, 8192)))


def test_a_crowd_is_counted_before_suppression() -> None:
    """30000 boxes with one class each are allowed, one more is not."""
    few = Candidates(np.zeros((30_000, 4)), np.ones(30_000), np.ones((30_000, 1)))
    _require_few(few, "a.cfg", 0.5)
    many = replace(few, boxes=np.zeros((30_001, 4)), objectness=np.ones(30_001), probabilities=np.ones((30_001, 1)))
    with pytest.raises(RunnerFailed, match=r"^a\.cfg: 30001 boxes with 30001 probabilities are above 0\.5; "):
        _require_few(many, "a.cfg", 0.5)
