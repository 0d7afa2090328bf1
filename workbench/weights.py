"""The byte ledger of a `.weights` file: which bytes belong to which tensor, known from the cfg alone.

There are no names, lengths or markers in the file: a header, then float32 little endian, layer after layer. One `Span`
per tensor says where it lies; reading is a view into the mapped file, writing is the same ledger backwards, and `at`
answers the other way round what a byte belongs to. Whatever is wrong with a file becomes a `Finding` with its bytes.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from workbench.dialects import Dialect
from workbench.errors import WeightsError
from workbench.files import atomic_write
from workbench.layers.base import Float32
from workbench.network import Network

FLOAT = np.dtype("<f4")


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
    """The bytes [start, stop) of one tensor: layer index and kind, cfg line, Darknet's field name, shape."""

    layer: int
    kind: str
    line: int
    field: str
    start: int
    stop: int
    shape: tuple[int, ...]

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
class Finding:
    """Something wrong or odd about the bytes [start, stop); an `error` makes the file unusable, a `warning` not."""

    level: str
    where: str
    start: int
    stop: int
    problem: str
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.where}, bytes {self.start:#x}-{self.stop:#x}: {self.problem}" + (
            f" {self.cause}" if self.cause else ""
        )


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
        element = tuple(int(i) for i in np.unravel_index(number, span.shape))
        return Place(offset, span, span.field, element, byte)

    def offset_of(self, layer: int, name: str, element: tuple[int, ...] = ()) -> int:
        """First byte of an element (of the tensor where none is given): `at` the other way round."""
        span = self.by_name[layer, name]
        number = int(np.ravel_multi_index(element, span.shape)) if element else 0
        return span.start + number * FLOAT.itemsize


def _place_in_header(offset: int) -> Place:
    name = ("major", "minor", "revision", "seen")[min(offset // 4, 3)]
    return Place(offset, None, f"header / {name}", byte=offset - min(offset // 4, 3) * 4)


def build_ledger(network: Network, dialect: Dialect, header_bytes: int = 20) -> Ledger:
    """The ledger of `network` in the byte order of `dialect`."""
    spans, position = [], header_bytes
    for layer in network.layers:
        for spec in layer.tensors(dialect):
            stop = position + spec.count * FLOAT.itemsize
            spans.append(Span(layer.index, layer.kind, layer.line, spec.field, position, stop, spec.shape))
            position = stop
    return Ledger(header_bytes, tuple(spans))


@dataclass(frozen=True)
class Weights:
    """A mapped file with its ledger; `changed` holds tensors that differ from the file (never written back)."""

    header: Header
    ledger: Ledger
    data: np.ndarray[tuple[int], np.dtype[np.uint8]] = field(repr=False)
    path: Path | None = None
    cfg_source: str = "cfg"
    changed: Mapping[tuple[int, str], Float32] = field(default_factory=dict, repr=False)

    @property
    def source(self) -> str:
        """Name for errors."""
        return self.path.name if self.path else "weights"

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return int(self.data.size)

    @property
    def unread_bytes(self) -> int:
        """Bytes after the last tensor."""
        return max(self.size - self.ledger.bytes, 0)

    def __getitem__(self, key: tuple[int, str]) -> Float32:
        """The tensor (layer, field) as a float32 view; raises WeightsError where the file ends before it does."""
        if key in self.changed:
            return self.changed[key]
        span = self.ledger.by_name[key]
        if span.stop > self.size:
            raise self._too_short(span)
        return self.data[span.start : span.stop].view(FLOAT).reshape(span.shape)

    def at(self, offset: int) -> Place:
        """Which layer, field and element the byte at `offset` belongs to."""
        return self.ledger.at(offset)

    def replacing(self, tensors: Mapping[tuple[int, str], Float32]) -> Weights:
        """The same weights with some tensors changed; raises WeightsError where a shape differs."""
        for key, value in tensors.items():
            span = self.ledger.by_name[key]
            if value.shape != span.shape or value.dtype != np.float32:
                raise WeightsError(
                    f"layer {key[0]} {key[1]}",
                    "cannot be replaced",
                    expected=f"float32 {span.shape}",
                    found=f"{value.dtype} {value.shape}",
                )
        return replace(self, changed={**self.changed, **tensors})

    @cached_property
    def sha256(self) -> str:
        """Of the file as it lies on the disk."""
        return hashlib.sha256(self.data.data).hexdigest()

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The whole file as it would be written: header, then every tensor in order."""
        yield self.header.pack()
        for span in self.ledger.spans:
            yield np.ascontiguousarray(self[span.layer, span.field], FLOAT).reshape(-1).view(np.uint8).data

    def findings(self) -> list[Finding]:
        """Everything wrong with the file, structure first; values are checked only where they can be read."""
        return [*self.structure(), *self.values()]

    def structure(self) -> Iterator[Finding]:
        """Truncated or trailing bytes, with the likeliest reason."""
        expected, size = self.ledger.bytes, self.size
        if size == expected:
            return
        reason = _explain_size(self, size)
        if size < expected:
            span = next(s for s in self.ledger.spans if s.stop > size)
            yield Finding("error", self._where(span), size, expected, self._too_short(span).problem + ".", reason)
        else:
            yield Finding(
                "error", self.source, expected, size, f"{size - expected} bytes lie after the last tensor.", reason
            )

    def values(self) -> Iterator[Finding]:
        """NaN, infinity, negative and denormal variances."""
        for span in self.ledger.spans:
            if span.stop <= self.size or (span.layer, span.field) in self.changed:
                yield from self._check_values(span)

    def _check_values(self, span: Span) -> Iterator[Finding]:
        values = self[span.layer, span.field].ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            suspect = not np.isfinite(values.sum(dtype=np.float32))
        if suspect and not (finite := np.isfinite(values)).all():
            bad = np.flatnonzero(~finite)
            yield self._finding(
                "error",
                span,
                bad,
                f"{bad.size} values are NaN or infinite.",
                "Read in the wrong order, or a damaged file.",
            )
        if span.field.endswith("rolling_variance"):
            yield from self._check_variance(span, values)

    def _check_variance(self, span: Span, values: Float32) -> Iterator[Finding]:
        tiny = np.float32(np.finfo(np.float32).tiny)
        negative = np.flatnonzero(values <= -tiny)
        if negative.size:
            yield self._finding(
                "error",
                span,
                negative,
                f"{negative.size} of {values.size} variances are negative, the least is {values.min():g}.",
                "Read in the wrong order: another header size, another cfg, or weights before batch normalisation.",
            )
        denormal = np.flatnonzero((np.abs(values) < tiny) & (values != 0))
        if denormal.size:
            yield self._finding(
                "warning",
                span,
                denormal,
                f"{denormal.size} of {values.size} variances are denormal and count as 0.",
                "Dead channels: here the epsilon of the dialect decides everything.",
            )

    def _finding(
        self, level: str, span: Span, bad: np.ndarray[tuple[int], np.dtype[np.intp]], problem: str, cause: str
    ) -> Finding:
        start = span.start + int(bad[0]) * FLOAT.itemsize
        stop = span.start + (int(bad[-1]) + 1) * FLOAT.itemsize
        return Finding(level, self._where(span), start, stop, problem, cause)

    def _where(self, span: Span) -> str:
        return f"{self.source}: layer {span.layer} ({self.cfg_source}:{span.line}) {span.field}"

    def _too_short(self, span: Span) -> WeightsError:
        return WeightsError(
            self._where(span),
            f"needs bytes {span.start:#x}-{span.stop:#x}, the file ends at {self.size:#x}: "
            f"{self.ledger.bytes - self.size} bytes are missing",
            cause="Truncated download, or a cfg with other filters=.",
        )


def _explain_size(weights: Weights, size: int) -> str:
    """The likeliest reason for a file of `size` bytes, from what the ledger would accept."""
    header = weights.header
    other = 36 - header.size  # 16 <-> 20
    if size - other == weights.ledger.bytes - header.size:
        return f"With a header of {other} bytes it would fit exactly: is `seen` stored with {other - 12} bytes?"
    ends = {spans[-1].stop: layer for layer, spans in weights.ledger.by_layer.items()}
    if size in ends:
        return f"It ends exactly after layer {ends[size]}: a partial file, such as a pretrained backbone (.conv.NN)?"
    if (size - header.size) % FLOAT.itemsize:
        return "The rest is no whole number of floats: a damaged or truncated file, or not a .weights file at all."
    return "Weights of another cfg (filters=, classes=, layers), or a truncated or joined file."


def open_weights(network: Network, path: str | Path, dialect: Dialect) -> Weights:
    """Map the file and lay the ledger over it; wrong sizes and values are left to `findings`.

    Raises WeightsError where there is no readable file or no header.
    """
    path = Path(path)
    data = _map(path)
    header = Header.unpack(data[:20].tobytes(), path.name)
    return Weights(header, build_ledger(network, dialect, header.size), data, path.absolute(), network.cfg.source)


def make_weights(
    network: Network, tensors: Mapping[tuple[int, str], Float32], dialect: Dialect, header: Header | None = None
) -> Weights:
    """Weights from tensors in memory, all of the ledger; raises WeightsError where one is missing or misshapen."""
    header = header or Header(0, 2, 5, 0)
    ledger = build_ledger(network, dialect, header.size)
    missing = [str(span) for span in ledger.spans if (span.layer, span.field) not in tensors]
    if missing:
        raise WeightsError("weights", f"{len(missing)} tensors are missing", found=missing[0])
    empty = np.empty(0, np.uint8)
    return Weights(header, ledger, empty, None, network.cfg.source).replacing(
        {key: tensors[key] for key in ledger.by_name}
    )


def write_weights(weights: Weights, path: str | Path) -> None:
    """Write header and tensors in ledger order, byte for byte what was read where nothing changed."""
    with atomic_write(path, inputs=[weights.path]) as file:
        for piece in weights.pieces():
            file.write(piece)


def _map(path: Path) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise WeightsError(str(path), "is empty", expected="a .weights file", cause="An interrupted download?")
            # Copy on write: torch wants writable memory, and nothing written ever reaches the file.
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WeightsError(str(path), "cannot read the weights", found=reason, next_step="Check the path.") from error
