"""Their results when they are decoded boxes: which columns are ours, in what order of rows, in which units.

Boxes come as centre and size or as corners, relative or in pixels, with objectness and classes apart or multiplied, the
rows in any order of heads, cells and anchors, in one tensor or several. Each of our columns is looked for separately,
so that a column that is nowhere stands out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from workbench.diagnosis.computing import Hypothesis, Signal
from workbench.diagnosis.evidence import Precision, Value
from workbench.diagnosis.layouts import Array
from workbench.layers.base import Float32

RELATIVE_LIMIT = {"float32": 3e-4, "float16": 2e-2, "int8": 5e-2}
"""|difference| over (standard deviation of the column + the value itself)."""
SMALLEST_SPREAD = 3e-3
"""Of a column: runtimes compute a logistic to 1e-7 absolutely, and most classes are next to 0 everywhere."""
ALLOWED_OUTSIDE = {"float32": 0.0, "float16": 0.001, "int8": 0.02}
"""Fraction of a column that coarse arithmetic may push beyond that."""
ROW_ORDERS = {
    "y, x, anchor": (0, 1, 2),
    "anchor, y, x": (2, 0, 1),
    "x, y, anchor": (1, 0, 2),
    "anchor, x, y": (2, 1, 0),
}


@dataclass(frozen=True, eq=False)
class Family:
    """A way of writing our rows: named columns, float32 (rows, columns). `read` turns their columns into these."""

    name: str
    columns: tuple[str, ...]
    values: Float32
    read: Callable[[Float32], Float32] | None = None


@dataclass(frozen=True, eq=False)
class OutputRow:
    """One result of theirs: how it was read, and each column's relative difference; `bad` are those beyond noise."""

    value: Value
    text: str
    heads: tuple[int, ...]
    columns: dict[str, float]
    bad: tuple[str, ...]

    @property
    def good(self) -> tuple[str, ...]:
        """The columns that were found right."""
        return tuple(name for name in self.columns if name not in self.bad)


def group_columns(names: Iterable[str]) -> tuple[str, ...]:
    """The classes as one: `x`, `objectness`, `classes`, in order."""
    return tuple(dict.fromkeys(re.sub(r"class \d+", "classes", name) for name in names))


def read_outputs(
    hypothesis: Hypothesis, raw: tuple[Signal, ...], values: list[Value], precision: Precision
) -> list[OutputRow]:
    """How each of `values` can be read as what the heads make of `raw`; values that cannot are left out."""
    key = ("outputs", hypothesis.decoding_token(tuple(signal.token for signal in raw)), tuple(v.order for v in values))
    results = hypothesis.memory.results
    if key not in results:
        tables = _Tables(hypothesis, raw)
        results[key] = _without_lone_classes([row for value in values if (row := tables.read(value, precision))])
    found: list[OutputRow] = results[key]
    return found


def _without_lone_classes(rows: list[OutputRow]) -> list[OutputRow]:
    """Probabilities without the objectness are right only where the objectness is handed out beside them."""
    if any("objectness" in row.good for row in rows):
        return rows
    lone = [tuple(name for name in row.good if name.startswith("class") and " x " not in name) for row in rows]
    return [replace(row, bad=(*row.bad, *names)) for row, names in zip(rows, lone, strict=True)]


class _Tables:
    """Our rows in every way of writing them."""

    def __init__(self, hypothesis: Hypothesis, raw: tuple[Signal, ...]) -> None:
        self.heads = hypothesis.model.network.heads
        self.shapes = [(*head.output_shape[1:], len(head.anchors)) for head in self.heads]
        self.classes = self.heads[0].classes if self.heads else 0
        self.families = list(self._families(hypothesis, raw)) if self._usable(raw) else []

    def _usable(self, raw: tuple[Signal, ...]) -> bool:
        one = len({head.classes for head in self.heads}) == 1 and len({head.entries for head in self.heads}) == 1
        return one and all(np.isfinite(signal.array).all() for signal in raw)

    def _families(self, hypothesis: Hypothesis, raw: tuple[Signal, ...]) -> Iterator[Family]:
        model = hypothesis.model
        outputs = {
            head.index: hypothesis.predict(head.index, (signal,)).array[0]
            for head, signal in zip(self.heads, raw, strict=True)
        }
        with np.errstate(all="ignore"):
            found = model.candidates(outputs, -1.0)
            rows = sum(h * w * a for h, w, a in self.shapes)
            if len(found.boxes) != rows:
                return
            net = np.array([model.network.width, model.network.height] * 2, np.float32)
            yield from _box_families(found.boxes, net)
            opened = np.where(found.objectness == 0, np.float32(1), found.objectness)[:, None]
            single = np.asarray(found.probabilities / opened, np.float32)
            names = tuple(f"class {k}" for k in range(self.classes))
            yield Family("objectness", ("objectness",), found.objectness[:, None])
            yield Family("objectness x class", tuple(f"{n} x objectness" for n in names), found.probabilities)
            yield Family("class", names, single)
        fields = ("tx", "ty", "tw", "th", "objectness", *names)
        yield Family("raw", tuple(f"raw {name}" for name in fields), self._cells([s.array[0] for s in raw]))
        yield Family("activated", fields, self._cells(list(outputs.values())))

    def _cells(self, arrays: list[Float32]) -> Float32:
        rows = [
            array.reshape(len(head.anchors), head.entries, *array.shape[1:])
            .transpose(2, 3, 0, 1)
            .reshape(-1, head.entries)
            for head, array in zip(self.heads, arrays, strict=True)
        ]
        return np.concatenate(rows)

    def read(self, value: Value, precision: Precision) -> OutputRow | None:
        """The best way to read one value, or None where no column of it is ours."""
        best: OutputRow | None = None
        for heads, theirs in self._tables(value.array):
            for families in self._widths(theirs.shape[1]):
                row = self._best_order(value, heads, theirs, families, precision)
                if row and (best is None or _rank(row) > _rank(best)):
                    best = row
                if best and not best.bad:
                    return best
        return best if best and best.good else None

    def _tables(self, array: Array) -> Iterator[tuple[tuple[int, ...], Float32]]:
        """The array as (rows, columns), for all heads together and for each alone."""
        counts = [h * w * a for h, w, a in self.shapes]
        sets = [tuple(range(len(counts)))] + ([(i,) for i in range(len(counts))] if len(counts) > 1 else [])
        seen = set()
        for heads in sets:
            rows = sum(counts[i] for i in heads)
            if rows < 2 or array.size % rows or not 1 <= (columns := array.size // rows) <= self.classes + 6:
                continue
            squeezed = [n for n in array.shape if n > 1]
            last = columns == 1 or squeezed[-1:] == [columns]
            if (rows, heads) not in seen:
                seen.add((rows, heads))
                flat = array.reshape(rows, columns) if last else np.ascontiguousarray(array.reshape(columns, rows).T)
                yield heads, flat.astype(np.float32)

    def _widths(self, columns: int) -> Iterator[tuple[Family, ...]]:
        """The families whose columns may stand side by side in `columns`."""
        boxes = [family for family in self.families if family.name.startswith("box")]
        named = {family.name: family for family in self.families}
        if not boxes:
            return
        classes = [named[name] for name in ("objectness x class", "class")]
        if columns == self.classes + 5:
            yield from ((named["activated"],), (named["raw"],))
            yield from ((box, named["objectness"], kind) for box in boxes for kind in classes)
        if columns == self.classes + 4:
            yield from ((box, kind) for box in boxes for kind in classes)
        if columns == 4:
            yield from ((box,) for box in boxes)
        if columns == self.classes:
            yield from ((kind,) for kind in classes)
        if columns == 1:
            yield (named["objectness"],)

    def _best_order(
        self, value: Value, heads: tuple[int, ...], theirs: Float32, families: tuple[Family, ...], precision: Precision
    ) -> OutputRow | None:
        names = tuple(name for family in families for name in family.columns)
        if families[0].read:
            with np.errstate(all="ignore"):
                theirs = np.concatenate([families[0].read(theirs[:, :4]), theirs[:, 4:]], 1)
        ours = np.concatenate([family.values for family in families], 1)
        with np.errstate(all="ignore"):
            spread = np.maximum(ours.std(0, dtype=np.float64), SMALLEST_SPREAD)
        step = max(len(theirs) // 400, 1)
        best: tuple[tuple[int, float], str, NDArray[np.intp]] | None = None
        for text, order in _orders(self.shapes, heads):
            with np.errstate(all="ignore"):
                near = np.abs(theirs[::step] - ours[order[::step]]) / (spread + np.abs(ours[order[::step]]))
            typical = np.median(np.where(np.isfinite(near), near, np.inf), 0)
            score = (int((typical < RELATIVE_LIMIT[precision]).sum()), -float(np.minimum(typical, 9).sum()))
            if best is None or score > best[0]:
                best = (score, text, order)
        if best is None or best[0][0] == 0:
            return None
        columns = _differences(ours[best[2]], theirs, spread, precision)
        bad = tuple(name for name, (_, good) in zip(names, columns, strict=True) if not good)
        title = " + ".join(family.name for family in families)
        indices = tuple(self.heads[i].index for i in heads)
        return OutputRow(
            value, f"{title}; rows {best[1]}", indices,
            {name: difference for name, (difference, _) in zip(names, columns, strict=True)}, bad,
        )  # fmt: skip


def _differences(
    ours: Float32, theirs: Float32, spread: NDArray[np.float64], precision: Precision
) -> list[tuple[float, bool]]:
    with np.errstate(all="ignore"):
        relative = np.abs(theirs - ours) / (spread + np.abs(ours))
    relative = np.where((theirs == ours), 0, np.where(np.isfinite(relative), relative, np.inf))
    outside = (relative > RELATIVE_LIMIT[precision]).mean(0)
    return [
        (float(worst), bool(part <= ALLOWED_OUTSIDE[precision]))
        for worst, part in zip(relative.max(0), outside, strict=True)
    ]


def _rank(row: OutputRow) -> tuple[int, float]:
    return len(row.good), -float(sum(min(v, 9.0) for v in row.columns.values()))


def _box_families(boxes: Float32, net: Float32) -> Iterator[Family]:
    """Centre and size, corners, corner and size; relative to the network input, and in its pixels."""
    for unit, scale in (("relative", np.ones(4, np.float32)), ("pixels of the network input", net)):
        for name, read in _BOX_FORMATS:
            yield Family(f"boxes {name} {unit}", ("x", "y", "w", "h"), boxes, partial(_read_boxes, read, scale))


def _read_boxes(read: Callable[[Float32], Float32], scale: Float32, theirs: Float32) -> Float32:
    return read(theirs / scale)


_BOX_FORMATS: tuple[tuple[str, Callable[[Float32], Float32]], ...] = (
    ("x, y, w, h", lambda b: b),
    ("x1, y1, x2, y2", lambda b: np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1)),
    ("x1, y1, w, h", lambda b: np.concatenate([b[:, :2] + b[:, 2:] / 2, b[:, 2:]], 1)),
    ("y1, x1, y2, x2", lambda b: np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1)[:, [1, 0, 3, 2]]),
)


def _orders(shapes: list[tuple[int, int, int]], heads: tuple[int, ...]) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Our row for each of theirs, for every order of heads and of cells and anchors in them."""
    starts = np.concatenate([[0], np.cumsum([h * w * a for h, w, a in shapes])])
    for heads_order in itertools.permutations(heads):
        which = "" if len(heads) == 1 else f", heads {'as in the cfg' if heads_order == heads else heads_order}"
        for (text, axes), turned in itertools.product(ROW_ORDERS.items(), (False, True)):
            parts = []
            for i in heads_order:
                h, w, a = shapes[i]
                # A transposed grid makes our own rows come column by column.
                cells = (
                    np.arange(h * w * a).reshape(w, h, a).swapaxes(0, 1)
                    if turned
                    else np.arange(h * w * a).reshape(h, w, a)
                )
                parts.append((starts[i] + cells).transpose(axes).reshape(-1))
            yield text + which, np.concatenate(parts).astype(np.intp)
