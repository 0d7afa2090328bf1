"""Which known mistakes turn our model into theirs: the first place that differs is explained first, cheapest first.

A pitfall is worth a whole pass only if it brings that one place closer; one layer on known inputs tells. Where no
single one does, pairs and triples of those that touch the place are tried on it alone. What then explains everything is
the answer; several that do so equally well are all named.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from workbench.diagnosis.alignment import Aligner, is_same
from workbench.diagnosis.attempt import INPUT, RESULTS, Attempt, Bench, Fault, wrong_columns
from workbench.diagnosis.computing import DoesNotFit, Hypothesis
from workbench.diagnosis.decoded import read_outputs
from workbench.diagnosis.layouts import NOTHING_ALIKE, Residual, residual_of
from workbench.errors import WorkbenchError
from workbench.layers.head import Head
from workbench.model import Model
from workbench.pitfalls import PITFALLS, Pitfall

COST = {"weights": 0, "network": 0, "picture": 1, "decoding": 2, "suppression": 3}
LARGEST_SET = 3
BEAM = 5
CLOSER = 0.9
"""A pitfall is followed where it brings the first fault down to this part of the distance."""
CLEARLY = {"float32": 0.34, "float16": 0.5, "int8": 0.6}
"""Where all is within the noise already: how far down a pitfall must bring the distances to be believed."""
ALIKE = 1.3
"""Two explanations whose distances differ by no more than this factor cannot be told apart."""
SMALLEST = 1e-7
LOOKS = 6
Progress = Callable[[str, int, int], None]


@dataclass
class Search:
    """The search on one picture's evidence; `tried` is everything that was held against it."""

    bench: Bench
    pitfalls: Sequence[Pitfall]
    limit_s: float
    progress: Progress | None = None
    tried: dict[frozenset[str], Attempt] = field(default_factory=dict)
    looked_at: int = 0
    out_of_time: bool = False
    _models: dict[frozenset[str], Model | None] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    def run(self) -> list[Attempt]:
        """All attempts that explain everything, the best first; just the healthy one where nothing is wrong."""
        healthy = self.attempt(())
        assert healthy is not None
        if healthy.explains:
            better = self._clearly_better(healthy)
            return better or [healthy]
        found: list[Attempt] = []
        beam = [healthy]
        for size in range(1, LARGEST_SET + 1):
            beam = self._grow(beam, size)
            found = [attempt for attempt in beam if attempt.explains]
            if found or not beam or self.out_of_time:
                break
        found = found or self._together(healthy)
        return sorted((self._sharpened(attempt) for attempt in found), key=_distance)

    # ------------------------------------------------------------------------------------------ growing

    def _grow(self, beam: list[Attempt], size: int) -> list[Attempt]:
        """Every attempt of the beam with one more pitfall that brings its first fault closer."""
        grown: dict[frozenset[str], Attempt] = {}
        for attempt in beam:
            for pitfall in self._others(attempt.names):
                self._tell(f"{size} at a time: {pitfall.name}")
                if self._late():
                    break
                if self._helps(attempt, pitfall):
                    made = self.attempt((*attempt.names, pitfall.name))
                    if made is not None and made.rank < attempt.rank:
                        grown[frozenset(made.names)] = made
        return sorted(grown.values(), key=lambda attempt: (attempt.rank, _distance(attempt)))[: BEAM * 2]

    def _together(self, attempt: Attempt) -> list[Attempt]:
        """Pairs and triples none of which helps alone, on the first fault only."""
        fault = attempt.faults[0]
        touching = [p for p in self._others(attempt.names) if self._touches(attempt, fault, p)]
        found: list[Attempt] = []
        for size in range(2, LARGEST_SET + 1):
            for group in itertools.combinations(touching, size):
                self._tell(f"{size} together: {', '.join(p.name for p in group)}")
                if found or self._late():
                    break
                residual = self._residual(attempt, fault, [p.name for p in group])
                if residual and is_same(residual, self.bench.evidence.precision):
                    made = self.attempt(tuple(p.name for p in group))
                    grown = [made] if made else []
                    if made and not made.explains and size < LARGEST_SET:
                        grown = self._grow([made], size + 1)
                    found.extend(a for a in grown if a.explains)
        return found

    def _others(self, names: Iterable[str]) -> list[Pitfall]:
        return [pitfall for pitfall in self.pitfalls if pitfall.name not in names]

    # ------------------------------------------------------------------------------------------ one place

    def _helps(self, attempt: Attempt, pitfall: Pitfall) -> bool:
        fault = attempt.faults[0]
        residual = self._residual(attempt, fault, [*attempt.names, pitfall.name])
        if residual is None:
            return False
        before = fault.residual.rms_over_std
        return residual.rms_over_std < CLOSER * before or (math.isinf(before) and math.isfinite(residual.rms_over_std))

    def _touches(self, attempt: Attempt, fault: Fault, pitfall: Pitfall) -> bool:
        residual = self._residual(attempt, fault, [*attempt.names, pitfall.name])
        return residual is not None and residual.rms_over_std != fault.residual.rms_over_std

    def _residual(self, attempt: Attempt, fault: Fault, names: list[str]) -> Residual | None:
        """How far apart the place of `fault` is with the pitfalls `names`; None where they do not concern it."""
        model = self._model(names)
        if model is None:
            return None
        self.looked_at += 1
        if fault.at == INPUT:
            return self.bench.input(model)[1] if model.preprocessing != attempt.hypothesis.model.preprocessing else None
        hypothesis = Hypothesis(model, tuple(names), self.bench.memory)
        if fault.row is None or fault.row.value is None:
            return self._result_residual(attempt, hypothesis, fault)
        index, row = fault.row.layer.index, fault.row
        inputs = tuple(
            self.bench.input(model)[0] if i < 0 else attempt.rows[i].signal for i in model.network.layers[index].inputs
        )
        same = [signal.token for signal in inputs] == [signal.token for signal in row.inputs]
        if same and hypothesis.owner(index) == attempt.hypothesis.owner(index):
            return None
        try:
            made = hypothesis.predict(index, inputs)
        except DoesNotFit:
            return None
        # The place of the first fault was guessed from what a healthy layer puts out; the right one may lie elsewhere.
        find = Aligner(hypothesis, self.bench.tape, attempt.x).match(model.network.layers[index], made)
        if find:
            return find.residual
        if made.array.size != row.signal.array.size:
            return NOTHING_ALIKE
        return residual_of(made.array, row.signal.array)

    def _result_residual(self, attempt: Attempt, hypothesis: Hypothesis, fault: Fault) -> Residual | None:
        """The number of wrong columns and how wrong they are, as a distance."""
        heads = hypothesis.model.network.heads
        rows = {row.layer.index: row for row in attempt.rows}
        raw = tuple(rows[head.inputs[0]].signal for head in heads)
        tokens = tuple(signal.token for signal in raw)
        if hypothesis.decoding_token(tokens) == attempt.hypothesis.decoding_token(tokens) or fault.at != RESULTS:
            return None
        values = sorted((*(output.value for output in attempt.outputs), *attempt.unreadable), key=lambda v: v.order)
        try:
            outputs = read_outputs(hypothesis, raw, values, self.bench.evidence.precision)
        except DoesNotFit:
            return None
        return wrong_columns(outputs, len(values) - len(outputs))

    # ------------------------------------------------------------------------------------------ below the noise

    def _clearly_better(self, attempt: Attempt) -> list[Attempt]:
        """Explanations of what is within the tolerance, but far better than chance: all distances shrink together."""
        found = []
        for pitfall in self._others(attempt.names):
            self._tell(f"below the noise: {pitfall.name}")
            if self._late() or not self._shrinks(attempt, pitfall):
                continue
            made = self.attempt((*attempt.names, pitfall.name))
            if made and made.explains and _shrinkage(attempt, made) < CLEARLY[self.bench.evidence.precision]:
                found.append(made)
        return sorted(found, key=_distance)

    def _sharpened(self, attempt: Attempt) -> Attempt:
        """With one more pitfall where that is clearly better still."""
        while len(attempt.names) < LARGEST_SET:
            better = self._clearly_better(attempt)
            if not better:
                break
            attempt = better[0]
        return attempt

    def _shrinks(self, attempt: Attempt, pitfall: Pitfall) -> bool:
        """A cheap look at some of the layers that the pitfall changes: do their distances shrink?"""
        model = self._model([*attempt.names, pitfall.name])
        if model is None or len(model.network.layers) != len(attempt.rows):
            return False
        hypothesis = Hypothesis(model, (), self.bench.memory)
        shown = [row for row in attempt.rows if row.residual and not isinstance(row.layer, Head)]
        changed = [
            row for row in shown if hypothesis.owner(row.layer.index) != attempt.hypothesis.owner(row.layer.index)
        ]
        logs = []
        for row in changed[:: max(len(changed) // LOOKS, 1)]:
            try:
                made = hypothesis.predict(row.layer.index, row.inputs).array
            except DoesNotFit:
                return False
            if made.size != row.signal.array.size or row.residual is None:
                return False
            after = residual_of(made, row.signal.array).rms_over_std
            logs.append(math.log((min(after, 1e6) + SMALLEST) / (row.residual.rms_over_std + SMALLEST)))
        return bool(logs) and math.exp(sum(logs) / len(logs)) < 1.2 * CLEARLY[self.bench.evidence.precision]

    # ------------------------------------------------------------------------------------------ bookkeeping

    def attempt(self, names: tuple[str, ...]) -> Attempt | None:
        key = frozenset(names)
        if key not in self.tried:
            model = self._model(names)
            if model is None:
                return None
            try:
                self.tried[key] = self.bench.attempt(model, names)
            except DoesNotFit:
                self._models[key] = None
        return self.tried.get(key)

    def _model(self, names: Iterable[str]) -> Model | None:
        """Ours with these pitfalls; None where one does not apply to what the others left."""
        key = frozenset(names)
        if key not in self._models:
            model: Model | None = self.bench.model
            try:
                for name in sorted(key):
                    assert model is not None
                    model = PITFALLS[name].apply(model)
            except WorkbenchError:
                model = None
            self._models[key] = model
        return self._models[key]

    def _late(self) -> bool:
        self.out_of_time = self.out_of_time or time.monotonic() - self._started > self.limit_s
        return self.out_of_time

    def _tell(self, text: str) -> None:
        if self.progress:
            self.progress(text, min(int(100 * (time.monotonic() - self._started) / self.limit_s), 99), 100)


ONLY_WITH_OVERFLOW = ("fp16-overflow",)
"""Half precision alone is no mistake."""


def active_pitfalls(model: Model, overflow: bool) -> list[Pitfall]:
    """The pitfalls that change something about `model`, cheapest first. overflow: whether theirs has NaN or inf."""
    possible = [
        p for p in PITFALLS.values() if p.idle(model) is None and (overflow or p.name not in ONLY_WITH_OVERFLOW)
    ]
    return sorted(possible, key=lambda p: COST[p.stage])


def alike(best: Attempt, other: Attempt) -> bool:
    """Whether this evidence cannot tell two explanations apart."""
    places = best.residuals.keys() & other.residuals.keys()
    pairs = [(best.residuals[k] + SMALLEST, other.residuals[k] + SMALLEST) for k in places]
    return len(places) == best.compared and all(b <= max(a * ALIKE, 2e-6) for a, b in pairs)


def _distance(attempt: Attempt) -> float:
    """The mean logarithm of all distances."""
    values = [math.log(min(value, 1e6) + SMALLEST) for value in attempt.residuals.values()]
    return sum(values) / max(len(values), 1)


def _shrinkage(before: Attempt, after: Attempt) -> float:
    """The mean factor by which distances shrink where they change; 1 where nothing changes or anything is lost."""
    if after.compared < before.compared:
        return 1.0
    pairs = [(before.residuals[k], after.residuals[k]) for k in before.residuals if k in after.residuals]
    logs = [math.log((b + SMALLEST) / (a + SMALLEST)) for a, b in pairs if a != b]
    if not logs or max(logs) > math.log(1.5):
        return 1.0
    return math.exp(sum(logs) / len(logs))
