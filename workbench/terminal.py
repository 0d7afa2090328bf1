"""How results look in a terminal: tables, gates, progress bars. No command lives here, and nothing is computed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from workbench.errors import printable
from workbench.layers import Layer
from workbench.network import Network
from workbench.weights import Finding, Ledger, Span, Weights

if TYPE_CHECKING:
    from workbench.certificate import Certificate, Gate
    from workbench.detections import Detections
    from workbench.inspection import Inspection
    from workbench.model import Model
    from workbench.samples import Sample

MOST_NOTES = 100
"""A cfg of a megabyte can be worth 300000 notes."""

Column = tuple[str, str]
"""Heading, and "left" or "right"."""


def say(text: object) -> None:
    """One line of text; colours go to terminals only, and not where NO_COLOR is set."""
    click.echo(str(text), color=False if os.environ.get("NO_COLOR") else None)


def warn(text: object) -> None:
    """One line of plain text on standard error."""
    click.echo(printable(str(text)), err=True)


def note_lines(notes: Sequence[object]) -> Iterator[str]:
    """One line a note, as far as a person reads."""
    for note in notes[:MOST_NOTES]:
        yield printable(f"note: {note}")
    if len(notes) > MOST_NOTES:
        yield f"note: {len(notes) - MOST_NOTES} more"


def shape_text(shape: tuple[int, ...]) -> str:
    """`16 x 3 x 3 x 3`."""
    return " x ".join(map(str, shape))


def show_table(columns: tuple[Column, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Columns under bold headings, at full width: whoever pipes it wants all of it, and a terminal wraps by itself.

    Laid out here and not by rich, which needs longer for 400 rows than reading 250 MB of weights does.
    """
    lines = [tuple(click.style(name, bold=True) for name, _ in columns), *rows]
    lengths = [[len(click.unstyle(cell)) for cell in line] for line in lines]
    widths = [max(column) for column in zip(*lengths, strict=True)]
    right = [justify == "right" for _, justify in columns]
    say("\n".join(_join_cells(line, length, widths, right) for line, length in zip(lines, lengths, strict=True)))


def _join_cells(line: tuple[str, ...], lengths: list[int], widths: list[int], right: list[bool]) -> str:
    blanks = [" " * (width - length) for width, length in zip(widths, lengths, strict=True)]
    cells = [blank + cell if r else cell + blank for cell, blank, r in zip(line, blanks, right, strict=True)]
    return "  ".join(cells).rstrip()


def show_inspection(inspection: Inspection) -> None:
    """The input, the dialect and why, every layer, then the file."""
    network = inspection.network
    say(f"input   {network.channels} x {network.height} x {network.width} (c x h x w), {len(network.layers)} layers")
    say(f"dialect {inspection.dialect}" + "".join(f"; {reason}" for reason in inspection.reasons[:1]))
    show_network(network, inspection.ledger)
    for line in note_lines(network.notes):
        say(line)
    if inspection.weights is None:
        say(f"weights with a header of {inspection.ledger.header_bytes} bytes have {inspection.ledger.bytes} bytes")
    else:
        show_weights(inspection.weights, inspection.findings)


def show_network(network: Network, ledger: Ledger) -> None:
    """One row a layer: index, section, cfg line, inputs, output shape, bytes and names of its tensors."""
    columns = (
        ("layer", "right"),
        ("section", "left"),
        ("line", "right"),
        ("from", "left"),
        ("output c x h x w", "left"),
        ("bytes", "left"),
        ("tensors", "left"),
    )
    show_table(columns, (_layer_row(layer, ledger.by_layer.get(layer.index, ())) for layer in network.layers))


def _layer_row(layer: Layer, spans: tuple[Span, ...]) -> tuple[str, ...]:
    return (
        str(layer.index),
        layer.kind,
        str(layer.line),
        _sources(layer),
        shape_text(layer.output_shape),
        f"{spans[0].start:#010x} .. {spans[-1].stop:#010x}" if spans else "",
        _tensors(spans),
    )


def _sources(layer: Layer) -> str:
    return "" if layer.inputs == (layer.index - 1,) else ", ".join("input" if i < 0 else str(i) for i in layer.inputs)


def _tensors(spans: tuple[Span, ...]) -> str:
    groups = itertools.groupby(spans, key=lambda span: span.shape)
    return "; ".join(f"{', '.join(span.field for span in group)} {shape_text(shape)}" for shape, group in groups)


def show_weights(weights: Weights, findings: tuple[Finding, ...]) -> None:
    """The header, how the bytes were used, and every finding."""
    header = weights.header
    say(
        f"header  {header.major}.{header.minor}.{header.revision}, seen {header.seen} pictures "
        f"({header.seen_bytes} bytes), {header.size} bytes" + (", matrices transposed" if header.transposed else "")
    )
    say(f"bytes   {weights.size}, the cfg needs {weights.ledger.bytes}, {weights.unread_bytes} unread")
    for finding in findings:
        say(finding)


def show_detections(model: Model, name: str, detections: Detections) -> None:
    """One line a detection, the most probable first."""
    say(f"{printable(name)}: {len(detections)} detections")
    for box, score, class_id in zip(detections.boxes, detections.scores, detections.classes, strict=True):
        x, y, w, h = (float(v) for v in box)
        say(f"  {printable(model.name_of(int(class_id)))} {score:.4f}  centre {x:.2f}, {y:.2f}  size {w:.2f} x {h:.2f}")


def show_certificate(certificate: Certificate) -> None:
    """Every gate with its number and limit, where a failed one failed, the remarks, and the verdict."""
    columns = (("", "left"), ("gate", "left"), ("measured", "right"), ("limit", "right"), ("what was compared", "left"))
    show_table(columns, (_gate_row(gate) for gate in certificate.gates))
    for gate in certificate.failed:
        say(f"{gate.name}: {gate.where}")
    for remark in certificate.remarks:
        say(f"note: {remark}")
    verdict = "PASSED" if certificate.passed else f"FAILED: {', '.join(gate.name for gate in certificate.failed)}"
    say(f"{verdict}  (dialect {certificate.dialect}, {certificate.epsilon}; reference {certificate.reference})")


def _gate_row(gate: Gate) -> tuple[str, ...]:
    mark = click.style("passed", fg="green") if gate.passed else click.style("FAILED", fg="red", bold=True)
    measured = "" if gate.worst is None else f"{gate.worst:.3g}"
    return mark, gate.name, measured, "" if gate.limit is None else f"{gate.limit:g}", gate.detail


def show_samples(samples: tuple[Sample, ...]) -> None:
    """One row a sample: name, size, licence, what it is."""
    columns = (("name", "left"), ("size", "right"), ("licence", "left"), ("what", "left"))
    show_table(columns, (_sample_row(sample) for sample in samples))


def _sample_row(sample: Sample) -> tuple[str, ...]:
    size = "shipped" if sample.shipped else f"{sample.size_bytes / 1e6:.1f} MB"
    return sample.name, size, sample.licence, sample.what


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for `validate`: called with what is done, its number, and how many steps there are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task("opening", total=1)
        yield lambda text, done, total: bar.update(task, description=escape(text), completed=done, total=total)


@contextmanager
def byte_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for downloads: called with the bytes that are there and the bytes that there will be."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task(escape(name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
