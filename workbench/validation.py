"""Puts a model through every gate and returns a Certificate: a gate before the export, not a report after it."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbench.certificate import Certificate, Gate, identity, pipeline
from workbench.errors import OptionError, ReferenceRefused
from workbench.gates import GATES, Trial, check_ledger, run_gate
from workbench.image import load_picture
from workbench.memory import require_memory
from workbench.model import Model
from workbench.onnx_file import graph_sha256_of, read_options
from workbench.onnx_model import OnnxOptions, build_graph, default_options, write_onnx
from workbench.runners import choose_reference, open_runner
from workbench.zoo import data_dir

Progress = Callable[[str, int, int], None]
"""Called before each step with what is done, its number, and how many there are."""

Pictures = Mapping[str, NDArray[np.uint8]]


def validate(
    model: Model,
    pictures: Pictures | None = None,
    *,
    reference: str = "auto",
    options: OnnxOptions | None = None,
    file: str | Path | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Compare `model` with an independent engine and its ONNX file with PyTorch, gate by gate.

    pictures: name -> uint8 (H, W, 3) RGB; drawn ones that ship with the workbench where None.
    file: an ONNX file on the disk that is tried instead of one built now; `options` are then read from it.
    reference: "darknet", "opencv", or "auto" for the first of them that can run the cfg truthfully.
    Where none can, the certificate fails its gate `reference` and says why. Raises WeightsError for weights that
    cannot be folded, OptionError for options that do not fit or a network larger than memory.
    """
    options = read_options(file, model) if file else options or default_options(model)
    pictures = dict(pictures) if pictures else shipped_pictures()
    require_memory(model.network)
    graph = build_graph(model, options)
    ledger, remarks = check_ledger(model)
    if not ledger.passed:  # what no network can use is not worth running
        return _certificate(model, graph.options, "none", "", [ledger])
    try:
        name, passed_over = choose_reference(model, reference)
    except ReferenceRefused as error:
        gate = Gate("reference", False, where=str(error))
        return _certificate(model, graph.options, "none", "", [gate])
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder, open_runner(name, model) as engine:
        built = Path(folder) / "model.onnx"
        graph_sha256 = graph_sha256_of(file) if file else write_onnx(graph, built)
        trial = Trial(
            model,
            pictures,
            engine,
            graph,
            Path(file or built),
            graph.options,
            [*(f"not used: {reason}" for reason in passed_over), *remarks],
        )
        gates = [ledger]
        for number, (step, gate_function) in enumerate(GATES):
            if progress:
                progress(step, number, len(GATES))
            gates.extend(run_gate(trial, step, gate_function))
        return _certificate(model, graph.options, name, graph_sha256, gates, trial)


def shipped_pictures(count: int = 3) -> dict[str, NDArray[np.uint8]]:
    """The first drawn pictures that ship with the workbench, by file name."""
    paths = sorted(path for path in (data_dir() / "pictures").iterdir() if path.suffix in (".png", ".jpg"))
    return {path.name: load_picture(path) for path in paths[:count]}


def load_pictures(paths: list[str | Path]) -> dict[str, NDArray[np.uint8]]:
    """Pictures by file name; raises OptionError where two have the same name."""
    pictures = {Path(path).name: load_picture(path) for path in paths}
    if len(pictures) < len(paths):
        raise OptionError("pictures", "two have the same file name", expected="different names")
    return pictures


def _certificate(
    model: Model, options: OnnxOptions, reference: str, graph_sha256: str, gates: list[Gate], trial: Trial | None = None
) -> Certificate:
    cfg, weights, dialect, epsilon = identity(model)
    compared = trial.compared if trial else None
    return Certificate(
        source=model.network.cfg.source,
        cfg_sha256=cfg,
        weights_sha256=weights,
        dialect=dialect,
        epsilon=epsilon,
        reference=reference,
        options=options,
        graph_sha256=graph_sha256,
        gates=tuple(gates),
        remarks=tuple(trial.remarks) if trial else (),
        layers=compared.alone if compared else (),
        network=compared.layers if compared else (),
        pictures=compared.pictures if compared else (),
        versions=_versions(),
        pipeline=pipeline(model),
    )


def _versions() -> dict[str, str]:
    packages = ("darknet-workbench", "numpy", "torch", "onnx", "onnxruntime", "opencv-python-headless")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
