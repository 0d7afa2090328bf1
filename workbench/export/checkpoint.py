"""Model <-> .safetensors: tensors under Darknet's names, with the cfg and everything else the loader needs.

A safetensors file holds no code and is read without pickle. `load(path)` gives the Model back; `workbench.to_torch` of
it is the torch module. The tensors are named as in the module's state dict: `012_convolutional.rolling_mean`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from workbench.certificate import Certificate
from workbench.dialects import find_dialect
from workbench.errors import OptionError, WeightsError
from workbench.export.metadata import describe
from workbench.files import atomic_write
from workbench.model import Model, model_from
from workbench.network import Network, build_network
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
    """The Model of a checkpoint that `write` made; raises WeightsError where the file is damaged or foreign."""
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
            return _rebuild(Path(path), metadata, file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(str(path), "cannot be read as safetensors", found=str(error)) from error


def _rebuild(path: Path, metadata: dict[str, str], file: Any) -> Model:
    from workbench.cfg import parse_cfg

    try:
        dialect, names = find_dialect(metadata["darknet.dialect"]), tuple(json.loads(metadata["names"]))
        header, text, source = (
            Header(*json.loads(metadata["darknet.header"])),
            metadata["darknet.cfg_text"],
            metadata["darknet.cfg"],
        )
    except (KeyError, ValueError, TypeError, OptionError) as error:
        raise WeightsError(str(path), "its metadata are incomplete", found=repr(error)) from error
    network = build_network(parse_cfg(text, source))
    stored = set(file.keys())
    tensors = {}
    for span in build_ledger(network, dialect, header.size).spans:
        name = f"{_prefix(network, span.layer)}.{span.field}"
        if name not in stored:
            raise WeightsError(str(path), f"tensor {name} is missing", cause="A damaged file?")
        tensors[span.layer, span.field] = file.get_tensor(name)
    return model_from(text, make_weights(network, tensors, dialect, header), dialect, names, source)


def _prefix(network: Network, index: int) -> str:
    return network.layers[index].prefix
