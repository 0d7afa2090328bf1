"""Which bytes of a `.weights` file belong to which tensor, known from the cfg alone and without any file.

A header, then one `Span` per tensor, layer after layer. `Ledger.at` says what a byte belongs to, `offset_of` where an
element lies.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from workbench.dialects import Dialect
from workbench.errors import CfgError, WeightsError
from workbench.network import Network

FLOAT = np.dtype("<f4")

LARGEST_TENSOR = 2**31 - 1
"""Darknet counts the numbers of a tensor in a C `int`."""


@dataclass(frozen=True)
class Header:
    """The first 16 or 20 bytes: int32 major, minor, revision, then `seen`, the pictures trained on.

    seen has 8 bytes from version 0.2 on, 4 before, and 4 where major or minor is 1000 or more; above 1000 the
    [connected] matrices are stored transposed (pjreddie src/parser.c `load_weights_upto`).
    """

    major: int
    minor: int
    revision: int
    seen: int

    @property
    def seen_bytes(self) -> int:
        """4 or 8."""
        return 8 if self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000 else 4

    @property
    def size(self) -> int:
        """Bytes of the whole header."""
        return 12 + self.seen_bytes

    @property
    def transposed(self) -> bool:
        """Whether [connected] matrices are stored the other way round."""
        return self.major > 1000 or self.minor > 1000

    def pack(self) -> bytes:
        """The header as it stands in the file."""
        return struct.pack(
            "<iii" + ("Q" if self.seen_bytes == 8 else "I"), self.major, self.minor, self.revision, self.seen
        )

    @classmethod
    def unpack(cls, data: bytes, source: str = "weights") -> Header:
        """Read the header from the first bytes of a file; raises WeightsError where they are too few."""
        if len(data) >= 12:
            major, minor, revision = struct.unpack_from("<iii", data)
            header = cls(major, minor, revision, 0)
            if len(data) >= header.size:
                (seen,) = struct.unpack_from("<Q" if header.seen_bytes == 8 else "<I", data, 12)
                return replace(header, seen=seen)
        raise WeightsError(source, "too short for a header", expected="at least 16 bytes", found=f"{len(data)} bytes")


@dataclass(frozen=True)
class Span:
    """The bytes [start, stop) of one tensor: layer index and kind, cfg line, Darknet's field name, shape.

    transposed: the file holds the matrix (shape[0], the rest) column by column.
    """

    layer: int
    kind: str
    line: int
    field: str
    start: int
    stop: int
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def stored(self) -> tuple[int, int]:
        """Rows and columns of a transposed tensor as they lie in the file."""
        return int(np.prod(self.shape[1:], dtype=np.int64)), self.shape[0]

    def element(self, number: int) -> tuple[int, ...]:
        """Index of the `number`-th float in the tensor."""
        if self.transposed:
            row, column = divmod(number, self.shape[0])
            number = column * self.stored[0] + row
        return tuple(int(i) for i in np.unravel_index(number, self.shape))

    def number(self, element: tuple[int, ...]) -> int:
        """Which float of the span an element is: `element` the other way round."""
        number = int(np.ravel_multi_index(element, self.shape))
        if self.transposed:
            column, row = divmod(number, self.stored[0])
            number = row * self.shape[0] + column
        return number

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        return f"{self.start:#010x} .. {self.stop:#010x}  layer {self.layer} {self.kind} / {self.field} ({shape})"


@dataclass(frozen=True)
class Place:
    """What one byte is: in the header (`span` None), in a tensor, or beyond the last one."""

    offset: int
    span: Span | None
    field: str
    element: tuple[int, ...] = ()
    byte: int = 0

    def __str__(self) -> str:
        if self.span is None:
            return f"{self.offset:#x}: {self.field}, byte {self.byte}"
        at = ", ".join(map(str, self.element))
        return f"{self.offset:#x}: layer {self.span.layer} {self.span.kind} / {self.field} [{at}], byte {self.byte}"


@dataclass(frozen=True)
class Ledger:
    """Every tensor's span in file order, starting after `header_bytes`; computed without opening any file."""

    header_bytes: int
    spans: tuple[Span, ...]

    @property
    def bytes(self) -> int:
        """Size of a file that fits exactly."""
        return self.spans[-1].stop if self.spans else self.header_bytes

    @cached_property
    def by_name(self) -> dict[tuple[int, str], Span]:
        """(layer, field) -> span."""
        return {(span.layer, span.field): span for span in self.spans}

    @cached_property
    def by_layer(self) -> dict[int, tuple[Span, ...]]:
        """layer -> its spans, in file order."""
        table: dict[int, list[Span]] = {}
        for span in self.spans:
            table.setdefault(span.layer, []).append(span)
        return {layer: tuple(spans) for layer, spans in table.items()}

    @cached_property
    def _starts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([span.start for span in self.spans], np.int64)

    def at(self, offset: int) -> Place:
        """Which layer, field and element the byte at `offset` belongs to; raises WeightsError where negative."""
        if offset < 0:
            raise WeightsError("ledger", "no such byte", expected="0 or more", found=offset)
        if offset < self.header_bytes:
            return _place_in_header(offset)
        if offset >= self.bytes:
            return Place(offset, None, "after the last tensor", byte=offset - self.bytes)
        span = self.spans[int(np.searchsorted(self._starts, offset, side="right")) - 1]
        number, byte = divmod(offset - span.start, FLOAT.itemsize)
        return Place(offset, span, span.field, span.element(number), byte)

    def offset_of(self, layer: int, name: str, element: tuple[int, ...] = ()) -> int:
        """First byte of an element (of the tensor where none is given): `at` the other way round."""
        span = self.by_name[layer, name]
        return span.start + (span.number(element) if element else 0) * FLOAT.itemsize


def _place_in_header(offset: int) -> Place:
    name = ("major", "minor", "revision", "seen")[min(offset // 4, 3)]
    return Place(offset, None, f"header / {name}", byte=offset - min(offset // 4, 3) * 4)


def build_ledger(network: Network, dialect: Dialect, header_bytes: int = 20, transposed: bool = False) -> Ledger:
    """The ledger of `network` in the byte order of `dialect`; transposed: what the file's header says of matrices.

    Raises CfgError with the line of a layer whose tensor would be too large.
    """
    spans, position = [], header_bytes
    for layer in network.layers:
        for spec in layer.tensors(dialect):
            count = math.prod(spec.shape)
            if count > LARGEST_TENSOR:
                shape = " x ".join(map(str, spec.shape))
                raise CfgError(
                    f"{network.cfg.source}:{layer.line}",
                    f"{spec.field} of layer {layer.index} [{layer.kind}] would have {shape} numbers",
                    expected=f"at most {LARGEST_TENSOR}, as Darknet counts them",
                )
            stop = position + count * FLOAT.itemsize
            turned = spec.transposed == "always" or (transposed and spec.transposed == "by header")
            spans.append(Span(layer.index, layer.kind, layer.line, spec.field, position, stop, spec.shape, turned))
            position = stop
    return Ledger(header_bytes, tuple(spans))
