"""Darknet's C loops written out in numpy: slow on purpose, index by index, in float64, after both forks' source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workbench.model import Model
from workbench.runners.onnxruntime import OnnxRunner
from workbench.runners.torch import TorchRunner

F64 = NDArray[np.float64]
ENGINES = ["torch", "onnx17", "onnx18", "onnx19", "onnx20", "onnx21"]


def run(engine: str, model: Model, x: NDArray[np.float32], fold: bool = True) -> dict[int, NDArray[np.float32]]:
    """Every layer's output in torch or in ONNX Runtime at the opset that `engine` ends with."""
    runner = TorchRunner(model) if engine == "torch" else OnnxRunner(model, fold=fold, opset=int(engine[4:]))
    with runner:
        return runner.run(x)


def net(c: int, h: int, w: int) -> str:
    return f"[net]\nwidth={w}\nheight={h}\nchannels={c}\n"


def conv(n: int, activation: str = "linear", **options: int) -> str:
    lines = "".join(f"{key}={value}\n" for key, value in options.items())
    return f"[convolutional]\nfilters={n}\n{lines}activation={activation}\n"


def slow_conv(
    model: Model, layer: int, x: F64, stride: tuple[int, int], padding: int, groups: int, dilation: int
) -> F64:
    """im2col_cpu_ext and gemm, as a sum: what lies outside the picture counts 0."""
    weights = model.weights[layer, "weights"].astype(np.float64)
    n, per_group, size, _ = weights.shape
    _, c, h, w = x.shape
    out = np.zeros((len(x), n, (h + 2 * padding - size) // stride[0] + 1, (w + 2 * padding - size) // stride[1] + 1))
    for b, f, i, j in np.ndindex(out.shape):
        first = f // (n // groups) * (c // groups)
        for k, p, q in np.ndindex(per_group, size, size):
            y = i * stride[0] - padding * dilation + p * dilation
            z = j * stride[1] - padding * dilation + q * dilation
            if 0 <= y < h and 0 <= z < w:
                out[b, f, i, j] += weights[f, k, p, q] * x[b, first + k, y, z]
    return out


def add_bias(model: Model, layer: int, y: F64) -> F64:
    return y + model.weights[layer, "biases"].astype(np.float64)[None, :, None, None]


def batch_normalise(model: Model, layer: int, y: F64) -> F64:
    """normalize_cpu, scale_bias, add_bias of pjreddie: the root first, then the epsilon."""
    mean, variance, scales = (
        model.weights[layer, name].astype(np.float64)[None, :, None, None]
        for name in ("rolling_mean", "rolling_variance", "scales")
    )
    return add_bias(model, layer, (y - mean) / (np.sqrt(variance) + 1e-6) * scales)


def slow_maxpool(x: F64, size: int, stride: tuple[int, int], padding: int) -> F64:
    """forward_maxpool_layer: `w_offset = -l.pad/2`, and values outside are -FLT_MAX."""
    b, c, h, w = x.shape
    out = np.full((b, c, (h + padding - size) // stride[0] + 1, (w + padding - size) // stride[1] + 1), -np.inf)
    offset = -(padding // 2)
    for n, k, i, j in np.ndindex(out.shape):
        for p, q in np.ndindex(size, size):
            y, z = offset + i * stride[0] + p, offset + j * stride[1] + q
            if 0 <= y < h and 0 <= z < w:
                out[n, k, i, j] = max(out[n, k, i, j], x[n, k, y, z])
    return out


def slow_reorg(x: F64, stride: int, reverse: bool) -> F64:
    """reorg_cpu, index by index; forward_reorg_layer calls it with forward=0, and with forward=1 where reverse=1."""
    b, c, h, w = x.shape
    square = stride * stride
    shape = (b, c // square, h * stride, w * stride) if reverse else (b, c * square, h // stride, w // stride)
    flat, out, out_c = x.ravel(), np.zeros(x.size), c // square
    for n, k, j, i in np.ndindex(b, c, h, w):
        in_index = i + w * (j + h * (k + c * n))
        c2, offset = k % out_c, k // out_c
        w2, h2 = i * stride + offset % stride, j * stride + offset // stride
        out_index = w2 + w * stride * (h2 + h * stride * (c2 + out_c * n))
        if reverse:
            out[out_index] = flat[in_index]
        else:
            out[in_index] = flat[out_index]
    return out.reshape(shape)


def slow_upsample(x: F64, stride: int, scale: float) -> F64:
    """upsample_cpu."""
    b, c, h, w = x.shape
    out = np.zeros((b, c, h * stride, w * stride))
    for n, k, j, i in np.ndindex(out.shape):
        out[n, k, j, i] = scale * x[n, k, j // stride, i // stride]
    return out


def slow_shortcut(x: F64, other: F64) -> F64:
    """shortcut_cpu: the common channels of the earlier layer are added to the layer before."""
    out = x.copy()
    for n, k, j, i in np.ndindex(x.shape):
        if k < other.shape[1]:
            out[n, k, j, i] += other[n, k, j, i]
    return out


def logistic(x: F64) -> F64:
    return 1 / (1 + np.exp(-x))


def slow_yolo(x: F64, anchors: int, classes: int, scale: float, new_coords: bool) -> F64:
    """forward_yolo_layer: entry by entry of each anchor."""
    out, entries = x.copy(), 5 + classes
    for a in range(anchors):
        for e in range(entries):
            k = a * entries + e
            if not new_coords and e not in (2, 3):
                out[:, k] = logistic(out[:, k])
            if e < 2:
                out[:, k] = scale * out[:, k] - 0.5 * (scale - 1)  # scal_add_cpu
    return out


def slow_region(x: F64, anchors: int, classes: int, softmax: bool, flattened: bool) -> F64:
    """forward_region_layer: AlexeyAB's flattens first and leaves x and y raw."""
    out, entries = x.copy(), 5 + classes
    for a in range(anchors):
        first = a * entries
        for e in (4,) if flattened else (0, 1, 4):
            out[:, first + e] = logistic(out[:, first + e])
        if softmax:
            chosen = out[:, first + 5 : first + entries]
            powers = np.exp(chosen - chosen.max(1, keepdims=True))
            out[:, first + 5 : first + entries] = powers / powers.sum(1, keepdims=True)
    if not flattened:
        return out
    b, c, h, w = out.shape  # flatten(): src/blas.c, size = w*h, layers = c
    flat = np.zeros((b, h * w * c))
    for n, k, i in np.ndindex(b, c, h * w):
        flat[n, i * c + k] = out[n, k, i // w, i % w]
    return flat.reshape(out.shape)
