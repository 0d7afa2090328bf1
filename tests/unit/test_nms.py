"""Suppression against real Darknet's C, OpenCV, plain loops and arithmetic by hand."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from workbench.errors import OptionError
from workbench.nms import Candidates, Nms, suppress

# Runs alone: loading libdarknet.so switches its thread to flushing subnormals. Every set has boxes, objectness,
# probabilities and the threshold; the answer is what the function leaves in `prob` and `objectness`.
ASK_DARKNET = """
import ctypes as C, sys
import numpy as np
class Detection(C.Structure):
    _fields_ = [("bbox", C.c_float * 4), ("classes", C.c_int), ("prob", C.POINTER(C.c_float)),
                ("mask", C.POINTER(C.c_float)), ("objectness", C.c_float), ("sort_class", C.c_int)]
library, sets, answers = C.CDLL(sys.argv[1]), np.load(sys.argv[2]), {}
for i in range(len(sets.files) // 4):
    for function in ("do_nms_sort", "do_nms_obj"):
        probabilities = sets[f"probabilities {i}"].copy()
        n, classes = probabilities.shape
        detections = (Detection * n)()
        first = probabilities.ctypes.data
        for row, detection in enumerate(detections):
            detection.bbox[:] = sets[f"boxes {i}"][row].tolist()
            detection.classes, detection.objectness = classes, sets[f"objectness {i}"][row]
            detection.prob = C.cast(first + row * classes * 4, C.POINTER(C.c_float))
        getattr(library, function)(detections, n, classes, C.c_float(float(sets[f"thresh {i}"])))
        objectness = np.empty(n, np.float32)
        for detection in detections:  # the C reorders them; the address of prob tells which is which
            objectness[(C.addressof(detection.prob.contents) - first) // (classes * 4)] = detection.objectness
        answers[f"{function} {i} probabilities"], answers[f"{function} {i} objectness"] = probabilities, objectness
np.savez(sys.argv[3], **answers)
"""


@pytest.fixture(scope="module")
def ask(darknet: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, np.ndarray]]:
    def run(sets: list[tuple[Candidates, float]]) -> dict[str, np.ndarray]:
        folder = tmp_path_factory.mktemp("darknet")
        arrays: dict[str, object] = {}
        for i, (candidates, thresh) in enumerate(sets):
            arrays |= {f"boxes {i}": candidates.boxes, f"objectness {i}": candidates.objectness}
            arrays |= {f"probabilities {i}": candidates.probabilities, f"thresh {i}": thresh}
        np.savez(folder / "sets.npz", **arrays)
        command = [sys.executable, "-c", ASK_DARKNET, str(darknet), "sets.npz", "answers.npz"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        with np.load(folder / "answers.npz") as answers:
            return dict(answers)

    return run


def some_candidates(
    seed: int, n: int, classes: int, *, silent: float = 0.3, clusters: int = 10, levels: int | None = None
) -> Candidates:
    """Boxes in clusters; a share `silent` of the rows without objectness; `levels` makes ties by rounding scores."""
    rng = np.random.default_rng(seed)
    centre, size = rng.random((clusters, 2)), rng.uniform(0.1, 0.4, (clusters, 2))
    which = rng.integers(0, clusters, n)
    boxes = np.concatenate(
        [centre[which] + rng.normal(0, 0.03, (n, 2)), size[which] * rng.uniform(0.7, 1.3, (n, 2))], 1
    )
    objectness, probabilities = rng.random(n), rng.random((n, classes))
    if levels:
        objectness, probabilities = np.ceil(objectness * levels) / levels, np.ceil(probabilities * levels) / levels
    objectness[rng.random(n) < silent] = 0
    probabilities = probabilities * (rng.random((n, classes)) < 0.6) * (objectness > 0)[:, None]
    return Candidates(boxes, objectness, probabilities)


def boxes_of(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(boxes, np.float32)


def one_class(boxes: np.ndarray, scores: list[float]) -> Candidates:
    values = np.array(scores, np.float32)
    return Candidates(boxes, values, values[:, None])


@pytest.mark.parametrize("levels", [None, 4], ids=["distinct", "ties"])
def test_suppression_zeroes_exactly_what_darknet_zeroes(
    ask: Callable[..., dict[str, np.ndarray]], levels: int | None
) -> None:
    shapes = [(1, 1), (2, 3), (30, 1), (200, 5), (500, 20)]
    sets = [
        (some_candidates(10 * i + j, n, classes, levels=levels), thresh)
        for i, (n, classes) in enumerate(shapes)
        for j, thresh in enumerate([0.45, 0.2, 0.0, 0.9])
    ]
    answers, suppressed = ask(sets), 0
    for i, (candidates, thresh) in enumerate(sets):
        for kind in ("sort", "obj"):
            got, function = suppress(candidates, Nms(kind, thresh)), f"do_nms_{kind}"
            np.testing.assert_array_equal(got.probabilities, answers[f"{function} {i} probabilities"])
            np.testing.assert_array_equal(got.objectness, answers[f"{function} {i} objectness"])
            suppressed += int((got.probabilities != candidates.probabilities).sum())
    assert suppressed > 5000


def test_a_probability_without_objectness_takes_no_part_as_in_darknet(
    ask: Callable[..., dict[str, np.ndarray]],
) -> None:
    twins = Candidates(boxes_of(*[(0.5, 0.5, 0.2, 0.2)] * 3), [0, 0.5, 0.9], [[0.8], [0.7], [0.6]])
    answers = ask([(twins, 0.45)])
    for kind, wanted in (("sort", [0.8, 0.7, 0]), ("obj", [0.8, 0, 0.6])):
        got = suppress(twins, Nms(kind)).probabilities
        assert got[:, 0].tolist() == np.array(wanted, np.float32).tolist()
        np.testing.assert_array_equal(got, answers[f"do_nms_{kind} 0 probabilities"])


def test_overlap_of_exactly_the_threshold_stays() -> None:
    # 1x1 inside 2x1: they share 1 of 2, and .5 is exact.
    pair = one_class(boxes_of((1, 0.5, 2, 1), (0.5, 0.5, 1, 1)), [0.9, 0.8])
    assert (suppress(pair, Nms("sort", 0.5)).probabilities > 0).ravel().tolist() == [True, True]
    assert (suppress(pair, Nms("sort", 0.4999)).probabilities > 0).ravel().tolist() == [True, False]


def test_a_suppressed_box_suppresses_nobody() -> None:
    # 4x1 boxes a step of 1 apart: neighbours share 3 of 5 (IoU .6), the outer two 2 of 6 (.33).
    row = one_class(boxes_of((2, 0.5, 4, 1), (3, 0.5, 4, 1), (4, 0.5, 4, 1)), [0.9, 0.8, 0.7])
    assert (suppress(row, Nms("sort", 0.45)).probabilities > 0).ravel().tolist() == [True, False, True]


def test_classes_compete_only_in_obj() -> None:
    twins = Candidates(boxes_of(*[(0.5, 0.5, 0.2, 0.2)] * 2), [0.9, 0.8], [[0.9, 0], [0, 0.8]])
    assert suppress(twins, Nms("sort")).probabilities.astype(bool).tolist() == [[True, False], [False, True]]
    assert suppress(twins, Nms("obj")).probabilities.astype(bool).tolist() == [[True, False], [False, False]]


def test_none_leaves_everything() -> None:
    candidates = some_candidates(0, 50, 3)
    assert suppress(candidates, Nms("none")) is candidates


def test_greedy_suppression_equals_opencvs() -> None:
    for seed in range(5):
        candidates = some_candidates(seed, 150, 1, silent=0)
        scores = candidates.probabilities[:, 0]
        corner = np.concatenate(
            [candidates.boxes[:, :2] - candidates.boxes[:, 2:] / 2, candidates.boxes[:, 2:]], axis=1
        )
        wanted = cv2.dnn.NMSBoxes(corner.astype(float).tolist(), scores.tolist(), 1e-6, 0.45)
        got = np.flatnonzero(suppress(candidates, Nms("sort", 0.45)).probabilities[:, 0])
        assert sorted(wanted) == got.tolist()
        assert 0 < len(got) < np.count_nonzero(scores)


# Hand calculation. A = (2, 2, 4, 4), from 0,0 to 4,4; B = (3, 2, 4, 4), from 1,0 to 5,4.
# They share 3x4 = 12, union 16 + 16 - 12 = 20, IoU .6. Around both: 5x4, squared diagonal c = 25 + 16 = 41;
# squared distance of the centres d = 1. d/c = .0243902:
#   beta 1    IoU - .0243902                                = .5756098
#   beta .5   IoU - sqrt(.0243902) = .6 - .1561738          = .4438262
#   beta .6   IoU - exp(.6 * ln .0243902) = .6 - exp(.6 * -3.7135721) = .6 - exp(-2.2281432) = .6 - .1077283 = .4922717
@pytest.mark.parametrize(
    "kind, beta, overlap",
    [
        ("sort", 1, 0.6),
        ("cornersnms", 1, 0.6),
        ("diounms", 1, 0.5756098),
        ("diounms", 0.5, 0.4438262),
        ("diounms", 0.6, 0.4922717),
        ("greedynms", 1, 0.4922717),  # box_diou knows only .6
    ],
)
def test_overlap_of_every_kind_by_hand(kind: str, beta: float, overlap: float) -> None:
    pair = one_class(boxes_of((2, 2, 4, 4), (3, 2, 4, 4)), [0.9, 0.8])
    for thresh, survivors in ((overlap - 1e-6, 1), (overlap + 1e-6, 2)):
        assert (suppress(pair, Nms(kind, thresh, beta)).probabilities > 0).sum() == survivors


def slow_overlap(a: np.ndarray, b: np.ndarray, exponent: float | None) -> float:
    """box_iou, box_diou, box_diounms written down once more, in double and plain Python."""
    left, right = max(a[0] - a[2] / 2, b[0] - b[2] / 2), min(a[0] + a[2] / 2, b[0] + b[2] / 2)
    top, bottom = max(a[1] - a[3] / 2, b[1] - b[3] / 2), min(a[1] + a[3] / 2, b[1] + b[3] / 2)
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    iou = shared / (a[2] * a[3] + b[2] * b[3] - shared)
    if exponent is None:
        return iou
    width = max(a[0] + a[2] / 2, b[0] + b[2] / 2) - min(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = max(a[1] + a[3] / 2, b[1] + b[3] / 2) - min(a[1] - a[3] / 2, b[1] - b[3] / 2)
    return iou - (((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (width**2 + height**2)) ** exponent


def slow_suppress(candidates: Candidates, thresh: float, exponent: float | None) -> tuple[np.ndarray, float]:
    """diounms_sort as two plain loops; also how close any overlap that was asked for came to the threshold."""
    probabilities, boxes = candidates.probabilities.copy(), candidates.boxes.astype(float).tolist()
    closest = np.inf
    for k in range(probabilities.shape[1]):
        order = sorted(np.flatnonzero(candidates.objectness), key=lambda i, k=k: -probabilities[i, k])
        for rank, i in enumerate(order):
            if probabilities[i, k] == 0:
                continue
            for j in order[rank + 1 :]:
                overlap = slow_overlap(boxes[i], boxes[j], exponent)
                closest = min(closest, abs(overlap - thresh))
                if overlap > thresh:
                    probabilities[j, k] = 0
    return probabilities, closest


@pytest.mark.parametrize(
    "kind, beta, exponent",
    [("cornersnms", 0.6, None), ("greedynms", 0.9, 0.6), ("diounms", 0.6, 0.6), ("diounms", 1.5, 1.5)],
)
def test_every_kind_of_diounms_sort_equals_plain_loops(kind: str, beta: float, exponent: float | None) -> None:
    for seed in range(3):
        candidates = some_candidates(100 + seed, 80, 3)
        wanted, closest = slow_suppress(candidates, 0.45, exponent)
        assert closest > 1e-6, "float32 and double agree about every overlap of this set"
        got = suppress(candidates, Nms(kind, 0.45, beta)).probabilities
        np.testing.assert_array_equal(got, wanted)
        assert np.count_nonzero(got) < np.count_nonzero(candidates.probabilities)


def test_the_distance_of_centres_lets_more_boxes_live() -> None:
    candidates = some_candidates(7, 400, 2)
    plain, greedy = (np.count_nonzero(suppress(candidates, Nms(kind)).probabilities) for kind in ("sort", "greedynms"))
    assert greedy > plain


def test_boxes_that_are_no_numbers_suppress_nobody() -> None:
    boxes = boxes_of((0.5, 0.5, np.inf, 1), (np.nan, 0.5, 1, 1), (0.5, 0.5, 1, 1), (0.5, 0.5, 1, 1), (0.5, 0.5, 0, 0))
    wild = one_class(boxes, [0.9, 0.8, 0.7, 0.6, 0.5])
    for kind in ("sort", "obj", "diounms"):
        survivors = suppress(wild, Nms(kind)).probabilities[:, 0] > 0
        assert survivors.tolist() == [True, True, True, False, True]


def test_ten_thousand_candidates_of_eighty_classes_take_about_a_second() -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.random((10_000, 2)), rng.uniform(0.01, 0.3, (10_000, 2))], axis=1)
    probabilities = rng.random((10_000, 80)) * (rng.random((10_000, 80)) < 0.03)
    candidates = Candidates(boxes, np.ones(10_000), probabilities)
    start = time.process_time()
    suppress(candidates, Nms("sort"))
    assert time.process_time() - start < 5  # 1.2 s measured


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(OptionError, match=r"nms: no such kind; expected sort or obj or greedynms .*, found 'softnms'"):
        Nms("softnms")
    with pytest.raises(OptionError, match=r"nms_thresh: not an overlap; expected 0 or more, usually 0\.45, found -1"):
        Nms("sort", -1)


def test_candidates_of_several_heads_join() -> None:
    first, second = some_candidates(1, 5, 3), some_candidates(2, 4, 3)
    joined = Candidates.concatenate([first, second])
    assert len(joined) == 9
    np.testing.assert_array_equal(joined.boxes[5:], second.boxes)
    np.testing.assert_array_equal(joined.probabilities[:5], first.probabilities)
    with pytest.raises(OptionError, match=r"do not agree on their classes; .* found \[3, 4\]"):
        Candidates.concatenate([first, some_candidates(2, 4, 4)])
    with pytest.raises(OptionError, match="found no heads"):
        Candidates.concatenate([])


def test_candidates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        OptionError, match=r"Candidates: shapes do not fit each other; .*found \(2, 4\), \(3,\), \(2, 1\)"
    ):
        Candidates(np.zeros((2, 4)), np.zeros(3), np.zeros((2, 1)))
