"""A Certificate as one HTML file that explains itself: verdict, gates, every layer, every box on its picture.

The file asks nothing of the network and of no other file, works without its few lines of script, reads well on paper,
in the dark and to a screen reader. Names in it come from strangers' files: they are escaped, and a content security
policy lets no other script run than the one that this package wrote.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from string import Template

from workbench.certificate import Certificate, identity
from workbench.errors import OptionError
from workbench.files import atomic_write
from workbench.model import Model
from workbench.report import sections
from workbench.report.markup import text
from workbench.report.pictures import Pictures, show_pictures

__all__ = ["render_report", "write_report"]


def write_report(certificate: Certificate, model: Model, path: str | Path, pictures: Pictures | None = None) -> None:
    """Write the report as one HTML file; raises OptionError as `render_report` does, and where it cannot be written."""
    page = render_report(certificate, model, pictures)
    with atomic_write(path, inputs=[model.weights.path, model.network.cfg_path]) as file:
        file.write(page.encode("utf-8"))


def render_report(certificate: Certificate, model: Model, pictures: Pictures | None = None) -> str:
    """The report as text. pictures: name -> uint8 (H, W, 3) RGB, those that were compared.

    Equal values give equal text. Raises OptionError where the certificate speaks of another model or dialect.
    """
    told = (certificate.cfg_sha256, certificate.weights_sha256, certificate.dialect, certificate.epsilon)
    if told != identity(model):
        problem = "the certificate speaks of another model or dialect"
        raise OptionError("report", problem, expected=told[2:], found=identity(model)[2:])
    pictures = pictures or {}
    names = dict.fromkeys([*(row.picture for row in certificate.pictures), *pictures])
    return Template(_read("page.html")).substitute(
        **_frame(certificate),
        sentence=text(sections.sentence(certificate)),
        numbers=sections.show_numbers(certificate),
        identity=sections.show_identity(certificate, model),
        gates=sections.show_gates(certificate),
        remarks=sections.show_remarks(certificate, model),
        layers=sections.show_layers(certificate, model),
        pictures=show_pictures(certificate.pictures, model, pictures),
        network=sections.show_network(model),
        repeat=sections.show_repeat(certificate, model, names),
    )


def _frame(certificate: Certificate) -> dict[str, str]:
    """Style, script, the policy that lets nothing else in, and the verdict in words and in a mark."""
    style, script = _read("page.css"), _read("page.js")
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    words = ("PASSED", "✓", "passed") if certificate.passed else ("FAILED", "✗", "failed")
    return {
        "policy": f"{policy}; base-uri 'none'; form-action 'none'", "style": style, "script": script,
        "source": text(certificate.source), **dict(zip(("verdict", "mark", "kind"), words, strict=True)),
    }  # fmt: skip


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """As a content security policy names what stands between two tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
