"""Golden values of two Darknet forks: a model made by their recipe, its input, and the comparison layer by layer.

The goldens, their cfgs and the recipe lie in `../shared/oracle` (the fixture `shared`); its README says what they are.
A test asks `find_golden` or `list_goldens` for a Golden, runs an engine on `golden.model()` and `golden.input()`, and
gives what came out to `golden.check(outputs)`.
"""

from __future__ import annotations

import json
import runpy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.dialects import ALEXEYAB, PJREDDIE, Dialect
from workbench.model import Model, open_model

Array = NDArray[np.float32]
Outputs = Mapping[int, Array] | Sequence[Array | None]


@dataclass(frozen=True)
class Fork:
    """One folder of goldens. limit: the largest max|difference| / std, ten times what float64 needs."""

    folder: str
    dialect: Dialect
    limit: float


FORKS = {"alexeyab": Fork("golden", ALEXEYAB, 1e-3), "pjreddie": Fork("golden-pjreddie", PJREDDIE, 2e-4)}


@dataclass(frozen=True)
class Row:
    """One layer's largest |difference| among the golden's samples, divided by the golden's standard deviation."""

    index: int
    kind: str
    over_std: float


@dataclass(frozen=True)
class Verdict:
    """All layers that were compared."""

    rows: tuple[Row, ...]
    limit: float

    @property
    def worst(self) -> float:
        """The largest difference; NaN counts as infinite."""
        return max((row.over_std for row in self.rows), default=float("inf"))

    @property
    def first_bad(self) -> Row | None:
        """The first layer beyond the limit: where to look."""
        return next((row for row in self.rows if row.over_std > self.limit), None)


@dataclass(frozen=True)
class Golden:
    """One cfg's golden values; `section` is "cfgs" or "epsilon" (the same nets with variances around 1e-4)."""

    oracle: Path
    fork: Fork
    cfg: str
    section: str
    entry: Mapping[str, Any] = field(repr=False)

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Width and height that the network ran at; None for those of the cfg."""
        return self.entry["width"], self.entry["height"]

    @cached_property
    def text(self) -> str:
        """The cfg as it lies in its repository."""
        return (self.oracle / self.cfg).read_bytes().decode("latin-1")

    def write_weights(self, path: Path) -> None:
        """The weights file of the recipe; its sha256 must be the recorded one."""
        index = _index(self.oracle / self.fork.folder)
        recipe = runpy.run_path(str(self.oracle / "make_weights.py"))
        dialect = index.get("dialect", self.fork.dialect.name)
        recipe["write"](self.text, path, index["weights_seed"], *self.size, dialect, self.entry.get("bn_scale", 1))

    def model(self) -> Model:
        """The model at the golden's size. Its weights file is gone from the disk as soon as it is mapped."""
        size = self.entry["width"], self.entry["height"]
        with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
            path = Path(folder) / "golden.weights"
            self.write_weights(path)
            cfg = self.oracle / self.cfg
            model = open_model(cfg, path, dialect=self.fork.dialect, size=size if size[0] else None)
        assert model.weights.sha256 == self.entry["weights_sha256"], f"{self.cfg}: the recipe gave other weights"
        return model

    def input(self) -> Array:
        """The network input (1, c, h, w); recurrent networks get (1, inputs, 1, 1)."""
        shape = (*self.entry["input"], 1, 1)[:3]
        seed = _index(self.oracle / self.fork.folder)["input_seed"]
        return np.random.default_rng(seed).random(shape, dtype=np.float32)[None]

    def check(self, outputs: Outputs, limit: float | None = None) -> Verdict:
        """Compare an engine's outputs (one an index, batch 1); layers it does not show are left out."""
        shown = outputs if isinstance(outputs, Mapping) else dict(enumerate(outputs))
        rows = []
        with np.load(self.oracle / self.fork.folder / self.entry["golden"]) as z:
            golden = dict(z)
        for index, kind in enumerate(golden["type"]):
            output = shown.get(index)
            if output is not None and index not in self.entry.get("degenerate_layers", ()):
                rows.append(Row(index, str(kind), _difference(golden, index, output)))
        assert rows, f"{self.cfg}: nothing to compare"
        return Verdict(tuple(rows), self.fork.limit if limit is None else limit)


@cache
def _index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "INDEX.json").read_text())
    return index


def list_goldens(shared: Path, fork: str, section: str = "cfgs") -> list[Golden]:
    """All goldens of a fork, in the order of its index."""
    oracle, chosen = shared / "oracle", FORKS[fork]
    table = _index(oracle / chosen.folder)[section]
    return [Golden(oracle, chosen, cfg, section, entry) for cfg, entry in table.items()]


def find_golden(shared: Path, fork: str, cfg: str, section: str = "cfgs") -> Golden:
    """The golden of `cfg`, named as in the index without `cfgs/` and `.cfg`: "AlexeyAB/yolov4"."""
    return next(g for g in list_goldens(shared, fork, section) if g.cfg == f"cfgs/{cfg}.cfg")


def _difference(golden: Mapping[str, NDArray[Any]], index: int, output: Array) -> float:
    """As the goldens' README has it: samples, the largest value, and whole heads, in units of the golden's std."""
    y = np.asarray(output, np.float64).ravel()
    n, places = int(np.prod(golden["shape"][index])), golden["samples"].shape[1]
    assert y.size == n, f"layer {index} has {y.size} values, the golden {tuple(golden['shape'][index])}"
    at = np.arange(n) if n <= places else np.arange(places, dtype=np.int64) * (n - 1) // (places - 1)
    found = [
        y[at] - golden["samples"][index, : len(at)],
        y[golden["argmax"][index]] - golden["argmax_value"][index],
        np.abs(y).max() - golden["absmax"][index],
        *_head_differences(golden, index, y),
    ]
    worst = max(float(np.abs(part).max()) for part in found) / float(golden["std"][index])
    return worst if worst == worst else float("inf")


def _head_differences(golden: Mapping[str, NDArray[Any]], index: int, y: NDArray[np.float64]) -> list[NDArray[Any]]:
    """What a head reads (`raw_`, the layer before it) and puts out (`out_`), whole or at some cells."""
    whole = [y - golden[key].ravel() for key in (f"raw_{index + 1}", f"out_{index}") if key in golden]
    if f"raw_at_{index + 1}" not in golden:
        return whole
    cells = golden[f"raw_at_{index + 1}"]
    return [*whole, y.reshape(cells.shape[1], -1).T[golden[f"raw_cells_{index + 1}"]] - cells]
