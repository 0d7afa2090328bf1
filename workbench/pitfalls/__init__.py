"""The known mistakes of conversions, each a pure function Model -> Model: to be switched on to teach, and tried on to
explain a foreign model that "works, but". Any of them can be combined, in any order.
"""

from __future__ import annotations

from workbench.errors import OptionError
from workbench.model import Model
from workbench.pitfalls import decoding, epsilon, network, picture, suppression, weights
from workbench.pitfalls.base import Pitfall, Stage

__all__ = ["PITFALLS", "STAGES", "Pitfall", "Stage", "find_pitfall", "switch_on"]

STAGES: tuple[Stage, ...] = ("weights", "network", "picture", "decoding", "suppression")
"""In the order in which a picture meets them, but that the file is read first."""

_FAMILIES = (epsilon, weights, network, picture, decoding, suppression)

PITFALLS: dict[str, Pitfall] = {pitfall.name: pitfall for family in _FAMILIES for pitfall in family.PITFALLS}


def find_pitfall(name: str) -> Pitfall:
    """The pitfall of that name; raises OptionError."""
    if name not in PITFALLS:
        raise OptionError("pitfall", "unknown pitfall", expected=", ".join(PITFALLS), found=repr(name))
    return PITFALLS[name]


def switch_on(model: Model, *names: str) -> Model:
    """`model` with these mistakes; raises OptionError for an unknown name. The model given stays as it is."""
    for pitfall in [find_pitfall(name) for name in names]:
        model = pitfall.apply(model)
    return model
