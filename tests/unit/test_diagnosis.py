"""The diagnosis on foreign files that plain torch code writes (tests/diagnosis): a small part of the evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from tests.diagnosis.evaluate import MODELS, ROOT, Case, _model, _picture, _write, make_cases, run_case
from workbench.cli import cli, main
from workbench.diagnosis import ForeignBoxes, ForeignLayers, ForeignOnnx, ForeignTorch, diagnose, open_foreign
from workbench.errors import OptionError, RunnerFailed
from workbench.model import Model
from workbench.runners.torch import TorchRunner

CFG, WEIGHTS = str(ROOT / "data/shapes-tiny3.cfg"), str(ROOT / "data/shapes-tiny3.weights")
PICTURE = str(ROOT / "data/pictures/shelf-629x317.jpg")


@pytest.fixture(scope="module")
def model() -> Model:
    return _model("shapes-tiny3")


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    return {"shelf": _picture()}


def write(folder: Path, *mistakes: str, layout: str = "corners relative", **how: str) -> Path:
    path = folder / "theirs.onnx"
    _write(Case("", "shapes-tiny3", mistakes, layout, **how), path)
    return path


@pytest.mark.parametrize(
    "case",
    [
        Case("", "shapes-tiny3", ("leaky-0.01",), "raw nhwc"),
        Case("", "shapes-tiny3", ("header-16",), "raw"),
        Case("", "shapes-tiny3", ("maxpool-3-1-1", "anchors-swapped"), "corners pixels, anchors first", folded=False),
        Case("", "shapes-tiny3", ("grid-transposed",), "centre pixels, entries first"),
        Case("", "shapes-tiny4", ("mish-as-relu", "scale-x-y-ignored"), "centre pixels", "nhwc 255 bgr"),
        Case("", "shapes-tiny4", ("route-groups-ignored",), "raw joined"),
        Case("", "shapes-tiny4", ("batchnorm-pytorch-order",), "raw anchors last"),
        Case("", "shapes-tiny3", (), "raw reversed"),
        Case("", "shapes-tiny4", (), "activated joined", "nhwc 255"),
        Case("", "shapes-tiny3", (), "centre pixels", "", "float16"),
        Case("", "shapes-tiny4", (), "corners relative", "", "int8"),
    ],
    ids=lambda case: f"{case.model}-{'-'.join(case.mistakes) or 'healthy'}-{case.layout}-{case.precision}",
)
def test_what_was_done_is_what_is_said(case: Case) -> None:
    outcome = run_case(case)
    assert outcome.kind == "right", f"{outcome.said} {outcome.ties} {outcome.note}"


def test_the_whole_evaluation_has_every_tensor_pitfall_300_pairs_and_200_healthy_files() -> None:
    cases = make_cases(0, quick=False, only="")
    assert sum(len(case.mistakes) == 2 for case in cases) == 300
    assert sum(not case.mistakes for case in cases) == 200
    assert {case.model for case in cases} == set(MODELS)


def test_a_difference_that_nobody_knows_is_described_and_nobody_is_accused(tmp_path, model, pictures) -> None:
    path = write(tmp_path, layout="raw")
    proto = onnx.load(str(path))
    kernel = next(t for t in proto.graph.initializer if list(t.dims) == [16, 8, 3, 3])
    values = onnx.numpy_helper.to_array(kernel).copy()
    values[5] *= 1.5
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    onnx.save(proto, str(path))
    found = diagnose(model, ForeignOnnx(path), pictures)
    assert (found.verdict, found.pitfalls, found.change) == ("unexplained", (), "")
    assert found.fault.startswith("layer 2 [convolutional]")
    assert found.details[0] == "1 of 16 channels differ: 5"
    assert found.right[0].startswith("layers 0 to 1, 3 to ")


def test_the_residual_before_and_after_and_what_to_change(tmp_path, model, pictures) -> None:
    found = diagnose(model, ForeignOnnx(write(tmp_path, "leaky-0.01", "anchors-swapped")), pictures)
    assert set(found.pitfalls) == {"leaky-0.01", "anchors-swapped"}
    assert found.before is not None and found.after is not None and found.second is not None
    assert found.before.faults > 5 and found.after.faults == 0
    assert found.second.pitfalls == ("leaky-0.01",)
    assert "theirs = 0.1 x ours, elsewhere 1 x" in found.details[2]
    assert "torch.nn.LeakyReLU(0.1" in found.code
    assert found.change.startswith("Undo “leaky with 0.01” and “Width and height of the anchors exchanged”")
    json.dumps(found.to_json())


def test_arrays_alone_show_the_picture_as_well(tmp_path, model, pictures) -> None:
    """Darknet's order, no names, no input: BGR is seen in the first layer, and NHWC arrays are no mistake."""
    x = model.preprocessing.apply(pictures["shelf"])[None, ::-1].copy()
    made = TorchRunner(model).run(x)
    arrays = {f"a{n}": y.transpose(0, 2, 3, 1) for n, y in made.items() if n not in (3, 17)}
    np.savez(tmp_path / "theirs.npz", **arrays)
    found = diagnose(model, ForeignLayers(tmp_path / "theirs.npz"), pictures)
    assert found.pitfalls == ("bgr",)
    states = {row.place.split()[1]: row.state for row in found.aligned}
    assert states["2"] == "same" and {row.layout for row in found.aligned if row.layout} == {"NHWC"}


def test_what_they_feed_is_judged_apart_from_what_they_compute(tmp_path, model, pictures) -> None:
    x = model.preprocessing.apply(pictures["shelf"])[None] * np.float32(255 / 225)
    np.save(tmp_path / "x.npy", x.transpose(0, 2, 3, 1))
    foreign = open_foreign(model, pictures, onnx=write(tmp_path, "maxpool-3-1-1"), inputs=[tmp_path / "x.npy"])
    assert set(diagnose(model, foreign, pictures).pitfalls) == {"divided-by-225", "maxpool-3-1-1"}
    alone = open_foreign(model, pictures, inputs=[tmp_path / "x.npy"])
    assert diagnose(model, alone, pictures).pitfalls == ("divided-by-225",)


def test_a_torch_module_is_run_apart_and_watched(tmp_path, model, pictures, monkeypatch) -> None:
    (tmp_path / "theirs.py").write_text(
        "from pathlib import Path\n"
        "from tests.diagnosis.foreign_head import Exported\n"
        "from tests.diagnosis.foreign_net import ForeignNet\n"
        "def make():\n"
        f"    net = ForeignNet(Path({CFG!r}), Path({WEIGHTS!r}), frozenset(['upsample-bilinear']), (1e-6, False),"
        f" {MODELS['shapes-tiny3']}, False)\n"
        "    return Exported(net, 'raw')\n"
        "def broken():\n"
        "    raise ValueError('no such checkpoint')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    found = diagnose(model, ForeignTorch("theirs:make"), pictures)
    assert found.pitfalls == ("upsample-bilinear",)
    assert "theirs:make was run in a process of its own" in found.remarks
    with pytest.raises(RunnerFailed, match="theirs:broken: did not run; found ValueError: no such checkpoint"):
        diagnose(model, ForeignTorch("theirs:broken"), pictures)


def boxes_of(model: Model, picture: np.ndarray) -> list[dict[str, object]]:
    found = TorchRunner(model).detect(picture, 0.1)
    return [
        {"class_id": int(k), "confidence": float(s), "bbox": [float(v) for v in box]}
        for box, s, k in zip(found.xyxy, found.scores, found.classes, strict=True)
    ]


def test_boxes_in_another_form_are_no_mistake(tmp_path, model, pictures) -> None:
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"shelf": boxes_of(model, pictures["shelf"])}))
    found = diagnose(model, ForeignBoxes(file), pictures)
    assert found.verdict == "nothing wrong", found
    assert "boxes were read as corners, in pixels of the picture" in found.remarks


def test_boxes_moved_by_nobody_known_are_described(tmp_path, model, pictures) -> None:
    """Every box is moved and stretched by a formula that nobody knows: the field of offsets says which."""
    rows = boxes_of(model, pictures["shelf"])
    for row in rows:
        left, top, right, bottom = row["bbox"]  # type: ignore[misc]
        row["bbox"] = [left * 1.01 + 3, top + 7, right * 1.01 + 3, bottom + 7]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"shelf": rows}))
    found = diagnose(model, ForeignBoxes(file), pictures, limit_s=5)
    assert (found.verdict, found.pitfalls) == ("unexplained", ())
    assert any(text.startswith("their x = 1.0100 x ours +0.00") for text in found.details)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "wants one kind of evidence; expected one of --onnx, --torch, --layers, --boxes, or --input"),
        (["--onnx", CFG], "cannot be read as ONNX"),
        (["--layers", CFG], "cannot be read as arrays; expected .npz or .npy without objects"),
        (["--boxes", CFG], "cannot be read as JSON"),
        (["--torch", "theirs"], "--torch: is no module and factory; expected module:factory, found theirs"),
        (["--input", CFG, "--input", CFG], "--input: without its picture; expected one --image for each of 2, found 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["diagnose", CFG, WEIGHTS, *arguments])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3", "is no list of boxes"),
        ('{"shelf": [{"box": [1, 2, 3], "score": 1, "class": 0}]}', "holds a row that is no box"),
        ('{"elsewhere": [], "nowhere": []}', "names none of the pictures"),
        ('{"shelf": [{"box": [1, 2, 3, 4], "score": 1, "class": "unicorn"}]}', "name an unknown class"),
    ],
)
def test_boxes_that_are_none(text, words, tmp_path, model, pictures) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(OptionError, match=words):
        diagnose(model, ForeignBoxes(tmp_path / "boxes.json"), pictures)


def test_an_input_of_another_size_is_refused(tmp_path, model, pictures) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 7, 7), np.float32))
    with pytest.raises(
        OptionError, match=r"does not fit the network; expected \(1, 3, 96, 128\), found \(1, 3, 7, 7\)"
    ):
        open_foreign(model, pictures, inputs=[tmp_path / "x.npy"])


def test_the_command_shows_the_layers_the_verdict_and_the_change(tmp_path) -> None:
    arguments = ["diagnose", CFG, WEIGHTS, "--dialect", "pjreddie", "--image", PICTURE, "--onnx"]
    result = CliRunner().invoke(cli, [*arguments, str(write(tmp_path, "leaky-0.01"))])
    assert result.exit_code == 1
    assert "layer 0 [convolutional] (line 29)" in result.output
    assert "EXPLAINED: leaky-0.01" in result.output
    assert "torch.nn.LeakyReLU(0.1, inplace=True)" in result.output
    healthy = CliRunner().invoke(cli, [*arguments, str(write(tmp_path)), "--json"])
    assert healthy.exit_code == 0
    assert json.loads(healthy.output[healthy.output.index("{") :])["verdict"] == "nothing wrong"
