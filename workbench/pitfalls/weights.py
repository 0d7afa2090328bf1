"""Pitfalls of reading the weights file: header, order of tensors, order of layers, order inside a kernel."""

from __future__ import annotations

from collections.abc import Callable

from workbench.model import Model
from workbench.pitfalls.base import Idle, Pitfall, idle_if_same
from workbench.pitfalls.tensors import (
    has_kernels,
    heads_last,
    heads_reversed,
    kernel_permuted,
    read_header_of,
    reading,
    scales_first,
    twins_exchanged,
    viewing,
    weights_first,
)

NORMALISED = "no layer is batch normalised"

READ_FIX = (
    "for module in modules_in_cfg_order:            # the file knows no names\n"
    "    for tensor in (bn.bias, bn.weight, bn.running_mean, bn.running_var, conv.weight):\n"
    "        n = tensor.numel()\n"
    "        tensor.data.copy_(values[at:at + n].view_as(tensor)); at += n\n"
    "assert at == values.numel()                     # every byte, exactly once"
)

HEADER_FIX = (
    "major, minor, revision = numpy.fromfile(file, '<i4', 3)\n"
    "seen = numpy.fromfile(file, '<u8' if major * 10 + minor >= 2 else '<u4', 1)\n"
    "values = torch.from_numpy(numpy.fromfile(file, '<f4'))"
)


def _header(size: int, why: str, seen_in: str) -> Pitfall:
    apply = read_header_of(size)
    return Pitfall(
        f"header-{size}",
        f"A header of {size} bytes",
        f"{why} Every tensor of the file is then read from the wrong place; shapes fit, so nothing complains. "
        "Variances turn negative, and their roots NaN.",
        "The first layer, NaN or nonsense, and no true box. Before any inference: bytes missing or left over after "
        "the last tensor, negative variances.",
        seen_in,
        HEADER_FIX,
        "weights",
        apply,
        idle_if_same(apply, f"the header of this file has {size} bytes"),
    )


HEADERS = (
    _header(
        12,
        "The version is skipped, the number of pictures seen is not: one or two of its words become the first biases.",
        "Readers that take the header for three int32.",
    ),
    _header(
        16,
        "Four int32 are skipped. That was the header until version 0.1; since 0.2 `seen` has 8 bytes.",
        "marvis/pytorch-yolo2, YAD2K and other readers of YOLOv2's time.",
    ),
    _header(
        20,
        "Five int32 are skipped. Files of version 0.1 have four.",
        "darknet2any and most PyTorch ports of YOLOv3, given an old file.",
    ),
    _header(
        24,
        "Six int32 are skipped: the version counted as four words, or `seen` aligned to 8 bytes as in a C struct.",
        "Readers that map the header onto a C struct with padding.",
    ),
)


def _misorder(
    name: str, title: str, text: str, looks_like: str, seen_in: str, apply: Callable[[Model], Model], reason: str
) -> Pitfall:
    return Pitfall(name, title, text, looks_like, seen_in, READ_FIX, "weights", apply, idle_if_same(apply, reason))


ORDERS = (
    _misorder(
        "weights-before-batchnorm",
        "Weights read before batch normalisation",
        "In the file the biases, scales, means and variances of a layer come first and its kernels last. Reading "
        "the kernels first, the order in which the layer computes, takes kernels for variances: more than half are "
        "negative then.",
        "The first layer, NaN; no box at all. Before any inference: negative variances.",
        "Hand-written readers; `for tensor in model.state_dict()`.",
        reading(weights_first),
        NORMALISED,
    ),
    _misorder(
        "batchnorm-pytorch-order",
        "Batch normalisation in PyTorch's order",
        "The file says biases (beta), scales (gamma), mean, variance; PyTorch's BatchNorm2d says weight (gamma), "
        "bias (beta), mean, variance. All four have one shape, so beta and gamma change places unnoticed; the "
        "variances stay healthy.",
        "The first normalised layer, by several times its spread; no true box is left. The file itself shows nothing.",
        "`for tensor in bn.state_dict().values()`; Keras' get_weights order.",
        reading(scales_first),
        NORMALISED,
    ),
    _misorder(
        "heads-last",
        "File read in the order of a model whose heads come last",
        "The file holds the layers in the order of the cfg: the first head stands before the upsampling branch. A "
        "model made of backbone, neck and heads lists its heads after the neck, and reading in that order gives the "
        "first head's branch the bytes of the neck.",
        "The first layer of a head's branch, or the neck's; the backbone is exact. No true box is left.",
        "mmdetection-style modules (backbone, neck, bbox_head) filled in their own order.",
        reading(heads_last),
        "the branches of the heads stand at the end of the file already",
    ),
    _misorder(
        "heads-reversed",
        "Heads in the other order",
        "YOLOv3's cfg has the coarse head first; YOLOv4's has the fine one first. A reader that lists them the "
        "other way round gives each head's branch the bytes that another one should get.",
        "The first layer of the first head's branch; everything before is exact. No true box is left.",
        "Ports that list heads by stride: 8, 16, 32.",
        reading(heads_reversed),
        "the network has one head",
    ),
    _misorder(
        "blocks-exchanged",
        "Two layers of equal shape exchanged",
        "Two neighbouring layers of the file have the same shapes, as the branches of a cross stage partial block "
        "often have. Read in the other order everything fits, every variance is positive, and no check of sizes can "
        "notice.",
        "The first of the two layers, by many times its spread; no true box is left. The file shows nothing.",
        "Ports that define the two branches of a CSP block in another order than the cfg.",
        reading(twins_exchanged),
        "no two neighbouring layers of the file have equal shapes",
    ),
)


def _idle_kernels(larger_than_one: bool) -> Idle:
    reason = "all kernels are 1x1" if larger_than_one else "no layer has kernels"
    return lambda model: None if has_kernels(model) else reason


def _kernel(name: str, order: tuple[int, int, int, int], words: str, seen_in: str) -> Pitfall:
    return Pitfall(
        name,
        f"Kernels read as ({words})",
        "The file holds a kernel as (n, c, k, k): filters, input channels, rows, columns. Taking the same bytes for "
        f"({words}) and transposing that into place gives every filter the wrong numbers. All sizes fit.",
        "The first convolution, by many times its spread; no true box is left, or false ones appear. The file shows "
        "nothing.",
        seen_in,
        "weight = values[at:at + n * c * k * k].view(n, c, k, k)   # as the file has it: no permute\n"
        "conv.weight.data.copy_(weight)",
        "weights",
        viewing(name, kernel_permuted(order)),
        _idle_kernels(larger_than_one=True),
    )


KERNELS = (
    _kernel(
        "kernel-cnkk",
        (1, 0, 2, 3),
        "c, n, k, k",
        "Readers that think of ConvTranspose2d, or of [connected]'s transposed matrices.",
    ),
    _kernel(
        "kernel-kkcn",
        (2, 3, 1, 0),
        "k, k, c, n",
        "TensorFlow and Keras keep kernels so; ports that reshape instead of transposing.",
    ),
    _kernel("kernel-nkkc", (0, 2, 3, 1), "n, k, k, c", "TensorFlow Lite and channels-last code keep kernels so."),
    _kernel("kernel-columns-first", (0, 1, 3, 2), "n, c, columns, rows", "Fortran and MATLAB order."),
)

PITFALLS = (*HEADERS, *ORDERS, *KERNELS)
