"""Matrices that lie in the file column by column: [connected] in files of version 1000 and more, and `flipped=1`."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.model import open_model
from workbench.torch_model import build
from workbench.weights import write_weights

CONNECTED = "[net]\ninputs=3\n[connected]\noutput=2\nactivation=linear\n"
FLIPPED = "[net]\nwidth=1\nheight=1\nchannels=3\n[convolutional]\nfilters=2\nflipped=1\nactivation=linear\n"
OLD = struct.pack("<iiiI", 1001, 0, 0, 0)  # `seen` has 4 bytes there
NEW = struct.pack("<iiiQ", 0, 2, 5, 0)


@pytest.mark.parametrize(("text", "header"), [(CONNECTED, OLD), (FLIPPED, NEW)])
def test_column_by_column(text: str, header: bytes, tmp_path: Path) -> None:
    """Biases 10, 20; then 1 2 / 3 4 / 5 6: row k holds what input k gives to both outputs.

    Input 1, 10, 100 gives 10 + 1 + 30 + 500 = 541 and 20 + 2 + 40 + 600 = 662.
    """
    cfg, file = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg.write_text(text)
    file.write_bytes(header + np.array([10, 20, 1, 2, 3, 4, 5, 6], "<f4").tobytes())
    model = open_model(cfg, file)
    with torch.inference_mode():
        y = build(model)(torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1))[0]
    assert y.flatten().tolist() == [541.0, 662.0]
    assert model.weights[0, "weights"].reshape(2, 3).tolist() == [[1, 3, 5], [2, 4, 6]]
    place = model.weights.at(len(header) + 4 * 4)  # the third number after the biases is a 3
    assert place.element[:2] == (0, 1)
    assert model.weights.ledger.offset_of(0, "weights", place.element) == len(header) + 4 * 4
    copy = tmp_path / "b.weights"
    write_weights(model.weights, copy)
    assert copy.read_bytes() == file.read_bytes()


def test_a_newer_file_is_not_transposed(tmp_path: Path) -> None:
    cfg, file = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg.write_text(CONNECTED)
    file.write_bytes(NEW + np.array([10, 20, 1, 2, 3, 4, 5, 6], "<f4").tobytes())
    assert open_model(cfg, file).weights[0, "weights"].tolist() == [[1, 2, 3], [4, 5, 6]]
