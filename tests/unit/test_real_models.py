"""Real detectors on photographs: PyTorch and ONNX against real Darknet, OpenCV, and what AlexeyAB's Darknet printed.

Three questions. Each layer alone, fed with what the reference itself fed into it: no rounding adds up there, so that
the limit is far above the noise and a wrong layer is the one that is named. All layers, as they come. And the boxes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from workbench.comparison import compare_layers
from workbench.detections import Detections, match
from workbench.gates import BOX_LIMIT_PX, HEAD_LIMIT, LAYER_LIMIT, SCORE_LIMIT
from workbench.image import load_picture
from workbench.model import Model, open_model
from workbench.runners import open_runner, refusal
from workbench.runners.onnxruntime import OnnxRunner
from workbench.runners.torch import TorchRunner
from workbench.torch_model import build

pytestmark = pytest.mark.usefixtures("darknet")

PHOTOS = Path("/usr/share/darknet/data")
MODELS = [
    "mnv2-yolo-fastest-voc-v2-se", "mnv2-yolov3-nano-coco", "yolo-fastest-1.1-body", "yolo-fastest-1.1-coco",
    "yolo-fastest-1.1-xl-coco", "yoloface-500k-v1", "yoloface-50k", "yolov3-tiny",
]  # fmt: skip
PERSON = ("yolo-fastest-1.1-body", "yoloface-500k-v1")  # they see nothing on dog.jpg
DIALECTS = ["pjreddie", "alexeyab"]
Picture = NDArray[np.uint8]


@cache
def photo(name: str) -> Picture:
    return load_picture(PHOTOS / f"{name}.jpg")


def open_real(shared: Path, name: str, dialect: str) -> Model:
    folder = shared / "models" / name
    return open_model(next(folder.glob("*.cfg")), next(folder.glob("*.weights")), dialect=dialect)


@dataclass(frozen=True)
class Reference:
    """What an independent engine gave for one photograph, and the model in its arithmetic."""

    engine: str
    model: Model
    picture: str
    x: NDArray[np.float32]
    layers: dict[int, NDArray[np.float32]]
    boxes: dict[float, Detections]


def ask_references(model: Model, picture: str, engines: tuple[str, ...] = ("darknet", "opencv")) -> list[Reference]:
    """Of the engines that can run this model truthfully."""
    found = []
    for name in engines:
        if refusal(name, model):
            continue
        with open_runner(name, model) as engine:
            assert engine.epsilon is not None
            x = model.preprocessing.apply(photo(picture))[None]
            boxes = {thresh: engine.detect(photo(picture), thresh) for thresh in (0.5, 0.25)}
            same = replace(model, dialect=replace(model.dialect, epsilon=engine.epsilon))
            found.append(Reference(name, same, picture, x, engine.run(x), boxes))
    return found


@pytest.fixture(scope="module", params=[(name, dialect) for name in MODELS for dialect in DIALECTS], ids="-".join)
def references(request: pytest.FixtureRequest, shared: Path) -> list[Reference]:
    name, dialect = request.param
    return ask_references(open_real(shared, name, dialect), "person" if name in PERSON else "dog")


def heads_of(model: Model) -> set[int]:
    return {head.index for head in model.network.heads}


# ---------------------------------------------------------------------------------------------- each layer alone


def test_each_layer_alone(references: list[Reference]) -> None:
    for reference in references:
        known, own = {-1: reference.x, **reference.layers}, {}
        with torch.inference_mode():
            for module in build(reference.model).children():
                layer = module.layer
                if all(i in known for i in (layer.index, *layer.inputs)):
                    own[layer.index] = module(*(torch.from_numpy(known[i]) for i in layer.inputs)).numpy()
        heads = heads_of(reference.model)
        unseen = len(heads) if reference.engine == "opencv" else 0
        rows = compare_layers(reference.model, reference.layers, own)
        assert len(rows) == len(reference.model.network.layers) - unseen
        for row in rows:
            assert row.max_over_std <= LAYER_LIMIT, (reference.engine, str(row))
            assert row.index not in heads or row.max_abs <= HEAD_LIMIT, (reference.engine, str(row))


def test_which_reference_runs_what(shared: Path) -> None:
    """OpenCV runs all of them; Darknet of 2018 has no [scale_channels] and no scale_x_y."""
    refused = {
        (name, engine): str(refusal(engine, open_real(shared, name, "pjreddie")))
        for name in MODELS
        for engine in ("darknet", "opencv")
        if refusal(engine, open_real(shared, name, "pjreddie"))
    }
    assert set(refused) == {("mnv2-yolo-fastest-voc-v2-se", "darknet"), ("mnv2-yolov3-nano-coco", "darknet")}
    assert "voc-v2.cfg:517: [scale_channels] is unknown to it" in refused["mnv2-yolo-fastest-voc-v2-se", "darknet"]
    assert "Nano-coco.cfg:568: scale_x_y=1.1 is ignored by it" in refused["mnv2-yolov3-nano-coco", "darknet"]


# ------------------------------------------------------------------------------------------- all layers, as they come


def assert_every_layer(reference: Reference, worst: bool) -> None:
    """In PyTorch, and in the folded ONNX graph. worst: judge the largest difference, not the mean one alone."""
    heads = heads_of(reference.model)
    for runner in (TorchRunner, OnnxRunner):
        with runner(reference.model) as engine:
            outputs = engine.run(reference.x)
        for row in compare_layers(reference.model, reference.layers, outputs):
            theirs = reference.layers[row.index].astype(np.float64)
            mean = np.sqrt(np.square(outputs[row.index] - theirs).mean()) / theirs.std()
            told = (reference.engine, engine.name, str(row), mean)
            assert mean <= LAYER_LIMIT / 10, told
            if worst:
                assert row.max_over_std <= LAYER_LIMIT, told
                assert row.index not in heads or row.max_abs <= HEAD_LIMIT, told


def test_every_layer(references: list[Reference]) -> None:
    """In the deep ones, of 82 to 131 layers, the roundings of Darknet alone reach 2.4e-4 std of what float64 gives."""
    for reference in references:
        assert_every_layer(reference, worst=len(reference.model.network.layers) not in (82, 131))


# --------------------------------------------------------------------------------------------------------------- boxes


def assert_same_boxes(reference: Reference) -> None:
    for runner in (TorchRunner, OnnxRunner):
        with runner(reference.model) as engine:
            for thresh, boxes in reference.boxes.items():
                found = match(boxes, engine.detect(photo(reference.picture), thresh))
                told = (reference.engine, engine.name, thresh, found.max_offset_px, found.max_dscore)
                assert found.same(BOX_LIMIT_PX, SCORE_LIMIT), told
    assert len(reference.boxes[0.25]) > 0


def test_boxes(references: list[Reference]) -> None:
    assert references
    for reference in references:
        assert_same_boxes(reference)


@pytest.mark.parametrize("picture", ["person", "kite", "eagle", "giraffe", "horses"])
def test_yolov3_tiny_on_the_other_photographs(shared: Path, picture: str) -> None:
    (darknet,) = ask_references(open_real(shared, "yolov3-tiny", "pjreddie"), picture, ("darknet",))
    assert_every_layer(darknet, worst=True)
    assert_same_boxes(darknet)


# ------------------------------------------------------------------------------------ AlexeyAB's Darknet, as printed

NUMBER = r" *(-?\d+) *"
PRINTED = rf"^(.+):{NUMBER}%\s*\(left_x:{NUMBER}top_y:{NUMBER}width:{NUMBER}height:{NUMBER}\)$"
DECODE_WITH_STB = """
import ctypes, sys, numpy
class Image(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int) for n in "whc"] + [("data", ctypes.POINTER(ctypes.c_float))]
load = ctypes.CDLL("/usr/lib/darknet/libdarknet.so").load_image_stb
load.restype, load.argtypes = Image, [ctypes.c_char_p, ctypes.c_int]
image = load(sys.argv[1].encode(), 3)
chw = numpy.ctypeslib.as_array(image.data, (image.c, image.h, image.w))
numpy.save(sys.argv[2], numpy.round(chw * 255).astype(numpy.uint8).transpose(1, 2, 0))
"""


@pytest.fixture(scope="module")
def dog_as_stb_decodes_it(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """AlexeyAB's binary was built without OpenCV: its JPEG decoder is stb_image, which rounds otherwise."""
    path = tmp_path_factory.mktemp("stb") / "dog.npy"
    subprocess.run([sys.executable, "-c", DECODE_WITH_STB, str(PHOTOS / "dog.jpg"), str(path)], check=True)
    picture: Picture = np.load(path)
    difference = np.abs(picture.astype(int) - photo("dog"))
    assert 0 < difference.max() <= 3
    return picture


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mnv2-yolo-fastest-voc-v2-se", 5), ("mnv2-yolov3-nano-coco", 5), ("yolo-fastest-1.1-body", 0),
        ("yolo-fastest-1.1-coco", 8), ("yolo-fastest-1.1-xl-coco", 5), ("yoloface-500k-v1", 0), ("yoloface-50k", 5),
    ],
)  # fmt: skip
def test_what_alexeyab_s_darknet_printed(shared: Path, name: str, count: int, dog_as_stb_decodes_it: Picture) -> None:
    """`detector test ... dog.jpg -ext_output`, with whole pixels and percent: half of one is the limit."""
    text = (shared / "models" / name / "golden" / "dog_alexey.txt").read_text()
    printed = [(word, *map(int, numbers)) for word, *numbers in re.findall(PRINTED, text, re.MULTILINE)]
    assert len(printed) == count
    model = open_real(shared, name, "alexeyab")
    with TorchRunner(model) as engine:
        found = engine.detect(dog_as_stb_decodes_it, model.thresh)
    numbers = np.column_stack([found.scores * 100, found.xyxy[:, :2], found.boxes[:, 2:]]).tolist()
    own = [(model.name_of(int(k)), row) for k, row in zip(found.classes, numbers, strict=True)]
    assert sorted(word for word, _ in own) == sorted(word for word, *_ in printed)
    for word, *row in printed:
        nearest = min((np.abs(np.subtract(other, row)).max() for name_, other in own if name_ == word))
        assert nearest <= 0.51, (word, row, own)
