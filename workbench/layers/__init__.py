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
    "layer_classes",
]


@cache
def layer_classes() -> dict[str, type[Layer]]:
    """Section name -> class, from every module of this folder."""
    table: dict[str, type[Layer]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Layer):
                table.update(dict.fromkeys(value.kinds, value))
    return table
