"""Model -> .weights: the same bytes again where nothing was changed. Any engine of the family reads it with the cfg."""

from __future__ import annotations

from pathlib import Path

from workbench.certificate import Certificate
from workbench.model import Model
from workbench.onnx_model import OnnxOptions
from workbench.weights import write_weights


def write(model: Model, path: Path, certificate: Certificate | None, options: OnnxOptions) -> None:
    """Write header and tensors; the format has no room for a certificate."""
    write_weights(model.weights, path)
