"""Pitfalls on the real yolov3-tiny: how many of real Darknet's boxes stay, how many are new, how far they move.

Every number was measured before this code existed, with separate scripts (PyTorch, OpenCV, Pillow) against Debian's
Darknet. A box is kept where one of its class overlaps it by half; the offset is that of the centres, in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import open_tiny
from numpy.typing import NDArray

from workbench.comparison import compare_layers
from workbench.detections import Candidates, Detections, match, select, suppress
from workbench.errors import RunnerFailed
from workbench.image import load_picture
from workbench.layers.base import Float32
from workbench.model import Model, open_model
from workbench.pitfalls import PITFALLS, switch_on
from workbench.runners import open_runner
from workbench.runners.torch import TorchRunner

PHOTOS = Path("/usr/share/darknet/data")
VIEWS = (("dog", 0.5), ("dog", 0.25), ("person", 0.5), ("kite", 0.5))
NOBODY = ("0 +0",) * 4

# Kept +new, and mean/largest offset in pixels as it was written down, for each of VIEWS.
TABLE: dict[str, tuple[str, str, str, str]] = {
    "maxpool-3-1-1": ("1 +1 44.7", "1 +1", "1 +1 39", "2 +1 1.9/2.7"),
    "route-reversed": ("3 +0", "4 +0", "3 +0", "0 +0"),
    "masks-exchanged": ("0 +6", "0 +8", "0 +5", "0 +2"),
    "mask-1-2-3": ("3 +1", "4 +0", "3 +0", "0 +2"),
    "anchors-swapped": ("3 +2 0/0", "4 +2 0/0", "3 +1 0/0", "2 +0"),
    "leaky-0.01": NOBODY,
    "bgr": ("3 +0 15.9/44", "5 +1 10/44", "4 +1 3.1/5.1", "2 +1 2.1/3.5"),
    "divided-by-225": ("4 +0 .9/1.7", "6 +0 1.1/1.7", "4 +0 .35/.7", "2 +1"),
    "not-divided": ("0 +101", "0 +105", "0 +48", "0 +65"),
    "stretch": ("3 +0 9.6/17", "6 +0 10/20", "3 +1 3.3/4.5", "2 +1 4.1/6.8"),
    "stretch-corrected-as-letterbox": ("1 +2 44", "2 +4", "1 +3", "0 +3"),
    "letterbox-uncorrected": ("2 +3 9.6/16", "2 +4", "2 +2", "0 +2"),
    "resize-nearest": ("5 +0 4.1/5.7", "6 +0 4.4/5.7", "4 +0 1.1/1.9", "2 +0 4.7/6.4"),
    "resize-half-pixel": ("4 +0 1.1/2.7", "6 +0 1.4/2.7", "4 +0 .5/.8", "2 +1 2.2/2.7"),
    "resize-antialiased": ("4 +0 1.4/2.9", "5 +0", "4 +0 .9/1.2", "2 +1 2.6/2.8"),
    "letterbox-fill-0": ("5 +0 .6/1.0", "6 +0", "4 +0 .9/2.4", "2 +1"),
    "weights-before-batchnorm": NOBODY,
    "header-16": NOBODY,
    "header-24": NOBODY,
    "upsample-bilinear": ("3 +0", "6 +0 .8/2.3", "4 +0 .5/2.2", "2 +0 .2/.3"),
    "epsilon-1e-3": ("5 +0 .03/.06", "6 +0", "4 +0 .04/.09", "2 +0 .1/.13"),
    "no-sigmoid-on-xy": ("5 +1 13/17", "6 +2", "1 +5", "0 +2"),
    "grid-transposed": ("1 +4", "1 +7", "0 +6", "0 +2"),
    "nms-missing": ("5 +1 0/0", "6 +3 0/0", "4 +2 0/0", "2 +0 0/0"),
}

# First layer that differs on dog.jpg, and by how many standard deviations; None: the decoding alone differs.
FIRST_LAYER: dict[str, tuple[int, str] | None] = {
    "maxpool-3-1-1": (11, "23"),
    "route-reversed": (20, "21"),
    "masks-exchanged": None,
    "mask-1-2-3": None,
    "anchors-swapped": None,
    "leaky-0.01": (0, "2.0"),
    "bgr": (0, "14"),
    "upsample-bilinear": (19, "3.2"),
    "epsilon-1e-3": (0, ".45"),
    "weights-before-batchnorm": (0, "inf"),
    "header-16": (0, "inf"),
    "letterbox-uncorrected": None,
    "grid-transposed": None,
    "nms-missing": None,
}


@pytest.fixture(scope="module")
def tiny(shared: Path) -> Model:
    return open_tiny(shared)


@pytest.fixture(scope="module")
def photos(darknet: Path) -> dict[str, NDArray[np.uint8]]:
    return {name: load_picture(PHOTOS / f"{name}.jpg") for name in ("dog", "person", "kite", "horses")}


@pytest.fixture(scope="module")
def truth(tiny: Model, photos: Mapping[str, NDArray[np.uint8]]) -> dict[tuple[str, float], Detections]:
    """What real Darknet finds."""
    with open_runner("darknet", tiny) as runner:
        return {view: runner.detect(photos[view[0]], view[1]) for view in (*VIEWS, ("horses", 0.25))}


@pytest.fixture(scope="module")
def healthy(tiny: Model, photos: Mapping[str, NDArray[np.uint8]]) -> dict[int, Float32]:
    """Every layer's output on dog.jpg."""
    return TorchRunner(tiny).run(tiny.preprocessing.apply(photos["dog"])[None])


def find(model: Model, photos: Mapping[str, NDArray[np.uint8]]) -> dict[tuple[str, float], Detections]:
    """The model's boxes for each of VIEWS; none where its heads answer NaN, which Darknet passes over in silence."""
    runner, heads = TorchRunner(model), [head.index for head in model.network.heads]
    found = {}
    for name in ("dog", "person", "kite"):
        outputs = runner.run_layers(model.preprocessing.apply(photos[name])[None], heads)
        place = model.preprocessing.placement(photos[name].shape[1], photos[name].shape[0])
        for view in (view for view in VIEWS if view[0] == name):
            found[view] = _detections(model, {i: y[0] for i, y in outputs.items()}, place, view[1])
    return found


def _detections(model: Model, outputs: dict[int, Float32], place: Any, thresh: float) -> Detections:
    try:
        return model.detections(outputs, place, thresh)
    except RunnerFailed as error:
        assert "no finite numbers" in str(error)
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


def assert_printed(number: float, printed: str) -> None:
    """Whether `number` rounds to what was written down, in its last place."""
    places = len(printed.partition(".")[2])
    assert abs(number - float(printed)) <= 0.5000001 * 10.0**-places, f"{number} is not {printed}"


def assert_as_written(reference: Detections, found: Detections, written: str) -> None:
    counts, offsets = written.split(" ")[:2], written.split(" ")[2:]
    matched = match(reference, found)
    assert [str(len(matched.pairs)), f"+{len(matched.only_candidate)}"] == counts
    moved = np.hypot(*matched.pairs.offsets[:, :2].T)
    if offsets:
        for number, printed in zip((moved.mean(), moved.max()), offsets[0].split("/"), strict=False):
            assert_printed(float(number), printed)


def test_without_a_mistake_all_boxes_are_those_of_darknet(
    tiny: Model, truth: Mapping[Any, Detections], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    found = find(switch_on(tiny), photos)
    assert [len(truth[view]) for view in VIEWS] == [5, 6, 4, 2]
    assert all(match(truth[view], found[view]).same(box_px=1e-3, score=1e-5) for view in VIEWS)


@pytest.mark.parametrize("name", TABLE)
def test_boxes_do_what_was_measured(
    name: str, tiny: Model, truth: Mapping[Any, Detections], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    assert PITFALLS[name].idle(tiny) is None
    found = find(switch_on(tiny, name), photos)
    for view, written in zip(VIEWS, TABLE[name], strict=True):
        assert_as_written(truth[view], found[view], written)


@pytest.mark.parametrize("name", FIRST_LAYER)
def test_the_first_layer_that_differs_is_the_one_measured(
    name: str, tiny: Model, healthy: Mapping[int, Float32], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    model = switch_on(tiny, name)
    rows = compare_layers(tiny, healthy, TorchRunner(model).run(model.preprocessing.apply(photos["dog"])[None]))
    first = next((row for row in rows if not row.max_over_std <= 1e-4), None)
    expected = FIRST_LAYER[name]
    if expected is None:
        assert first is None
    else:
        assert first is not None and first.index == expected[0]
        if expected[1] == "inf":
            assert first.max_over_std == np.inf
        else:
            assert_printed(first.max_over_std, expected[1])


@pytest.mark.parametrize(
    ("name", "over_std"), [("epsilon-1e-5-inside", "4.6e-3"), ("epsilon-1e-6-inside", "3.6e-4")]
)  # fmt: skip
def test_an_epsilon_shows_in_the_first_layer_and_not_in_the_boxes(
    name: str, over_std: str, tiny: Model, healthy: Mapping[int, Float32], truth: Mapping[Any, Detections],
    photos: Mapping[str, NDArray[np.uint8]],
) -> None:  # fmt: skip
    model = switch_on(tiny, name)
    outputs = TorchRunner(model).run(model.preprocessing.apply(photos["dog"])[None])
    first = compare_layers(tiny, healthy, outputs)[0]
    assert f"{first.max_over_std:.1e}".replace("e-0", "e-") == over_std
    found = find(model, photos)
    assert max(match(truth[view], found[view]).max_offset_px for view in VIEWS) < 0.01


def test_without_epsilon_and_with_the_trick_real_boxes_do_not_move(
    tiny: Model, truth: Mapping[Any, Detections], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    for name in ("epsilon-none", "variance-trick"):
        found = find(switch_on(tiny, name), photos)
        assert all(match(truth[view], found[view]).same(box_px=1e-3, score=1e-5) for view in VIEWS)


def test_the_file_shows_a_wrong_header_or_order_before_any_inference(tiny: Model) -> None:
    def negative(name: str) -> int:
        weights = switch_on(tiny, name).weights
        spans = [span for span in weights.ledger.spans if span.field == "rolling_variance"]
        return sum(int((weights[span.layer, span.field] < 0).sum()) for span in spans)

    assert {name: negative(name) for name in ("weights-before-batchnorm", "header-16", "header-24")} == {
        "weights-before-batchnorm": 1721, "header-16": 9, "header-24": 3,
    }  # fmt: skip
    assert switch_on(tiny, "header-16").weights.unread_bytes == 4
    assert "4 bytes are missing" in str(next(switch_on(tiny, "header-24").weights.structure()))


def test_a_shifted_mask_multiplies_each_size_by_the_ratio_of_its_anchors(
    tiny: Model, truth: Mapping[Any, Detections], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    """Anchor 0 -> 1, 1 -> 2, 2 -> 3 of 10,14 23,27 37,58 81,82."""
    reference, found = truth["dog", 0.5], find(switch_on(tiny, "mask-1-2-3"), photos)["dog", 0.5]
    ratios = {(2.3, 1.93), (1.61, 2.15), (2.19, 1.41)}
    seen = set()
    for box, kind in zip(reference.boxes, reference.classes, strict=True):
        near = (np.abs(found.boxes[:, :2] - box[:2]).max(1) < 0.01) & (found.classes == kind)
        for other in found.boxes[near]:
            seen.add(tuple(round(float(v), 2) for v in other[2:] / box[2:]))
    assert seen - {(1.0, 1.0)} <= ratios
    assert seen & ratios


def test_an_odd_margin_moves_all_boxes_of_person_by_the_same_three_quarters_of_a_pixel(
    tiny: Model, truth: Mapping[Any, Detections], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    """640x424 lies as 416x275 in 416x416: 141 rows of margin, 70 above; half a row is 0.5 / 275 * 424 = 0.771 px."""
    offsets = match(
        truth["person", 0.5], find(switch_on(tiny, "letterbox-tidy-margin"), photos)["person", 0.5]
    ).pairs.offsets
    assert np.abs(offsets - [0, 0.5 / 275 * 424, 0, 0]).max() < 1e-3


def test_suppression_across_classes_loses_one_of_the_horses(
    tiny: Model, truth: Mapping[Any, Detections], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    assert len(truth["horses", 0.25]) == 7
    assert len(TorchRunner(switch_on(tiny, "nms-across-classes")).detect(photos["horses"], 0.25)) == 6


def test_objectness_as_probability_and_what_once_was_measured_for_it(
    tiny: Model, truth: Mapping[Any, Detections], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    """The older figures, 79 and 80 new boxes, are those of `objectness where p == p.max()`: a box whose probabilities
    were all silenced by the threshold has eighty largest ones. With one class a box it is one new box."""
    found = find(switch_on(tiny, "objectness-as-probability"), photos)
    for view, written in zip(VIEWS, ("4 +0 0/0", "4 +1", "4 +0", "2 +1"), strict=True):
        assert_as_written(truth[view], found[view], written)
    older = ("4 +0", "5 +79", "4 +0", "2 +80")
    for view, written in zip(VIEWS, older, strict=True):
        picture = photos[view[0]]
        outputs = TorchRunner(tiny).run_layers(tiny.preprocessing.apply(picture)[None], [16, 23])
        c = tiny.candidates({i: y[0] for i, y in outputs.items()}, view[1])
        largest = c.probabilities == c.probabilities.max(1, keepdims=True)
        silly = Candidates(c.boxes, c.objectness, np.where(largest, c.objectness[:, None], np.float32(0)))
        place = tiny.preprocessing.placement(picture.shape[1], picture.shape[0])
        assert_as_written(truth[view], select(suppress(silly, tiny.nms), place, view[1]), written)


# --------------------------------------------------------------------------------------------- other real models


def test_the_formula_of_2018_shows_most_where_channels_are_dead(shared: Path, darknet: Path) -> None:
    """yoloface-500k has a variance of 6e-45, which counts as 0, and one below 1e-6; layer 29 moves most."""
    folder = shared / "models" / "yoloface-500k-v1"
    model = open_model(folder / "yoloface-500k.cfg", folder / "yoloface-500k.weights", dialect="alexeyab")
    spans = [span for span in model.weights.ledger.spans if span.field == "rolling_variance"]
    variances = np.concatenate([model.weights[span.layer, span.field] for span in spans])
    assert int((variances < 1e-37).sum()) == 1 and int((variances < 1e-6).sum()) == 2
    x = model.preprocessing.apply(load_picture(PHOTOS / "dog.jpg"))[None]
    faulty = switch_on(model, "epsilon-1e-6-outside")
    rows = {row.index: row for row in compare_layers(model, TorchRunner(model).run(x), TorchRunner(faulty).run(x))}
    assert rows[29].max_over_std > 0.5


def test_a_model_trained_stretched_loses_boxes_in_a_letterbox(shared: Path, darknet: Path) -> None:
    folder = shared / "models" / "yolo-fastest-1.1-coco"
    model = open_model(folder / "yolo-fastest-1.1.cfg", folder / "yolo-fastest-1.1.weights", dialect="alexeyab")
    picture = load_picture(PHOTOS / "dog.jpg")
    assert PITFALLS["letterbox"].idle(model) is None
    reference, found = (TorchRunner(m).detect(picture, 0.25) for m in (model, switch_on(model, "letterbox")))
    assert len(reference) >= 3
    assert match(reference, found).max_offset_px > 1
