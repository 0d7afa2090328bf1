"""How results look in a terminal: tables, gates, progress bars. No command lives here, and nothing is computed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from workbench.layers import Layer
from workbench.network import Network
from workbench.samples import Sample
from workbench.weights import Finding, Ledger, Span, Weights

if TYPE_CHECKING:
    from workbench.certificate import Certificate
    from workbench.detections import Detections
    from workbench.inspection import Inspection
    from workbench.model import Model

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(highlight=False, soft_wrap=True, stderr=True)


def say(text: object) -> None:
    """One line of plain text."""
    OUT.print(escape(str(text)))


def warn(text: object) -> None:
    """One line on standard error."""
    ERR.print(escape(str(text)))


def shape_text(shape: tuple[int, ...]) -> str:
    """`16 x 3 x 3 x 3`."""
    return " x ".join(map(str, shape))


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return table


def _print(table: Table) -> None:
    """Print a table at its full width: whoever pipes it wants all of it, and a terminal wraps by itself."""
    width = Measurement.get(OUT, OUT.options.update(max_width=100_000), table).maximum
    Console(width=width, highlight=False).print(table)


def show_inspection(inspection: Inspection) -> None:
    """The input, the dialect and why, every layer, then the file."""
    network = inspection.network
    say(f"input   {network.channels} x {network.height} x {network.width} (c x h x w), {len(network.layers)} layers")
    say(f"dialect {inspection.dialect}" + "".join(f"; {reason}" for reason in inspection.reasons[:1]))
    show_network(network, inspection.ledger)
    for note in network.notes:
        say(f"note: {note}")
    if inspection.weights is None:
        say(f"weights with a header of {inspection.ledger.header_bytes} bytes have {inspection.ledger.bytes} bytes")
    else:
        show_weights(inspection.weights, inspection.findings)


def show_network(network: Network, ledger: Ledger) -> None:
    """One row a layer: index, section, cfg line, inputs, output shape, bytes and names of its tensors."""
    table = _table(
        ("layer", "right"),
        ("section", "left"),
        ("line", "right"),
        ("from", "left"),
        ("output c x h x w", "left"),
        ("bytes", "left"),
        ("tensors", "left"),
    )
    for layer in network.layers:
        spans = ledger.by_layer.get(layer.index, ())
        span = f"{spans[0].start:#010x} .. {spans[-1].stop:#010x}" if spans else ""
        table.add_row(
            str(layer.index),
            layer.kind,
            str(layer.line),
            _sources(layer),
            shape_text(layer.output_shape),
            span,
            _tensors(spans),
        )
    _print(table)


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
    say(f"{name}: {len(detections)} detections")
    for box, score, class_id in zip(detections.boxes, detections.scores, detections.classes, strict=True):
        x, y, w, h = (float(v) for v in box)
        say(f"  {model.name_of(int(class_id))} {score:.4f}  centre {x:.2f}, {y:.2f}  size {w:.2f} x {h:.2f}")


def show_certificate(certificate: Certificate) -> None:
    """Every gate with its number and limit, where a failed one failed, the remarks, and the verdict."""
    table = _table(
        ("", "left"), ("gate", "left"), ("measured", "right"), ("limit", "right"), ("what was compared", "left")
    )
    for gate in certificate.gates:
        mark = "[green]passed[/green]" if gate.passed else "[bold red]FAILED[/bold red]"
        measured = "" if gate.worst is None else f"{gate.worst:.3g}"
        limit = "" if gate.limit is None else f"{gate.limit:g}"
        table.add_row(mark, escape(gate.name), measured, limit, escape(gate.detail))
    _print(table)
    for gate in certificate.failed:
        say(f"{gate.name}: {gate.where}")
    for remark in certificate.remarks:
        say(f"note: {remark}")
    verdict = "PASSED" if certificate.passed else f"FAILED: {', '.join(gate.name for gate in certificate.failed)}"
    say(f"{verdict}  (dialect {certificate.dialect}, {certificate.epsilon}; reference {certificate.reference})")


def show_samples(samples: tuple[Sample, ...]) -> None:
    """One row a sample: name, size, licence, what it is."""
    table = _table(("name", "left"), ("size", "right"), ("licence", "left"), ("what", "left"))
    for sample in samples:
        size = "shipped" if sample.shipped else f"{sample.size_bytes / 1e6:.1f} MB"
        table.add_row(sample.name, size, sample.licence, sample.what)
    _print(table)


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for `validate`: called with what is done, its number, and how many steps there are."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=ERR, transient=True) as bar:
        task: Any = bar.add_task("opening", total=1)
        yield lambda text, done, total: bar.update(task, description=escape(text), completed=done, total=total)


@contextmanager
def byte_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for downloads: called with the bytes that are there and the bytes that there will be."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=ERR,
        transient=True,
    ) as bar:
        task: Any = bar.add_task(escape(name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
