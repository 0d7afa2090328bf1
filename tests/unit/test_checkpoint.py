"""A checkpoint holds no code, but all in it may be wrong: each part is refused with the file's name and its own."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import random_model
from hostile import SMALL, damage_weights, weight_damages
from hypothesis import HealthCheck, given, settings
from safetensors import safe_open
from safetensors.numpy import save, save_file

from workbench.errors import CfgError, OptionError, WeightsError, WorkbenchError
from workbench.exporters import export
from workbench.exporters.checkpoint import load
from workbench.model import Model

Parts = tuple[dict[str, Any], dict[str, str]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "good.safetensors"
    return export(random_model(SMALL["detector"]), path, unvalidated=True)


def parts_of(path: Path) -> Parts:
    with safe_open(os.fspath(path), framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118 no mapping


def with_metadata(**changes: str | None) -> Callable[[Parts], Parts]:
    """Metadata by name with `_` for `.`; None removes one."""

    def change(parts: Parts) -> Parts:
        tensors, metadata = parts
        for key, value in changes.items():
            name = key if key in metadata else key.replace("darknet_", "darknet.")
            metadata.pop(name)
            metadata |= {name: value} if value is not None else {}
        return tensors, metadata

    return change


def with_tensor(name: str, value: Any) -> Callable[[Parts], Parts]:
    """One tensor replaced; None removes it."""

    def change(parts: Parts) -> Parts:
        tensors, metadata = parts
        tensors.pop(name, None)
        return tensors | ({name: value} if value is not None else {}), metadata

    return change


BIASES, INCOMPLETE = "000_convolutional.biases", "metadata: are incomplete or damaged; found "
WRONG: dict[str, tuple[Callable[[Parts], Parts], str]] = {
    "format": (
        with_metadata(format="other/9"),
        "is no checkpoint of the workbench; expected format darknet-workbench/1, found other/9.",
    ),
    "no format": (with_metadata(format=None), "is no checkpoint of the workbench; expected format darknet-work"),
    "no names": (with_metadata(names=None), f"{INCOMPLETE}KeyError('names')."),
    "names no json": (with_metadata(names="{"), INCOMPLETE + "JSONDecodeError("),
    "names no text": (with_metadata(names="[1, 2]"), f"{INCOMPLETE}ValueError('names are no list of text')."),
    "names nested": (with_metadata(names="[" * 100_000), INCOMPLETE + "RecursionError("),
    "header too long": (with_metadata(darknet_header="[0, 2, 5, 0, 7]"), INCOMPLETE + "TypeError("),
    "header of text": (with_metadata(darknet_header='["a", 2, 5, 0]'), INCOMPLETE),
    "header too large": (with_metadata(darknet_header="[0, 2, 99999999999, 0]"), INCOMPLETE + "error("),
    "header of nothing": (with_metadata(darknet_header="null"), INCOMPLETE + "TypeError("),
    "dialect": (with_metadata(darknet_dialect="latin"), INCOMPLETE + "OptionError("),
    "cfg of garbage": (with_metadata(darknet_cfg_text="\0\x1b[31m"), "small.cfg:1: text before the first section"),
    "no cfg": (with_metadata(darknet_cfg_text=""), "small.cfg: no section in the file"),
    "huge cfg": (with_metadata(darknet_cfg_text="#" * 2_000_000), "small.cfg: too large for a cfg"),
    "another cfg": (
        with_metadata(darknet_cfg_text=SMALL["region"]),
        "tensor 004_convolutional.biases: is missing. A damaged file, or the cfg of another model?",
    ),
    "no tensor": (
        with_tensor(BIASES, None), f"tensor {BIASES}: is missing. A damaged file, or the cfg of another model?",
    ),
    "a tensor more": (
        with_tensor("zzz", np.zeros(3, np.float32)),
        "tensor zzz: is of no layer. A damaged file, or the cfg of another model?",
    ),
    "half floats": (
        with_tensor(BIASES, np.zeros(8, np.float16)), f"tensor {BIASES}: has another type; expected F32, found F16.",
    ),
    "integers": (
        with_tensor(BIASES, np.zeros(8, np.int64)), f"tensor {BIASES}: has another type; expected F32, found I64.",
    ),
    "shape": (
        with_tensor(BIASES, np.zeros((2, 4), np.float32)),
        "layer 0 biases: cannot be replaced; expected float32 (8,), found float32 (2, 4).",
    ),
}  # fmt: skip


def test_the_undamaged_one_loads(good: Path) -> None:
    model = load(good)
    assert isinstance(model, Model)
    original = random_model(SMALL["detector"])
    for span in original.weights.ledger.spans:
        np.testing.assert_array_equal(model.weights[span.layer, span.field], original.weights[span.layer, span.field])


@pytest.mark.parametrize("kind", WRONG)
def test_one_wrong_part(good: Path, tmp_path: Path, kind: str) -> None:
    change, words = WRONG[kind]
    path = tmp_path / "a.safetensors"
    tensors, metadata = change(parts_of(good))
    save_file(tensors, path, metadata)
    before = path.read_bytes()
    with pytest.raises((CfgError, WeightsError)) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {words}")
    assert str(caught.value).isprintable()
    assert path.read_bytes() == before


RAW = {
    "empty": b"",
    "short": bytes(7),
    "endless header": struct.pack("<Q", 2**63) + b"{}",
    "header beyond the file": struct.pack("<Q", 50_000_000) + b"{}",
    "header no json": struct.pack("<Q", 4) + b"garb",
    "nested header": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "offsets": save({"a": np.zeros(2, np.float32)}, {"format": "x"})[:-4],
    "pickle": b"\x80\x04cos\nsystem\n(S'echo hacked'\ntR.",
}


@pytest.mark.parametrize("kind", RAW)
def test_what_is_no_safetensors(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(RAW[kind])
    with pytest.raises(WeightsError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as safetensors; found ")
    assert str(caught.value).endswith(" A damaged or truncated file?")


def test_no_file_a_folder_and_a_pipe(tmp_path: Path) -> None:
    for path in (tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(WeightsError, match="cannot be read as safetensors; found "):
            load(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="is not a regular file; expected a checkpoint on disk, found a device"):
        load(tmp_path / "pipe")


@settings(derandomize=True, database=None, deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(damages=weight_damages())
def test_damaged_bytes(good: Path, damages: list[tuple[str, int, int]]) -> None:
    """It loads, or is refused with its name; NaN in a tensor is found as in any weights."""
    path = good.with_name("damaged.safetensors")
    path.write_bytes(damage_weights(good.read_bytes(), damages))
    try:
        model = load(path)
        assert json.dumps([str(finding) for finding in model.weights.findings()])
    except WorkbenchError as error:
        assert not isinstance(error, OptionError)
        assert str(error).startswith(str(path))
        assert str(error).isprintable()
