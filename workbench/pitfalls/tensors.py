"""Mistakes in the weights file: how long the header is, which tensor comes next, how a kernel lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from workbench.layers.base import Float32
from workbench.ledger import Span
from workbench.model import Model
from workbench.network import Network
from workbench.pitfalls.misread import View, lay, misread

Reorder = Callable[[Model], Iterable[Span]]


def read_header_of(size: int) -> Callable[[Model], Model]:
    """An `apply` that takes the first `size` bytes for the header."""
    return lambda model: misread(model, lay(size, model.weights.ledger.spans))


def reading(order: Reorder) -> Callable[[Model], Model]:
    """An `apply` that reads the tensors in another order; each keeps its name and shape."""
    return lambda model: misread(model, lay(model.weights.ledger.header_bytes, order(model)))


def viewing(name: str, view: View) -> Callable[[Model], Model]:
    """An `apply` that understands tensors otherwise."""
    return lambda model: misread(model, views={name: view})


def _order_fields(model: Model, place: Callable[[str], int]) -> Iterable[Span]:
    for spans in model.weights.ledger.by_layer.values():
        normalised = any(span.field == "rolling_variance" for span in spans)
        yield from sorted(spans, key=lambda span: place(span.field)) if normalised else spans


def weights_first(model: Model) -> Iterable[Span]:
    """Weights before the four vectors of batch normalisation."""
    return _order_fields(model, lambda name: 0 if name == "weights" else 1)


def scales_first(model: Model) -> Iterable[Span]:
    """PyTorch's order: weight (scales), bias, mean, variance."""
    return _order_fields(model, lambda name: 0 if name == "scales" else 1)


def heads_last(model: Model) -> Iterable[Span]:
    """The branches that end in a head after everything else."""
    branches = [index for branch in head_branches(model.network) for index in branch]
    spans = model.weights.ledger.spans
    return (
        *(span for span in spans if span.layer not in branches),
        *(span for index in branches for span in spans if span.layer == index),
    )


def heads_reversed(model: Model) -> Iterable[Span]:
    """The branch of the last head where the file has that of the first, and so on."""
    branches = head_branches(model.network)
    swapped = {one[0]: other for one, other in zip(branches, branches[::-1], strict=True)}
    inner = {index for branch in branches for index in branch} - set(swapped)
    units = model.weights.ledger.by_layer
    for layer, spans in units.items():
        if layer not in inner:
            yield from (span for index in swapped[layer] for span in units[index]) if layer in swapped else spans


def twins_exchanged(model: Model) -> Iterable[Span]:
    """Neighbouring layers of the file with equal shapes, exchanged two by two."""
    units = list(model.weights.ledger.by_layer.values())
    while units:
        pair = units[:2]
        twins = len(pair) == 2 and _shapes(pair[0]) == _shapes(pair[1])
        yield from (*pair[1], *pair[0]) if twins else pair[0]
        del units[: 2 if twins else 1]


def _shapes(spans: Iterable[Span]) -> list[tuple[str, tuple[int, ...]]]:
    return [(span.field, span.shape) for span in spans]


def head_branches(network: Network) -> list[tuple[int, ...]]:
    """For each head the convolutions that nothing else depends on, from the first to the last."""
    return [_branch(network, head.index) for head in network.heads]


def _branch(network: Network, head: int) -> tuple[int, ...]:
    readers: dict[int, int] = {}
    for layer in network.layers:
        for index in layer.inputs:
            readers[index] = readers.get(index, 0) + 1
    branch, index = list[int](), network.layers[head].inputs[0]
    while index >= 0 and readers[index] == 1 and network.layers[index].kind == "convolutional":
        branch.append(index)
        index = network.layers[index].inputs[0]
    return tuple(reversed(branch))


def kernel_permuted(order: tuple[int, int, int, int]) -> View:
    """A view that takes the bytes of (n, c, k, k) for an array whose axes are `order` of it, as (c, n, k, k)."""

    def view(span: Span, values: Float32) -> Float32:
        if span.field != "weights" or len(span.shape) != 4:
            return values
        mistaken = np.ascontiguousarray(values).reshape([span.shape[axis] for axis in order])
        return np.ascontiguousarray(mistaken.transpose(np.argsort(order)))

    return view


def has_kernels(model: Model) -> bool:
    """Whether some kernel is larger than 1x1."""
    kernels = [span.shape for span in model.weights.ledger.spans if span.field == "weights" and len(span.shape) == 4]
    return any(shape[2] > 1 for shape in kernels)
