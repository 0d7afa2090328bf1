"""What an ONNX file answers: Darknet's boxes and scores, OpenCV's suppression, and what the other road gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from engine_models import random_input, random_model
from numpy.typing import NDArray
from onnx_samples import REGION, TEXT, answer, calm, write

from workbench.model import Model
from workbench.onnx_model import OnnxOptions
from workbench.runners.torch import TorchRunner
from workbench.traced import compare_roads


@pytest.fixture(scope="module")
def model() -> Model:
    return calm(random_model(TEXT, "alexeyab"), 7, 13)


def darknet_rows(model: Model, x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes x1 y1 x2 y2 in pixels of the input and probabilities, from the heads' outputs, cell by cell."""
    boxes, scores = [], []
    with TorchRunner(model) as runner:
        outputs = runner.run_layers(x, [head.index for head in model.network.heads])
    for head in model.network.heads:
        y = outputs[head.index][0].astype(np.float64)
        if head.kind == "region" and model.dialect.region_flattened:
            y = y.reshape(*y.shape[1:], y.shape[0]).transpose(2, 0, 1)
            y.reshape(2, head.entries, *y.shape[1:])[:, :2] = 1 / (
                1 + np.exp(-y.reshape(2, head.entries, *y.shape[1:])[:, :2])
            )
        _, h, w = y.shape
        unit = (model.network.width / w, model.network.height / h) if head.kind == "region" else (1, 1)
        for row, column in np.ndindex(h, w):
            for a, (anchor_w, anchor_h) in enumerate(head.anchors):
                t = y[a * head.entries : (a + 1) * head.entries, row, column]
                cx, cy = (column + t[0]) * model.network.width / w, (row + t[1]) * model.network.height / h
                bw, bh = np.exp(t[2]) * anchor_w * unit[0], np.exp(t[3]) * anchor_h * unit[1]
                boxes.append([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2])
                scores.append(t[4] * t[5:])
    return np.array(boxes), np.array(scores)


@pytest.mark.parametrize("size", [None, (64, 32)])
@pytest.mark.parametrize("dialect", ["pjreddie", "alexeyab"])
@pytest.mark.parametrize("text", [TEXT.replace("groups=2\ngroup_id=1\n", ""), REGION], ids=["yolo", "region"])
def test_decoded(tmp_path: Path, text: str, dialect: str, size: tuple[int, int] | None) -> None:
    decoding = random_model(text, dialect)
    sized = decoding.at_size(*size) if size else decoding
    x = random_input(sized, batch=2)
    write(decoding, tmp_path / "a.onnx", OnnxOptions(size=size))
    found = answer(tmp_path / "a.onnx", x)
    for n in range(2):
        boxes, scores = darknet_rows(sized, x[n : n + 1])
        np.testing.assert_allclose(found["boxes"][n], boxes, rtol=2e-5, atol=2e-4)
        np.testing.assert_allclose(found["scores"][n], scores, rtol=2e-5, atol=1e-6)


def test_scale_x_y_and_new_coords_are_decoded(tmp_path: Path) -> None:
    """A head of one cell by hand: raw numbers are the biases, because the weights are 0."""
    text = "[net]\nwidth=32\nheight=32\nchannels=1\n[convolutional]\nfilters=6\nsize=32\nstride=32\nactivation={}\n"
    yolo = "[yolo]\nanchors=16,8\nclasses=1\nnum=1\nscale_x_y=1.2\n"
    raw = np.array([0.5, 0.25, 0.75, 0.5, 0.8, 0.5], np.float32)
    for options, boxes, score in (
        # new_coords: x = 1.2*.5 - .1 = .5 -> 16, y = 1.2*.25 - .1 = .2 -> 6.4; w = (2*.75)^2 * 16 = 36, h = 1 * 8
        ("new_coords=1\n", [16 - 18, 6.4 - 4, 16 + 18, 6.4 + 4], 0.4),
        # else logistic(.5) = .6224593 -> (.7469512 - .1) * 32 = 20.702438; logistic(.25) = .5621765 -> 18.387578;
        # w = e^.75 * 16 = 33.872, h = e^.5 * 8 = 13.18977; logistic(.8) * logistic(.5) = .6899745 * .6224593
        ("", [20.702438 - 16.936, 18.387578 - 6.594885, 20.702438 + 16.936, 18.387578 + 6.594885], 0.4294811),
    ):
        model = random_model(text.format("linear") + yolo + options, "alexeyab")
        tensors = {(0, "weights"): np.zeros((6, 1, 32, 32), np.float32), (0, "biases"): raw}
        write(replace(model, weights=model.weights.replacing(tensors)), tmp_path / "a.onnx")
        found = answer(tmp_path / "a.onnx", random_input(model))
        np.testing.assert_allclose(found["boxes"][0, 0], boxes, rtol=1e-5)
        np.testing.assert_allclose(found["scores"][0, 0], [score], rtol=1e-5)


@pytest.mark.parametrize("thresh", [None, 0.4])
def test_nms_is_opencv_s(model: Model, tmp_path: Path, thresh: float | None) -> None:
    """cv2.dnn.NMSBoxes class by class: plain IoU of 0.45, as ONNX's NonMaxSuppression."""
    x = random_input(model, batch=2)
    write(model, tmp_path / "decoded.onnx")
    write(model, tmp_path / "nms.onnx", OnnxOptions("nms", thresh=thresh))
    decoded = answer(tmp_path / "decoded.onnx", x)
    found = answer(tmp_path / "nms.onnx", x)["detections"]
    expected = []
    for n in range(2):
        corners = decoded["boxes"][n].astype(np.float64)
        rectangles = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
        for k in range(3):
            scores = decoded["scores"][n, :, k]
            kept = cv2.dnn.NMSBoxes(rectangles, scores.tolist(), model.thresh if thresh is None else thresh, 0.45)
            expected += [[n, k, scores[i], *decoded["boxes"][n, i]] for i in kept]
    assert found.dtype == np.float32
    assert 10 < len(expected) < decoded["scores"].size / 3
    order = np.lexsort(found.T[::-1]), np.lexsort(np.array(expected).T[::-1])
    np.testing.assert_allclose(found[order[0]], np.array(expected)[order[1]], rtol=1e-6)


def test_nothing_above_the_threshold_is_no_row(model: Model, tmp_path: Path) -> None:
    write(model, tmp_path / "nms.onnx", OnnxOptions("nms", thresh=0.999))
    assert answer(tmp_path / "nms.onnx", random_input(model))["detections"].shape == (0, 7)


# ----------------------------------------------------------------------------------------------------- the other road


def test_both_roads_lead_to_the_same_numbers(model: Model) -> None:
    worst, where, nodes = compare_roads(model, random_input(model), 18)
    assert worst <= 2e-6, where
    assert nodes > len({layer.kind for layer in model.network.layers})
