"""Small detectors for the tests of the ONNX builder, and what reads its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from workbench.model import Model
from workbench.onnx_model import INPUT, OnnxOptions, build_graph, write_onnx
from workbench.runners.onnxruntime import open_session

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride={}\npad=1\nactivation={}\n"
HEAD = (
    "[convolutional]\nfilters=16\nsize=1\nactivation=linear\n"
    "[yolo]\nmask={}\nanchors=8,9, 20,14, 30,31\nclasses=3\nnum=3\n"
)
# Two heads at different strides, a route with groups, a shortcut, an upsample, a 2/1 pool: 64x32.
TEXT = (
    "[net]\nwidth=64\nheight=32\nchannels=3\n"
    + CONV.format(8, 2, "leaky")  # 0  (8, 16, 32)
    + CONV.format(8, 2, "mish")  # 1  (8, 8, 16)
    + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"  # 2  (4, 8, 16)
    + CONV.format(8, 1, "swish")  # 3
    + "[shortcut]\nfrom=1\nactivation=linear\n"  # 4
    + "[maxpool]\nsize=2\nstride=1\n"  # 5
    + CONV.format(8, 2, "leaky")  # 6  (8, 4, 8)
    + HEAD.format("1,2")  # 7, 8
    + "[route]\nlayers=-3\n[upsample]\nstride=2\n[route]\nlayers=-1,5\n"  # 9, 10, 11  (16, 8, 16)
    + "[dropout]\n"  # 12
    + HEAD.format("0,1")  # 13, 14
)
REGION = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n"
    + CONV.format(4, 2, "leaky")
    + "[reorg]\nstride=2\n[convolutional]\nfilters=16\nsize=1\nactivation=linear\n"
    + "[region]\nanchors=1.5,2, 3,4\nclasses=3\nnum=2\nsoftmax=1\n"
)


def calm(model: Model, *layers: int) -> Model:
    """With raw heads around zero, so that boxes are of the size of their anchors and overlap."""
    small = {(i, "weights"): model.weights[i, "weights"] * np.float32(0.3) for i in layers}
    return replace(model, weights=model.weights.replacing(small))


def write(model: Model, path: Path, options: OnnxOptions | None = None, **metadata: str) -> onnx.ModelProto:
    write_onnx(build_graph(model, options), path, metadata)
    return onnx.load(path)


def values_of(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def answer(path: Path, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: x}), strict=True))


def shape_of(info: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
