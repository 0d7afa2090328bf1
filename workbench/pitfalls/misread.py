"""A weights file as a mistaken reader sees it: the same bytes under another ledger, tensors understood otherwise.

Where such a reader runs past the end of the file it gets zeros, as C does from `fread` into cleared memory; readers in
Python raise at that point, which is the better luck. A reader that stops early leaves the rest of the file unread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np

from workbench.layers.base import Float32
from workbench.ledger import FLOAT, Ledger, Span
from workbench.model import Model
from workbench.weights import Weights

View = Callable[[Span, Float32], Float32]
"""Gives a tensor another meaning: (its span, its values) -> values of the same shape."""


@dataclass(frozen=True)
class MisreadWeights(Weights):
    """Weights whose tensors go through `views` after they were cut out of the file, in alphabetic order of name."""

    views: Mapping[str, View] = field(default_factory=dict)

    def __getitem__(self, key: tuple[int, str]) -> Float32:
        """The tensor as this reader understands it; zeros beyond the end of the file."""
        if key in self.changed:
            return self.changed[key]
        span = self.ledger.by_name[key]
        values = self._cut(span)
        for name in sorted(self.views):
            values = self.views[name](span, values)
        return values

    def _cut(self, span: Span) -> Float32:
        if span.stop <= self.size:
            return super().__getitem__((span.layer, span.field))
        flat = np.zeros(span.stop - span.start, np.uint8)
        there = self.data[span.start : self.size]
        flat[: there.size] = there
        short = Weights(self.header, replace(self.ledger, spans=(_at(span, 0),)), flat)
        return short[span.layer, span.field]


def misread(model: Model, ledger: Ledger | None = None, views: Mapping[str, View] | None = None) -> Model:
    """The model with its file read by another ledger, or its tensors through more views."""
    weights = _as_misread(model.weights)
    weights = replace(weights, ledger=ledger or weights.ledger, views={**weights.views, **(views or {})})
    return replace(model, weights=weights)


def lay(header_bytes: int, spans: Iterable[Span]) -> Ledger:
    """A ledger of these tensors one after the other, wherever they lay before."""
    placed, position = list[Span](), header_bytes
    for span in spans:
        placed.append(_at(span, position))
        position = placed[-1].stop
    return Ledger(header_bytes, tuple(placed))


def _at(span: Span, start: int) -> Span:
    return replace(span, start=start, stop=start + int(np.prod(span.shape, dtype=np.int64)) * FLOAT.itemsize)


def _as_misread(weights: Weights) -> MisreadWeights:
    if isinstance(weights, MisreadWeights):
        return weights
    if weights.changed:  # what was changed in memory becomes bytes, so that it can be read wrongly too
        data = np.frombuffer(b"".join(bytes(piece) for piece in weights.pieces()), np.uint8).copy()
        weights = replace(weights, data=data, changed={})
    return MisreadWeights(**{item.name: getattr(weights, item.name) for item in fields(weights)})
