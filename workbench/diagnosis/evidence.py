"""What is known of a foreign conversion: the numbers it computed for one picture, in the order in which it did.

An ONNX file, a torch module, a file of arrays and a list of boxes all become `Evidence`; nothing that comes after knows
which it was. Names are kept for the reader of the result only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Detections
from workbench.diagnosis.layouts import Array
from workbench.layers.base import Float32

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
"""From the finest to the coarsest."""

LOOKED_AT = 4096
LEVELS_8_BIT = 256


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of theirs. `order` counts from 0 as they computed it; `is_output`: they hand it out as a result."""

    name: str
    array: Array
    order: int
    is_output: bool = False

    @property
    def shape_text(self) -> str:
        """`1x255x13x13`."""
        return "x".join(map(str, self.array.shape)) or "scalar"

    @cached_property
    def precision(self) -> Precision:
        """What the numbers themselves show: 256 levels, float16's mantissa, or more."""
        if self.array.dtype == np.float16:
            return "float16"
        flat = self.array.reshape(-1)[:: max(self.array.size // LOOKED_AT, 1)]
        flat = flat[np.isfinite(flat)]
        if flat.size < LOOKED_AT // 4:
            return "float32"
        if np.unique(flat).size <= LEVELS_8_BIT:
            return "int8"
        with np.errstate(over="ignore"):
            exact = np.array_equal(flat.astype(np.float16).astype(np.float32), flat)
        return "float16" if exact else "float32"


@dataclass(frozen=True, eq=False)
class Evidence:
    """One picture in their hands.

    picture: uint8 (H, W, 3) RGB, where it is known. x: the tensor (1, c, h, w) that entered their network; `x_is_ours`
    where the workbench fed it, so that it proves nothing. values: their tensors in the order of computing. boxes: what
    they found, in pixels of the picture. precision: the coarsest arithmetic that their file shows.
    """

    name: str
    picture: NDArray[np.uint8] | None = None
    x: Float32 | None = None
    x_is_ours: bool = False
    values: tuple[Value, ...] = ()
    boxes: Detections | None = None
    precision: Precision = "float32"
    remarks: tuple[str, ...] = field(default=())


def coarsest(precisions: Sequence[Precision]) -> Precision:
    """The coarsest of several."""
    return max(precisions, key=PRECISIONS.index, default="float32")


def make_values(arrays: Sequence[tuple[str, Array, bool]]) -> tuple[Value, ...]:
    """Keep what can be a layer's output: floating point, more than one number. (name, array, is_output) each."""
    usable = [
        (name, array, out) for name, array, out in arrays if array.dtype.kind == "f" and array.size > 1 and array.ndim
    ]
    return tuple(Value(name, array, order, out) for order, (name, array, out) in enumerate(usable))
