"""Weights: findings with their bytes, changes, lossless round trips, and writing that loses nothing."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_weights import BYTES, TEXT, open_small, small, small_file, values

from workbench.dialects import DIALECTS, PJREDDIE
from workbench.errors import OptionError, WeightsError
from workbench.files import atomic_write, sha256_of
from workbench.layers.base import Float32
from workbench.model import open_model
from workbench.weights import Header, Weights, make_weights, write_weights

# ------------------------------------------------------------------------------------------------------- findings


def told(weights: Weights) -> list[str]:
    return [str(finding) for finding in weights.findings()]


def test_truncated(tmp_path: Path) -> None:
    path = small_file(tmp_path, values()[:50])  # ends at 20 + 200 = 0xdc, inside layer 0's weights
    weights = open_small(path)
    text = "a.weights: layer 0 (a.cfg:5) weights{}needs bytes 0x34-0x10c, the file ends at 0xdc: 108 bytes are missing."
    assert told(weights) == [
        "error: " + text.format(", bytes 0xdc-0x148: ") + " Weights of another cfg (filters=, classes=, layers), or a "
        "truncated or joined file."
    ]
    with pytest.raises(WeightsError) as caught:
        weights[0, "weights"]
    assert str(caught.value) == text.format(": ") + " Truncated download, or a cfg with other filters=."
    assert weights[0, "rolling_variance"].tolist() == [6.5, 7.5]


def test_truncated_within_a_float(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    os.truncate(path, BYTES - 3)
    assert told(open_small(path)) == [
        "error: a.weights: layer 2 (a.cfg:14) weights, bytes 0x145-0x148: needs bytes 0x120-0x148, the file ends at "
        "0x145: 3 bytes are missing. The rest is no whole number of floats: a damaged or truncated file, or not a "
        ".weights file at all."
    ]


def test_trailing(tmp_path: Path) -> None:
    weights = open_small(small_file(tmp_path, np.append(values(), [1, 2])))
    assert told(weights) == [
        "error: a.weights, bytes 0x148-0x150: 8 bytes lie after the last tensor. "
        "Weights of another cfg (filters=, classes=, layers), or a truncated or joined file."
    ]
    assert weights.unread_bytes == 8


def test_partial(tmp_path: Path) -> None:
    """The first layer alone, as `darknet partial` writes yolov3.conv.74."""
    weights = open_small(small_file(tmp_path, values()[:62]))
    assert told(weights) == [
        "error: a.weights: layer 2 (a.cfg:14) biases, bytes 0x10c-0x148: needs bytes 0x10c-0x120, the file ends at "
        "0x10c: 60 bytes are missing. It ends exactly after layer 0: a partial file, such as a pretrained backbone "
        "(.conv.NN)?"
    ]


@pytest.mark.parametrize(
    ("header", "other"), [(struct.pack("<iiiI", 0, 2, 5, 0), 16), (struct.pack("<iiiQ", 0, 1, 0, 0), 20)]
)
def test_a_header_of_the_other_size_is_explained(tmp_path: Path, header: bytes, other: int) -> None:
    finding = open_small(small_file(tmp_path, header=header)).findings()[0]
    assert (
        finding.cause
        == f"With a header of {other} bytes it would fit exactly: is `seen` stored with {other - 12} bytes?"
    )


def test_open_model_says_the_same_once(tmp_path: Path) -> None:
    cfg = tmp_path / "a.cfg"
    cfg.write_text(TEXT)
    with pytest.raises(WeightsError) as caught:
        open_model(cfg, small_file(tmp_path, values()[:62]))
    assert str(caught.value) == (
        "a.weights: layer 2 (a.cfg:14) biases: needs bytes 0x10c-0x120, the file ends at 0x10c: 60 bytes are missing. "
        "It ends exactly after layer 0: a partial file, such as a pretrained backbone (.conv.NN)?"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_numbers(tmp_path: Path, bad: float) -> None:
    data = values()
    data[[10, 12]] = bad  # elements 2 and 4 of layer 0's weights: 0x34 + 8 = 0x3c, up to 0x34 + 20 = 0x48
    assert told(open_small(small_file(tmp_path, data))) == [
        "error: a.weights: layer 0 (a.cfg:5) weights, bytes 0x3c-0x48: 2 values are NaN or infinite. "
        "Read in the wrong order, or a damaged file."
    ]


def test_large_values_are_no_finding(tmp_path: Path) -> None:
    """Their sum overflows, they do not."""
    data = values()
    data[8:62] = 3e38
    assert told(open_small(small_file(tmp_path, data))) == []


@pytest.mark.parametrize(
    ("variances", "bytes_", "words"),
    [
        ([1, -0.25], "0x30-0x34", "1 of 2 variances are negative, the least is -0.25."),
        ([-0.5, -0.25], "0x2c-0x34", "2 of 2 variances are negative, the least is -0.5."),
        ([-1.2e-38, 1], "0x2c-0x30", "1 of 2 variances are negative, the least is -1.2e-38."),
    ],
)
def test_negative_variances(tmp_path: Path, variances: list[float], bytes_: str, words: str) -> None:
    data = values()
    data[6:8] = variances
    assert told(open_small(small_file(tmp_path, data))) == [
        f"error: a.weights: layer 0 (a.cfg:5) rolling_variance, bytes {bytes_}: {words} Read in the wrong order: "
        "another header size, another cfg, or weights before batch normalisation."
    ]


def test_negative_and_missing_variances_are_two_findings(tmp_path: Path) -> None:
    data = values()
    data[6:8] = [np.nan, -2]
    first, second = told(open_small(small_file(tmp_path, data)))
    assert "bytes 0x2c-0x30: 1 values are NaN or infinite." in first
    assert "bytes 0x30-0x34: 1 of 2 variances are negative, the least is -2." in second


@pytest.mark.parametrize("variance", [5e-45, -7e-44, 1.1e-38, -1.1e-38])
def test_denormal_variances_are_a_warning(tmp_path: Path, variance: float) -> None:
    data = values()
    data[7] = variance
    assert told(open_small(small_file(tmp_path, data))) == [
        "warning: a.weights: layer 0 (a.cfg:5) rolling_variance, bytes 0x30-0x34: 1 of 2 variances are denormal and "
        "count as 0. Dead channels: here the epsilon of the dialect decides everything."
    ]


@pytest.mark.parametrize("variance", [0.0, -0.0, 1.2e-38])
def test_zero_and_the_smallest_normal_number_are_no_finding(tmp_path: Path, variance: float) -> None:
    data = values()
    data[7] = variance
    assert told(open_small(small_file(tmp_path, data))) == []


# ------------------------------------------------------------------------------------------------- changing, writing


def test_replacing_changes_values_bytes_and_sha256_but_not_the_original(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    weights = open_small(path)
    changed = weights.replacing({(0, "scales"): np.array([7, 8], np.float32)})
    assert changed[0, "scales"].tolist() == [7, 8]
    assert weights[0, "scales"].tolist() == [2.5, 3.5]
    data = bytearray(path.read_bytes())
    data[0x1C:0x24] = struct.pack("<ff", 7, 8)
    assert b"".join(changed.pieces()) == data
    assert changed.sha256 == hashlib.sha256(data).hexdigest()
    assert weights.sha256 == sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("value", [np.zeros(3, np.float32), np.zeros(2, np.float64), np.zeros((2, 1), np.float32)])
def test_replacing_refuses_other_shapes(tmp_path: Path, value: Float32) -> None:
    words = rf"^layer 0 scales: cannot be replaced; expected float32 \(2,\), found {value.dtype} "
    with pytest.raises(WeightsError, match=words):
        open_small(small_file(tmp_path)).replacing({(0, "scales"): value})


def test_made_in_memory_is_the_same_as_read_from_a_file(tmp_path: Path) -> None:
    weights = open_small(small_file(tmp_path))
    tensors = {(s.layer, s.field): weights[s.layer, s.field] for s in weights.ledger.spans}
    made = make_weights(small(), tensors, PJREDDIE, weights.header)
    assert made.sha256 == weights.sha256
    assert (made.size, made.findings(), made.path) == (BYTES, [], None)
    tensors[0, "scales"][:] = 9
    assert made[0, "scales"].tolist() == [2.5, 3.5]
    del tensors[2, "biases"]
    with pytest.raises(WeightsError) as caught:
        make_weights(small(), tensors, PJREDDIE)
    assert str(caught.value) == (
        "weights: 1 tensors are missing; found 0x0000010c .. 0x00000120  layer 2 convolutional / biases (5)."
    )


@pytest.mark.parametrize("header", [Header(0, 1, 0, 7), Header(0, 2, 5, 1 << 40), Header(0, 1001, 0, 3)])
def test_write_is_read_backwards(tmp_path: Path, header: Header) -> None:
    path, copy = small_file(tmp_path, header=header.pack()), tmp_path / "copy.weights"
    write_weights(open_small(path), copy)
    assert copy.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.weights", "copy.weights"]


def test_nothing_written_to_a_tensor_reaches_the_file(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    before = path.read_bytes()
    weights = open_small(path)
    weights[0, "scales"][:] = 9
    assert weights[0, "scales"].tolist() == [9, 9]
    assert path.read_bytes() == before


REAL = [
    "mnv2-yolo-fastest-voc-v2-se", "mnv2-yolov3-nano-coco", "yolo-fastest-1.1-body", "yolo-fastest-1.1-coco",
    "yolo-fastest-1.1-xl-coco", "yoloface-500k-v1", "yoloface-50k", "yolov3-tiny",
]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_real_models_come_back_byte_for_byte(shared: Path, tmp_path: Path, name: str, dialect: str) -> None:
    folder = shared / "models" / name
    cfg, file = next(folder.glob("*.cfg")), next(folder.glob("*.weights"))
    model, copy = open_model(cfg, file, dialect=dialect), tmp_path / "copy.weights"
    write_weights(model.weights, copy)
    assert copy.read_bytes() == file.read_bytes()
    assert [f for f in model.weights.findings() if f.level == "error"] == []
    assert model.weights.unread_bytes == 0


def test_there_is_no_other_real_model(shared: Path) -> None:
    assert sorted(p.parent.name for p in (shared / "models").glob("*/*.cfg")) == REAL


# ------------------------------------------------------------------------------------------------- writing safely


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    weights, before = open_small(path), path.read_bytes()
    (tmp_path / "link.weights").symlink_to(path)
    os.link(path, tmp_path / "twin.weights")
    for name in ("a.weights", "./a.weights", "link.weights", "twin.weights"):
        with pytest.raises(OptionError) as caught:
            write_weights(weights, tmp_path / name)
        assert str(caught.value) == (
            f"{tmp_path / name}: is also an input; an input is never overwritten. Give another output name."
        )
    assert path.read_bytes() == before


def test_a_failed_write_leaves_nothing_behind_and_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out.weights"
    target.write_text("before")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), atomic_write(target) as file:
            file.write(b"half")
            raise error
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_killed_write_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    """SIGKILL: no handler runs."""
    target = tmp_path / "out.weights"
    target.write_text("before")
    code = (
        "import os, signal, sys; from workbench.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert target.read_text() == "before"


def test_a_truncated_file_is_not_half_written(tmp_path: Path) -> None:
    weights = open_small(small_file(tmp_path, values()[:50]))
    with pytest.raises(WeightsError, match="108 bytes are missing"):
        write_weights(weights, tmp_path / "copy.weights")
    assert [p.name for p in tmp_path.iterdir()] == ["a.weights"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    weights = open_small(small_file(tmp_path))
    for path, words in (
        (tmp_path, f"{tmp_path}: is a folder; expected a file name."),
        (tmp_path / "no" / "a.weights", "cannot write there; found No such file or directory. Check the folder."),
    ):
        with pytest.raises(OptionError) as caught:
            write_weights(weights, path)
        assert str(caught.value).endswith(words)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(OptionError, match=r"could not be written; found No space left on device\. Is the disk full\?$"),
        atomic_write(tmp_path / "a"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    with atomic_write(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode == other.stat().st_mode


def test_opening_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(TEXT)
    path = small_file(tmp_path)
    code = (
        "import sys; from workbench.cfg import read_cfg; from workbench.network import build_network\n"
        "from workbench.weights import open_weights; from workbench.dialects import PJREDDIE\n"
        "weights = open_weights(build_network(read_cfg(sys.argv[1])), sys.argv[2], PJREDDIE)\n"
        "print(weights.findings(), float(weights[0, 'scales'][0]), sorted({'torch', 'onnx', 'cv2'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.cfg"), str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 2.5 []\n"
