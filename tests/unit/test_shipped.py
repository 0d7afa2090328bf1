"""What ships: the drawn pictures are those that data/draw.py draws, and the detectors find the objects in new ones.

The judges are not ours: real Darknet and OpenCV run the models, pycocotools counts.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.draw import (
    HELD_OUT,
    PICTURES,
    SHIPPED,
    SHIPPED_PICTURES,
    Scene,
    draw_scene,
    encode_picture,
    held_out,
    scene_labels,
)
from data.evaluate import measure_map
from data.raster import fill_rings
from data.shapes import NAMES, inset
from data.train import DIALECTS, FOLDER
from workbench.model import Model, open_model
from workbench.runners import darknet as darknet_runner
from workbench.runners import open_runner, opencv

MODELS = tuple(DIALECTS)
BAR = 0.95
"""mAP@.5 that a shipped detector reaches at least."""


def open_shipped(name: str) -> Model:
    """The shipped model `name` in the dialect it was trained for."""
    return open_model(FOLDER / f"{name}.cfg", FOLDER / f"{name}.weights", dialect=DIALECTS[name])


# ------------------------------------------------------------------------------------------------------- drawing


def test_a_square_on_pixel_borders_fills_its_pixels_and_half_pixels_half() -> None:
    picture = np.zeros((4, 4, 3), np.float32)
    ring = np.array([(1.0, 1.0), (3.5, 1.0), (3.5, 2.5), (1.0, 2.5)])
    fill_rings(picture, [ring], np.ones(3, np.float32))
    by_hand = np.array([[0, 0, 0, 0], [0, 1, 1, 0.5], [0, 0.5, 0.5, 0.25], [0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(picture[:, :, 0], by_hand)


def test_a_ring_of_the_other_direction_is_a_hole() -> None:
    outer = np.array([(0.0, 0.0), (40.0, 0.0), (40.0, 40.0), (0.0, 40.0)])
    picture = np.zeros((40, 40, 3), np.float32)
    fill_rings(picture, [outer, inset(outer, 0.5)[::-1]], np.ones(3, np.float32))
    assert picture[:, :, 0].sum() == 40 * 40 - 20 * 20
    assert picture[20, 20, 0] == 0


def test_a_scene_has_the_same_bytes_every_time() -> None:
    digests = {hashlib.sha256(draw_scene(HELD_OUT, 7).picture.tobytes()).hexdigest() for _ in range(2)}
    assert len(digests) == 1
    assert digests != {hashlib.sha256(draw_scene(HELD_OUT, 8).picture.tobytes()).hexdigest()}


def test_boxes_lie_inside_the_picture_and_touch_what_was_painted() -> None:
    for scene in held_out(5):
        height, width = scene.picture.shape[:2]
        left, top, right, bottom = scene.boxes.T
        assert (left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all()
        assert (right - left > 0.04 * max(width, height)).all()
        assert len(scene.classes) == len(scene.boxes) > 0
        assert scene.classes.max() < len(NAMES)


@pytest.mark.parametrize("name", SHIPPED_PICTURES)
def test_a_shipped_picture_is_what_is_drawn(name: str) -> None:
    index, size = SHIPPED_PICTURES[name]
    scene = draw_scene(SHIPPED, index, size)
    shipped = np.asarray(Image.open(PICTURES / name).convert("RGB"))
    assert shipped.shape == scene.picture.shape == (size[1], size[0], 3)
    encoded = np.asarray(Image.open(io.BytesIO(encode_picture(scene.picture, name))))
    difference = np.abs(shipped.astype(int) - encoded)
    # PNG keeps every byte; the JPEG codec of another machine may round a value the other way.
    assert difference.max() <= (0 if name.endswith(".png") else 3)
    assert np.abs(encoded.astype(int) - scene.picture).mean() <= (0 if name.endswith(".png") else 8)
    assert json.loads((PICTURES / "labels.json").read_text(encoding="utf-8"))[name] == scene_labels(scene)


def test_the_pictures_are_odd_small_and_complete() -> None:
    files = {path.name for path in PICTURES.iterdir()}
    assert files == {*SHIPPED_PICTURES, "labels.json"}
    assert sum(path.stat().st_size for path in PICTURES.iterdir()) < 1_200_000
    labels = json.loads((PICTURES / "labels.json").read_text(encoding="utf-8"))
    assert {each["class"] for label in labels.values() for each in label["objects"]} == set(NAMES)
    assert min(len(label["objects"]) for label in labels.values()) >= 5


# ------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_small_whole_and_named(name: str) -> None:
    model = open_shipped(name)
    assert model.weights.size <= 1_500_000
    assert model.weights.findings() == []
    assert model.names == NAMES
    assert model.weights.header.seen > 0


@pytest.mark.parametrize("name", MODELS)
def test_no_channel_is_dead(name: str) -> None:
    """A dead channel has no variance, and then the epsilon of the fork decides its output."""
    model = open_shipped(name)
    variances = [model.weights[s.layer, s.field] for s in model.weights.ledger.spans if s.field == "rolling_variance"]
    assert min(float(values.min()) for values in variances) > 1e-3


def test_tiny3_holds_what_darknet_of_2018_knows() -> None:
    model = open_shipped("shapes-tiny3")
    text = model.cfg_text
    assert {"[maxpool]\nsize=2\nstride=2\n", "[maxpool]\nsize=2\nstride=1\n"} <= set(find_sections(text, "maxpool"))
    kinds = [layer.kind for layer in model.network.layers]
    assert {"convolutional", "maxpool", "route", "upsample", "shortcut", "yolo"} == set(kinds)
    assert kinds.count("yolo") == 2 and "activation=leaky" in text
    assert darknet_runner.refusal(model) in (None, darknet_runner.missing())


def test_tiny4_holds_what_alexeyab_added() -> None:
    model = open_shipped("shapes-tiny4")
    text = model.cfg_text
    for word in (
        "activation=mish",
        "groups=2\ngroup_id=1",
        "scale_x_y=1.05",
        "nms_kind=greedynms",
        "layers=-1,-3,-5,-6",
    ):
        assert word in text
    pools = find_sections(text, "maxpool")
    assert {f"[maxpool]\nsize={size}\nstride=1\n" for size in (3, 5, 9)} <= set(pools)
    assert model.network.width != model.network.height
    assert opencv.refusal(model) is None
    assert "groups" in str(darknet_runner.refusal(model)) or "mish" in str(darknet_runner.refusal(model))


def find_sections(text: str, kind: str) -> list[str]:
    """The sections of one kind, without their comments."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    sections = "\n".join(lines).split("\n[")
    return [f"[{section}\n" for section in sections if section.startswith(f"{kind}]")]


@pytest.fixture(scope="module")
def unseen() -> list[Scene]:
    """A hundred scenes that no training step has seen."""
    return list(held_out(100))


def test_tiny3_finds_the_objects_says_real_darknet(unseen: list[Scene], darknet: Path) -> None:
    with open_runner("darknet", open_shipped("shapes-tiny3")) as runner:
        assert measure_map(runner, unseen) >= BAR


def test_tiny4_finds_the_objects_says_opencv(unseen: list[Scene]) -> None:
    with open_runner("opencv", open_shipped("shapes-tiny4")) as runner:
        assert measure_map(runner, unseen) >= BAR


def test_exchanging_red_and_blue_exchanges_the_circles() -> None:
    """The two classes that differ in colour alone, so that BGR fed by mistake is seen."""
    scene = draw_scene(SHIPPED, *SHIPPED_PICTURES["clouds-333x250.png"])
    with open_runner("torch", open_shipped("shapes-tiny3")) as runner:
        right = runner.detect(scene.picture, 0.5).classes
        wrong = runner.detect(np.ascontiguousarray(scene.picture[:, :, ::-1]), 0.5).classes
    assert np.bincount(right, minlength=2)[:2].tolist() == np.bincount(scene.classes, minlength=2)[:2].tolist()
    assert np.bincount(wrong, minlength=2)[:2].tolist() == np.bincount(scene.classes, minlength=2)[:2][::-1].tolist()
