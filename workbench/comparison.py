"""Two runners, some pictures -> where they differ: a row for each layer, the first divergence, and matched boxes.

Differences are measured against the reference's own spread: max|difference| / std(reference), the number that stays
comparable from layer to layer. Comparison never knows which engine is which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Detections, Match, match
from workbench.errors import OptionError
from workbench.layers.base import Float32
from workbench.model import Model

if TYPE_CHECKING:
    from workbench.runners import Runner


@dataclass(frozen=True)
class LayerDifference:
    """One layer's worst difference. `at` is (c, y, x) of the largest one, `count` how many values were compared.

    rms_over_std is the root of the mean square instead of the largest: rounding that adds up over a hundred layers
    moves single values far and all of them little.
    """

    index: int
    kind: str
    line: int
    max_abs: float
    max_over_std: float
    at: tuple[int, int, int]
    count: int
    rms_over_std: float = 0.0

    def __str__(self) -> str:
        where = f"layer {self.index} [{self.kind}] (line {self.line})"
        return f"{where}: max|difference| {self.max_abs:.3g} = {self.max_over_std:.3g} std at channel, y, x {self.at}"


@dataclass(frozen=True)
class PictureComparison:
    """Detections of both engines on one picture at one threshold, matched."""

    picture: str
    thresh: float
    reference: Detections
    candidate: Detections
    match: Match


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `missing` are layers that one of the engines cannot show.

    layers: the network as it runs. alone: each layer fed with what the reference fed into it, where the candidate can
    run one layer at a time; there a layer that is wrong stands out from layers that only inherit.
    """

    reference: str
    candidate: str
    layers: tuple[LayerDifference, ...]
    pictures: tuple[PictureComparison, ...]
    missing: tuple[int, ...]
    alone: tuple[LayerDifference, ...] = ()

    @property
    def worst(self) -> LayerDifference | None:
        """The layer with the largest difference in units of its spread."""
        return max(self.layers, key=lambda layer: layer.max_over_std, default=None)

    def first_divergence(self, limit: float) -> LayerDifference | None:
        """The first layer beyond `limit`, in units of its spread: where to look."""
        return next((layer for layer in self.layers if not layer.max_over_std <= limit), None)


@runtime_checkable
class Stepwise(Protocol):
    """An engine that can run one layer at a time."""

    def run_alone(self, known: Mapping[int, Float32]) -> dict[int, Float32]:
        """Each layer fed with what `known` holds of its inputs."""
        ...


def compare(
    reference: Runner,
    candidate: Runner,
    pictures: Mapping[str, NDArray[np.uint8]],
    thresholds: Sequence[float] = (0.5, 0.25),
) -> Comparison:
    """Compare two engines on pictures (name -> uint8 (H, W, 3) RGB), layer by layer and box by box.

    Both must have been opened with models of one input size; the input is the reference's.
    """
    model = reference.model
    layers, alone = list[list[LayerDifference]](), list[list[LayerDifference]]()
    for picture in pictures.values():
        x = model.preprocessing.apply(picture)[None]
        theirs = reference.run(x)
        layers.append(compare_layers(model, theirs, candidate.run(x)))
        if isinstance(candidate, Stepwise):
            alone.append(compare_layers(model, theirs, candidate.run_alone({-1: x, **theirs})))
    matched = (
        [compare_picture(reference, candidate, name, picture, thresholds) for name, picture in pictures.items()]
        if model.network.heads
        else []
    )
    merged = merge_worst(layers)
    shown = {row.index for row in merged}
    missing = tuple(layer.index for layer in model.network.layers if layer.index not in shown)
    boxes = tuple(row for group in matched for row in group)
    return Comparison(reference.name, candidate.name, merged, boxes, missing, merge_worst(alone))


def compare_picture(
    reference: Runner, candidate: Runner, name: str, picture: NDArray[np.uint8], thresholds: Iterable[float]
) -> list[PictureComparison]:
    """Both engines' detections on one picture, at each threshold."""
    rows = []
    for thresh in thresholds:
        # Ours first: it refuses at once what would keep the other busy for minutes.
        ours, theirs = candidate.detect(picture, thresh), reference.detect(picture, thresh)
        rows.append(PictureComparison(name, thresh, theirs, ours, match(theirs, ours)))
    return rows


def compare_layers(
    model: Model, reference: Mapping[int, Float32], candidate: Mapping[int, Float32]
) -> list[LayerDifference]:
    """One row for each layer that both show, in order; raises OptionError where the shapes differ."""
    return [
        _difference(model, layer.index, reference[layer.index], candidate[layer.index])
        for layer in model.network.layers
        if layer.index in reference and layer.index in candidate
    ]


def _difference(model: Model, index: int, reference: Float32, candidate: Float32) -> LayerDifference:
    layer = model.network.layers[index]
    if reference.shape != candidate.shape:
        raise OptionError(
            f"layer {index} [{layer.kind}]", "has two shapes", expected=reference.shape, found=candidate.shape
        )
    difference = np.abs(reference.astype(np.float32) - candidate)
    difference[np.isnan(difference)] = np.inf
    difference[(reference == candidate) | (np.isnan(reference) & np.isnan(candidate))] = 0  # equal infinities too
    flat = int(difference.argmax())
    max_abs = float(difference.reshape(-1)[flat])
    rms = float(np.sqrt(np.square(difference, dtype=np.float64).mean()))
    spread = scale_of(reference)
    _, c, y, x = (int(i) for i in np.unravel_index(flat, difference.shape))
    ratios = (max_abs / spread, rms / spread) if max_abs else (0.0, 0.0)
    return LayerDifference(index, layer.kind, layer.line, max_abs, ratios[0], (c, y, x), difference.size, ratios[1])


def scale_of(reference: Float32) -> float:
    """The standard deviation; of a constant output its size, of zeros 1, so that a ratio always exists."""
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(reference.std(dtype=np.float64))
        return next((v for v in (spread, float(np.abs(reference).max())) if np.isfinite(v) and v > 0), 1.0)


def merge_worst(rows: Sequence[Sequence[LayerDifference]]) -> tuple[LayerDifference, ...]:
    """For each layer the worst of several comparisons, in layer order."""
    table: dict[int, LayerDifference] = {}
    for row in (row for group in rows for row in group):
        known = table.get(row.index, row)
        worst = max(known, row, key=lambda r: r.max_over_std)
        rms = max(known.rms_over_std, row.rms_over_std)
        table[row.index] = replace(worst, max_abs=max(known.max_abs, row.max_abs), rms_over_std=rms)
    return tuple(table[index] for index in sorted(table))
