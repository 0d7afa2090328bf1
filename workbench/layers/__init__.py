"""One file per Darknet layer. The table of layers is what lies in this folder: adding a file adds a layer."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from workbench.layers.base import Context, Float32, Layer, Net, OnnxScope, Parameters, Shape, StateSpec, TensorSpec

__all__ = [
    "Context",
    "Float32",
    "Layer",
    "Net",
    "OnnxScope",
    "Parameters",
    "Shape",
    "StateSpec",
    "TensorSpec",
    "find_layer_class",
    "layer_classes",
]


@cache
def layer_classes() -> dict[str, type[Layer]]:
    """Section name -> class, from every module of this folder."""
    table: dict[str, type[Layer]] = {}
    for module in _modules(tuple(__path__)):
        table.update(_layers_in(module))
    return table


def find_layer_class(kind: str) -> type[Layer] | None:
    """The class that reads `[kind]`, None where there is none.

    Most files are named after their section: only they are imported then, which halves the time to open a model.
    """
    own = _layers_in(kind) if kind in _modules(tuple(__path__)) else {}
    return own.get(kind) or layer_classes().get(kind)


@cache
def _modules(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(path))


@cache
def _layers_in(module: str) -> dict[str, type[Layer]]:
    values = vars(importlib.import_module(f"{__name__}.{module}")).values()
    classes = [value for value in values if isinstance(value, type) and issubclass(value, Layer)]
    return {kind: layer_class for layer_class in classes for kind in layer_class.kinds}
