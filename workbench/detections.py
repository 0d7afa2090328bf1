"""What a detector found in a picture, in pixels of that picture, and how two detectors' findings compare.

The way here: a head's `decode` gives Candidates, `suppress` silences the overlapping ones, `select` makes Detections,
and `match` pairs two sets of Detections box by box with their offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.errors import OptionError
from workbench.image import Placement
from workbench.nms import NMS_KINDS, Candidates, Nms, box_iou, suppress

__all__ = ["NMS_KINDS", "Candidates", "Detections", "Match", "Nms", "Pairs", "match", "select", "suppress"]

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one picture, by falling score; equal scores by class, then by x, y, width, height.

    boxes: float32 (n, 4), centre x, centre y, width, height in pixels of the picture. scores: float32 (n,).
    classes: int64 (n,). The order is made here, whatever the order given; the arrays cannot be written to.
    Raises OptionError where the shapes do not fit each other.
    """

    boxes: F32
    scores: F32
    classes: I64

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32)
        scores, classes = np.asarray(self.scores, np.float32), np.asarray(self.classes, np.int64)
        n = len(scores)
        if boxes.shape != (n, 4) or scores.shape != (n,) or classes.shape != (n,):
            raise OptionError(
                "Detections",
                "shapes do not fit each other",
                expected="boxes (n, 4), scores (n,), classes (n,)",
                found=f"{boxes.shape}, {scores.shape}, {classes.shape}",
            )
        order = np.lexsort([*boxes.T[::-1], classes, -scores])
        for name, array in (("boxes", boxes), ("scores", scores), ("classes", classes)):
            ordered = array[order]
            ordered.flags.writeable = False
            object.__setattr__(self, name, ordered)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def xyxy(self) -> F32:
        """Corners, float32 (n, 4): left, top, right, bottom in pixels of the picture, not clipped to it."""
        half = self.boxes[:, 2:] / 2
        return np.concatenate([self.boxes[:, :2] - half, self.boxes[:, :2] + half], axis=1)

    def at_least(self, score: float) -> Detections:
        """Those whose score is `score` or more."""
        chosen = self.scores >= np.float32(score)
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen])

    def to_json(self, names: Sequence[str]) -> list[dict[str, object]]:
        """One dict a box: class, name, score, and x, y, w, h (centre and size in pixels of the picture).

        Raises OptionError for a class without a name.
        """
        highest = int(self.classes.max(initial=-1))
        if highest >= len(names):
            raise OptionError(
                "names",
                f"class {highest} has no name",
                expected=f"{highest + 1} names or more",
                found=len(names),
                cause="The .names file belongs to another model.",
            )
        return [
            {"class": k, "name": names[k], "score": score, **dict(zip("xywh", box, strict=True))}
            for k, score, box in zip(self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        ]


def select(candidates: Candidates, placement: Placement, thresh: float) -> Detections:
    """One detection for every box and class whose probability is above `thresh`, in pixels of the picture.

    Source: pjreddie src/image.c draw_detections, which prints every class above the threshold, not only the best.
    """
    rows, classes = np.nonzero(candidates.probabilities > np.float32(thresh))
    return Detections(placement.to_picture(candidates.boxes[rows]), candidates.probabilities[rows, classes], classes)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Matched boxes, by falling IoU; every array has one row a pair, every difference is candidate minus reference.

    reference, candidate: int64 (n,), row in the Detections of that side.
    offsets: float64 (n, 4), dx, dy, dw, dh in pixels of the picture. dscore, iou: float64 (n,).
    """

    reference: I64
    candidate: I64
    offsets: F64
    dscore: F64
    iou: F64

    def __len__(self) -> int:
        return len(self.iou)


@dataclass(frozen=True, eq=False)
class Match:
    """Two Detections side by side: the pairs, and the rows that only one side has (int64)."""

    pairs: Pairs
    only_reference: I64
    only_candidate: I64

    @property
    def max_offset_px(self) -> float:
        """Largest |dx|, |dy|, |dw| or |dh| of any pair, in pixels of the picture; 0 without pairs."""
        return float(np.abs(self.pairs.offsets).max(initial=0))

    @property
    def max_dscore(self) -> float:
        """Largest difference of score of any pair; 0 without pairs."""
        return float(np.abs(self.pairs.dscore).max(initial=0))

    def same(self, box_px: float, score: float) -> bool:
        """Whether nobody is left over, no side moved by more than `box_px` pixels and no score by more than `score`."""
        alone = len(self.only_reference) + len(self.only_candidate)
        return not alone and self.max_offset_px <= box_px and self.max_dscore <= score


def match(reference: Detections, candidate: Detections, iou: float = 0.5) -> Match:
    """Pair boxes of one class, the best IoU first, every box once, down to an IoU of `iou` (which still counts).

    Equal IoU (twins in one place): the smaller difference of score first, then the earlier row. IoU in float64.
    """
    overlap, rows, columns = _possible_pairs(reference, candidate, iou)
    dscore = np.abs(reference.scores[rows].astype(np.float64) - candidate.scores[columns])
    order = np.lexsort([columns, rows, dscore, -overlap])
    free = np.ones(len(reference), bool), np.ones(len(candidate), bool)
    chosen = []
    for at, row, column in zip(order.tolist(), rows[order].tolist(), columns[order].tolist(), strict=True):
        if free[0][row] and free[1][column]:
            free[0][row] = free[1][column] = False
            chosen.append(at)
    pairs = _measure(reference, candidate, rows[chosen], columns[chosen], overlap[chosen])
    return Match(pairs, np.flatnonzero(free[0]), np.flatnonzero(free[1]))


def _possible_pairs(reference: Detections, candidate: Detections, iou: float) -> tuple[F64, I64, I64]:
    """IoU, row and column of every pair of one class that overlaps enough."""
    found: list[tuple[F64, I64, I64]] = [(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))]
    boxes = candidate.boxes.astype(np.float64)
    with np.errstate(all="ignore"):  # boxes of inf and NaN overlap nothing
        for row, (box, kind) in enumerate(zip(reference.boxes.astype(np.float64), reference.classes, strict=True)):
            columns = np.flatnonzero(candidate.classes == kind)
            overlap = box_iou(box[:, None], boxes[columns].T)
            enough = overlap >= iou
            found.append((overlap[enough], np.full(enough.sum(), row), columns[enough]))
    overlap, rows, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return overlap, rows, columns


def _measure(reference: Detections, candidate: Detections, rows: I64, columns: I64, overlap: F64) -> Pairs:
    offsets = candidate.boxes[columns].astype(np.float64) - reference.boxes[rows]
    dscore = candidate.scores[columns].astype(np.float64) - reference.scores[rows]
    return Pairs(rows, columns, offsets, dscore, overlap)
