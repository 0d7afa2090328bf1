"""The whole story on the shipped models: open, prove, export, and draw what Darknet and the converted file see.

Everything it writes goes to one folder: for each model the ONNX file, the certificate, the report, and a picture with
the boxes of the reference and of the file.
"""

from __future__ import annotations

import json
from pathlib import Path

from workbench import terminal
from workbench.certificate import Certificate
from workbench.errors import OptionError
from workbench.exporters import export
from workbench.figures import draw_layers, draw_match, to_png
from workbench.files import atomic_write
from workbench.gates import LAYER_LIMIT
from workbench.model import Model, open_model
from workbench.report import write_report
from workbench.validation import Pictures, shipped_pictures, validate
from workbench.zoo import data_dir

MODELS = {"shapes-tiny3": "pjreddie", "shapes-tiny4": "alexeyab"}
"""Shipped model -> the dialect it was trained for."""


def run_demo(out: Path) -> bool:
    """Run the demonstration into the folder `out`; True where every model passed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(str(out), "cannot be made", found=error.strerror) from error
    return all([_show_model(name, dialect, out) for name, dialect in MODELS.items()])


def _show_model(name: str, dialect: str, out: Path) -> bool:
    data = data_dir()
    model = open_model(data / f"{name}.cfg", data / f"{name}.weights", dialect=dialect)
    pictures = shipped_pictures()
    terminal.say(f"\n{name}: {len(model.network.layers)} layers, {model.weights.size} bytes, dialect {dialect}")
    with terminal.step_progress() as progress:
        certificate = validate(model, pictures, progress=progress)
    terminal.show_certificate(certificate)
    written = _write_evidence(model, certificate, pictures, out / name)
    if certificate.passed:
        written.append(export(model, out / f"{name}.onnx", certificate))
    for path in written:
        terminal.say(f"  wrote {path}")
    return certificate.passed


def _write_evidence(model: Model, certificate: Certificate, pictures: Pictures, stem: Path) -> list[Path]:
    """Certificate, report, layer chart, and one overlay for each picture at the lowest threshold."""
    report, proof = stem.with_suffix(".html"), stem.with_suffix(".json")
    write_report(certificate, model, report, pictures)
    _write(proof, json.dumps(certificate.to_json(), indent=1).encode() + b"\n")
    chart = stem.with_name(f"{stem.name}-layers.png")
    _write(
        chart,
        to_png(draw_layers(certificate.layers, LAYER_LIMIT, f"{stem.name}: PyTorch against {certificate.reference}")),
    )
    overlays = []
    rows = {row.picture: row for row in certificate.pictures}
    for name, row in rows.items():
        overlays.append(stem.with_name(f"{stem.name}-{Path(name).stem}.png"))
        figure = draw_match(pictures[name], row.reference, row.candidate, row.match, model.names)
        _write(overlays[-1], to_png(figure))
    return [report, proof, chart, *overlays]


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
