"""Two thousand damaged cfg and weights files: each opens, or is refused by an error that names the place. Nothing else.

What opens is run by both engines of the workbench too, on a tiny input. Every warning is an error (pyproject.toml).
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile import SMALL, Damage, cfg_damages, damage_cfg, damage_weights, weight_damages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import CfgError, RunnerFailed, WeightsError, WorkbenchError
from workbench.image import Placement
from workbench.inspection import Inspection, inspect_model
from workbench.layers import layer_classes
from workbench.model import Model, open_model
from workbench.runners.onnxruntime import OnnxRunner
from workbench.runners.torch import TorchRunner

DATA = Path(__file__).resolve().parents[2] / "data"
SHIPPED = {name: (DATA / f"{name}.cfg").read_text() for name in ("shapes-tiny3", "shapes-tiny4")}
BASES = {**SMALL, **SHIPPED}
SMALL_FLOATS = 1 << 18
"""What is larger is read but not run."""

HOSTILE = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))

NO_LINE = re.compile("too large for a cfg|holds zero bytes|no section in the file")
"""The errors about a cfg as a whole."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Damaged files, one after the other under the same names."""
    return tmp_path_factory.mktemp("hostile")


def assert_has_place(error: WorkbenchError) -> None:
    """`a.cfg:12: …` or `a.weights: layer 3 (a.cfg:12) …`, in one printable line."""
    text = str(error)
    assert text.isprintable() and len(text) < 6000
    if isinstance(error, CfgError) and not NO_LINE.search(text):
        assert re.match(r"a\.cfg:\d+: ", text), text
    else:
        assert re.match(r"(.*/)?a\.(cfg|weights)(:\d+)?: ", text), text


def write_weights(report: Inspection, path: Path) -> bytes:
    """A file that fits the cfg, of numbers around a half."""
    count = (report.ledger.bytes - report.ledger.header_bytes) // 4
    values = np.random.default_rng(0).uniform(0.1, 1, count).astype("<f4")
    data = struct.pack("<iiiQ", 0, 2, 5, 0) + values.tobytes()
    path.write_bytes(data)
    return data


def is_small(report: Inspection) -> bool:
    layers = report.network.layers
    floats = sum(math.prod(layer.output_shape) for layer in layers) + report.network.net.inputs
    return floats < SMALL_FLOATS and report.ledger.bytes < 4 * SMALL_FLOATS


def run_both(model: Model) -> None:
    """Both engines give every layer, in the shape that the cfg promises; where they refuse, it is with a place."""
    net = model.network
    x = np.random.default_rng(1).random((2, net.channels, net.height, net.width), dtype=np.float32)
    for runner in (TorchRunner, OnnxRunner):
        try:
            with runner(model) as engine:
                outputs = engine.run(x)
            assert {i: y.shape[1:] for i, y in outputs.items()} == {v.index: v.output_shape for v in net.layers}
            if net.heads:
                model.detections({i: y[0] for i, y in outputs.items()}, Placement(8, 8, 8, 8, 8, 8), 0.1)
        except (WeightsError, RunnerFailed) as error:
            assert_has_place(error)


def open_damaged(text: str | bytes, folder: Path) -> Inspection | None:
    """The inspection of that text as `a.cfg`; None where it was refused, with a place."""
    path = folder / "a.cfg"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        report = inspect_model(path)
    except WorkbenchError as error:
        assert_has_place(error)
        return None
    json.dumps(report.to_json(), allow_nan=False)
    assert all(re.match(r"a\.cfg(:\d+)?: ", str(note)) for note in report.network.notes)
    return report


def test_the_small_networks_have_every_kind_of_layer_and_open(folder: Path) -> None:
    kinds = set[str]()
    for text in SMALL.values():
        report = open_damaged(text, folder)
        assert report is not None
        kinds.update(layer.kind for layer in report.network.layers)
    assert kinds == {layer_class.kinds[0] for layer_class in layer_classes().values()}


@settings(HOSTILE, max_examples=900)
@given(name=st.sampled_from(sorted(BASES)), damages=cfg_damages())
def test_a_damaged_cfg_runs_or_names_its_line(folder: Path, name: str, damages: list[Damage]) -> None:
    report = open_damaged(damage_cfg(BASES[name], damages), folder)
    if report and is_small(report):
        write_weights(report, folder / "a.weights")
        run_both(open_model(folder / "a.cfg", folder / "a.weights"))


@settings(HOSTILE, max_examples=300)
@given(
    name=st.sampled_from(sorted(BASES)),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=4)), min_size=1, max_size=4),
)
def test_damaged_bytes_of_a_cfg(folder: Path, name: str, edits: list[tuple[int, bytes]]) -> None:
    data = BASES[name].encode()
    for at, piece in edits:
        at %= len(data) + 1
        data = data[:at] + piece + data[at + 1 :]
    open_damaged(data, folder)


@settings(HOSTILE, max_examples=200)
@given(choice=st.integers(0, 1000), damages=cfg_damages())
def test_damaged_real_cfgs(shared: Path, folder: Path, choice: int, damages: list[Damage]) -> None:
    cfgs = sorted((shared / "oracle" / "cfgs").glob("*/*.cfg"))
    text = cfgs[choice * 37 % len(cfgs)].read_text(encoding="utf-8", errors="replace")
    open_damaged(damage_cfg(text, damages), folder)


@settings(HOSTILE, max_examples=700)
@given(name=st.sampled_from(sorted(SMALL)), damages=weight_damages())
def test_damaged_weights_run_or_name_their_bytes(folder: Path, name: str, damages: list[tuple[str, int, int]]) -> None:
    cfg, path = folder / "a.cfg", folder / "a.weights"
    report = open_damaged(SMALL[name], folder)
    assert report is not None
    data = damage_weights(write_weights(report, path), damages)
    path.write_bytes(data)
    try:
        report = inspect_model(cfg, path)
        assert report.weights is not None
        json.dumps(report.to_json(), allow_nan=False)
        for finding in report.findings:
            assert re.match(r"a\.weights(: layer \d+ \(a\.cfg:\d+\) [\w.]+)?$", finding.where)
            assert 0 <= finding.start < finding.stop <= max(len(data), report.ledger.bytes)
        if report.errors:
            with pytest.raises(WeightsError, match=r"^a\.weights: .*bytes 0x") as caught:
                report.weights.require_sound()
            assert_has_place(caught.value)
        run_both(open_model(cfg, path))
    except WeightsError as error:
        assert_has_place(error)
    assert path.read_bytes() == data


WRONG = {
    "empty": (b"", r"a\.weights: is empty; expected a \.weights file\. An interrupted download\?$"),
    "eleven bytes": (bytes(11), r"^a\.weights: too short for a header; expected at least 16 bytes, found 11 bytes\.$"),
    "header only": (
        struct.pack("<iiiQ", 0, 2, 5, 0),
        r"^a\.weights: layer 0 \(a\.cfg:5\) biases: needs bytes 0x14-0x34, the file ends at 0x14: ",
    ),
}


@pytest.mark.parametrize("kind", sorted(WRONG))
def test_short_weights(folder: Path, kind: str) -> None:
    data, words = WRONG[kind]
    (folder / "a.cfg").write_text(SMALL["detector"])
    (folder / "a.weights").write_bytes(data)
    with pytest.raises(WeightsError, match=words):
        open_model(folder / "a.cfg", folder / "a.weights")


VALUES = {
    "NaN": (float("nan"), "error", "8 values are NaN or infinite."),
    "infinite": (float("inf"), "error", "8 values are NaN or infinite."),
    "negative": (-1.0, "error", "8 of 8 variances are negative, the least is -1."),
    "denormal": (1e-40, "warning", "8 of 8 variances are denormal and count as 0."),
}


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_a_wrong_variance_has_its_layer_line_and_bytes(folder: Path, kind: str) -> None:
    value, level, problem = VALUES[kind]
    report = open_damaged(SMALL["detector"], folder)
    assert report is not None
    data = bytearray(write_weights(report, folder / "a.weights"))
    # 20 bytes of header, then 8 biases, scales and means of 4 bytes: the variances begin at 20 + 3 * 32 = 0x74.
    data[0x74:0x94] = struct.pack("<f", value) * 8
    (folder / "a.weights").write_bytes(data)
    findings = inspect_model(folder / "a.cfg", folder / "a.weights").findings
    where = "a.weights: layer 0 (a.cfg:5) rolling_variance"
    assert [(f.level, f.where, f.start, f.stop, f.problem) for f in findings] == [(level, where, 0x74, 0x94, problem)]


def detector_with(folder: Path, **tensors: float) -> Model:
    """`detector`, with tensors of its first layer filled with one number."""
    report = open_damaged(SMALL["detector"], folder)
    assert report is not None
    write_weights(report, folder / "a.weights")
    model = open_model(folder / "a.cfg", folder / "a.weights")
    changed = {(0, field): np.full(8, value, np.float32) for field, value in tensors.items()}
    return replace(model, weights=model.weights.replacing(changed))


def test_folding_beyond_float32_is_an_error_with_its_layer(folder: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        OnnxRunner(detector_with(folder, scales=3e38, rolling_variance=0))
    assert str(caught.value) == (
        "a.weights: 000_convolutional/weights: has values beyond float32 once batch normalisation is folded in; "
        "found overflow encountered in cast. A damaged file, or weights of another cfg."
    )


def test_a_head_without_numbers_is_an_error_not_an_empty_picture(folder: Path) -> None:
    with TorchRunner(detector_with(folder, scales=3e38)) as engine, pytest.raises(RunnerFailed) as caught:
        engine.detect(np.zeros((20, 20, 3), np.uint8), 0.5)
    assert str(caught.value).startswith("a.cfg:38: head 7 puts out values that are no finite numbers; expected 896 ")
    assert str(caught.value).endswith("`workbench inspect` with the weights tells what is in the file.")


def test_the_same_error_twice_is_the_same_text() -> None:
    """Escaping and cutting happen when the sentence is made, so a quoted sentence is not escaped again."""
    inner = WorkbenchError("a\nb", "x" * 5000, found="\x1b[31m")
    assert str(inner).startswith("a\\nb: xxx") and "\\x1b[31m" in str(inner) and len(str(inner)) < 1100
    assert str(WorkbenchError("c", "d", found=str(inner)[:40])) == f"c: d; found {str(inner)[:40]}."


@pytest.mark.parametrize("kind", [CfgError, WeightsError])
def test_an_error_can_be_put_inside_a_file(kind: type[WorkbenchError]) -> None:
    moved = kind("a.cfg:3", "is wrong", expected=1, found=2, cause="C.", next_step="N.").inside("b.safetensors")
    assert type(moved) is kind
    assert str(moved) == "b.safetensors: a.cfg:3: is wrong; expected 1, found 2. C. N."
