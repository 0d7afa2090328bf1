"""From a head's output to boxes, against Darknet's loops: `get_yolo_box`, `get_region_box` and their callers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_models import random_model
from numpy.typing import NDArray
from slow_layers import conv, logistic, net, run

from workbench.model import Model


def slow_boxes(model: Model, output: NDArray[np.float32], thresh: float) -> list[tuple[Any, ...]]:
    """get_yolo_box and get_region_box with their callers' loops: by place, then by anchor."""
    head: Any = model.network.heads[0]
    _, h, w = output.shape
    region, flattened = head.kind == "region", model.dialect.region_flattened
    rows = []
    for i in range(h * w):
        for n, (anchor_w, anchor_h) in enumerate(head.anchors):
            entry = [
                float(output.ravel()[(i * len(head.anchors) + n) * head.entries + e])
                if region and flattened
                else float(output[n * head.entries + e, i // w, i % w])
                for e in range(head.entries)
            ]
            if not entry[4] > thresh:
                continue
            tx, ty = (logistic(np.float64(v)) if region and flattened else v for v in entry[:2])
            x, y = (i % w + tx) / w, (i // w + ty) / h
            if region:
                bw, bh = np.exp(entry[2]) * anchor_w / w, np.exp(entry[3]) * anchor_h / h
            elif head.new_coords:
                bw, bh = (
                    entry[2] ** 2 * 4 * anchor_w / model.network.width,
                    entry[3] ** 2 * 4 * anchor_h / model.network.height,
                )
            else:
                bw, bh = (
                    np.exp(entry[2]) * anchor_w / model.network.width,
                    np.exp(entry[3]) * anchor_h / model.network.height,
                )
            scores = [entry[4] * p if entry[4] * p > thresh else 0 for p in entry[5:]]
            rows.append((x, y, bw, bh, entry[4], *scores))
    return rows


YOLO = "anchors=10,14, 23,27, 37,58\nnum=3\nclasses=2\n"
REGION = "[region]\nsoftmax=1\nanchors=1.5,2, 3,4\nnum=2\nclasses=3\ncoords=4\n"
HEADS = {
    "yolo": ("pjreddie", conv(14, size=8, stride=8) + "[yolo]\nmask=0,2\n" + YOLO),
    "scaled": ("alexeyab", conv(14, size=8, stride=8) + "[yolo]\nmask=0,2\nscale_x_y=1.2\n" + YOLO),
    "new_coords": ("alexeyab", conv(7, "logistic", size=8, stride=8) + "[yolo]\nmask=1\nnew_coords=1\n" + YOLO),
    "region": ("pjreddie", conv(16, size=8, stride=8) + REGION),
    "region flattened": ("alexeyab", conv(16, size=8, stride=8) + REGION),
}


@pytest.mark.parametrize("name", HEADS)
def test_decoding(name: str) -> None:
    dialect, text = HEADS[name]
    model = random_model(net(3, 24, 32) + text, dialect)
    x = np.random.default_rng(5).normal(0, 1, (1, 3, 24, 32)).astype(np.float32)
    head = model.network.heads[0]
    output = run("torch", model, x)[head.index][0]
    for thresh in (0.1, 0.5):
        boxes, objectness, probabilities = head.decode(output, 32, 24, thresh, model.dialect)
        expected = np.array(slow_boxes(model, output, thresh))
        assert len(expected) > 3
        assert boxes.dtype == objectness.dtype == probabilities.dtype == np.float32
        np.testing.assert_allclose(np.c_[boxes, objectness, probabilities], expected, rtol=2e-6, atol=1e-7)


def test_a_box_by_hand() -> None:
    """2x1 cells on 64x32 pixels, the right one: x = (1 + .25) / 2, y = .5 / 1, w = e^0 * 16 / 64, h = 2 * 8 / 32."""
    text = net(3, 32, 64) + conv(6, size=32, stride=32) + "[yolo]\nmask=1\nanchors=1,1, 16,8\nnum=2\nclasses=1\n"
    model = random_model(text)
    output = np.zeros((6, 1, 2), np.float32)
    output[:, 0, 1] = [0.25, 0.5, 0, np.log(2), 0.8, 0.5]
    boxes, objectness, probabilities = model.network.heads[0].decode(output, 64, 32, 0.3, model.dialect)
    np.testing.assert_allclose(boxes, [[0.625, 0.5, 0.25, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(np.c_[objectness, probabilities], [[0.8, 0.4]], rtol=1e-6)
