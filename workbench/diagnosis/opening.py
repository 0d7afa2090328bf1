"""Which kind of evidence was given: one of an ONNX file, a torch module, arrays, boxes, or only what they feed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.diagnosis.diagnose import Foreign
from workbench.diagnosis.foreign_files import ForeignBoxes, ForeignInput, ForeignLayers, read_input
from workbench.diagnosis.foreign_onnx import ForeignOnnx
from workbench.diagnosis.foreign_torch import ForeignTorch
from workbench.errors import OptionError
from workbench.layers.base import Float32
from workbench.model import Model

KINDS = ("--onnx", "--torch", "--layers", "--boxes")


def open_foreign(
    model: Model,
    pictures: Mapping[str, NDArray[np.uint8]],
    *,
    onnx: Path | None = None,
    torch: str | None = None,
    layers: Path | None = None,
    boxes: Path | None = None,
    inputs: Sequence[Path] = (),
) -> Foreign:
    """The conversion behind the one option that was given; `inputs` belong to the pictures in order.

    Raises OptionError where none or several were given, or a file cannot be read.
    """
    given = [name for name, value in zip(KINDS, (onnx, torch, layers, boxes), strict=True) if value is not None]
    if len(given) > 1 or (not given and not inputs):
        raise OptionError(
            "diagnose", "wants one kind of evidence", expected=f"one of {', '.join(KINDS)}, or --input", found=given
        )
    if len(inputs) > len(pictures):
        raise OptionError(
            "--input", "without its picture", expected=f"one --image for each of {len(inputs)}", found=len(pictures)
        )
    if inputs and boxes:
        raise OptionError("--input", "says nothing beside --boxes", next_step="Run it twice.")
    openers: dict[str, Callable[[dict[str, Float32]], Any]] = {
        "--onnx": lambda fed: ForeignOnnx(str(onnx), fed),
        "--torch": lambda fed: ForeignTorch(str(torch), fed),
        "--layers": lambda fed: ForeignLayers(str(layers), fed),
        "--boxes": lambda fed: ForeignBoxes(str(boxes)),
    }
    size = ForeignOnnx(str(onnx)).size() if onnx and inputs else None
    at_size = model.at_size(*size) if size and size != (model.network.width, model.network.height) else model
    fed = {name: read_input(path, at_size) for name, path in zip(pictures, inputs, strict=False)}
    foreign: Foreign = openers[given[0]](fed) if given else ForeignInput(fed)
    return foreign
