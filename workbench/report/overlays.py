"""Two engines' boxes over the picture: SVG on a JPEG, so that one copy of the picture serves every view of it."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workbench.comparison import PictureComparison
from workbench.figures.canvas import width_in_ems
from workbench.figures.labels import name_of, visible
from workbench.figures.offsets import magnification
from workbench.figures.palette import ONLY_CANDIDATE, ONLY_REFERENCE
from workbench.figures.placing import Plate, place_label
from workbench.model import Model
from workbench.report.markup import number, spaced, text

QUALITY = 84


def to_data_uri(picture: NDArray[np.uint8], longest_side: int) -> str:
    """The picture as JPEG, made smaller where a side is longer, in a `data:` address."""
    image = Image.fromarray(picture)
    image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class Overlay:
    """The SVG of one comparison, drawn on a picture of `width` x `height` pixels."""

    def __init__(self, comparison: PictureComparison, model: Model, width: int, height: int) -> None:
        self.row, self.model, self.width, self.height = comparison, model, width, height
        self.letter = max(width, height) / 46
        self.taken: list[Plate] = []

    def draw(self, number_of_threshold: int) -> str:
        """One group for each threshold: boxes, over them the labels, over them the arrows of the offsets."""
        match = self.row.match
        marks = [
            *(self._mark("reference", row, "twin") for row in match.pairs.reference.tolist()),
            *(self._mark("candidate", row, "twin") for row in match.pairs.candidate.tolist()),
            *(self._mark("reference", row, "lost", ONLY_REFERENCE) for row in match.only_reference.tolist()),
            *(self._mark("candidate", row, "extra", ONLY_CANDIDATE) for row in match.only_candidate.tolist()),
        ]
        boxes, labels = "".join(box for box, _ in marks), "".join(label for _, label in marks)
        return f'<g class="at at-{number_of_threshold}">{boxes}{labels}{self._arrows()}</g>'

    def _mark(self, side: str, row: int, kind: str, symbol: str = "") -> tuple[str, str]:
        """The box and its label; nothing for a box of a broken model that is nowhere (the table says so)."""
        detections = self.row.reference if side == "reference" else self.row.candidate
        left, top, right, bottom = (float(value) for value in detections.xyxy[row])
        if not np.isfinite([left, top, right, bottom]).all():
            return "", ""
        name = name_of(self.model.names, int(detections.classes[row]))
        label = f"{symbol} {name} {detections.scores[row]:.2f}".strip()
        shape = f'x="{left:.2f}" y="{top:.2f}" width="{max(right - left, 0):.2f}" height="{max(bottom - top, 0):.2f}"'
        casing = "" if side == "candidate" and kind == "twin" else f'<rect class="casing" {shape}/>'
        box = f'<g class="{side} {kind}"><title>{text(f"{side}: {label}")}</title>{casing}<rect {shape}/></g>'
        return box, f'<g class="label {side} {kind}">{self._label(left, top, label, twin=not casing)}</g>'

    def _label(self, left: float, top: float, label: str, twin: bool) -> str:
        """Letters squeezed or stretched onto their plate, since nobody knows the reader's font.

        twin: the candidate's label of a pair. It lies on the reference's and shows only where that is hidden.
        """
        wide = width_in_ems(visible(label)) * self.letter
        size = (wide + 0.6 * self.letter, 1.35 * self.letter)
        plate = place_label((left, top), size, (self.width, self.height), [] if twin else self.taken)
        if not twin:
            self.taken.append(plate)
        x, y = plate.left + 0.3 * self.letter, plate.top + 1.02 * self.letter
        return (
            f'<rect x="{plate.left:.1f}" y="{plate.top:.1f}" width="{plate.width:.1f}" height="{plate.height:.1f}"/>'
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{self.letter:.1f}" textLength="{wide:.1f}" '
            f'lengthAdjust="spacingAndGlyphs">{text(label)}</text>'
        )

    def _arrows(self) -> str:
        pairs = self.row.match.pairs
        factor = self.factor
        marks = []
        for (cx, cy), (dx, dy) in zip(
            self.row.reference.boxes[pairs.reference, :2].tolist(), pairs.offsets[:, :2].tolist(), strict=True
        ):
            if not np.isfinite([cx, cy, dx, dy]).all():
                continue
            if dx or dy:
                marks.append(_arrow(cx, cy, dx * factor, dy * factor, self.letter * 0.6))
            else:
                marks.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{self.letter * 0.3:.1f}"/>')
        return f'<g class="arrows">{"".join(marks)}</g>'

    @property
    def longest(self) -> float:
        """Of the moves of box centres, in pixels of the picture."""
        return float(np.hypot(*self.row.match.pairs.offsets[:, :2].T).max(initial=0))

    @property
    def factor(self) -> float:
        """How much larger than true the arrows are."""
        return magnification(self.longest, self.width)

    def say_offsets(self) -> str:
        """The scale of the arrows in words."""
        if not len(self.row.match.pairs):
            return "no box has a partner"
        if not self.longest:
            return "no centre moved at all"
        factor = spaced(round(self.factor)) if self.factor >= 1 else number(self.factor)
        return f"arrows × {factor}, the longest is {number(self.longest)} px"


def _arrow(x: float, y: float, dx: float, dy: float, head: float) -> str:
    """A line with an open head of two barbs."""
    length = float(np.hypot(dx, dy))
    size = min(head, length / 2)
    ux, uy, tip = dx / length * size, dy / length * size, f"{x + dx:.1f} {y + dy:.1f}"
    one = f"{x + dx - ux - uy / 2:.1f} {y + dy - uy + ux / 2:.1f}"
    two = f"{x + dx - ux + uy / 2:.1f} {y + dy - uy - ux / 2:.1f}"
    return f'<path d="M{x:.1f} {y:.1f}L{tip}M{one}L{tip}L{two}"/>'
