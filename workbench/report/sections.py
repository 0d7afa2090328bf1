"""The parts of the page that are words and tables: verdict, identity, gates, layers, network, how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from workbench.certificate import Certificate, Gate
from workbench.cfg import Section
from workbench.comparison import LayerDifference
from workbench.figures.scale import first_beyond
from workbench.layers.base import Layer
from workbench.model import Model
from workbench.network import walk_sections
from workbench.report.chart import layer_chart
from workbench.report.markup import cell, definitions, items, number, numeric, row, spaced, table, text
from workbench.report.words import REFERENCES, meaning

LONGEST_OPTION = 120
"""Letters of one option's value; anchors of nine boxes fit."""


def limit_of(certificate: Certificate) -> float | None:
    """The limit of the gate on layers; None where that was not measured."""
    return next((gate.limit for gate in certificate.gates if gate.name == "layers"), None)


def sentence(certificate: Certificate) -> str:
    """The verdict in one sentence or two, for somebody who reads nothing else."""
    if certificate.reference == "none" or not certificate.gates:
        return "Nothing was proved: there was no independent engine to compare with."
    if certificate.passed:
        engine = certificate.reference
        return f"Rebuilt in PyTorch and ONNX, this model computes what {engine} computes, each number within its limit."
    names = ", ".join(gate.name for gate in certificate.failed)
    count = f"{len(certificate.failed)} of {len(certificate.gates)} gates failed: {names}."
    limit = limit_of(certificate)
    first = first_beyond(certificate.layers, limit) if limit is not None else None
    if first is None:
        return count
    return (
        f"{count} The engines part company at layer {first.index} [{first.kind}], line {first.line} of the cfg: "
        f"its output is {number(first.max_over_std)} standard deviations off, {number(limit)} are allowed."
    )


def show_numbers(certificate: Certificate) -> str:
    """The figures that the verdict rests on, large."""
    pictures = {row.picture for row in certificate.pictures}
    pairs = sum(len(row.match.pairs) for row in certificate.pictures)
    worst = max((layer.max_over_std for layer in certificate.layers), default=None)
    offset = max((row.match.max_offset_px for row in certificate.pictures), default=None)
    facts = (
        (f"{len(certificate.layers)}", "layers compared"),
        (number(worst), "standard deviations, the worst layer"),
        (f"{pairs}", f"boxes matched on {len(pictures)} picture{'' if len(pictures) == 1 else 's'}"),
        (f"{number(offset)}", "pixels, the largest offset of a box"),
    )
    return "".join(f"<div><b>{text(value)}</b><span>{text(what)}</span></div>" for value, what in facts)


def show_identity(certificate: Certificate, model: Model) -> str:
    """What exactly was compared, so that the report speaks of these files and no others."""
    net, nms, weights, options = model.preprocessing, model.nms, model.weights, certificate.options
    reasons = "; ".join(str(note) for note in model.reasons)
    size = "any size" if options.size is None else "{} × {}".format(*options.size)
    graph = f"outputs {options.outputs}, opset {options.opset}, {size}{', folded' if options.fold else ''}"
    facts = (
        ("cfg", certificate.source, "", certificate.cfg_sha256),
        ("weights", f"{weights.source}, {spaced(weights.size)} bytes", "", certificate.weights_sha256),
        ("dialect", f"{certificate.dialect}, {certificate.epsilon}", reasons, ""),
        ("reference", certificate.reference, REFERENCES.get(certificate.reference, ""), ""),
        ("input", f"{net.width} × {net.height} × {net.channels}, {'letterboxed' if net.letterbox else 'stretched'}",
         f"suppression {nms.kind} at {nms.thresh:g}", ""),
        ("ONNX", graph, "", certificate.graph_sha256 or "not written"),
    )  # fmt: skip
    return definitions((term, _fact(fact, small, sha256)) for term, fact, small, sha256 in facts)


def _fact(fact: str, small: str, sha256: str) -> str:
    below = (f"<small>{text(small)}</small>" if small else "") + (f"<code>{text(sha256)}</code>" if sha256 else "")
    return text(fact) + below


def show_gates(certificate: Certificate) -> str:
    """Every gate with its numbers and with what it means."""
    heads = ("result", "gate", "#measured", "#limit", "where")
    return table("All gates", heads, [_gate(gate) for gate in certificate.gates], kind="gates")


def _gate(gate: Gate) -> str:
    result = '<span class="yes">✓ passed</span>' if gate.passed else '<span class="no">✗ FAILED</span>'
    where = " ".join(f"<small>{text(part)}</small>" for part in (gate.where, gate.detail) if part)
    return row(
        [
            cell(result),
            cell(f"<b>{text(gate.name)}</b><small>{text(meaning(gate.name))}</small>"),
            cell(f"{number(gate.worst)}<small>{text(share(gate))}</small>", kind="n"),
            cell(number(gate.limit), kind="n"),
            cell(where, kind="where"),
        ],
        "" if gate.passed else "bad",
    )


def share(gate: Gate) -> str:
    """How much of the limit is used up, where that can be said."""
    if not gate.worst or not gate.limit:
        return ""
    part = gate.worst / gate.limit
    if part <= 1:
        return f"{100 * part:.0f} % of it" if part >= 0.01 else "below 1 % of it"
    return f"{spaced(round(part)) if 100 <= part < 1e9 else number(part)} × the limit"


def show_layers(certificate: Certificate, model: Model) -> str:
    """Chart and table of every layer that was compared."""
    rows, limit = certificate.layers, limit_of(certificate)
    if not rows:
        return "<p>No layer was compared.</p>"
    heads = (
        "#layer",
        "type",
        "#cfg line",
        "#max|difference|",
        "#÷ standard deviation",
        "at channel, y, x",
        "#values",
        "verdict",
    )
    lines = [_layer_row(layer, limit) for layer in rows]
    hidden = len(model.network.layers) - len(rows)
    remark = f"<p>{hidden} more layers of the network are not shown by the reference.</p>" if hidden else ""
    return (
        layer_chart(rows, limit) + remark + table("Difference of every layer", heads, lines, kind="tall", sortable=True)
    )


def _layer_row(layer: LayerDifference, limit: float | None) -> str:
    within = limit is None or layer.max_over_std <= limit
    yes, no = '<span class="yes">✓ within</span>', '<span class="no">✗ beyond</span>'
    cells = [numeric(layer.index), cell(text(layer.kind)), numeric(layer.line)]
    cells += [numeric(layer.max_abs), numeric(layer.max_over_std), cell(text(", ".join(map(str, layer.at))))]
    cells += [numeric(layer.count, spaced(layer.count)), cell("–" if limit is None else yes if within else no)]
    return row(cells, "" if within else "bad")


def show_network(model: Model) -> str:
    """Every layer as the cfg describes it, and its bytes in the weights file."""
    heads = (
        "#layer",
        "type",
        "#cfg line",
        "inputs",
        "output c × h × w",
        "as the cfg says",
        "bytes in the weights file",
    )
    lines = [_network_row(layer, section, model) for layer, section in walk_sections(model.network)]
    return table("Layers of the network", heads, lines, kind="tall")


def _network_row(layer: Layer, section: Section, model: Model) -> str:
    spans = model.weights.ledger.by_layer.get(layer.index, ())
    where = f"{spans[0].start:#x} – {spans[-1].stop:#x}" if spans else "–"
    inputs = ", ".join("input" if index < 0 else str(index) for index in layer.inputs)
    shape = " × ".join(map(str, layer.output_shape))
    cells = (numeric(layer.index), cell(text(layer.kind)), numeric(layer.line), cell(text(inputs)), cell(shape))
    options = " ".join(f"{option.key}={_shorten(option.value)}" for option in section.options.values())
    return row([*cells, cell(text(options), kind="options"), cell(f"<code>{where}</code>")])


def _shorten(value: str) -> str:
    return value if len(value) <= LONGEST_OPTION else value[: LONGEST_OPTION - 1] + "…"


def show_remarks(certificate: Certificate, model: Model) -> str:
    """What the gates remarked, and what reading the cfg did."""
    notes = items(model.notes, "")
    about = f"<h3>While reading the cfg</h3>{notes}" if model.notes else ""
    return items(certificate.remarks, "Nothing to remark.") + about


def show_repeat(certificate: Certificate, model: Model, pictures: Iterable[str]) -> str:
    """The command line and the versions."""
    versions = definitions((name, text(value)) for name, value in certificate.versions.items())
    return f'<pre tabindex="0"><code>{text(command_line(certificate, model, pictures))}</code></pre>{versions}'


def command_line(certificate: Certificate, model: Model, pictures: Iterable[str]) -> str:
    """`workbench validate …` as it would be typed where the files lie; file names without their folders."""
    options = certificate.options
    words = ["workbench", "validate", certificate.source, model.weights.source, "--dialect", certificate.dialect]
    words += ["--reference", certificate.reference] if certificate.reference != "none" else []
    words += ["--outputs", options.outputs, "--opset", str(options.opset)]
    words += ["--static", "{}x{}".format(*options.size)] if options.size else []
    for name in pictures:
        words += ["--image", name]
    return shlex.join(words)
