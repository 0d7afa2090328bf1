"""An ONNX file that lies on the disk: whose it is, what it puts out, and how that lines up with a model.

Our own files say it in their metadata. A stranger's file is lined up by shape: raw heads (n, c, h, w) in any order, or
`boxes` and `scores` as the workbench writes them. What cannot be lined up is an error, not a guess.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from workbench.errors import OptionError
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.onnx_model import OnnxOptions
from workbench.runners.onnxruntime import open_session, run_session

GRAPH_FIELD = 7


def read_options(path: str | Path, model: Model) -> OnnxOptions:
    """The options that describe the file: its own metadata, or what its inputs and outputs show.

    Raises RunnerFailed where ONNX Runtime refuses the file, OptionError where it cannot be lined up with `model`.
    """
    session = open_session(path)
    metadata = session.get_modelmeta().custom_metadata_map
    if "darknet.options" in metadata:
        return _told_options(path, metadata["darknet.options"])
    names = {output.name for output in session.get_outputs()}
    outputs = "decoded" if names == {"boxes", "scores"} else "nms" if names == {"detections"} else "raw"
    return OnnxOptions(outputs, size=_fixed_size(session, model))  # type: ignore[arg-type]


def _told_options(path: str | Path, text: str) -> OnnxOptions:
    try:
        told = json.loads(text)
        width, height = told["size"] or (1, 1)
        sizes = isinstance(width, int) and isinstance(height, int)
        options = OnnxOptions(**{**told, "size": (width, height) if told["size"] and sizes else None})
    except (ValueError, TypeError, KeyError) as error:
        raise OptionError(str(path), "its metadata `darknet.options` cannot be read", found=repr(error)) from error
    return options


def _fixed_size(session: onnxruntime.InferenceSession, model: Model) -> tuple[int, int] | None:
    shapes = [entry.shape for entry in session.get_inputs()]
    channels = (model.network.channels, None)
    if len(shapes) != 1 or len(shapes[0]) != 4 or not (isinstance(shapes[0][1], str) or shapes[0][1] in channels):
        raise OptionError(
            "onnx", "its input is no picture", expected=f"one input (n, {model.network.channels}, h, w)", found=shapes
        )
    height, width = shapes[0][2:]
    return (width, height) if isinstance(height, int) and isinstance(width, int) else None


def batches(session: onnxruntime.InferenceSession) -> tuple[int, ...]:
    """The batch sizes to try: 1 and 2, or the only one that the file takes."""
    batch = session.get_inputs()[0].shape[0]
    return (batch,) if isinstance(batch, int) else (1, 2)


def run_aligned(
    session: onnxruntime.InferenceSession, x: Float32, expected: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Run the file on x (n, c, h, w) and return its outputs under the names of `expected`, lined up by name or shape.

    Raises OptionError where an expected output has no counterpart.
    """
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, run_session(session, None, x, "onnx"), strict=True))
    aligned = {}
    for name, reference in expected.items():
        match = name if name in outputs else _closest(outputs, reference)
        if match is None:
            found = ", ".join(f"{key} {value.shape}" for key, value in outputs.items())
            raise OptionError("onnx", f"no output of the file can be {name}", expected=reference.shape, found=found)
        aligned[name] = outputs.pop(match)
    return aligned


def _closest(outputs: Mapping[str, NDArray[Any]], reference: NDArray[Any]) -> str | None:
    """Of the outputs with the right shape the one that differs least: heads of one shape may come in any order."""
    fitting = [name for name, value in outputs.items() if value.shape == reference.shape]
    return min(fitting, key=lambda name: float(np.abs(outputs[name] - reference).mean()), default=None)


def graph_sha256_of(path: str | Path) -> str:
    """sha256 of the bytes of the file's graph: equal to what `write_onnx` returns for a file that it wrote.

    Raises OptionError where the file is no ONNX model.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for field, length in _fields(file, str(path)):
            if field == GRAPH_FIELD:
                digest = hashlib.sha256()
                while length > 0 and (block := file.read(min(length, 1 << 20))):
                    digest.update(block)
                    length -= len(block)
                return digest.hexdigest()
            if length > size:
                break
            file.seek(length, 1)
    raise OptionError(str(path), "holds no graph", expected="an ONNX model")


def _fields(file: BinaryIO, source: str) -> Iterator[tuple[int, int]]:
    """Top-level protobuf fields: number and length; the caller reads or skips the bytes."""
    while (key := _read_varint(file)) is not None:
        kind = key & 7
        if kind == 0:
            _read_varint(file)
        elif kind in (1, 2, 5):
            length = {1: 8, 5: 4}.get(kind)
            yield key >> 3, (_read_varint(file) or 0) if length is None else length
        else:
            raise OptionError(source, "is no ONNX model", cause="Its bytes are no protobuf message.")


def _read_varint(file: BinaryIO) -> int | None:
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            return None
    return None
