"""`diagnose`: a foreign conversion in, the pitfall that explains it out.

The evidence is looked at picture by picture: the first one that differs is searched, and what explains it must explain
the others as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.diagnosis.attempt import Attempt, Bench
from workbench.diagnosis.decoded import OutputRow, group_columns
from workbench.diagnosis.details import describe
from workbench.diagnosis.evidence import Evidence, coarsest
from workbench.diagnosis.result import Aligned, Diagnosis, Explanation, Verdict, number_ranges
from workbench.diagnosis.search import Progress, Search, active_pitfalls, alike
from workbench.errors import OptionError
from workbench.model import Model

LIMIT_S = 25.0
Pictures = Mapping[str, NDArray[np.uint8]]


class Foreign(Protocol):
    """A conversion by somebody else: what it computes for some pictures."""

    def size(self) -> tuple[int, int] | None:
        """Width and height that it works at, None where open."""
        ...

    def evidence(self, model: Model, pictures: Pictures) -> list[Evidence]:
        """What it makes of each picture; `model` is ours, at its size."""
        ...


def diagnose(
    model: Model, foreign: Foreign, pictures: Pictures, *, limit_s: float = LIMIT_S, progress: Progress | None = None
) -> Diagnosis:
    """What is wrong with `foreign`, which is meant to be `model`.

    pictures: name -> uint8 (H, W, 3) RGB. limit_s: seconds for the search; a search that ran out of them says so.
    Raises OptionError where there is nothing to compare, and what `foreign` raises.
    """
    size = foreign.size()
    if size and size != (model.network.width, model.network.height):
        model = model.at_size(*size)
    evidence = foreign.evidence(model, pictures)
    if not evidence:
        raise OptionError("diagnose", "nothing was given to compare", expected="a picture, arrays or boxes")
    if any(item.boxes is not None for item in evidence):
        from workbench.diagnosis.boxes import diagnose_boxes

        return diagnose_boxes(model, evidence, limit_s=limit_s, progress=progress)
    return _diagnose_tapes(model, evidence, limit_s, progress)


def _diagnose_tapes(model: Model, evidence: Sequence[Evidence], limit_s: float, progress: Progress | None) -> Diagnosis:
    benches = [Bench(model, item) for item in evidence]
    # Minus infinity is how a padded pool is written; NaN and plus infinity are accidents.
    overflow = any((np.isnan(v.array) | np.isposinf(v.array)).any() for item in evidence for v in item.values)
    pitfalls = active_pitfalls(model, overflow)
    searches = [Search(bench, pitfalls, limit_s / len(benches), progress) for bench in benches]
    found: list[Attempt] = []
    chosen = searches[0]
    for search in searches:
        chosen, found = search, search.run()
        if not found or found[0].names:
            break
    rest = [search for search in searches if search is not chosen]
    found = [attempt for attempt in found if all(_holds(search, attempt) for search in rest)]
    return _report(chosen, found, [item for item in evidence])


def _holds(search: Search, attempt: Attempt) -> bool:
    other = search.attempt(attempt.names)
    return other is not None and other.explains


def _report(search: Search, found: list[Attempt], evidence: Sequence[Evidence]) -> Diagnosis:
    healthy = search.attempt(())
    assert healthy is not None
    others = sorted((a for a in search.tried.values() if a.names), key=lambda a: (a.rank, len(a.names)))
    partial = next((a for a in others if _clears_first(healthy, a)), None)
    best = found[0] if found else partial
    verdict = _verdict(healthy, found, partial)
    if verdict in ("nothing wrong", "nothing compared"):
        best = None
    ties = [a for a in found[1:] if best and len(a.names) == len(best.names) and alike(best, a)]
    spared = {frozenset(a.names) for a in (*ties, *([best] if best else []))}
    second = next(
        (a for a in others if frozenset(a.names) not in spared and not (best and set(best.names) < set(a.names))), None
    )
    shown = best if best and best.explains else healthy
    first = healthy.faults[0] if healthy.faults and verdict != "nothing wrong" else None
    return Diagnosis(
        verdict,
        coarsest([item.precision for item in evidence]),
        best.names if best else (),
        tuple(a.names for a in ties),
        first.place if first else "",
        describe(first) if first else (),
        _explanation(healthy),
        _explanation(best) if best else None,
        _explanation(second) if second and first else None,
        tuple(_aligned(a) for a in shown.rows),
        tuple(_result(output) for output in healthy.outputs),
        tuple(f"{v.name} ({v.shape_text})" for v in shown.unread if v.is_output),
        _right(healthy, shown),
        _remarks(search, evidence),
        len(search.tried),
    )  # fmt: skip


def _verdict(healthy: Attempt, found: list[Attempt], partial: Attempt | None) -> Verdict:
    if not healthy.compared and not healthy.faults:
        return "nothing compared"
    if not found and not partial and healthy.faults and all(fault.unreadable for fault in healthy.faults):
        return "nothing wrong"
    if found:
        return "explained" if found[0].names else "nothing wrong"
    return "explained in part" if partial else "unexplained"


def _clears_first(healthy: Attempt, attempt: Attempt) -> bool:
    """Whether the attempt makes the first fault agree to the noise, and leaves only later ones."""
    if not healthy.faults or not attempt.faults:
        return False
    return attempt.faults[0].at > healthy.faults[0].at and len(attempt.faults) < len(healthy.faults)


def _explanation(attempt: Attempt) -> Explanation:
    if not attempt.faults:
        worst = max(attempt.residuals.values(), default=0.0)
        return Explanation(attempt.names, 0, worst, f"all {attempt.compared} places that can be compared agree")
    first = attempt.faults[0]
    places = len({fault.place for fault in attempt.faults})
    return Explanation(
        attempt.names,
        places,
        first.residual.max_over_std,
        f"{places} places differ, first {first.place}: {first.residual}",
    )


def _result(output: OutputRow) -> str:
    wrong = f"; wrong: {', '.join(group_columns(output.bad))}" if output.bad else ""
    return f"{output.value.name} ({output.value.shape_text}): {output.text}{wrong}"


def _aligned(row: object) -> Aligned:
    from workbench.diagnosis.alignment import Row

    assert isinstance(row, Row)
    return Aligned(
        row.place, row.state, f"{row.value.name} ({row.value.shape_text})" if row.value else "",
        row.layout.name if row.layout else "",
        row.residual.max_over_std if row.residual else None, row.residual.rms_over_std if row.residual else None,
    )  # fmt: skip


def _right(healthy: Attempt, shown: Attempt) -> tuple[str, ...]:
    parts = []
    if healthy.picture and not any(fault.at == -1 for fault in healthy.faults):
        parts.append(f"the network's input ({healthy.picture})")
    same = [row.layer.index for row in healthy.rows if row.state == "same"]
    if same:
        parts.append(f"layers {number_ranges(same)}")
    for output in healthy.outputs:
        if output.good:
            named = "all columns" if not output.bad else ", ".join(group_columns(output.good))
            parts.append(f"result {output.value.name}: {named}")
    return tuple(parts)


def _remarks(search: Search, evidence: Sequence[Evidence]) -> tuple[str, ...]:
    remarks = list(dict.fromkeys(remark for item in evidence for remark in item.remarks))
    if search.out_of_time:
        remarks.append(f"the search stopped after {search.limit_s:.0f} s; not every pair and triple was tried")
    return tuple(remarks)
