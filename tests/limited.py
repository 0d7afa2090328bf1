"""A process with one gigabyte more than it starts with, and ten seconds an input: reads absurd cfgs, runs large ones.

`python limited.py FOLDER` prints one JSON object a line: the case, seconds, and the error (null where there was none);
the last line is the growth of its memory in bytes. `test_limits.py` starts it.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from workbench.errors import WorkbenchError
from workbench.inspection import inspect_model
from workbench.layers import layer_classes
from workbench.model import open_model
from workbench.runners import torch as torch_runner
from workbench.runners.onnxruntime import OnnxRunner
from workbench.validation import validate

GIGABYTE = 10**9
SECONDS = 10
NET = "[net]\nwidth=16\nheight=16\nchannels=4\n"
WIDE = "[net]\nwidth=16384\nheight=16384\nchannels=%d\n"
CONV = "[convolutional]\nfilters=%d\nsize=%d\nactivation=linear\n"
YOLO = CONV % (21, 1) + "[yolo]\nclasses=2\nmask=0,1,2\nnum=3\n"

READ = {
    "layers": NET + "[empty]\n" * 100_000,
    "anchors of 4 MB": NET + YOLO + "anchors=" + "1," * 2_000_000,
    "anchors": NET + YOLO + "anchors=" + "1," * 400_000,
    "junk in a list": NET + YOLO + "anchors=" + ",".join(f"1x{i}" for i in range(4096)),
    "one route": NET + "[empty]\n[route]\nlayers=" + "0," * 400_000,
    "routes": NET + CONV % (1, 1) + ("[route]\nlayers=" + "0," * 1000 + "\n") * 400,
    "routes of routes": NET + CONV % (1, 1) + "[route]\nlayers=-1,-1\n" * 1000,
    "wide": WIDE % 16384 + CONV % (1 << 20, 1),
    "upsample": NET + "[upsample]\nstride=64\n" * 3,
    "kernels": NET + (CONV % (1 << 20, 1024) + "pad=1\nstride=16\n") * 20,
    "connected": "[net]\ninputs=2147483647\n[connected]\noutput=16777216\n",
    "local": "[net]\nwidth=2048\nheight=2048\nchannels=1024\n[local]\nfilters=500\nsize=1\n",
    "lstm": NET + "[lstm]\noutput=16777216\n",
    "softmax": NET + "[softmax]\ngroups=2147483647\n",
    "one key": NET + "[empty]\n" + "a=1\n" * 250_000,
    "keys": NET + "[empty]\n" + "".join(f"k{i}=1\n" for i in range(100_000)),
    "digits": NET + CONV % (7, 1) + "[yolo]\nclasses=2\nscale_x_y=" + "9" * 1_000_000,
    "word": NET + "[convolutional]\nactivation=" + "l" * 1_000_000,
    "line": NET + "x" * 1_000_000,
    "header": NET + "[" * 1_000_000,
    "blank lines": "\n" * 1_000_000,
    "ledger of gigabytes": NET + (CONV % (8192, 3) + "stride=1\npad=1\n") * 4000,
}
"""Read only: nothing in here can be run."""

RUN = {
    "large outputs": WIDE % 1 + CONV % (7, 1) + "stride=16\n[upsample]\nstride=16\n",
    "large input": WIDE % 16 + CONV % (1, 1) + "stride=1024\n",
    "a crowd of boxes": "[net]\nwidth=160\nheight=160\nchannels=3\n" + YOLO + "anchors=1,1,1,1,1,1\n",
}
"""Small weights, and more than a gigabyte, or minutes, to run."""

HOW = {case: ("torch", "onnxruntime", "validate") for case in RUN} | {"a crowd of boxes": ("torch", "onnxruntime")}


def read(folder: Path, text: str) -> None:
    (folder / "a.cfg").write_text(text)
    inspect_model(folder / "a.cfg").to_json()


def run(folder: Path, text: str, how: str) -> None:
    (folder / "a.cfg").write_text(text)
    ledger = inspect_model(folder / "a.cfg").ledger
    floats = np.ones((ledger.bytes - 20) // 4, "<f4")
    (folder / "a.weights").write_bytes(struct.pack("<iiiQ", 0, 2, 5, 0) + floats.tobytes())
    model = open_model(folder / "a.cfg", folder / "a.weights")
    picture = np.full((100, 100, 3), 255, np.uint8)
    if how == "torch":
        torch_runner.open_runner(model).detect(picture, 0.5)
    elif how == "onnxruntime":
        OnnxRunner(model).detect(picture, 0.5)
    else:
        validate(model, {"a.png": picture})


def attempt(case: str, call: Callable[[], None]) -> None:
    """Call it, at most ten seconds of the processor's time, and print how it ended."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
    start, error = time.process_time(), None
    try:
        call()
    except WorkbenchError as caught:
        error = f"{type(caught).__name__} {caught}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps({"case": case, "seconds": time.process_time() - start, "error": error}), flush=True)


def peak_bytes() -> int:
    """Of this program alone: `ru_maxrss` would count the one that started it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def main(folder: Path) -> None:
    layer_classes()
    before = peak_bytes()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case, text in READ.items():
        attempt(case, lambda text=text: read(folder, text))  # type: ignore[misc]
    for case, text in RUN.items():
        for how in HOW[case]:
            attempt(f"{case}, {how}", lambda text=text, how=how: run(folder, text, how))  # type: ignore[misc]
    print(json.dumps({"growth": peak_bytes() - before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
