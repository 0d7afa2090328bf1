"""Their tensors beside our layers, in order, without names.

Walking down the cfg, each layer is computed from the inputs that they gave it and looked for among their values by
content, in every layout. What is found is the same; what is not found is either not shown (merged with its neighbour,
as the layer after it proves) or different, and then the value that takes its place is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.diagnosis.computing import Hypothesis, Signal
from workbench.diagnosis.evidence import Evidence, Precision, Value
from workbench.diagnosis.layouts import Layout, Residual, compare_samples, layouts_of, residual_of
from workbench.layers.base import Float32, Layer
from workbench.layers.head import Head

State = Literal["same", "different", "not shown"]

LAYER_LIMIT = 2e-4
"""max|difference| / std in float32, one layer on equal inputs: three times the worst noise measured on real models."""
HALF_RMS, HALF_MAX = 3e-3, 0.1
"""The same for float16: a rounding of weights and result is 5e-4 of a value, and values reach 20 std."""
COARSE_CORRELATION = 0.96
"""For 8 bits: a step is 1/255 of the range, which is 10 to 60 std."""
LOOK_AHEAD = 4
"""How many possible partners of a layer are tried on the layer after it."""
LEAST_ALIKE = 0.25
MOST_LOOKED_AT = 8
NEARLY_AS_GOOD = 2e-3


@dataclass(frozen=True, eq=False)
class Row:
    """One layer of ours and its place in their tape. `proved`: the layer after it was recomputed from `value`."""

    layer: Layer
    state: State
    value: Value | None
    layout: Layout | None
    residual: Residual | None
    proved: bool
    signal: Signal
    made: Signal
    inputs: tuple[Signal, ...]
    anchors: int = 0

    @property
    def place(self) -> str:
        """`layer 12 [convolutional] (line 97)`."""
        return f"layer {self.layer.index} [{self.layer.kind}] (line {self.layer.line})"


@dataclass(frozen=True, eq=False)
class Find:
    """A value of theirs that may be a layer's output, and how far it is from that."""

    value: Value
    layout: Layout
    residual: Residual


def is_same(residual: Residual, precision: Precision) -> bool:
    """Whether a difference is the arithmetic's own noise."""
    if precision == "float32":
        return residual.max_over_std <= LAYER_LIMIT
    if precision == "float16":
        return residual.rms_over_std <= HALF_RMS and residual.max_over_std <= HALF_MAX
    return residual.correlation >= COARSE_CORRELATION


class Tape:
    """Their values of one picture, indexed by their number of elements."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._by_size: dict[int, list[Value]] = {}
        for value in evidence.values:
            self._by_size.setdefault(value.array.size, []).append(value)

    def of_size(self, size: int) -> list[Value]:
        """Their values with as many numbers, in order."""
        return self._by_size.get(size, [])


class Aligner:
    """Lays one hypothesis beside one tape."""

    def __init__(self, hypothesis: Hypothesis, tape: Tape, x: Signal) -> None:
        self.hypothesis, self.tape, self.x = hypothesis, tape, x
        self.precision = tape.evidence.precision
        layers = hypothesis.model.network.layers
        self._consumers: dict[int, list[Layer]] = {layer.index: [] for layer in layers}
        for layer in layers:
            for index in set(layer.inputs) - {-1}:
                self._consumers[index].append(layer)
        self._raw = {head.inputs[0]: len(head.anchors) for head in hypothesis.model.network.heads}
        self._used: set[int] = set()
        self._layouts: Counter[str] = Counter()

    def rows(self, stop: int | None = None) -> Iterator[Row]:
        """One row a layer, in order, up to and with layer `stop`."""
        signals: dict[int, Signal] = {-1: self.x}
        orders: dict[int, int] = {-1: -1}
        for layer in self.hypothesis.model.network.layers[: None if stop is None else stop + 1]:
            inputs = tuple(signals[i] for i in layer.inputs)
            row = self.place(layer, inputs, max((orders[i] for i in layer.inputs), default=-1))
            signals[layer.index] = row.signal
            orders[layer.index] = row.value.order if row.value else max((orders[i] for i in layer.inputs), default=-1)
            if row.value:
                self._used.add(row.value.order)
            if row.layout and row.state == "same":
                self._layouts[row.layout.name] += 1
            yield row

    def place(self, layer: Layer, inputs: tuple[Signal, ...], after: int) -> Row:
        """Find the layer's output among their values."""
        made = self.hypothesis.predict(layer.index, inputs)
        anchors = len(layer.anchors) if isinstance(layer, Head) else self._raw.get(layer.index, 0)
        find = self.match(layer, made)
        if find:
            return Row(
                layer, "same", find.value, find.layout, find.residual, True, self._theirs(find), made, inputs, anchors
            )
        find, proved = self._partner(layer, made, inputs, after)
        if find is None:
            return Row(layer, "not shown", None, None, None, proved, made, made, inputs)
        return Row(
            layer,
            "different",
            find.value,
            find.layout,
            find.residual,
            proved,
            self._theirs(find),
            made,
            inputs,
            anchors,
        )

    def match(self, layer: Layer, made: Signal) -> Find | None:
        """The first of their values that is `made`, but for noise."""
        key = ("match", made.token, self._raw.get(layer.index, 0))
        results = self.hypothesis.memory.results
        if key not in results:
            results[key] = self._match(layer, made)
        found: Find | None = results[key]
        return found

    def _match(self, layer: Layer, made: Signal) -> Find | None:
        found: list[Find] = []
        for find in self._search(layer, made.array)[:MOST_LOOKED_AT]:
            if _may_be_same(find.residual, self.precision):
                residual = residual_of(made.array, find.layout.view(find.value.array))
                if is_same(residual, self.precision):
                    found.append(Find(find.value, find.layout, residual))
                    if self.precision != "int8":
                        break
        # In 8 bits a value is often there twice, before and after its rounding; what goes on is the later one.
        best = max((find.residual.correlation for find in found), default=0.0)
        return next((f for f in sorted(found, key=_latest) if f.residual.correlation >= best - NEARLY_AS_GOOD), None)

    def _search(self, layer: Layer, made: Float32, after: int = -1, alone: str = "") -> list[Find]:
        c, h, w = made.shape[1:]
        layouts = layouts_of(
            (c, h, w), len(layer.anchors) if isinstance(layer, Head) else self._raw.get(layer.index, 0)
        )
        layouts = tuple(layout for layout in layouts if layout.name == alone) or layouts
        finds = []
        for value in self.tape.of_size(made.size):
            if value.order > after:
                looks = [(compare_samples(made, value.array, layout), layout) for layout in layouts]
                residual, layout = min(looks, key=lambda look: look[0].rms_over_std)
                finds.append(Find(value, layout, residual))
        return sorted(finds, key=lambda find: (-round(find.residual.correlation, 3), find.value.order))

    def _partner(self, layer: Layer, made: Signal, inputs: tuple[Signal, ...], after: int) -> tuple[Find | None, bool]:
        """The value in this layer's place, and whether the layer after proves it; None where it is not shown."""
        if isinstance(layer, Head) or layer.inputs == () or _passes_on(layer):
            return None, False
        finds = [
            f for f in self._search(layer, made.array, after, alone=self._usual()) if f.value.order not in self._used
        ]
        finds = [f for f in finds if not self._repeats(f, inputs)]
        if self._proves(layer, made):
            return None, True
        for find in finds[:LOOK_AHEAD]:
            if self._proves(layer, self._theirs(find)):
                return self._measured(find, made), True
        best = next((find for find in finds if find.residual.correlation >= LEAST_ALIKE), finds[0] if finds else None)
        return (self._measured(best, made) if best else None), False

    def _usual(self) -> str:
        """The layout that most layers were found in: what differs has no other one by chance."""
        return self._layouts.most_common(1)[0][0] if self._layouts else "NCHW"

    def _proves(self, layer: Layer, signal: Signal) -> bool:
        """Whether the next layer, computed from `signal`, is among their values."""
        for consumer in self._consumers[layer.index]:
            if consumer.inputs == (layer.index,) and not isinstance(consumer, Head) and not _passes_on(consumer):
                made = self.hypothesis.predict(consumer.index, (signal,))
                return bool(np.isfinite(made.array).all()) and self.match(consumer, made) is not None
        return False

    def _repeats(self, find: Find, inputs: tuple[Signal, ...]) -> bool:
        """Whether the value is an input of the layer once more, in another shape."""
        same_size = [signal for signal in inputs if signal.array.shape[1:] == find.layout.shape]
        return any(
            compare_samples(s.array, find.value.array, find.layout).max_over_std < LAYER_LIMIT for s in same_size
        )

    def _measured(self, find: Find, made: Signal) -> Find:
        return Find(find.value, find.layout, residual_of(made.array, find.layout.view(find.value.array)))

    def _theirs(self, find: Find) -> Signal:
        token = self.hypothesis.memory.token(("theirs", find.value.order, find.layout))
        array = self.hypothesis.memory.get(token)
        if array is None:
            array = find.layout.view(find.value.array)
            self.hypothesis.memory.keep(token, array)
        return Signal(token, array)


def _latest(find: Find) -> int:
    return -find.value.order


def _may_be_same(sample: Residual, precision: Precision) -> bool:
    """A few hundred values already differ where the whole does; coarse arithmetic gets the benefit of the doubt."""
    if precision == "int8":
        return sample.correlation > COARSE_CORRELATION - 0.05
    return sample.max_over_std <= 5 * (LAYER_LIMIT if precision == "float32" else HALF_MAX)


def _passes_on(layer: Layer) -> bool:
    """Layers that hand their input on unchanged are never a value of their own."""
    return layer.kind in ("dropout", "cost") or (layer.kind == "route" and len(layer.inputs) == 1 and
                                                 getattr(layer, "groups", 1) == 1)  # fmt: skip
