"""Darknet Workbench: see through a Darknet model, rebuild it, prove it, export it.

    import workbench as wb
    model = wb.open("yolov3-tiny.cfg", "yolov3-tiny.weights")

Everything is imported on first use, so that `import workbench` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.comparison import compare as compare
    from workbench.exporters import export as export
    from workbench.exporters.checkpoint import load as load
    from workbench.image import load_picture as load_picture
    from workbench.model import Model as Model
    from workbench.model import open_model as open
    from workbench.runners import open_runner as open_runner
    from workbench.torch_model import build as to_torch
    from workbench.validation import validate as validate

_HOMES = {
    "Model": ("workbench.model", "Model"),
    "compare": ("workbench.comparison", "compare"),
    "export": ("workbench.exporters", "export"),
    "load": ("workbench.exporters.checkpoint", "load"),
    "load_picture": ("workbench.image", "load_picture"),
    "open": ("workbench.model", "open_model"),
    "open_runner": ("workbench.runners", "open_runner"),
    "to_torch": ("workbench.torch_model", "build"),
    "validate": ("workbench.validation", "validate"),
}

__all__ = ["Model", "compare", "export", "load", "load_picture", "open", "open_runner", "to_torch", "validate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
