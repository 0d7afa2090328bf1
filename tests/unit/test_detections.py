"""Selection, order and matching of detections, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.detections import Candidates, Detections, Nms, match, select, suppress
from workbench.errors import OptionError
from workbench.image import Placement, Preprocessing


def boxes_of(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(boxes, np.float32)


def iou_by_hand(a: list[float], b: list[float]) -> float:
    sides = [
        max(0, min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2))
        for i in (0, 1)
    ]
    shared = sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_select_takes_every_class_above_the_threshold_into_the_picture() -> None:
    boxes = boxes_of((0.5, 0.5, 0.25, 0.5), (0.25, 0.75, 0.5, 0.25))
    candidates = Candidates(boxes, [1, 1], [[0.5, 0.75, 0.25], [0, 0.875, 0.5]])
    found = select(candidates, Preprocessing(64, 64, 3, False).placement(200, 100), 0.25)  # .25 itself is not above
    assert found.scores.tolist() == [0.875, 0.75, 0.5, 0.5]
    assert found.classes.tolist() == [1, 1, 0, 2]
    assert found.boxes.tolist() == [[50, 75, 100, 25], [100, 50, 50, 50], [100, 50, 50, 50], [50, 75, 100, 25]]


def test_select_of_nothing_is_empty() -> None:
    nothing = Candidates(np.empty((0, 4)), np.empty(0), np.empty((0, 80)))
    found = select(suppress(nothing, Nms("sort")), Placement(64, 64, 64, 64, 10, 10), 0.5)
    assert (len(found), found.boxes.shape, found.xyxy.shape, found.to_json([])) == (0, (0, 4), (0, 4), [])


def test_detections_are_sorted_and_cannot_be_written_to() -> None:
    boxes = boxes_of((9, 0, 1, 1), (5, 0, 1, 1), (5, 0, 1, 1), (3, 0, 1, 1))
    found = Detections(boxes, [0.5, 0.5, 0.75, 0.5], [1, 1, 7, 0])
    assert found.scores.tolist() == [0.75, 0.5, 0.5, 0.5]
    assert found.classes.tolist() == [7, 0, 1, 1]
    assert found.boxes[:, 0].tolist() == [5, 3, 5, 9]
    assert (found.boxes.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int64)
    with pytest.raises(ValueError, match="read-only"):
        found.boxes[0, 0] = 1
    assert len(found.at_least(0.5)) == 4
    assert found.at_least(0.51).classes.tolist() == [7]


def test_detections_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        OptionError, match=r"Detections: shapes do not fit each other; .*found \(1, 4\), \(1,\), \(2,\)"
    ):
        Detections(np.zeros((1, 4)), [0.5], [1, 2])


def test_corners_and_json() -> None:
    found = Detections(boxes_of((10, 20, 4, 6)), [0.5], [1])
    assert found.xyxy.tolist() == [[8, 17, 12, 23]]
    wanted = {"class": 1, "name": "dog", "score": 0.5, "x": 10.0, "y": 20.0, "w": 4.0, "h": 6.0}
    assert found.to_json(["cat", "dog"]) == [wanted]
    with pytest.raises(
        OptionError, match=r"names: class 1 has no name; expected 2 names or more, found 1\. The \.names"
    ):
        found.to_json(["cat"])


def test_match_measures_candidate_minus_reference() -> None:
    reference = Detections(boxes_of((10, 20, 8, 8), (50, 50, 10, 20)), [0.75, 0.5], [2, 3])
    candidate = Detections(boxes_of((50.5, 49, 10, 22), (10, 20, 8, 8)), [0.625, 0.5], [3, 2])
    pairs = match(reference, candidate).pairs
    assert pairs.reference.tolist() == [0, 1]  # IoU 1 before less
    assert pairs.candidate.tolist() == [1, 0]
    assert pairs.offsets.tolist() == [[0, 0, 0, 0], [0.5, -1, 0, 2]]
    assert pairs.dscore.tolist() == [-0.25, 0.125]
    # 45..55 x 40..60 and 45.5..55.5 x 38..60: shared 9.5 * 20 = 190, union 200 + 220 - 190 = 230
    np.testing.assert_allclose(pairs.iou, [1, 190 / 230], rtol=1e-12)


def test_match_tells_who_is_alone_and_whether_all_is_the_same() -> None:
    reference = Detections(boxes_of((10, 10, 8, 8), (50, 50, 8, 8), (90, 90, 8, 8)), [0.9, 0.8, 0.7], [0, 0, 0])
    moved = Detections(reference.boxes + np.float32(0.25), reference.scores + np.float32(0.0625), reference.classes)
    both = match(reference, moved)
    assert (both.max_offset_px, both.max_dscore) == (0.25, pytest.approx(0.0625, abs=1e-7))
    assert both.same(0.25, 0.07)
    assert not both.same(0.24, 0.07)
    assert not both.same(0.25, 0.06)
    other_class = Detections(reference.boxes, reference.scores, [0, 1, 0])
    split = match(reference, other_class)
    assert (len(split.pairs), split.only_reference.tolist(), split.only_candidate.tolist()) == (2, [1], [1])
    assert not split.same(100, 1)
    assert not match(reference, reference.at_least(0.75)).same(100, 1)
    assert match(reference, reference).same(0, 0)


def test_match_takes_the_best_pair_first_and_every_box_once() -> None:
    # Reference A 0..10; candidates at +1 (IoU 9/11) and +2 (8/12); reference B at +3 has 8/12 and 9/11 with them.
    reference = Detections(boxes_of((5, 5, 10, 10), (8, 5, 10, 10)), [0.9, 0.8], [0, 0])
    candidate = Detections(boxes_of((7, 5, 10, 10), (6, 5, 10, 10)), [0.9, 0.8], [0, 0])
    found = match(reference, candidate).pairs
    assert dict(zip(found.reference.tolist(), found.candidate.tolist(), strict=True)) == {0: 1, 1: 0}
    lone = match(reference, candidate.at_least(0.85))  # both want it; B's IoU is higher
    assert (lone.pairs.reference.tolist(), lone.only_reference.tolist()) == ([1], [0])


def test_match_pairs_twins_by_score() -> None:
    twins = Detections(boxes_of(*[(5, 5, 10, 10)] * 2), [0.9, 0.5], [0, 0])
    other = Detections(boxes_of((5, 5, 10, 10)), [0.51], [0])
    assert match(twins, other).pairs.reference.tolist() == [1]


def test_match_counts_an_iou_of_exactly_one_half() -> None:
    wide, narrow = (Detections(boxes_of(box), [0.9], [0]) for box in ((1, 0.5, 2, 1), (0.5, 0.5, 1, 1)))
    assert len(match(wide, narrow).pairs) == 1
    assert len(match(wide, narrow, iou=0.51).pairs) == 0


def test_match_with_nothing() -> None:
    nothing, one = Detections(np.empty((0, 4)), [], []), Detections(boxes_of((1, 1, 1, 1)), [0.5], [0])
    assert match(nothing, nothing).same(0, 0)
    assert match(nothing, one).only_candidate.tolist() == [0]
    empty = match(one, nothing)
    assert (empty.only_reference.tolist(), empty.max_offset_px, empty.max_dscore) == ([0], 0, 0)
    assert empty.pairs.offsets.shape == (0, 4)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 20), m=st.integers(0, 20))
def test_match_is_fair_to_both_sides(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    sides = [
        Detections(
            np.concatenate([rng.uniform(0, 20, (k, 2)), rng.uniform(5, 20, (k, 2))], 1),
            rng.random(k),
            rng.integers(0, 3, k),
        )
        for k in (n, m)
    ]
    there, back = match(*sides), match(*sides[::-1])
    assert sorted(zip(there.pairs.reference.tolist(), there.pairs.candidate.tolist(), strict=True)) == sorted(
        zip(back.pairs.candidate.tolist(), back.pairs.reference.tolist(), strict=True)
    )
    for side, rows, alone in (
        (0, there.pairs.reference, there.only_reference),
        (1, there.pairs.candidate, there.only_candidate),
    ):
        assert sorted([*rows.tolist(), *alone.tolist()]) == list(range(len(sides[side])))
    assert (sides[0].classes[there.pairs.reference] == sides[1].classes[there.pairs.candidate]).all()
    assert (there.pairs.iou >= 0.5).all()
    for i in there.only_reference:
        for j in there.only_candidate:
            overlap = iou_by_hand(sides[0].boxes[i].tolist(), sides[1].boxes[j].tolist())
            assert sides[0].classes[i] != sides[1].classes[j] or overlap < 0.5 + 1e-9
