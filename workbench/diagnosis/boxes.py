"""Only their final boxes are known: the whole pipeline is repeated with each mistake, and boxes are compared as sets.

Boxes tell less than tensors, and the result says what they cannot tell apart. The network is run once for each way of
preparing the picture; decoding and suppression are tried on top of that.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Detections, match, select, suppress
from workbench.diagnosis.computing import DoesNotFit, Hypothesis, Memory
from workbench.diagnosis.evidence import Evidence
from workbench.diagnosis.result import Diagnosis, Explanation
from workbench.diagnosis.search import COST, Progress, active_pitfalls
from workbench.errors import WorkbenchError
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.pitfalls import switch_on
from workbench.runners.torch import TorchRunner

BOX_PX, SCORE = 5e-3, 2e-4
"""Two correct ports differ by less: measured 1e-3 px and 1e-5."""
PRICE_PX, PRICE_SCORE = 8.0, 0.2
"""What costs as much as a lost box."""
FIRST_LOOK, BEAM = 2, 6
NEARLY = 0.05
"""Of the distance without the mistake: what may be left with it where nothing fits exactly."""
AROUND, INSIDE = ("suppression", "decoding", "picture"), ("network", "weights")
"""The stages around the network come first: what fits to the last digit there needs no look inside."""
MOST_BOXES_EACH = 40
"""Boxes before suppression for each one of theirs, beyond which a hypothesis is out of the question."""
MANY_TIMES = 8
"""So many more boxes than theirs, and no more are counted: nothing is paired."""
NICE = (0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.01, 0.005, 0.001)


@dataclass(frozen=True, eq=False)
class BoxAttempt:
    """How far the boxes of one hypothesis are from theirs: lost and extra ones, the largest offset and score."""

    names: tuple[str, ...]
    lost: int
    extra: int
    pairs: int
    offset_px: float
    score: float
    cost: float
    ours: tuple[Detections, ...] = ()

    @property
    def text(self) -> str:
        """One line with numbers."""
        return (
            f"{self.pairs} boxes matched, {self.lost} of ours missing in theirs, {self.extra} only in theirs; moved by "
            f"up to {self.offset_px:.3g} px, scores by {self.score:.2g}"
        )

    def exact(self, tolerance_px: float, tolerance_score: float) -> bool:
        """Whether nothing is left to explain."""
        return not self.lost + self.extra and self.offset_px <= tolerance_px and self.score <= tolerance_score


@dataclass
class BoxBench:
    """Runs hypotheses on the pictures of the evidence; raw heads are kept by what they depend on."""

    model: Model
    evidence: Sequence[Evidence]
    memory: Memory = field(default_factory=Memory)
    _heads: dict[object, dict[int, Float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        boxes = [item.boxes for item in self.evidence if item.boxes is not None]
        lowest = min((float(b.scores.min()) for b in boxes if len(b)), default=self.model.thresh)
        self.thresholds = tuple({next((t for t in NICE if t <= lowest), lowest), lowest * (1 - 1e-5)})
        decimals = [_decimals(b.boxes) for b in boxes if len(b)]
        digits = [_decimals(b.scores) for b in boxes if len(b)]
        self.tolerance_px = max(BOX_PX, 0.51 * 10.0 ** -min(decimals, default=9))
        self.tolerance_score = max(SCORE, 0.51 * 10.0 ** -min(digits, default=9))

    def attempt(self, names: Iterable[str], count: int | None = None) -> BoxAttempt | None:
        """The hypothesis with the pitfalls `names` on the first `count` pictures; None where it cannot be computed."""
        names = tuple(names)
        try:
            model = switch_on(self.model, *names)
            hypothesis = Hypothesis(model, names, self.memory)
            tries = [self._compare(hypothesis, thresh, self.evidence[:count]) for thresh in self.thresholds]
        except (DoesNotFit, WorkbenchError):
            return None
        return min(tries, key=lambda attempt: attempt.cost)

    def _compare(self, hypothesis: Hypothesis, thresh: float, evidence: Sequence[Evidence]) -> BoxAttempt:
        lost = extra = pairs = 0
        offset = score = cost = 0.0
        kept = []
        for item in evidence:
            assert item.picture is not None and item.boxes is not None
            ours, theirs = self._detect(hypothesis, item, thresh), item.boxes
            kept.append(ours)
            if len(ours) > MANY_TIMES * (len(theirs) + MANY_TIMES):
                lost, extra, cost = lost + len(ours), extra + len(theirs), cost + len(ours) + len(theirs)
                continue
            found = match(ours, theirs, 0.1)
            edge = thresh + SCORE
            here = (
                int((ours.scores[found.only_reference] > edge).sum()),
                int((theirs.scores[found.only_candidate] > edge).sum()),
            )
            far = np.abs(found.pairs.offsets).max(1, initial=0)
            lost, extra, pairs = lost + here[0], extra + here[1], pairs + len(found.pairs)
            offset, score = max(offset, found.max_offset_px), max(score, found.max_dscore)
            cost += sum(here) + float(
                np.minimum(far / PRICE_PX, 1).sum() + np.minimum(np.abs(found.pairs.dscore) / PRICE_SCORE, 1).sum()
            )
        return BoxAttempt(hypothesis.names, lost, extra, pairs, offset, score, cost, tuple(kept))

    def _detect(self, hypothesis: Hypothesis, item: Evidence, thresh: float) -> Detections:
        model, picture = hypothesis.model, item.picture
        assert picture is not None
        placement = model.preprocessing.placement(picture.shape[1], picture.shape[0])
        outputs = self._run(hypothesis, item.name, picture)
        found = model.candidates(outputs, thresh)
        if np.count_nonzero(found.probabilities) > MOST_BOXES_EACH * (len(item.boxes or ()) + MOST_BOXES_EACH):
            return select(found, placement, thresh)  # far too many to be theirs, and slow to suppress
        return select(suppress(found, model.nms), placement, thresh)

    def _run(self, hypothesis: Hypothesis, name: str, picture: NDArray[np.uint8]) -> dict[int, Float32]:
        """The heads' outputs (c, h, w)."""
        model = hypothesis.model
        owners = tuple(hypothesis.owner(layer.index) for layer in model.network.layers)
        key = (name, model.preprocessing, owners)
        if key not in self._heads:
            x = model.preprocessing.apply(picture)[None]
            indices = [head.index for head in model.network.heads]
            self._heads[key] = {i: y[0] for i, y in TorchRunner(model).run_layers(x, indices).items()}
        return self._heads[key]


def _decimals(values: Float32) -> int:
    """How many digits behind the point they were written with; 9 where it is all of them."""
    for digits in range(5):
        if np.allclose(
            values,
            np.round(values.astype(np.float64), digits),
            rtol=0,
            atol=1e-6 * max(1.0, float(np.abs(values).max())),
        ):
            return digits
    return 9


def diagnose_boxes(
    model: Model, evidence: Sequence[Evidence], *, limit_s: float, progress: Progress | None
) -> Diagnosis:
    """Which mistakes turn our boxes into theirs."""
    ranked = sorted(evidence, key=lambda item: -len(item.boxes or ()))
    bench = BoxBench(model, ranked)
    healthy = bench.attempt(())
    assert healthy is not None
    search = _BoxSearch(bench, healthy, limit_s, progress)
    found = [] if healthy.exact(bench.tolerance_px, bench.tolerance_score) else search.run()
    return _report(bench, healthy, found, search)


@dataclass
class _BoxSearch:
    bench: BoxBench
    healthy: BoxAttempt
    limit_s: float
    progress: Progress | None
    tried: list[BoxAttempt] = field(default_factory=list)
    out_of_time: bool = False
    started: float = field(default_factory=time.monotonic)

    def run(self) -> list[BoxAttempt]:
        """Explanations that fit exactly, the fewest mistakes first."""
        pitfalls = sorted(active_pitfalls(self.bench.model, True), key=lambda p: -COST[p.stage])
        names = [pitfall.name for pitfall in pitfalls]
        singles: list[BoxAttempt] = []
        for stages in (AROUND, INSIDE):
            looked = self._look([(pitfall.name,) for pitfall in pitfalls if pitfall.stage in stages])
            found = self._confirm(looked)
            if found:
                return found
            singles.extend(looked)
        beam = [attempt.names[0] for attempt in sorted(singles, key=lambda a: a.cost)[:BEAM]]
        pairs = {tuple(sorted((a, b))) for a, b in itertools.product(beam, names) if a != b}
        place = {name: number for number, name in enumerate(beam)}
        order = sorted(pairs, key=lambda pair: min(place.get(name, BEAM) for name in pair))
        return self._confirm(self._look(order))

    def _look(self, groups: Sequence[tuple[str, ...]]) -> list[BoxAttempt]:
        """Each group on a few pictures."""
        attempts = []
        for group in groups:
            if self._late():
                break
            self._tell(f"boxes: {', '.join(group)}")
            attempt = self.bench.attempt(group, FIRST_LOOK)
            if attempt:
                attempts.append(attempt)
        return attempts

    def _confirm(self, attempts: Sequence[BoxAttempt]) -> list[BoxAttempt]:
        """Those that fit the first pictures, on all of them."""
        whole = []
        near = [a for a in attempts if a.exact(self.bench.tolerance_px, self.bench.tolerance_score)]
        for attempt in near or sorted(attempts, key=lambda a: a.cost)[:2]:
            full = self.bench.attempt(attempt.names)
            if full:
                self.tried.append(full)
                whole.append(full)
        self.tried.extend(sorted((a for a in attempts if a not in near), key=lambda a: a.cost)[1:3])
        fitting = [a for a in whole if a.exact(self.bench.tolerance_px, self.bench.tolerance_score)]
        if not fitting and whole:
            # Saturated scores and huge boxes carry the noise of float32 beyond every tolerance; nearly all must fit.
            best = min(attempt.cost for attempt in whole)
            if best <= NEARLY * min(self.healthy.cost, self.healthy.pairs + self.healthy.extra + self.healthy.lost):
                fitting = [attempt for attempt in whole if attempt.cost <= 1.5 * best]
        return sorted(fitting, key=lambda attempt: attempt.cost)

    def _late(self) -> bool:
        self.out_of_time = self.out_of_time or time.monotonic() - self.started > self.limit_s
        return self.out_of_time

    def _tell(self, text: str) -> None:
        if self.progress:
            self.progress(text, min(int(100 * (time.monotonic() - self.started) / self.limit_s), 99), 100)


def _report(bench: BoxBench, healthy: BoxAttempt, found: list[BoxAttempt], search: _BoxSearch) -> Diagnosis:
    exact = healthy.exact(bench.tolerance_px, bench.tolerance_score)
    best = found[0] if found else None
    ties = tuple(a.names for a in found[1:] if best and len(a.names) == len(best.names))
    known = {best.names if best else (), *ties}
    second = next((a for a in search.tried if a.names not in known), None)
    remarks = list(dict.fromkeys(remark for item in bench.evidence for remark in item.remarks))
    remarks.append("boxes alone show no layer: a mistake that moves no box by more than the tolerance is not seen")
    if search.out_of_time:
        remarks.append(f"the search stopped after {search.limit_s:.0f} s; not every pair was tried")
    compared = any(len(item.boxes or ()) for item in bench.evidence) or any(len(d) for d in healthy.ours)
    return Diagnosis(
        ("nothing wrong" if exact else "explained" if best else "unexplained") if compared else "nothing compared",
        "float32",
        best.names if best else (),
        ties,
        "" if exact else "the boxes",
        () if exact else (healthy.text, *offset_field(bench.evidence, healthy.ours)),
        _explain(healthy),
        _explain(best) if best else None,
        _explain(second) if second else None,
        (),
        (),
        (),
        (f"all {healthy.pairs} boxes ({healthy.text})",) if exact and compared else (),
        tuple(remarks),
        len(search.tried) + 1,
    )


def _explain(attempt: BoxAttempt) -> Explanation:
    return Explanation(attempt.names, attempt.lost + attempt.extra, attempt.offset_px, attempt.text)


def offset_field(evidence: Sequence[Evidence], ours: Sequence[Detections]) -> tuple[str, ...]:
    """How matched boxes moved, as a straight line over the picture: shift and scale along both axes, of sizes too."""
    rows = []
    for item, mine in zip(evidence, ours, strict=True):
        assert item.boxes is not None and item.picture is not None
        pairs = match(mine, item.boxes, 0.1).pairs
        size = np.array([item.picture.shape[1], item.picture.shape[0]] * 2, np.float64)
        rows.append(np.concatenate([mine.boxes[pairs.reference] / size, item.boxes.boxes[pairs.candidate] / size], 1))
    table = np.concatenate(rows) if rows else np.empty((0, 8))
    if len(table) < 3:
        return ("too few boxes lie on ours for a field of offsets",)
    sentences = []
    for axis, name in enumerate(("x", "y")):
        slope, shift = np.polyfit(table[:, axis], table[:, 4 + axis], 1)
        rest = float(np.std(table[:, 4 + axis] - slope * table[:, axis] - shift))
        grow = float(np.median(table[:, 6 + axis] / np.maximum(table[:, 2 + axis], 1e-9)))
        side = "width" if name == "x" else "height"
        sentences.append(
            f"their {name} = {slope:.4f} x ours {shift:+.4f} of the picture (rest {rest:.2g}); "
            f"{side} {grow:.3f} times ours"
        )
    return tuple(sentences)
