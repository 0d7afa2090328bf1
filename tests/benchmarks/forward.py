"""Seconds of one forward pass in each engine, on one input of noise; every engine as it comes, but for its threads."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LIBRARY = Path("/usr/lib/darknet/libdarknet.so")
WARM_UPS = 2
AT_LEAST_S = 0.4

Forward = Callable[[], object]


def open_onnxruntime(file: str, shape: list[int], threads: int, **_: str) -> Forward:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: noise(shape)}
    return lambda: session.run(None, feed)


def open_opencv(file: str, shape: list[int], threads: int, weights: str = "") -> Forward:
    """OpenCV reading the cfg itself, with its fusions, down to every head."""
    import cv2

    if threads:
        cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromDarknet(file, weights)
    net.setInput(noise(shape))
    heads = net.getUnconnectedOutLayersNames()

    def forward() -> object:
        net.setInput(noise(shape))
        return net.forward(heads)

    return forward


def open_torch(file: str, shape: list[int], threads: int, weights: str = "") -> Forward:
    """The workbench's torch module: batch normalisation unfolded."""
    import torch

    from workbench.model import open_model
    from workbench.torch_model import build

    if threads:
        torch.set_num_threads(threads)
    module, x = build(open_model(file, weights)), torch.from_numpy(noise(shape))

    def forward() -> object:
        with torch.inference_mode():
            return module(x)

    return forward


def open_darknet(file: str, shape: list[int], threads: int, weights: str = "") -> Forward:
    """Debian's libdarknet, which computes in one thread unless it was built otherwise."""
    library = ctypes.CDLL(str(LIBRARY))
    library.load_network.restype = ctypes.c_void_p
    library.load_network.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
    library.set_batch_network.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.network_predict.restype = ctypes.c_void_p
    library.network_predict.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    network = library.load_network(file.encode(), weights.encode(), 0)
    library.set_batch_network(network, 1)
    x = noise(shape)
    return lambda: library.network_predict(network, x.ctypes.data)


ENGINES: dict[str, Callable[..., Forward]] = {
    "onnxruntime": open_onnxruntime,
    "opencv": open_opencv,
    "torch": open_torch,
    "darknet": open_darknet,
}


def noise(shape: list[int]) -> NDArray[np.float32]:
    """The same input for every engine, 0 to 1."""
    return np.random.default_rng(0).random(shape, np.float32)


def time_forwards(
    engine: str, file: str, shape: list[int], threads: int, repeats: int, weights: str = ""
) -> dict[str, float]:
    """Least seconds, of wall and of processor, of `repeats` forward passes or more, after two to warm up.

    The least, because whatever else runs on the machine only adds; more, because short passes need many to meet it.
    """
    more = {"weights": weights} if weights else {}
    forward = ENGINES[engine](file, shape, threads, **more)
    for _ in range(WARM_UPS):
        forward()
    walls: list[float] = []
    cpus: list[float] = []
    start = time.perf_counter()
    while len(walls) < repeats or time.perf_counter() - start < AT_LEAST_S:
        wall, cpu = time.perf_counter(), time.process_time()
        forward()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall": min(walls), "cpu": min(cpus)}
