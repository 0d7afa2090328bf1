"""One hypothesis held against one picture's evidence: what agrees, what does not, and what could not be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from workbench.diagnosis.alignment import Aligner, Row, Tape, is_same
from workbench.diagnosis.computing import Hypothesis, Memory, Signal
from workbench.diagnosis.decoded import OutputRow, group_columns, read_outputs
from workbench.diagnosis.evidence import Evidence, Value
from workbench.diagnosis.layouts import NOTHING_ALIKE, Residual, compare_samples, layouts_of, residual_of
from workbench.layers.base import Float32
from workbench.model import Model

INPUT, RESULTS = -1, 1_000_000
"""Places before the first layer and after the last one."""
MOST_READ = 30
UNREADABLE_COUNTS = 6
"""Columns that a result counts as of which nothing is ours."""


@dataclass(frozen=True, eq=False)
class Fault:
    """A place where they differ. `at` orders faults; `columns` are those of decoded boxes that are wrong."""

    at: int
    place: str
    residual: Residual
    row: Row | None = None
    columns: tuple[str, ...] = ()
    unreadable: bool = False
    """A result with as many rows as there are boxes, no column of which is ours; a fault if something explains it."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """What one hypothesis leaves unexplained: `faults`, in order; none where everything agrees."""

    names: tuple[str, ...]
    hypothesis: Hypothesis
    x: Signal
    picture: Residual | None
    rows: tuple[Row, ...]
    outputs: tuple[OutputRow, ...]
    unread: tuple[Value, ...]
    faults: tuple[Fault, ...]
    unreadable: tuple[Value, ...] = ()

    @property
    def explains(self) -> bool:
        """Whether nothing is left to explain, and something was compared at all."""
        return not self.faults and self.compared > 0

    @property
    def compared(self) -> int:
        """How many things of theirs were found: layers, results, the input."""
        return len(self.residuals)

    @cached_property
    def residuals(self) -> dict[str, float]:
        """rms distance of everything that was compared, by place."""
        found = {f"layer {row.layer.index}": row.residual.rms_over_std for row in self.rows if row.residual}
        if self.picture:
            found["input"] = self.picture.rms_over_std
        for output in self.outputs:
            found.update({f"{output.value.name} {name}": worst for name, worst in output.columns.items()})
        return found

    @property
    def rank(self) -> tuple[float, float]:
        """The smaller, the better."""
        first = self.faults[0].residual.rms_over_std if self.faults else 0.0
        return (float(len(self.faults)), first)


class Bench:
    """Tries hypotheses on one picture's evidence; everything computed once is remembered."""

    def __init__(self, model: Model, evidence: Evidence) -> None:
        self.model, self.evidence = model, evidence
        self.memory, self.tape = Memory(), Tape(evidence)
        self.has_results = any(value.is_output for value in evidence.values)

    def attempt(self, model: Model, names: tuple[str, ...]) -> Attempt:
        """Hold `model`, which is ours with the pitfalls `names`, against the evidence."""
        hypothesis = Hypothesis(model, names, self.memory)
        x, picture = self.input(model)
        rows = list(Aligner(hypothesis, self.tape, x).rows()) if self.evidence.values else []
        outputs, rows = self._read(hypothesis, rows)
        taken = {row.value.order for row in rows if row.value and row.state == "same"}
        taken |= {output.value.order for output in outputs}
        taken |= {value.order for value in self.evidence.values if value.is_output and _is_copy(value, rows)}
        unread = tuple(value for value in self.evidence.values if value.order not in taken)
        unreadable = (
            tuple(v for v in unread if v.is_output and has_rows_of_boxes(v, hypothesis.model))
            if outputs or rows
            else ()
        )
        faults = sorted(self._faults(hypothesis, picture, rows, outputs, unreadable), key=lambda fault: fault.at)
        return Attempt(names, hypothesis, x, picture, tuple(rows), tuple(outputs), unread, tuple(faults), unreadable)

    def input(self, model: Model) -> tuple[Signal, Residual | None]:
        """What enters the network, and how far theirs is from what `model` makes of the picture."""
        ours = None
        if self.evidence.picture is not None and not self.evidence.x_is_ours:
            ours = prepare(model, self.evidence.picture, self.memory)
        if self.evidence.x is None:
            assert ours is not None
            return ours, None
        x = Signal(self.memory.token("their input"), self.evidence.x)
        return x, residual_of(ours.array, self.evidence.x) if ours is not None else None

    def _read(self, hypothesis: Hypothesis, rows: list[Row]) -> tuple[list[OutputRow], list[Row]]:
        """Their results as decoded boxes; a raw head that was not shown, or mistaken, is taken as computed."""
        by_index = {row.layer.index: row for row in rows}
        heads = hypothesis.model.network.heads
        if not heads or not rows:
            return [], rows
        raw = [by_index[head.inputs[0]] for head in heads]
        values = self._readable(rows)
        outputs = read_outputs(hypothesis, tuple(row.signal for row in raw), values, self.evidence.precision)
        if any(row.state == "different" and not row.proved for row in raw):
            made = tuple(row.made if not row.proved else row.signal for row in raw)
            others = read_outputs(hypothesis, made, values, self.evidence.precision)
            if others and all(not output.bad for output in others):
                covered = {head for output in others for head in output.heads}
                mistaken = {head.inputs[0] for head in heads if head.index in covered}
                rows = [replace_hidden(row) if row.layer.index in mistaken and not row.proved else row for row in rows]
                return others, rows
        return outputs, rows

    def _readable(self, rows: list[Row]) -> list[Value]:
        """Their results that are no layer's output; where they hand out none, whatever is left."""
        taken = {row.value.order for row in rows if row.value and row.state == "same"}
        left = [value for value in self.evidence.values if value.order not in taken]
        results = [value for value in left if value.is_output]
        return results if self.has_results else left[-MOST_READ:]

    def _faults(
        self,
        hypothesis: Hypothesis,
        picture: Residual | None,
        rows: list[Row],
        outputs: list[OutputRow],
        unreadable: tuple[Value, ...],
    ) -> list[Fault]:
        faults = []
        wrong = wrong_columns(outputs, len(unreadable))
        if picture and not is_same(picture, "float32"):
            faults.append(Fault(INPUT, "the network's input", picture))
        for row in rows:
            if row.state == "different":
                faults.append(Fault(row.layer.index, row.place, row.residual or NOTHING_ALIKE, row))
        for output in outputs:
            if output.bad:
                for name in group_columns(output.bad):
                    faults.append(Fault(RESULTS, f"result {output.value.name}", wrong, columns=(name,)))
        lost = [Fault(RESULTS, f"result {v.name}, which cannot be read", wrong, unreadable=True) for v in unreadable]
        return faults + lost + self._lost_heads(hypothesis, rows, outputs)

    def _lost_heads(self, hypothesis: Hypothesis, rows: list[Row], outputs: list[OutputRow]) -> list[Fault]:
        """Heads of which their results show nothing at all."""
        if not self.has_results:
            return []
        shown = {row.layer.index for row in rows if row.state == "same" and row.value}
        read = {index for output in outputs for index in output.heads}
        different = {row.layer.index for row in rows if row.state == "different"}
        return [
            Fault(
                RESULTS + 1,
                f"layer {head.index} [{head.kind}] (line {head.line}), of which nothing is shown",
                NOTHING_ALIKE,
            )
            for head in hypothesis.model.network.heads
            if not {head.index, head.inputs[0]} & (shown | different) and head.index not in read
        ]


def start(model: Model, evidence: Evidence) -> float:
    """How well the layers that read the input are among their values: the least correlation, 0 where one is not."""
    memory = Memory()
    assert evidence.x is not None
    aligner = Aligner(Hypothesis(model, (), memory), Tape(evidence), Signal(memory.token("their input"), evidence.x))
    first = [row for row in aligner.rows(stop=0) if -1 in row.layer.inputs]
    return min(
        (row.residual.correlation if row.state == "same" and row.residual else 0.0 for row in first), default=0.0
    )


def wrong_columns(outputs: list[OutputRow], unreadable: int = 0) -> Residual:
    """Wrong columns of decoded boxes as a distance: how many there are, and the worst relative difference."""
    wrong = [output.columns[name] for output in outputs for name in output.bad] + [float("inf")] * unreadable
    count = sum(len(group_columns(output.bad)) for output in outputs) + UNREADABLE_COUNTS * unreadable
    return Residual(max(wrong, default=0.0), float(count), 0.0 if wrong else 1.0)


def has_rows_of_boxes(value: Value, model: Model) -> bool:
    """Whether there is a number, or some, for each box of the heads, or of one of them."""
    counts = [head.boxes for head in model.network.heads]
    squeezed = [n for n in value.array.shape if n > 1]
    return any(n in (*counts, sum(counts)) for n in squeezed) and bool(np.isfinite(value.array).all())


def prepare(model: Model, picture: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]], memory: Memory) -> Signal:
    """The network's input that `model` makes of a picture."""
    key = ("picture", type(model), model.preprocessing)
    token = memory.token(key)
    array = memory.get(token)
    if array is None:
        array = np.ascontiguousarray(model.preprocessing.apply(picture)[None])
        memory.keep(token, array)
    return Signal(token, array)


def replace_hidden(row: Row) -> Row:
    """The row as one whose layer is not shown: the value that was taken for it is another thing."""
    return replace(row, state="not shown", value=None, layout=None, residual=None, proved=True, signal=row.made)


def _is_copy(value: Value, rows: list[Row]) -> bool:
    """Whether the value is a layer's output once more, in another layout."""
    for row in rows:
        if row.value and row.signal.array.size == value.array.size:
            c, h, w = row.signal.array.shape[1:]
            layouts = layouts_of((c, h, w), row.anchors)
            if any(compare_samples(row.signal.array, value.array, layout).max_over_std < 1e-5 for layout in layouts):
                return True
    return False


def as_input(array: Float32, model: Model) -> Float32 | None:
    """Their input tensor as (1, c, h, w), whatever its layout; None where it does not fit the network."""
    network = model.network
    shape = (network.channels, network.height, network.width)
    if array.size != int(np.prod(shape)):
        return None
    squeezed = tuple(n for n in array.shape if n > 1)
    layouts = layouts_of(shape)
    last = squeezed == (network.height, network.width, network.channels) and len(layouts) > 1
    return layouts[1 if last else 0].view(array)
