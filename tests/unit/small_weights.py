"""A small weights file whose every byte is known, for the tests of the ledger and of the weights."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from workbench.cfg import parse_cfg
from workbench.dialects import PJREDDIE
from workbench.layers.base import Float32
from workbench.network import Network, build_network
from workbench.weights import Weights, open_weights

# Layer 0: 3 -> 2 filters of 3x3 with batch normalisation; layer 1: nothing; layer 2: 2 -> 5 filters of 1x1 without.
TEXT = """[net]
width=8
height=8
channels=3
[convolutional]
batch_normalize=1
filters=2
size=3
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=5
size=1
activation=linear
"""
FLOATS = 4 * 2 + 2 * 3 * 3 * 3 + 5 + 5 * 2  # 77
BYTES = 20 + 4 * FLOATS  # 328


def small() -> Network:
    return build_network(parse_cfg(TEXT, "a.cfg"))


def values() -> Float32:
    """0.5, 1.5, 2.5, … so that every float tells where it lay."""
    return np.arange(FLOATS, dtype=np.float32) + np.float32(0.5)


def small_file(folder: Path, data: Float32 | None = None, header: bytes = struct.pack("<iiiQ", 0, 2, 5, 0)) -> Path:
    path = folder / "a.weights"
    path.write_bytes(header + (values() if data is None else data).astype("<f4").tobytes())
    return path


def open_small(path: Path) -> Weights:
    return open_weights(small(), path, PJREDDIE)
