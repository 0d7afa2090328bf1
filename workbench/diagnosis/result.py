"""What a diagnosis says: the verdict, what explains it, what else was tried, what was aligned, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workbench.pitfalls import find_pitfall

Verdict = Literal["nothing wrong", "explained", "explained in part", "unexplained", "nothing compared"]


@dataclass(frozen=True)
class Aligned:
    """One layer of ours in their tape: the state, their value, its layout, and how far they are apart (std)."""

    place: str
    state: str
    theirs: str
    layout: str
    max_over_std: float | None
    rms_over_std: float | None


@dataclass(frozen=True)
class Explanation:
    """A set of pitfalls, and what it leaves: places that still differ, and how far the first of them is off."""

    pitfalls: tuple[str, ...]
    faults: int
    worst: float
    text: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "pitfalls": list(self.pitfalls),
            "places_that_differ": self.faults,
            "worst": self.worst,
            "text": self.text,
        }


@dataclass(frozen=True)
class Diagnosis:
    """The answer to "what is wrong with their conversion?".

    pitfalls: what explains the evidence, empty where nothing is wrong or nothing known explains it. ties: other sets
    that this evidence cannot tell from it. before, after, second: the healthy model, the explanation, the next best.
    fault: the first place that differs, with numbers. right: what was found right. precision: of their arithmetic.
    """

    verdict: Verdict
    precision: str
    pitfalls: tuple[str, ...]
    ties: tuple[tuple[str, ...], ...]
    fault: str
    details: tuple[str, ...]
    before: Explanation | None
    after: Explanation | None
    second: Explanation | None
    aligned: tuple[Aligned, ...]
    results: tuple[str, ...]
    not_aligned: tuple[str, ...]
    right: tuple[str, ...]
    remarks: tuple[str, ...]
    tried: int

    @property
    def healthy(self) -> bool:
        """True where nothing wrong was found in what could be compared."""
        return self.verdict == "nothing wrong"

    @property
    def change(self) -> str:
        """What to change, in one sentence; empty where nothing known explains it."""
        if not self.pitfalls:
            return ""
        titles = [find_pitfall(name).title for name in self.pitfalls]
        undone = " and ".join(f"“{title}”" for title in titles)
        if self.verdict == "explained":
            return f"Undo {undone}, as in the lines below: then everything that was compared agrees with Darknet."
        return f"Undo {undone} first; the rest is not explained by any known pitfall."

    @property
    def code(self) -> str:
        """A few lines of Python that do it right."""
        return "\n".join(f"# {find_pitfall(name).title}\n{find_pitfall(name).fix}" for name in self.pitfalls)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json`."""
        return {
            "verdict": self.verdict, "precision": self.precision, "pitfalls": list(self.pitfalls),
            "cannot_be_told_from": [list(names) for names in self.ties], "first_difference": self.fault,
            "details": list(self.details),
            **{name: part.to_json() if part else None
               for name, part in (("before", self.before), ("after", self.after), ("second_best", self.second))},
            "aligned": [vars(row) for row in self.aligned], "results": list(self.results),
            "not_aligned": list(self.not_aligned), "right": list(self.right), "remarks": list(self.remarks),
            "tried": self.tried, "change": self.change, "code": self.code,
        }  # fmt: skip


def number_ranges(numbers: Sequence[int]) -> str:
    """`0 to 4, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)
