"""An ONNX file, streamed as protobuf's wire format says: a message is its fields one after the other, a nested message
is a tag, a length and its fields. The lengths are known before any weight is computed.

So a model never lies in memory twice; `onnx` itself would build the whole message first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from workbench.errors import OptionError, WeightsError
from workbench.files import write_hashed
from workbench.memory import require_bytes

IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}
PRODUCER = "darknet-workbench"
LARGEST_FILE = 2**31 - 1
"""Protobuf refuses larger messages."""

Make = Callable[[], NDArray[Any] | Iterable[NDArray[Any]]]
"""Computes a weight, at once or in blocks that follow one another."""

COPIES = 2
"""How often a tensor may lie in memory while it is computed: as read and as written."""

PIECE_BYTES = 1 << 18
"""Stays in the processor's cache from being computed until it is hashed and written."""


@dataclass(frozen=True)
class Initializer:
    """A weight that is computed when the file is written."""

    name: str
    shape: tuple[int, ...]
    dtype: int
    make: Make

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        itemsize: int = helper.tensor_dtype_to_np_dtype(self.dtype).itemsize
        return math.prod(self.shape) * itemsize

    def pieces(self) -> Iterator[memoryview]:
        """The values, little endian, in small pieces."""
        dtype, written = helper.tensor_dtype_to_np_dtype(self.dtype).newbyteorder("<"), 0
        made = self.make()
        for block in (made,) if isinstance(made, np.ndarray) else made:
            values = np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data
            written += len(values)
            yield from (values[start : start + PIECE_BYTES] for start in range(0, len(values), PIECE_BYTES))
        if written != self.nbytes:
            raise AssertionError(f"{self.name}: {written} bytes are not {self.shape}")


def write_model(
    file: BinaryIO,
    skeleton: onnx.GraphProto,
    initializers: Iterable[Initializer],
    opset: int,
    metadata: Callable[[], Mapping[str, str]],
    hashed: bool = True,
) -> str:
    """Write a ModelProto; returns the sha256 of its graph's bytes, or "" where it is not `hashed`.

    skeleton: the graph without its initializers. metadata: asked for when the graph is written.
    Raises OptionError where the graph would exceed protobuf's 2 GiB or a tensor the memory, WeightsError where a
    tensor overflows.
    """
    head: bytes = skeleton.SerializeToString(deterministic=True)
    frames = [(initializer, _tensor_frame(initializer)) for initializer in initializers]
    length = len(head) + sum(len(frame) + initializer.nbytes for initializer, frame in frames)
    if length > LARGEST_FILE:
        raise OptionError(
            "onnx", "the file would be too large for protobuf", expected=f"at most {LARGEST_FILE} bytes", found=length
        )
    largest = max((initializer.nbytes for initializer, _ in frames), default=0)
    require_bytes("onnx", "computing the largest tensor", COPIES * largest)
    file.write(_serialise(onnx.ModelProto(ir_version=IR_VERSIONS[opset], producer_name=PRODUCER)))
    file.write(_tag(7) + _varint(length))
    with np.errstate(over="raise", invalid="raise"):
        sha256 = write_hashed(file, _graph_pieces(head, frames), hashed)
    rest = onnx.ModelProto(opset_import=[helper.make_opsetid("", opset)])
    for key, value in metadata().items():
        rest.metadata_props.add(key=key, value=value)
    file.write(_serialise(rest))
    return sha256


def _graph_pieces(head: bytes, frames: list[tuple[Initializer, bytes]]) -> Iterator[bytes | memoryview]:
    yield head
    for initializer, frame in frames:
        yield frame
        try:
            yield from initializer.pieces()
        except FloatingPointError as error:
            raise WeightsError(
                initializer.name,
                "has values beyond float32 once batch normalisation is folded in",
                found=str(error),
                cause="A damaged file, or weights of another cfg.",
            ) from error


def _serialise(message: onnx.ModelProto) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _tensor_frame(initializer: Initializer) -> bytes:
    """Everything of an initializer but its values: GraphProto field 5, TensorProto field 9 left open at the end."""
    proto = onnx.TensorProto(dims=initializer.shape, data_type=initializer.dtype, name=initializer.name)
    head: bytes = proto.SerializeToString(deterministic=True)
    inner = head + _tag(9) + _varint(initializer.nbytes)
    return _tag(5) + _varint(len(inner) + initializer.nbytes) + inner


def _tag(number: int) -> bytes:
    """Wire type 2: a length and bytes follow."""
    return _varint(number << 3 | 2)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
