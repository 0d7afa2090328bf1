"""Wrong files and wrong words on the command line: one line that says what, exit code 2, and every input as it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hostile import network

DATA = Path(__file__).resolve().parents[2] / "data"
PICTURE = DATA / "pictures" / "clouds-333x250.png"


def png(width: int, height: int) -> bytes:
    """A picture of zeros, a thousand times larger unpacked than on the disk."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width * 3)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files m.cfg, m.weights, p.png, and bad ones beside them."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, source in (("m.cfg", "shapes-tiny3.cfg"), ("m.weights", "shapes-tiny3.weights")):
        shutil.copy(DATA / source, folder / name)
    shutil.copy(PICTURE, folder / "p.png")
    weights = (folder / "m.weights").read_bytes()
    nan = weights[:20] + struct.pack("<f", float("nan")) + weights[24:]
    crowd = network("convolutional filters=21 size=1 activation=linear", "yolo classes=2 num=3 anchors=1,1,1,1,1,1")
    floats = np.full((21, 3), 1, "<f4").tobytes()
    for name, content in {
        "empty.weights": b"",
        "short.weights": weights[:-1000],
        "long.weights": weights + bytes(8),
        "nan.weights": nan,
        "cut.png": PICTURE.read_bytes()[:2000],
        "bomb.png": png(9000, 9000),
        "text.png": b"no picture",
        "binary.names": bytes(100),
        "bad.onnx": b"no model",
        "huge.cfg": network("convolutional filters=4", net="[net]\nwidth=16384\nheight=16384\nchannels=3\n").encode(),
        "huge.weights": struct.pack("<iiiQ", 0, 2, 5, 0) + np.ones(4 + 4 * 3, "<f4").tobytes(),
        "crowd.cfg": crowd.encode().replace(b"=16\n", b"=160\n"),
        "crowd.weights": struct.pack("<iiiQ", 0, 2, 5, 0) + np.full(21, 1, "<f4").tobytes() + floats,
        "escape.cfg": b"[net]\nwidth=8\nheight=8\nchannels=3\n[\x1b[31mred]\n",
    }.items():
        (folder / name).write_bytes(content)
    (folder / "link.onnx").symlink_to(folder / "m.weights")
    os.link(folder / "m.weights", folder / "hard.weights")
    os.mkfifo(folder / "pipe")
    return folder


def command(folder: Path, words: str) -> list[str]:
    """`detect m.cfg …`: what names a file in `folder` becomes its path; `@` stands for the folder itself."""
    parts = (str(folder) if word == "@" else word.replace("@/", f"{folder}/") for word in words.split())
    return [sys.executable, "-m", "workbench", *(str(folder / w) if os.path.exists(folder / w) else w for w in parts)]


def states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Name -> checksum, time, number of every file."""
    return {
        path.name: (zlib.crc32(path.read_bytes()), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.iterdir()
        if path.is_file()
    }


GOOD = "m.cfg m.weights"
BAD = {
    "inspect no.cfg": r"no\.cfg: cannot read the cfg; found No such file or directory\. Check the path\.",
    "inspect @": r"cannot read the cfg; found Is a directory\.",
    "inspect p.png": r"p\.png: holds zero bytes; expected text, found a zero byte at .*The order is: cfg first",
    "inspect m.weights m.cfg": r"m\.weights: holds zero bytes; .*\.weights file given as cfg\? The order is: cfg",
    "inspect pipe": r"pipe: is not a regular file; expected a \.cfg on disk, found a device or pipe\.",
    "inspect escape.cfg": r"escape\.cfg:5: not a section header; expected \[name\], found '\[\\x1b\[31mred\]'\.",
    "inspect m.cfg no.weights": r"no\.weights: cannot read the weights; found No such file or directory\.",
    "inspect m.cfg m.cfg": r"m\.cfg: layer \d+ \(m\.cfg:\d+\) \w+, bytes 0x\w+-0x\w+: needs bytes ",
    "inspect m.cfg pipe": r"pipe: is not a regular file; expected a \.weights on disk",
    "inspect m.cfg empty.weights": r"empty\.weights: is empty; expected a \.weights file\. An interrupted download\?",
    "inspect m.cfg short.weights": r"short\.weights: layer \d+ \(m\.cfg:\d+\) weights, bytes .*: needs bytes ",
    "inspect m.cfg long.weights": r"long\.weights, bytes 0x\w+-0x\w+: 8 bytes lie after the last tensor\.",
    "inspect m.cfg nan.weights": r"nan\.weights: layer 0 \(m\.cfg:\d+\) biases, bytes 0x14-0x18: 1 values are NaN",
    "detect m.cfg nan.weights p.png": r"nan\.weights: layer 0 \(m\.cfg:\d+\) biases: bytes 0x14-0x18: 1 values are NaN",
    "convert m.cfg nan.weights --unvalidated -o @/o.onnx": r"nan\.weights: layer 0 \(m\.cfg:\d+\) biases: bytes 0x14",
    "convert m.cfg long.weights -o @/o.onnx": r"long\.weights: 8 bytes lie after the last tensor",
    f"detect {GOOD} no.png": r"no\.png: no such file; expected a picture\. Check the spelling of the path\.",
    f"detect {GOOD} @": r"is a directory; expected one picture\. Name a file inside it\.",
    f"detect {GOOD} pipe": r"pipe: is not a regular file; expected a picture on disk, found a device or pipe\.",
    f"detect {GOOD} cut.png": r"cut\.png: the picture is truncated or damaged; expected a complete picture",
    f"detect {GOOD} bomb.png": r"bomb\.png: the picture is too large; expected at most 67108864 pixels, found 9000x",
    f"detect {GOOD} text.png": r"text\.png: not a picture that can be read; .*found first bytes b'no picture'",
    f"detect {GOOD} p.png --names binary.names": r"binary\.names: is no list of class names; expected text, one name",
    f"detect {GOOD} p.png --names pipe": r"pipe: is not a regular file; expected text on disk",
    f"detect {GOOD} p.png -o p.png": r"p\.png: is also an input; an input is never overwritten\. Give another output ",
    f"detect {GOOD} p.png -o @/no/o.png": r"no/o\.png: cannot write there; found No such file or directory\. Check the",
    f"detect {GOOD} p.png p.png -o @/m.cfg": r"m\.cfg: File exists",
    f"detect {GOOD} p.png -o @/{'n' * 300}.png": r"nnn\.png: cannot write there; found File name too long\.",
    f"validate {GOOD} --json m.weights": r"m\.weights: is also an input; an input is never overwritten\.",
    f"validate {GOOD} --html m.cfg": r"m\.cfg: is also an input; an input is never overwritten\.",
    f"validate {GOOD} --model bad.onnx": r"bad\.onnx: ONNX Runtime refuses the file; found .*INVALID_PROTOBUF",
    f"convert {GOOD} -o @/no/o.onnx": r"no/o\.onnx: cannot write there; found No such file or directory\.",
    f"convert {GOOD} -o @/o.tflite": r"o\.tflite: unknown kind of file; expected \.onnx or \.safetensors or \.wei",
    f"convert {GOOD} -o link.onnx": r"link\.onnx: is also an input; an input is never overwritten\.",
    f"convert {GOOD} -o hard.weights": r"hard\.weights: is also an input; an input is never overwritten\.",
    f"convert {GOOD} -o m.weights": r"m\.weights: is also an input; an input is never overwritten\.",
    f"convert {GOOD} -o @/o.onnx --static big": r"--static: is no size; expected WxH in pixels, such as 416x416, found",
    f"convert {GOOD} -o @/o.onnx --static 0x416": r"--static: is no size; .*found '0x416'\.",
    f"convert {GOOD} -o @/o.onnx --opset 99": r"opset: not supported; expected 17 to 21, found 99\.",
    f"detect {GOOD} p.png --thresh nan": r"--thresh: is no probability; expected 0 to 1, found nan\.",
    "detect crowd.cfg crowd.weights p.png": r"crowd\.cfg: 76800 boxes with 153600 probabilities are above 0\.5; ",
}
USAGE = {
    "": "Usage:",
    "nothing": "No such command 'nothing'",
    "detect m.cfg": "Missing argument 'WEIGHTS'",
    f"detect {GOOD} p.png --thresh 2": "2.0 is not in the range 0<=x<=1",
    f"inspect {GOOD} --dialect latin": "'latin' is not one of 'pjreddie', 'alexeyab', 'hankai'",
    f"convert {GOOD}": "Missing option '-o'",
    f"convert {GOOD} -o @/o.onnx --opset x": "'x' is not a valid integer",
}


@pytest.fixture(scope="module")
def told(inputs: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """What every command answered, two at a time; afterwards every file is as it was, and there is no other."""
    before, environment = states(inputs), {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(inputs, words),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
            cwd=inputs,
        )

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip((*BAD, *USAGE), pool.map(run, (*BAD, *USAGE)), strict=True))
    assert states(inputs) == before
    return answers


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line(told: dict[str, subprocess.CompletedProcess[str]], words: str) -> None:
    done = told[words]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line]  # a progress bar leaves a blank one
    assert [line for line in lines if line.startswith("workbench: ")] == lines[-1:]
    assert all(line.startswith(("dialect ", "note: ")) for line in lines[:-1])
    assert re.search(BAD[words], lines[-1]), lines[-1]


@pytest.mark.parametrize("words", USAGE)
def test_wrong_words_show_the_usage(told: dict[str, subprocess.CompletedProcess[str]], words: str) -> None:
    assert told[words].returncode == 2
    assert "Traceback" not in told[words].stderr
    assert "Usage: " in told[words].stderr
    assert USAGE[words] in told[words].stderr


def test_more_memory_than_a_limit_leaves(inputs: Path) -> None:
    """16384 x 16384 x (3 + 4) floats are 7.5 GB; of seven, Python and PyTorch themselves take their part."""
    limited = f"ulimit -v 7000000; exec {' '.join(command(inputs, 'validate huge.cfg huge.weights'))}"
    done = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    words = r"huge\.cfg:5: the network needs more memory than there is at 16384x16384, batch 1; expected at most \d\.\d"
    assert re.search(words, done.stderr.splitlines()[-1])


@pytest.mark.parametrize("seconds", [0.0, 1.5])
def test_interrupting_a_conversion_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    """Control-C once the model is open, and some time into the proof."""
    words = [str(DATA / "shapes-tiny4.cfg"), str(DATA / "shapes-tiny4.weights"), "-o", str(tmp_path / "out.onnx")]
    convert, pipe = [sys.executable, "-m", "workbench", "convert", *words], subprocess.PIPE
    # A test run in the background inherits SIGINT ignored; the command must be interruptible as in a terminal.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(convert, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("dialect alexeyab: ")
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    # CPython ends itself by the signal where it struck inside an exec() of text; a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT), rest
    assert rest.splitlines()[-1] == "workbench: interrupted"
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
