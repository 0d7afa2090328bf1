"""What holds for suppression whatever the boxes, the kind and the threshold."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.nms import NMS_KINDS, Candidates, Nms, suppress


def overlap_by_hand(a: list[float], b: list[float], exponent: float | None) -> float:
    """IoU, or IoU minus the distance penalty, in double."""
    ends = [sorted([v[i] - v[i + 2] / 2, v[i] + v[i + 2] / 2]) for i in (0, 1) for v in (a, b)]
    pairs = list(zip(ends[::2], ends[1::2], strict=True))
    shared = math.prod(max(0, min(p[1], q[1]) - max(p[0], q[0])) for p, q in pairs)
    iou = shared / (a[2] * a[3] + b[2] * b[3] - shared)
    around = sum((max(p[1], q[1]) - min(p[0], q[0])) ** 2 for p, q in pairs)
    return iou if exponent is None else iou - (math.dist(a[:2], b[:2]) ** 2 / around) ** exponent


score_lists = st.lists(st.integers(1, 10**6), min_size=1, max_size=25, unique=True)
kinds = st.sampled_from(sorted(set(NMS_KINDS) - {"none"}))


def candidates_from(scores: list[int], seed: int) -> Candidates:
    """Distinct scores (no ties) over crowded boxes."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.random((len(scores), 2)), rng.uniform(0.2, 0.8, (len(scores), 2))], axis=1)
    values = np.array(scores) / 10**6
    return Candidates(boxes, values, values[:, None] * [1, 0.5])


@settings(deadline=None, max_examples=100)
@given(scores=score_lists, seed=st.integers(0, 2**32), kind=kinds, thresh=st.floats(0, 1))
def test_suppressing_again_changes_nothing(scores: list[int], seed: int, kind: str, thresh: float) -> None:
    once = suppress(candidates_from(scores, seed), Nms(kind, thresh))
    np.testing.assert_array_equal(suppress(once, Nms(kind, thresh)).probabilities, once.probabilities)


@settings(deadline=None, max_examples=100)
@given(scores=score_lists, seed=st.integers(0, 2**32), kind=kinds, thresh=st.floats(0, 1))
def test_the_order_of_candidates_does_not_matter_without_ties(
    scores: list[int], seed: int, kind: str, thresh: float
) -> None:
    candidates = candidates_from(scores, seed)
    shuffle = np.random.default_rng(seed + 1).permutation(len(scores))
    shuffled = Candidates(candidates.boxes[shuffle], candidates.objectness[shuffle], candidates.probabilities[shuffle])
    wanted = suppress(candidates, Nms(kind, thresh)).probabilities[shuffle]
    np.testing.assert_array_equal(suppress(shuffled, Nms(kind, thresh)).probabilities, wanted)


@settings(deadline=None, max_examples=100)
@given(scores=score_lists, seed=st.integers(0, 2**32), kind=kinds, thresh=st.floats(0, 1))
def test_what_suppression_means(scores: list[int], seed: int, kind: str, thresh: float) -> None:
    """No two survivors overlap too much; every suppressed box has a survivor above it that does; the best stays."""
    candidates = candidates_from(scores, seed)
    survives = suppress(candidates, Nms(kind, thresh)).probabilities[:, 0] > 0
    order = np.argsort(-candidates.objectness)
    assert survives[order[0]]
    for rank, i in enumerate(order):
        above = [j for j in order[:rank] if survives[j]]
        exponent = {"greedynms": 0.6, "diounms": 0.6}.get(kind)
        overlaps = [overlap_by_hand(*candidates.boxes[[j, i]].tolist(), exponent) for j in above]
        if survives[i]:
            assert max(overlaps, default=-1) <= thresh + 1e-6
        else:
            assert max(overlaps) > thresh - 1e-6


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), kind=kinds, low=st.floats(0, 1), high=st.floats(0, 1))
def test_of_two_boxes_a_higher_threshold_keeps_no_fewer(seed: int, kind: str, low: float, high: float) -> None:
    # For more boxes this is false: who survives a higher threshold may suppress others.
    pair = candidates_from([9, 5], seed)
    low, high = min(low, high), max(low, high)
    assert (suppress(pair, Nms(kind, low)).probabilities <= suppress(pair, Nms(kind, high)).probabilities).all()
