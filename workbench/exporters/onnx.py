"""Model -> .onnx by the direct builder, with everything a consumer must know in `metadata_props`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from workbench.certificate import Certificate
from workbench.exporters.metadata import describe
from workbench.model import Model
from workbench.onnx_model import INPUT, OnnxGraph, OnnxOptions, build_graph, write_onnx

LAYOUTS = {
    "raw": "each output is the input of a head, (n, anchors * (5 + classes), h, w): x, y, w, h, objectness, classes, "
    "no logistic",
    "decoded": "boxes (n, rows, 4) x1 y1 x2 y2 in pixels of the network input; scores (n, rows, classes) = "
    "objectness * class; rows by head, then row, column, anchor",
    "nms": "detections (m, 7): picture in the batch, class, score, x1 y1 x2 y2 in pixels of the network input; "
    "plain IoU within each class",
    "layers": "the output of every layer",
}


def write(model: Model, path: Path, certificate: Certificate | None, options: OnnxOptions) -> None:
    """Write the file; with a certificate only if the graph is the proved one, to the bit."""
    with ThreadPoolExecutor(1, "sha256") as hasher:
        hashing = hasher.submit(lambda: model.weights.sha256)  # beside the writing: it takes as long
        graph = build_graph(model, options)

        def tell() -> dict[str, str]:
            hashing.result()
            return _metadata(graph, certificate)

        def approve(graph_sha256: str) -> None:
            if certificate:
                certificate.require(model, graph_sha256)

        write_onnx(graph, path, tell, approve, hashed=certificate is not None)


def _metadata(graph: OnnxGraph, certificate: Certificate | None) -> dict[str, str]:
    return {
        **describe(graph.model, certificate),
        "darknet.options": json.dumps(asdict(graph.options)),
        "darknet.outputs": LAYOUTS[graph.options.outputs],
        "darknet.input": f"{INPUT}: float32 {graph.image_shape}, see darknet.preprocessing",
    }
