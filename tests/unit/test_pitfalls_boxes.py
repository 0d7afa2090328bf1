"""Pictures and boxes with mistakes, written a second time with OpenCV, Pillow and plain loops: equal numbers."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from engine_models import random_input
from numpy.typing import NDArray
from PIL import Image
from pitfall_models import Picture, open_menagerie

from workbench.layers.base import Float32
from workbench.layers.yolo import Yolo
from workbench.pitfalls import switch_on
from workbench.runners.torch import TorchRunner


@pytest.fixture(scope="module")
def picture() -> Picture:
    """60 x 40 pixels of smoothed noise: 64 x 48 letterboxes it to 64 x 42, three rows of margin on each side."""
    noise = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (5, 5), 0))


# ------------------------------------------------------------------------------------------------------ pictures


def test_pictures_are_those_of_opencv_and_pillow(picture: Picture) -> None:
    model = open_menagerie()  # 64 x 48, stretched

    def check(name: str, expected: NDArray[Any]) -> None:
        x = switch_on(model, name).preprocessing.apply(picture)
        assert x.dtype == np.float32 and x.flags.c_contiguous
        np.testing.assert_allclose(x, expected, atol=3e-7)

    own = model.preprocessing.apply(picture)
    check("bgr", own[::-1])
    check("not-divided", own * 255)
    check("divided-by-225", own * np.float32(255 / 225))
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32).reshape(2, 3, 1, 1)
    check("imagenet-normalised", (own - mean) / std)
    check("hwc", np.ascontiguousarray(own.transpose(1, 2, 0)).ravel().reshape(3, 48, 64))
    scaled = picture.astype(np.float32) / 255
    check("resize-half-pixel", cv2.resize(scaled, (64, 48), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1))
    check("resize-nearest", cv2.resize(scaled, (64, 48), interpolation=cv2.INTER_NEAREST).transpose(2, 0, 1))
    pillow = np.asarray(Image.fromarray(picture).resize((64, 48), Image.Resampling.BILINEAR), np.float32) / 255
    check("resize-antialiased", pillow.transpose(2, 0, 1))


def test_letterboxes_lie_where_they_are_said_to_lie(picture: Picture) -> None:
    """60 x 40 in 64 x 48: 64 x 42 and margins of 3. 60 x 37: 64 x 39.47, cut off to 39, and a margin of 9: 4 above."""
    model = switch_on(open_menagerie(), "letterbox")
    own = model.preprocessing.apply(picture)
    assert (own[:, :3] == 0.5).all() and (own[:, 45:] == 0.5).all()
    corner = switch_on(model, "letterbox-corner").preprocessing.apply(picture)
    np.testing.assert_array_equal(corner, np.concatenate([own[:, 3:], own[:, :3]], 1))
    black = switch_on(model, "letterbox-fill-0").preprocessing.apply(picture)
    np.testing.assert_array_equal(black[:, 3:45], own[:, 3:45])
    assert not black[:, :3].any() and not black[:, 45:].any()
    rounded = switch_on(model, "letterbox-rounded").preprocessing.placement(60, 37)
    assert (rounded.new_w, rounded.new_h) == (64, 39)
    assert switch_on(model, "letterbox-rounded").preprocessing.placement(60, 38).new_h == round(64 * 38 / 60) == 41
    assert model.preprocessing.placement(60, 38).new_h == 40
    box = np.array([[0.5, 0.5, 0.25, 0.25]], np.float32)
    both = model, switch_on(model, "letterbox-tidy-margin")
    own_box, tidy = (m.preprocessing.placement(60, 37).to_picture(box) for m in both)
    np.testing.assert_allclose(tidy - own_box, [[0, 0.5 / 39 * 37, 0, 0]], atol=1e-5)


def test_boxes_come_back_wrongly_by_the_formula(picture: Picture) -> None:
    stretched = open_menagerie()
    model = switch_on(stretched, "letterbox")
    box = np.array([[0.4, 0.3, 0.2, 0.1]], np.float32)

    def back(name: str) -> list[float]:
        return [round(float(v), 4) for v in switch_on(model, name).preprocessing.placement(60, 40).to_picture(box)[0]]

    inside = 42 / 48
    assert back("letterbox-uncorrected") == [24.0, 12.0, 12.0, 4.0]
    assert back("boxes-in-network-pixels") == [25.6, 14.4, 12.8, 4.8]
    assert back("letterbox-fill-0") == [24.0, round((0.3 - 3 / 48) / inside * 40, 4), 12.0, round(0.1 / inside * 40, 4)]
    assert back("letterbox-corner") == [24.0, round(0.3 / inside * 40, 4), 12.0, round(0.1 / inside * 40, 4)]
    wrong = switch_on(stretched, "stretch-corrected-as-letterbox")
    np.testing.assert_array_equal(wrong.preprocessing.apply(picture), stretched.preprocessing.apply(picture))
    assert [round(float(v), 4) for v in wrong.preprocessing.placement(60, 40).to_picture(box)[0]] == back(
        "letterbox-fill-0"
    )


# ------------------------------------------------------------------------------------------------------ decoding


def decode_in_loops(
    head: Float32, anchors: list[tuple[float, float]], thresh: float, mistake: str
) -> list[list[float]]:
    """Boxes x, y, w, h, probabilities of layer 12 (7 fields, 64 x 48) as a beginner's loop makes them."""
    found = []
    _, rows, columns = head.shape
    for row in range(rows):
        for column in range(columns):
            for a, (w, h) in enumerate(anchors):
                x, y, tw, th, objectness, *classes = head[a * 7 : a * 7 + 7, row, column].astype(float)
                if mistake == "anchors-swapped":
                    w, h = h, w
                if mistake == "anchors-in-cells":
                    w, h = w / (64 / columns), h / (48 / rows)
                i, j = (row, column) if mistake == "grid-transposed" else (column, row)
                box = [(i + x) / columns, (j + y) / rows, math.exp(tw) * w / 64, math.exp(th) * h / 48]
                scores = [objectness * value for value in classes]
                if mistake == "probability-without-objectness":
                    scores = classes
                if mistake == "objectness-as-probability":
                    scores = [objectness if value == max(classes) else 0.0 for value in classes]
                if objectness > thresh:
                    found.append([*box, *(value if value > thresh else 0.0 for value in scores)])
    return sorted(found)


ANCHORS = [(5, 9), (12, 7), (14, 20), (22, 31), (40, 24), (50, 45)]
V3 = [(10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119)]


@pytest.mark.parametrize(
    ("name", "anchors"),
    [
        ("anchors-swapped", ANCHORS[3:]),
        ("anchors-in-cells", ANCHORS[3:]),
        ("grid-transposed", ANCHORS[3:]),
        ("probability-without-objectness", ANCHORS[3:]),
        ("objectness-as-probability", ANCHORS[3:]),
        ("masks-exchanged", ANCHORS[1:4]),
        ("anchors-of-another-cfg", V3[3:]),
    ],
)
def test_boxes_are_those_of_a_loop_with_the_same_mistake(name: str, anchors: list[tuple[float, float]]) -> None:
    model = open_menagerie()
    output = TorchRunner(model).run(random_input(model))[12][0]
    head = switch_on(model, name).network.layers[12]
    assert isinstance(head, Yolo)
    found = head.decode(output, 64, 48, 0.4, model.dialect)
    rows = sorted(np.concatenate([found.boxes, found.probabilities], 1).astype(float).tolist())
    expected = decode_in_loops(output, anchors, 0.4, name)
    assert len(rows) == len(expected) > 10
    np.testing.assert_allclose(np.array(rows), np.array(expected), rtol=2e-6, atol=1e-7)
