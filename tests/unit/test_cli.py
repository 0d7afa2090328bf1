"""The command line, run as a person runs it: real processes, the shipped models, exit codes and documented JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
TINY3 = (str(DATA / "shapes-tiny3.cfg"), str(DATA / "shapes-tiny3.weights"))
PICTURE = str(DATA / "pictures" / "clouds-333x250.png")


def workbench(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command and check its exit code; never a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def read_json(*arguments: str) -> Any:
    return json.loads(workbench(*arguments).stdout)


def test_inspect_tells_the_documented_json() -> None:
    told = read_json("inspect", *TINY3, "--json")
    assert (told["header"]["major"], told["header"]["minor"]) == (0, 2)
    assert told["bytes"] == Path(TINY3[1]).stat().st_size
    assert told["unread_bytes"] == 0
    first = told["layers"][0]
    assert set(first) == {"index", "type", "line", "inputs", "output_shape", "tensors"}
    assert (first["index"], first["type"], first["inputs"]) == (0, "convolutional", [-1])
    # The header has 20 bytes; the biases of 8 filters are 32 bytes.
    filters = first["output_shape"][0]
    assert first["tensors"][0] == {"field": "biases", "start": 20, "stop": 20 + 4 * filters, "shape": [filters]}
    assert [tensor["field"] for tensor in first["tensors"]] == [
        "biases", "scales", "rolling_mean", "rolling_variance", "weights",
    ]  # fmt: skip


def test_inspect_prints_every_layer_and_needs_no_weights() -> None:
    lines = workbench("inspect", TINY3[0]).stdout.splitlines()
    layers = json.loads(workbench("inspect", TINY3[0], "--json").stdout)["layers"]
    assert len([line for line in lines if line.strip()[:1].isdigit()]) >= len(layers)


@pytest.mark.parametrize("runner", ["torch", "onnxruntime"])
def test_detect_finds_the_same_with_each_engine(runner: str, tmp_path: Path) -> None:
    out = tmp_path / "boxes.png"
    (row,) = read_json("detect", *TINY3, PICTURE, "--runner", runner, "--json", "-o", str(out))
    labels = json.loads((DATA / "pictures" / "labels.json").read_text())["clouds-333x250.png"]["objects"]
    found = {detection["name"] for detection in row["detections"]}
    assert found and found <= {label["class"] for label in labels} | found
    assert len(row["detections"]) >= len(labels) // 2
    assert out.read_bytes().startswith(b"\x89PNG")


def test_detect_with_real_darknet_gives_the_boxes_of_torch(darknet: Path) -> None:
    boxes = [
        read_json("detect", *TINY3, PICTURE, "--runner", runner, "--json")[0]["detections"]
        for runner in ("darknet", "torch")
    ]
    assert len(boxes[0]) == len(boxes[1]) > 0
    for theirs, ours in zip(*boxes, strict=True):
        assert theirs["name"] == ours["name"]
        assert abs(theirs["x"] - ours["x"]) <= 1e-3 and abs(theirs["score"] - ours["score"]) <= 1e-5


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One validation and export for the tests below."""
    folder = tmp_path_factory.mktemp("proof")
    workbench(
        "validate",
        *TINY3,
        "--image",
        PICTURE,
        "--json",
        str(folder / "proof.json"),
        "--html",
        str(folder / "proof.html"),
    )
    return folder


def test_validate_tells_the_documented_json(proof: Path) -> None:
    told = json.loads((proof / "proof.json").read_text())
    assert told["passed"] is True
    assert (told["dialect"], told["reference"]) == ("pjreddie", "darknet")
    names = "ledger, layers, network, heads, same boxes, box positions, probabilities, folded, onnx checker"
    assert [gate["name"] for gate in told["gates"]] == [*names.split(", "), "onnxruntime", "two roads"]
    assert all({"name", "passed", "worst", "limit", "where"} <= set(gate) for gate in told["gates"])
    assert all({"index", "type", "max_abs", "max_over_std"} <= set(layer) for layer in told["layers"])
    assert sum(row["reference"] for row in told["detections"]) > 0
    assert "<html" in (proof / "proof.html").read_text()


def test_convert_writes_a_proved_onnx_file_that_validates_again(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    assert "PASSED" in workbench("convert", *TINY3, "-o", str(out), "--image", PICTURE, "--outputs", "raw").stdout
    metadata = {entry.key: entry.value for entry in onnx.load(str(out)).metadata_props}
    assert json.loads(metadata["darknet.certificate"])["passed"] is True
    assert metadata["darknet.dialect"] == "pjreddie"
    # The same file under another fork's arithmetic does not pass, and says which gate is red.
    done = workbench("validate", *TINY3, "--image", PICTURE, "--model", str(out), "--dialect", "alexeyab", code=1)
    assert "FAILED: onnxruntime" in done.stdout


def test_convert_back_to_weights_gives_the_same_bytes(tmp_path: Path) -> None:
    out = tmp_path / "again.weights"
    workbench("convert", *TINY3, "-o", str(out), "--unvalidated")
    assert out.read_bytes() == Path(TINY3[1]).read_bytes()


def test_convert_to_safetensors_and_back_is_the_same_model(tmp_path: Path) -> None:
    import numpy as np

    import workbench as wb

    out = tmp_path / "model.safetensors"
    workbench("convert", *TINY3, "-o", str(out), "--unvalidated")
    ours, theirs = wb.open(*TINY3), wb.load(out)
    for span in ours.weights.ledger.spans:
        key = (span.layer, span.field)
        np.testing.assert_array_equal(ours.weights[key], theirs.weights[key])
    assert (theirs.dialect, theirs.names, theirs.cfg_text) == (ours.dialect, ours.names, ours.cfg_text)


def test_an_unvalidated_file_says_so(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    assert "UNVALIDATED" in workbench("convert", *TINY3, "-o", str(out), "--unvalidated").stdout
    metadata = {entry.key: entry.value for entry in onnx.load(str(out)).metadata_props}
    assert metadata["darknet.certificate"] == "none: exported with --unvalidated, nothing was proved"


def test_a_red_model_is_not_exported(tmp_path: Path) -> None:
    """One variance made negative in a copy of the file: the ledger's gate is red, exit code 1, nothing is written."""
    import numpy as np

    import workbench as wb

    weights = tmp_path / "damaged.weights"
    data = bytearray(Path(TINY3[1]).read_bytes())
    ledger = wb.open(*TINY3).weights.ledger
    offset, count = ledger.offset_of(4, "rolling_variance", (3,)), ledger.by_name[4, "rolling_variance"].shape[0]
    data[offset : offset + 4] = np.float32(-1).tobytes()
    weights.write_bytes(data)
    out = tmp_path / "model.onnx"
    done = workbench("convert", TINY3[0], str(weights), "-o", str(out), "--image", PICTURE, code=1)
    assert f"1 of {count} variances are negative" in done.stdout and f"bytes {offset:#x}-{offset + 4:#x}" in done.stdout
    assert "gate `ledger` failed" in done.stderr
    assert not out.exists()


def test_every_command_has_help_and_the_readme_names_it() -> None:
    readme = (DATA.parent / "README.md").read_text()
    for command in ("inspect", "detect", "validate", "convert", "models", "fetch", "demo", "lab"):
        assert "Usage:" in workbench(command, "--help").stdout
        assert f"workbench {command}" in readme


def test_the_library_s_names_stay_callable_whatever_was_imported() -> None:
    """A module of the same name would take the function's place in the package once it is imported."""
    import pkgutil

    import workbench as wb

    assert not {module.name for module in pkgutil.iter_modules(wb.__path__)} & set(wb.__all__)
