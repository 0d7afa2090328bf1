"""Such a port on the disk: traced by torch's own exporter, in float32, float16 or 8 bits."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from tests.diagnosis.foreign_head import Exported


def write_foreign(
    module: Exported, path: Path, size: tuple[int, int], precision: str, pictures: Sequence[np.ndarray]
) -> None:
    """Export `module` for inputs of `size` (width, height); `pictures` (1, 3, h, w) calibrate 8 bits."""
    width, height = size
    shape = (1, height, width, 3) if "nhwc" in module.front else (1, 3, height, width)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.rand(shape),), buffer, opset_version=17, dynamo=False, input_names=["in"]
        )
    proto = onnx.load_from_string(buffer.getvalue())
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        proto = convert_float_to_float16(proto, keep_io_types=True)
    onnx.save(proto, str(path))
    if precision.startswith("int8"):
        _quantise(
            path,
            precision,
            [picture.transpose(0, 2, 3, 1) if "nhwc" in module.front else picture for picture in pictures],
        )


class _Reader:
    """Calibration pictures one after the other."""

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        self._left = [{"in": np.ascontiguousarray(picture)} for picture in pictures]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


def _quantise(path: Path, precision: str, pictures: Sequence[np.ndarray]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    logging.disable(logging.WARNING)
    try:
        if precision == "int8 dynamic":
            quantize_dynamic(str(path), str(path), weight_type=QuantType.QUInt8)
        else:
            per_channel = "per channel" in precision
            quantize_static(
                str(path), str(path), _Reader(pictures), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                op_types_to_quantize=["Conv"], activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
