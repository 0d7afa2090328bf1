"""`[detection]`, `[Gaussian_yolo]` and a `[region]` with a tree: boxes against Darknet's loops, and the ONNX file's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from slow_layers import conv, logistic, net, run
from test_rare_layers import small_model

from workbench.errors import OptionError
from workbench.layers.tree import Tree
from workbench.model import Model, open_model
from workbench.onnx_model import INPUT, OnnxOptions, build_graph, default_options, write_onnx
from workbench.runners import open_runner
from workbench.runners.onnxruntime import open_session
from workbench.weights import write_weights

DETECTION = "[detection]\nclasses=3\ncoords=4\nside=4\nnum=2\nsqrt={}\nsoftmax={}\n"
V1 = net(2, 6, 8) + "[connected]\noutput=208\nactivation=linear\n" + DETECTION
GAUSS = net(2, 16, 24) + conv(22, size=8, stride=8) + "[Gaussian_yolo]\nmask=0,2\nclasses=2\nnum=3\n"
GAUSS += "anchors=10,14, 23,27, 37,58\nscale_x_y=1.1\nyolo_point={}\n"
TEXTS = {
    "detection": V1.format(1, 0),
    "detection, softmax": V1.format(0, 1),
    "gaussian": GAUSS.format("center"),
    "gaussian left_top": GAUSS.format("left_top"),
}


def head_output(model: Model, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    network = model.network
    shape = (1, network.channels, network.height, network.width)
    x = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    return x, run("torch", model, x)[len(network.layers) - 1][0]


@pytest.mark.parametrize("sqrt", [0, 1])
def test_yolo_v1_boxes(sqrt: int) -> None:
    """get_detection_detections: classes of all cells, then confidences, then boxes."""
    model = small_model(V1.format(sqrt, 0))
    output, thresh = head_output(model)[1].ravel().astype(np.float64), 0.1
    boxes, objectness, probabilities = model.network.heads[0].decode(
        output.astype(np.float32).reshape(208, 1, 1), 8, 6, thresh, model.dialect
    )
    assert len(boxes) == 32
    for i in range(16):
        for n in range(2):
            row, scale = i * 2 + n, output[16 * 3 + i * 2 + n]
            x, y, w, h = output[16 * 5 + row * 4 : 16 * 5 + row * 4 + 4]
            expected = [(x + i % 4) / 4, (y + i // 4) / 4, w**2 if sqrt else w, h**2 if sqrt else h]
            assert np.allclose(boxes[row], expected, rtol=1e-6, atol=1e-7)
            assert objectness[row] == np.float32(scale)
            scores = [scale * p if scale * p > thresh else 0 for p in output[i * 3 : i * 3 + 3]]
            assert np.allclose(probabilities[row], scores, rtol=1e-6)


def test_yolo_v1_stretches_pictures_in_every_dialect() -> None:
    assert not small_model(V1.format(1, 0), "pjreddie").preprocessing.letterbox
    assert small_model(GAUSS.format("center"), "pjreddie").preprocessing.letterbox


@pytest.mark.parametrize(("point", "shift"), [("center", 0.0), ("left_top", 0.5), ("right_bottom", -0.5)])
def test_gaussian_boxes(point: str, shift: float) -> None:
    """get_gaussian_yolo_detections: x, its sigma, y, its sigma, w, its sigma, h, its sigma, objectness, classes."""
    model = small_model(GAUSS.format(point))
    x, output = head_output(model)
    raw = run("torch", model, x)[0][0].astype(np.float64)
    found, row = model.network.heads[0].decode(output, 24, 16, 0.3, model.dialect), 0
    for i in range(2):
        for j in range(3):
            for n, anchor in enumerate(((10, 14), (37, 58))):
                t = raw[n * 11 : n * 11 + 11, i, j]
                s = logistic(t)
                if not s[8] > 0.3:
                    continue
                size = [np.exp(t[4]) * anchor[0] / 24, np.exp(t[6]) * anchor[1] / 16]
                centre = [(j + s[0] * 1.1 - 0.05) / 3 + shift * size[0], (i + s[2] * 1.1 - 0.05) / 2 + shift * size[1]]
                assert np.allclose(found.boxes[row], centre + size, rtol=1e-5)
                scores = s[8] * s[9:] * (1 - s[1:8:2].mean())
                assert np.allclose(found.probabilities[row], np.where(scores > 0.3, scores, 0), rtol=1e-5)
                row += 1
    assert row == len(found.boxes) > 3


@pytest.mark.parametrize("name", TEXTS)
def test_onnx_boxes(name: str, tmp_path: Path) -> None:
    """The decoded file answers what the decoding in numpy makes of the torch model's output."""
    model, path = small_model(TEXTS[name]), tmp_path / "a.onnx"
    write_onnx(build_graph(model, OnnxOptions("decoded")), path)
    onnx.checker.check_model(str(path), full_check=True)
    x, output = head_output(model)
    boxes, scores = open_session(path).run(["boxes", "scores"], {INPUT: np.concatenate([x, x * 0])})
    rows = model.candidates({len(model.network.layers) - 1: output}, -np.inf)
    pixels = rows.boxes * np.array([model.network.width, model.network.height] * 2)
    expected = np.concatenate([pixels[:, :2] - pixels[:, 2:] / 2, pixels[:, :2] + pixels[:, 2:] / 2], 1)
    assert boxes.shape[0] == 2 and np.abs(boxes[0] - expected).max() <= 2e-5 * np.abs(expected).max()
    assert np.abs(scores[0] - rows.probabilities).max() <= 2e-6 * max(1, np.abs(rows.probabilities).max())


TREE = "thing -1\nanimal 0\ncar 0\ndog 1\ncat 1\nbird 1\n"
"""thing > (animal > (dog, cat, bird), car)"""


def test_walking_down_a_tree_by_hand() -> None:
    tree = Tree.parse(TREE, "a.tree")
    assert tree.groups == ((0, 1), (1, 3), (3, 6))
    within = np.array([1, 0.9, 0.1, 0.7, 0.2, 0.1], np.float32)
    absolute = tree.absolute(within)
    assert np.allclose(absolute, [1, 0.9, 0.1, 0.63, 0.18, 0.09])
    # thing 1 > .5; animal 1 * .9 > .5; dog .9 * .63 = .567 > .5: a dog.
    assert tree.top(absolute, 0.5) == 3
    # .9 * .63 is not above .6: an animal, although .63 is; Darknet multiplies twice.
    assert tree.top(absolute, 0.6) == 1


@pytest.mark.parametrize("dialect", ["alexeyab", "pjreddie"])
def test_region_with_a_tree(dialect: str, tmp_path: Path) -> None:
    region = "[region]\nanchors=1.5,2, 3,4\nnum=2\nclasses=6\ncoords=4\nsoftmax=1\ntree=a.tree\n"
    text = net(2, 8, 12) + conv(22, size=4, stride=4) + region
    (tmp_path / "a.tree").write_text(TREE)
    (tmp_path / "a.cfg").write_text(text)
    plain = small_model(text.replace("tree=a.tree\n", ""), dialect)
    write_weights(plain.weights, tmp_path / "a.weights")
    model = open_model(tmp_path / "a.cfg", tmp_path / "a.weights", dialect=dialect)
    x, output = head_output(model)
    raw = run("torch", model, x)[0][0].astype(np.float64).reshape(2, 11, 2, 3)
    e = np.exp(raw[:, 5:])
    softmax = np.concatenate([e[:, a:b] / e[:, a:b].sum(1, keepdims=True) for a, b in ((0, 1), (1, 3), (3, 6))], 1)
    flat = output.reshape(2, 3, 2, 11).transpose(2, 3, 0, 1) if dialect == "alexeyab" else output.reshape(2, 11, 2, 3)
    assert np.abs(flat[:, 5:] - softmax).max() <= 1e-6
    assert np.abs(run("onnx17", model, x)[1][0] - output).max() <= 2e-6
    boxes = model.network.heads[0].decode(output, 12, 8, 0.2, model.dialect)
    assert ((boxes.probabilities > 0).sum(1) == 1).all() and len(boxes.boxes) > 2
    assert np.array_equal(boxes.probabilities.max(1), boxes.objectness)
    assert default_options(model).outputs == "raw"
    with pytest.raises(OptionError, match="a tree of classes is walked box by box, which ONNX cannot say"):
        build_graph(replace(model), OnnxOptions("decoded"))


@pytest.mark.parametrize(("sqrt", "softmax"), [(0, 0), (1, 0), (1, 1)])
def test_yolo_v1_boxes_of_real_darknet(sqrt: int, softmax: int, darknet: Path) -> None:
    """Its own boxes in pixels of a picture of another shape: stretched, and neither letterboxed nor relative."""
    model = small_model(V1.format(sqrt, softmax).replace("channels=2", "channels=3"), "pjreddie")
    picture = np.random.default_rng(2).integers(0, 256, (30, 50, 3), np.uint8)
    with open_runner("darknet", model) as reference, open_runner("torch", model) as candidate:
        theirs, ours = reference.detect(picture, 0.1), candidate.detect(picture, 0.1)
    assert len(theirs) == len(ours) > 3
    # Side by side, not by overlap: without sqrt=1 random widths are negative.
    assert np.array_equal(theirs.classes, ours.classes)
    assert np.abs(theirs.boxes - ours.boxes).max() <= 1e-3
    assert np.abs(theirs.scores - ours.scores).max() <= 1e-5


def test_what_is_written_by_default(tmp_path: Path) -> None:
    """Boxes where there is a head, what the last computing layer puts out where there is none."""
    classifier = small_model("[net]\ninputs=5\n[connected]\noutput=3\n[softmax]\n[cost]\ntype=sse\n")
    assert default_options(classifier).outputs == "raw"
    assert list(build_graph(classifier).output_layers.values()) == [1]
    assert default_options(small_model(TEXTS["gaussian"])).outputs == "decoded"
