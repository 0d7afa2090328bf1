"""Writers, one file per target. Every writer asks for a Certificate; `unvalidated=True` is the explicit way around it,
and the file says so.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from workbench.certificate import Certificate
from workbench.errors import NotProved, OptionError
from workbench.files import refuse_input
from workbench.model import Model
from workbench.onnx_model import OnnxOptions, default_options

TARGETS = {
    ".onnx": "workbench.exporters.onnx",
    ".safetensors": "workbench.exporters.checkpoint",
    ".weights": "workbench.exporters.darknet",
}
"""File suffix -> module with `write(model, path, certificate, options)`."""

Write = Callable[[Model, Path, Certificate | None, OnnxOptions], None]


def find_writer(path: Path) -> Write:
    """The writer for a file name; raises OptionError where the suffix is none of `TARGETS`."""
    if path.suffix not in TARGETS:
        raise OptionError(
            str(path), "unknown kind of file", expected=" or ".join(TARGETS), found=path.suffix or "no suffix"
        )
    write: Write = import_module(TARGETS[path.suffix]).write
    return write


def export(
    model: Model,
    path: str | Path,
    certificate: Certificate | None = None,
    *,
    options: OnnxOptions | None = None,
    unvalidated: bool = False,
) -> Path:
    """Write `model` to `path` (.onnx, .safetensors or .weights), proved by `certificate`.

    options: for ONNX only; those of the certificate where None.
    Raises NotProved where the certificate is missing, red, or speaks of another model or graph; OptionError where the
    file cannot be written; WeightsError where a tensor cannot be folded. Nothing is left behind then.
    """
    target = Path(path)
    write = find_writer(target)
    refuse_input(target, [model.weights.path, model.network.cfg_path])
    if unvalidated:
        certificate = None
    elif certificate is None:
        raise NotProved(
            model.network.cfg.source, "there is no certificate", next_step="Validate first, or say `unvalidated`."
        )
    else:
        certificate.require(model)
    write(model, target, certificate, options or (certificate.options if certificate else default_options(model)))
    return target
