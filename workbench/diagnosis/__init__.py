"""Somebody else's conversion "works, but": lay its numbers beside Darknet's arithmetic, find the first place where they
part, and name the known mistake that explains it, or say that none does.
"""

from __future__ import annotations

from workbench.diagnosis.diagnose import Foreign, diagnose
from workbench.diagnosis.evidence import Evidence, Value, make_values
from workbench.diagnosis.foreign_files import ForeignBoxes, ForeignInput, ForeignLayers, read_input
from workbench.diagnosis.foreign_onnx import ForeignOnnx
from workbench.diagnosis.foreign_torch import ForeignTorch
from workbench.diagnosis.opening import open_foreign
from workbench.diagnosis.result import Diagnosis

__all__ = [
    "Diagnosis",
    "Evidence",
    "Foreign",
    "ForeignBoxes",
    "ForeignInput",
    "ForeignLayers",
    "ForeignOnnx",
    "ForeignTorch",
    "Value",
    "diagnose",
    "make_values",
    "open_foreign",
    "read_input",
]
