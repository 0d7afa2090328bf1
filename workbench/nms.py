"""Non-maximum suppression as Darknet does it: of boxes that overlap too much, only the most probable stays.

Nothing is removed and nothing is reordered: a suppressed box is one whose probability became 0. The kinds differ in
what they call overlap and in whether classes compete with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.errors import OptionError

F32: TypeAlias = npt.NDArray[np.float32]
Boxes: TypeAlias = npt.NDArray[Any]
Index: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a network's heads answer, before suppression; n boxes, every one with a probability per class.

    boxes: float32 (n, 4), centre x, centre y, width, height relative to the network's input (0..1).
    objectness: float32 (n,).
    probabilities: float32 (n, classes), objectness times class, 0 where that is not above the threshold.
    Raises OptionError where the shapes do not fit each other.
    """

    boxes: F32
    objectness: F32
    probabilities: F32

    def __post_init__(self) -> None:
        for name in ("boxes", "objectness", "probabilities"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.objectness.shape != (n,) or self.probabilities.shape[:-1] != (n,):
            raise OptionError(
                "Candidates",
                "shapes do not fit each other",
                expected="boxes (n, 4), objectness (n,), probabilities (n, classes)",
                found=f"{self.boxes.shape}, {self.objectness.shape}, {self.probabilities.shape}",
            )

    def __len__(self) -> int:
        return len(self.boxes)

    @staticmethod
    def concatenate(parts: Sequence[Candidates]) -> Candidates:
        """The candidates of several heads as one, in this order. Raises OptionError for none, or unequal classes."""
        classes = sorted({part.probabilities.shape[1] for part in parts})
        if len(classes) != 1:
            raise OptionError(
                "Candidates.concatenate",
                "the heads do not agree on their classes",
                expected="one number of classes in one or more heads",
                found=classes or "no heads",
            )
        return Candidates(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.objectness for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
        )


@dataclass(frozen=True)
class Nms:
    """Which suppression, above which overlap (`thresh`), and the exponent `beta` that only "diounms" uses (beta_nms).

    kind        overlap             who competes
    sort        IoU                 boxes of one class         do_nms_sort, every fork's default
    obj         IoU                 all boxes, by objectness   do_nms_obj
    greedynms   IoU - (d/c)^0.6     boxes of one class         diounms_sort, GREEDY_NMS (yolov4.cfg)
    diounms     IoU - (d/c)^beta    boxes of one class         diounms_sort, DIOU_NMS
    cornersnms  IoU                 boxes of one class         diounms_sort, CORNERS_NMS
    none        -                   nobody

    d is the squared distance of the centres, c the squared diagonal of the smallest box around both. Despite its name,
    and unlike in 2020, when it meant plain IoU, AlexeyAB's and hank-ai's greedynms calls box_diou, whose 0.6 is written
    in the source: `beta_nms` does not reach it. Darknet's programs skip suppression for thresh 0; `suppress` does not.

    Raises OptionError for another kind, or a threshold below 0.
    """

    kind: str
    thresh: float = 0.45
    beta: float = 0.6

    def __post_init__(self) -> None:
        if self.kind not in NMS_KINDS:
            raise OptionError("nms", "no such kind", expected=" or ".join(NMS_KINDS), found=repr(self.kind))
        if not self.thresh >= 0:
            raise OptionError("nms_thresh", "not an overlap", expected="0 or more, usually 0.45", found=self.thresh)


def suppress(candidates: Candidates, nms: Nms) -> Candidates:
    """Zero the probabilities of suppressed boxes ("obj": and their objectness); rows keep their order.

    A box overlapping by exactly `thresh` stays: only more suppresses. Candidates with objectness 0 take no part.
    Ties: the C sorts with qsort, which in glibc is a stable merge sort, and every class starts from the order that the
    class before left. So it is here: equal probabilities fall as in Darknet on Linux; other C libraries may differ.
    "diounms" and "greedynms" take the power in double and round once; a binary built with -Ofast may differ in its last
    bit.

    Source: pjreddie src/box.c do_nms_sort, do_nms_obj; AlexeyAB src/box.c diounms_sort, box_diou, box_diounms.
    """
    if nms.kind == "none" or not len(candidates):
        return candidates
    with np.errstate(all="ignore"):  # an untrained network answers inf and NaN, which overlap nothing
        return _suppress_objects(candidates, nms) if nms.kind == "obj" else _suppress_classes(candidates, nms)


def _suppress_classes(candidates: Candidates, nms: Nms) -> Candidates:
    probabilities = candidates.probabilities.copy()
    order, overlaps = _participants(candidates.objectness), Overlaps(candidates.boxes, nms)
    for k in np.flatnonzero(probabilities[order].any(axis=0)):
        order = order[np.argsort(-probabilities[order, k], kind="stable")]
        ranked = order[probabilities[order, k] != 0]
        probabilities[overlaps.suppressed(ranked), k] = 0
    return replace(candidates, probabilities=probabilities)


def _suppress_objects(candidates: Candidates, nms: Nms) -> Candidates:
    order = _participants(candidates.objectness)
    ranked = order[np.argsort(-candidates.objectness[order], kind="stable")]
    gone = Overlaps(candidates.boxes, nms).suppressed(ranked)
    objectness, probabilities = candidates.objectness.copy(), candidates.probabilities.copy()
    objectness[gone], probabilities[gone] = 0, 0
    return Candidates(candidates.boxes, objectness, probabilities)


def _participants(objectness: F32) -> Index:
    """Rows with objectness, in the order that the C leaves: a row without is swapped with the last not yet moved."""
    order = list(range(len(objectness)))
    zero = (objectness == 0).tolist()
    i, last = 0, len(order) - 1
    while i <= last:
        if zero[order[i]]:
            order[i], order[last] = order[last], order[i]
            last -= 1
        else:
            i += 1
    return np.array(order[: last + 1], np.intp)


class Overlaps:
    """Which boxes (n, 4) overlap by more than `nms.thresh`: one row of n bits a box, computed when it is first needed.

    All classes share the rows. Boxes stand sorted by their left edge, so that a row looks only at boxes that reach it.
    """

    def __init__(self, boxes: F32, nms: Nms) -> None:
        order = np.argsort(boxes[:, 0] - boxes[:, 2] / 2, kind="stable")
        self._place = np.argsort(order)
        self._columns = np.ascontiguousarray(boxes[order].T)
        (self._left, self._top), (right, self._bottom) = (
            self._columns[:2] - self._columns[2:] / 2,
            self._columns[:2] + self._columns[2:] / 2,
        )
        self._reach = np.fmax.accumulate(right)  # the rightmost edge so far
        self._end = np.searchsorted(self._left, right)
        self._thresh, self._beta = np.float32(nms.thresh), NMS_KINDS[nms.kind](nms)
        self._rows: dict[int, npt.NDArray[np.uint8]] = {}

    def suppressed(self, ranked: Index) -> Index:
        """Of `ranked`, rows of `boxes` in falling order: those that overlap one before them that stays itself."""
        places = self._place[ranked]
        alive = np.zeros(len(self._left), bool)
        alive[places] = True
        bits = np.packbits(alive)
        byte, gone = bits.data, []
        for rank, place in enumerate(places.tolist()):
            if byte[place >> 3] & (128 >> (place & 7)):
                bits &= self._clear_of(place)
            else:
                gone.append(rank)
        return ranked[gone]

    def _clear_of(self, place: int) -> npt.NDArray[np.uint8]:
        row = self._rows.get(place)
        if row is None:
            clear = np.ones(len(self._left), bool)
            near = self._touching(place)
            clear[near] = ~self._exceed(place, near)
            row = self._rows[place] = np.packbits(clear)
        return row

    def _touching(self, place: int) -> Index:
        first, end = int(np.searchsorted(self._reach, self._left[place])), int(self._end[place])
        below, above = self._bottom[first:end] > self._top[place], self._top[first:end] < self._bottom[place]
        return first + np.flatnonzero(below & above)

    def _exceed(self, place: int, near: Index) -> npt.NDArray[np.bool_]:
        one, others = self._columns[:, place : place + 1], self._columns[:, near]
        iou = box_iou(one, others)
        exceed = iou > self._thresh
        if self._beta is not None:  # the penalty only lowers the overlap
            exceed[exceed] = iou[exceed] - distance_penalty(one, others[:, exceed], self._beta) > self._thresh
        return np.asarray(exceed, bool)


def box_iou(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union of boxes given as columns (4, …): centre x, centre y, width, height; broadcasts.

    The dtype stays (Darknet computes in float32); 0 where the intersection or the union is 0.
    Source: pjreddie src/box.c overlap, box_intersection, box_union, box_iou.
    """
    right, left = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2), np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    sides = np.maximum(right - left, 0)
    shared = sides[0] * sides[1]
    union = a[2] * a[3] + b[2] * b[3] - shared
    overlap: Boxes = shared / np.where(union == 0, union.dtype.type(np.inf), union)
    return overlap


def distance_penalty(a: Boxes, b: Boxes, beta: float) -> Boxes:
    """(d/c)^beta for boxes as in `box_iou`: squared distance of the centres, squared diagonal of the box around both.

    Source: AlexeyAB src/box.c box_c, box_diounms (0 where the diagonal is 0, where the C returns plain IoU).
    """
    right, left = np.maximum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2), np.minimum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    diagonal, distance = np.square(right - left), np.square(a[:2] - b[:2])
    c, d = diagonal[0] + diagonal[1], distance[0] + distance[1]
    penalty: Boxes = np.where(c == 0, 0, np.power((d / c).astype(np.float64), beta)).astype(c.dtype)
    return penalty


# Every kind and the exponent of its distance penalty: none, `float beta1` of C, or the double that box_diou has inside.
NMS_KINDS: dict[str, Callable[[Nms], float | None]] = {
    "sort": lambda nms: None,
    "obj": lambda nms: None,
    "greedynms": lambda nms: 0.6,
    "diounms": lambda nms: float(np.float32(nms.beta)),
    "cornersnms": lambda nms: None,
    "none": lambda nms: None,
}
