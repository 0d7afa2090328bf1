"""Model <-> .safetensors: tensors under Darknet's names, with the cfg and everything else the loader needs.

A safetensors file holds no code and is read without pickle. `load(path)` gives the Model back; `workbench.to_torch` of
it is the torch module. The tensors are named as in the module's state dict: `012_convolutional.rolling_mean`.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from workbench.certificate import Certificate
from workbench.cfg import parse_cfg
from workbench.dialects import find_dialect
from workbench.errors import CfgError, OptionError, WeightsError
from workbench.exporters.metadata import describe
from workbench.files import atomic_write, is_endless
from workbench.layers.base import Float32
from workbench.model import Model, model_from
from workbench.network import build_network
from workbench.onnx_model import OnnxOptions
from workbench.weights import Header, build_ledger, make_weights

FORMAT = "darknet-workbench/1"


def write(model: Model, path: Path, certificate: Certificate | None, options: OnnxOptions) -> None:
    """Write the checkpoint; batch normalisation stays unfolded."""
    prefixes = {layer.index: layer.prefix for layer in model.network.layers}
    tensors = {
        f"{prefixes[span.layer]}.{span.field}": np.ascontiguousarray(model.weights[span.layer, span.field])
        for span in model.weights.ledger.spans
    }
    header = model.weights.header
    metadata = describe(model, certificate) | {
        "format": FORMAT,
        "darknet.cfg_text": model.cfg_text,
        "darknet.header": json.dumps([header.major, header.minor, header.revision, header.seen]),
    }
    with atomic_write(path, inputs=[model.weights.path, model.network.cfg_path]) as file:
        save_file(tensors, file.name, metadata)


def load(path: str | Path) -> Model:
    """The Model of a checkpoint that `write` made.

    Raises WeightsError where the file is damaged or foreign, CfgError where the cfg in it is.
    """
    if is_endless(path):
        raise WeightsError(
            str(path), "is not a regular file", expected="a checkpoint on disk", found="a device or pipe"
        )
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise WeightsError(
                    str(path),
                    "is no checkpoint of the workbench",
                    expected=f"format {FORMAT}",
                    found=metadata.get("format"),
                )
            try:
                return _rebuild(Path(path), metadata, file)
            except (CfgError, WeightsError) as error:
                raise error.inside(str(path)) from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            str(path), "cannot be read as safetensors", found=str(error), cause="A damaged or truncated file?"
        ) from error


def _rebuild(path: Path, metadata: dict[str, str], file: Any) -> Model:
    try:
        dialect, names = find_dialect(metadata["darknet.dialect"]), _read_names(metadata["names"])
        header, text, source = (
            _read_header(metadata["darknet.header"]),
            metadata["darknet.cfg_text"],
            metadata["darknet.cfg"],
        )
    except (KeyError, ValueError, TypeError, RecursionError, struct.error, OptionError) as error:
        raise WeightsError("metadata", "are incomplete or damaged", found=repr(error)) from error
    network = build_network(parse_cfg(text, source))
    ledger = build_ledger(network, dialect, header.size, header.transposed)
    wanted = {f"{network.layers[span.layer].prefix}.{span.field}": span for span in ledger.spans}
    stored = set(file.keys())
    for problem, lone in (("is missing", wanted.keys() - stored), ("is of no layer", stored - wanted.keys())):
        if lone:
            raise WeightsError(f"tensor {min(lone)}", problem, cause="A damaged file, or the cfg of another model?")
    tensors = {(span.layer, span.field): _read_tensor(file, name) for name, span in wanted.items()}
    return model_from(text, make_weights(network, tensors, dialect, header), dialect, names, source)


def _read_tensor(file: Any, name: str) -> Float32:
    kind = file.get_slice(name).get_dtype()
    if kind != "F32":
        raise WeightsError(f"tensor {name}", "has another type", expected="F32", found=kind)
    tensor: Float32 = file.get_tensor(name)
    return tensor


def _read_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names are no list of text")
    return tuple(names)


def _read_header(text: str) -> Header:
    header = Header(*json.loads(text))
    header.pack()  # raises where a number does not fit
    return header
