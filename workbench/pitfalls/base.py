"""What a pitfall is, and the two ways of putting a mistake into a network: another option, or another computation.

A mistake in a computation is a class derived from `Layer` that overrides some methods; `mix` puts it in front of the
layer's own class. Several mistakes in one layer stand in a fixed order, so that the order of switching on is no matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import ClassVar, Literal, cast

from workbench.layers.base import Layer
from workbench.model import Model

Stage = Literal["weights", "network", "picture", "decoding", "suppression"]
Change = Callable[[Layer], Layer]
Idle = Callable[[Model], str | None]


@dataclass(frozen=True)
class Pitfall:
    """A known mistake of conversions, as a pure function.

    name: stable, kebab-case. text: what is done and why it is wrong. looks_like: the first layer that differs, and what
    the boxes do. seen_in: forks or tools that really do it. fix: a few lines of PyTorch that do it right.
    apply: the faulty model. idle: why it would change nothing on this model, or None.
    """

    name: str
    title: str
    text: str
    looks_like: str
    seen_in: str
    fix: str
    stage: Stage
    apply: Callable[[Model], Model]
    idle: Idle


class Mistake(Layer):
    """A class that `mix` may put in front of a layer's own. The highest `rank` computes around all others."""

    rank: ClassVar[int] = 0


def mix(layer: Layer, mistake: type[Mistake]) -> Layer:
    """The same layer, computing with `mistake` (once, however often it is mixed in)."""
    healthy, mistakes = _origin(type(layer))
    ranked = sorted(mistakes | {mistake}, key=lambda one: (-one.rank, one.__name__))
    made = cast("type[Layer]", _join((*ranked, healthy)))
    return made(**{field.name: getattr(layer, field.name) for field in fields(layer)})


def mistakes_of(layer: Layer) -> frozenset[type[Mistake]]:
    """What was mixed into this layer."""
    return _origin(type(layer))[1]


def _origin(kind: type[Layer]) -> tuple[type[Layer], frozenset[type[Mistake]]]:
    if not issubclass(kind, Mistake):
        return kind, frozenset()
    return kind.__bases__[-1], frozenset(cast("tuple[type[Mistake], ...]", kind.__bases__[:-1]))


@cache
def _join(bases: tuple[type, ...]) -> type:
    """One class for each combination, so that equal layers are equal."""
    name = "".join(base.__name__ for base in bases)
    return type(name, bases, {"__doc__": bases[-1].__doc__, "__module__": __name__})


def change_layers(model: Model, change: Change) -> Model:
    """The model with `change` done to every layer; shapes must stay."""
    layers = tuple(change(layer) for layer in model.network.layers)
    return replace(model, network=replace(model.network, layers=layers))


def changing(change: Change) -> Callable[[Model], Model]:
    """An `apply` that does `change` to every layer."""
    return lambda model: change_layers(model, change)


def idle_unless(change: Change, reason: str) -> Idle:
    """`reason` where `change` leaves every layer as it is."""
    return lambda model: reason if all(change(layer) == layer for layer in model.network.layers) else None


def idle_if_same(apply: Callable[[Model], Model], reason: str) -> Idle:
    """`reason` where `apply` leaves the model's layers, ledger, dialect, preprocessing and suppression as they are."""
    return lambda model: reason if _parts(apply(model)) == _parts(model) else None


def _parts(model: Model) -> tuple[object, ...]:
    return model.network.layers, model.weights.ledger, model.dialect, model.preprocessing, model.nms
