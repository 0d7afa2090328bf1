"""The second road to ONNX: `torch.onnx.export(dynamo=True)` of the torch model, which checks the direct builder.

It knows nothing of the builder: nodes, names and folding are PyTorch's own. It is slower by far and serves those who
prefer it, and the gate that compares both.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from workbench.layers.base import Float32
from workbench.model import Model
from workbench.onnx_model import INPUT, OnnxOptions, build_graph, output_layers, write_onnx
from workbench.runners.onnxruntime import open_session
from workbench.torch_model import build


def export_traced(model: Model, path: str | Path, opset: int = 18) -> int:
    """Write the raw heads' graph as PyTorch traces it, with an open batch; returns the number of nodes.

    opset: PyTorch writes 18 or more.
    """
    module = build(model, output_layers(model))
    network = model.network
    # Batch 2, because 1 would be taken for a constant.
    example = torch.zeros(2, network.channels, network.height, network.width)
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=max(opset, 18),
            input_names=[INPUT],
            dynamic_shapes={"x": {0: batch}},
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    return len(program.model.graph)


def compare_roads(model: Model, x: Float32, opset: int) -> tuple[float, str, int]:
    """Raw heads of both files in ONNX Runtime: largest max|difference| / max|direct|, where, traced nodes."""
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        direct, traced = Path(folder) / "direct.onnx", Path(folder) / "traced.onnx"
        graph = build_graph(model, OnnxOptions("raw", opset))
        write_onnx(graph, direct)
        nodes = export_traced(model, traced, opset)
        ours = open_session(direct).run(None, {INPUT: x})
        theirs = open_session(traced).run(None, {INPUT: x})
    worst, where = 0.0, ""
    for name, a, b in zip(graph.output_layers, ours, theirs, strict=True):
        difference = float(np.abs(a - b).max() / (np.abs(a).max() or 1))
        if not difference <= worst:
            worst, where = difference, name
    return worst, where, nodes


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own warnings and log lines are about itself, not about the model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
