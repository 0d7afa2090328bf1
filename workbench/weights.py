"""A `.weights` file as named tensors: the ledger laid over the mapped file, and everything that can be wrong with it.

There are no names, lengths or markers in the file: a header, then float32 little endian, layer after layer. Reading is
a view into the mapped file, writing the same ledger backwards. Whatever is wrong becomes a `Finding` with its bytes.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from workbench.dialects import Dialect
from workbench.errors import WeightsError
from workbench.files import atomic_write, is_endless
from workbench.layers.base import Float32
from workbench.ledger import FLOAT, Header, Ledger, Place, Span, build_ledger
from workbench.network import Network

__all__ = [
    "Finding",
    "Header",
    "Ledger",
    "Place",
    "Span",
    "Weights",
    "build_ledger",
    "make_weights",
    "open_weights",
    "write_weights",
]


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
        values = self.data[span.start : span.stop].view(FLOAT)
        return values.reshape(span.stored).T.reshape(span.shape) if span.transposed else values.reshape(span.shape)

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
        """Of the file as it would be written; where nothing was changed, of the whole file as it lies on the disk."""
        if not self.changed:
            return hashlib.sha256(self.data.data).hexdigest()
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The whole file as it would be written: header, then every tensor in order."""
        yield self.header.pack()
        for span in self.ledger.spans:
            values = self[span.layer, span.field]
            values = values.reshape(span.stored[::-1]).T if span.transposed else values
            yield np.ascontiguousarray(values, FLOAT).reshape(-1).view(np.uint8).data

    def findings(self) -> list[Finding]:
        """Everything wrong with the file, structure first; values are checked only where they can be read."""
        return [*self.structure(), *self.values()]

    def require_sound(self) -> None:
        """Raise WeightsError for the first finding that makes the file unusable."""
        for finding in self.findings():
            if finding.level == "error":
                problem = f"bytes {finding.start:#x}-{finding.stop:#x}: {finding.problem}"
                raise WeightsError(finding.where, problem, cause=finding.cause)

    def structure(self) -> Iterator[Finding]:
        """Truncated or trailing bytes, with the likeliest reason."""
        expected, size = self.ledger.bytes, self.size
        if size == expected:
            return
        reason = _explain_size(self, size)
        if size < expected:
            span = next(s for s in self.ledger.spans if s.stop > size)
            yield Finding("error", self._where(span), size, expected, self._shortage(span) + ".", reason)
        else:
            yield Finding(
                "error", self.source, expected, size, f"{size - expected} bytes lie after the last tensor.", reason
            )

    def values(self) -> Iterator[Finding]:
        """NaN, infinity, negative and denormal variances."""
        all_finite = self._are_all_finite()
        for span in self.ledger.spans:
            if span.stop <= self.size or (span.layer, span.field) in self.changed:
                yield from self._check_values(span, all_finite)

    def _are_all_finite(self) -> bool:
        """One pass over a whole file; False also where that cannot tell, and each tensor has to be looked at."""
        if self.changed or self.size != self.ledger.bytes:
            return False
        return _sum_is_finite(self.data[self.ledger.header_bytes :].view(FLOAT))

    def _check_values(self, span: Span, finite: bool) -> Iterator[Finding]:
        """finite: whether that is known already."""
        is_variance = span.field.endswith("rolling_variance")
        if finite and not is_variance:
            return
        values = self[span.layer, span.field].ravel()
        if not finite and not _sum_is_finite(values) and (bad := np.flatnonzero(~np.isfinite(values))).size:
            yield self._finding(
                "error",
                span,
                bad,
                f"{bad.size} values are NaN or infinite.",
                "Read in the wrong order, or a damaged file.",
            )
        if is_variance:
            yield from self._check_variance(span, values)

    def _check_variance(self, span: Span, values: Float32) -> Iterator[Finding]:
        tiny = np.float32(np.finfo(np.float32).tiny)
        negative = np.flatnonzero(values <= -tiny)
        if negative.size:
            yield self._finding(
                "error",
                span,
                negative,
                f"{negative.size} of {values.size} variances are negative, the least is {values[negative].min():g}.",
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
        cause = "Truncated download, or a cfg with other filters=."
        return WeightsError(self._where(span), self._shortage(span), cause=cause)

    def _shortage(self, span: Span) -> str:
        needed, missing = f"{span.start:#x}-{span.stop:#x}", self.ledger.bytes - self.size
        return f"needs bytes {needed}, the file ends at {self.size:#x}: {missing} bytes are missing"


def _sum_is_finite(values: Float32) -> bool:
    """True only where every value is finite; False also where finite values sum up to more than a float32 holds."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum(dtype=np.float32)))


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
    return Weights(
        header,
        build_ledger(network, dialect, header.size, header.transposed),
        data,
        path.absolute(),
        network.cfg.source,
    )


def make_weights(
    network: Network, tensors: Mapping[tuple[int, str], Float32], dialect: Dialect, header: Header | None = None
) -> Weights:
    """Weights from tensors in memory, all of the ledger; raises WeightsError where one is missing or misshapen."""
    header = header or Header(0, 2, 5, 0)
    ledger = build_ledger(network, dialect, header.size, header.transposed)
    missing = [str(span) for span in ledger.spans if (span.layer, span.field) not in tensors]
    if missing:
        raise WeightsError("weights", f"{len(missing)} tensors are missing", found=missing[0])
    data = np.empty(ledger.bytes, np.uint8)
    weights = Weights(header, ledger, data, None, network.cfg.source)
    position = 0
    for piece in weights.replacing({key: tensors[key] for key in ledger.by_name}).pieces():
        data[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
        position += len(piece)
    return weights


def write_weights(weights: Weights, path: str | Path) -> None:
    """Write header and tensors in ledger order, byte for byte what was read where nothing changed."""
    with atomic_write(path, inputs=[weights.path]) as file:
        for piece in weights.pieces():
            file.write(piece)


def _map(path: Path) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    if is_endless(path):
        raise WeightsError(str(path), "is not a regular file", expected="a .weights on disk", found="a device or pipe")
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
