"""One forward pass: our ONNX file in ONNX Runtime against the traced file, OpenCV, Darknet and our torch module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import onnx
from forward import LIBRARY
from networks import Files, cfg_text, residual_detector, small_detector, write_files
from report import Row
from series import Ratio, Sample, interleave, job

from workbench.model import Model, open_model
from workbench.onnx_model import OnnxOptions, build_graph, write_onnx
from workbench.traced import export_traced

ROOT = Path(__file__).resolve().parents[2]
LATENCY, NODES = "a forward pass, our file in ONNX Runtime", "nodes, our file"


def find_models(folder: Path, scale: float) -> dict[str, Files]:
    """The shipped model and the real one beside the checkout where they are, and those made here."""
    real = ROOT.parent / "shared" / "models" / "yolov3-tiny"
    candidates = {
        "shapes-tiny3": Files(ROOT / "data" / "shapes-tiny3.cfg", ROOT / "data" / "shapes-tiny3.weights"),
        "yolov3-tiny": Files(real / "yolov3-tiny.cfg", real / "yolov3-tiny.weights"),
    }
    models = {name: files for name, files in candidates.items() if files.cfg.exists() and files.weights.exists()}
    if "yolov3-tiny" not in models:
        models["small detector"] = write_files(cfg_text(small_detector(scale)), folder / "small-detector")
    for activation in ("leaky", "mish"):
        text = cfg_text(residual_detector(scale / 4, activation), 320)
        models[f"75 layers, {activation}"] = write_files(text, folder / f"residual-{activation}")
    return models


def measure_latency(folder: Path, models: Mapping[str, Files], rounds: int, repeats: int) -> Iterator[Row]:
    """Every model with one thread and with as many as each engine takes by itself; then the nodes.

    Mish is one node from opset 18 on, so such a model is measured at both.
    """
    nodes = []
    for name, files in models.items():
        model = open_model(files.cfg, files.weights)
        direct, traced = folder / "direct.onnx", folder / "traced.onnx"
        export_traced(model, traced)
        for opset in (17, 18) if "=mish" in model.cfg_text else (17,):
            label = name if opset == 17 else f"{name}, opset {opset}"
            write_onnx(build_graph(model, OnnxOptions("raw", opset)), direct)
            nodes.append(_node_row(label, direct, traced))
            for threads in (1, 0):
                takes = _takes(model, files, direct, traced, threads, repeats, everyone=opset == 17)
                yield from _rows(f"{label}, {'1 thread' if threads else 'default threads'}", interleave(takes, rounds))
    yield from nodes


def _takes(
    model: Model, files: Files, direct: Path, traced: Path, threads: int, repeats: int, everyone: bool
) -> dict[str, Callable[[], Sample]]:
    net = model.network
    common = {"shape": [1, net.channels, net.height, net.width], "threads": threads}
    darknet_form = {"file": str(files.cfg), "weights": str(files.weights)}
    engines: dict[str, dict[str, object]] = {
        "ours": {"engine": "onnxruntime", "file": str(direct), "repeats": repeats},
        "traced file": {"engine": "onnxruntime", "file": str(traced), "repeats": repeats},
    }
    if everyone:
        engines["OpenCV"] = {"engine": "opencv", "repeats": repeats, **darknet_form}
    if everyone and threads == 1:
        engines["our torch module"] = {"engine": "torch", "repeats": repeats, **darknet_form}
        # Mish makes Darknet of 2018 compute another network.
        if LIBRARY.exists() and model.dialect.name == "pjreddie":
            engines["Darknet"] = {"engine": "darknet", "repeats": 1, **darknet_form}
    return {who: partial(job, "forward", **common, **told) for who, told in engines.items()}


def _rows(label: str, samples: Mapping[str, list[Sample]]) -> Iterator[Row]:
    for against, others in samples.items():
        if against != "ours":
            seconds = min(sample["wall"] for sample in samples["ours"])
            detail = f"{seconds * 1e3:.1f} ms, {against} {min(sample['wall'] for sample in others) * 1e3:.1f} ms"
            goal = 1.0 if against == "traced file" else None
            yield Row(LATENCY, label, against, Ratio.of(samples["ours"], others), goal, detail=detail)


def _node_row(label: str, direct: Path, traced: Path) -> Row:
    ours, theirs = (len(onnx.load(str(path), load_external_data=False).graph.node) for path in (direct, traced))
    ratio = ours / theirs
    return Row(NODES, label, "traced file", Ratio(ratio, ratio, ratio), 1.0, detail=f"{ours} and {theirs}")
