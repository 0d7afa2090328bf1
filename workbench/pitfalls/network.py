"""Pitfalls of rebuilding the layers: which ones are joined, how pools are padded, what an activation's number is."""

from __future__ import annotations

from workbench.pitfalls import connections
from workbench.pitfalls.base import Change, Pitfall, changing, idle_if_same, idle_unless
from workbench.pitfalls.layers import Bilinear, BilinearCorners


def _layers(
    name: str, title: str, text: str, looks_like: str, seen_in: str, fix: str, change: Change, reason: str
) -> Pitfall:
    return Pitfall(
        name, title, text, looks_like, seen_in, fix, "network", changing(change), idle_unless(change, reason)
    )


ROUTES = (
    _layers(
        "route-reversed",
        "Route joined in the other order",
        "`layers=-1, 8` puts the channels of the layer before first. With the order reversed the sizes are the "
        "same, and every filter of the next convolution meets channels that it was not trained on.",
        "The first route of two or more sources, by several times its spread. On yolov3-tiny the fine head finds "
        "nothing any more while the coarse head stays exact: small objects vanish, large ones do not move.",
        "Ports that sort the sources, or write torch.cat((skip, x)).",
        "x = torch.cat([outputs[i] for i in layers], dim=1)   # in the order of layers=",
        connections.reverse_route,
        "no route joins several layers",
    ),
    Pitfall(
        "route-groups-ignored",
        "groups= of a route ignored",
        "YOLOv4-tiny's routes pass on one half of the channels. A reader that does not know `groups=` passes all of "
        "them; the next convolution has twice the input channels, takes twice the weights from the file, and "
        "everything after it is read from the wrong place, beyond the end of the file.",
        "The first route with groups has twice its channels; the file ends too early; all that follows is nonsense "
        "and no true box is left.",
        "pjreddie's Darknet of 2018: it prints 'Unused field' and ends with exit code 0.",
        "c = x.shape[1] // groups\nx = x[:, group_id * c:(group_id + 1) * c]",
        "network",
        connections.ignore_groups,
        connections.why_groups_stay,
    ),
    _layers(
        "route-wrong-half",
        "The wrong half of a route's channels",
        "`group_id=1` is the second half. Taking the first one fits everywhere.",
        "The first route with groups, by many times its spread; no true box is left.",
        "torch.chunk(2)[0] for every route with groups; ports that count group_id from 1.",
        "x = torch.chunk(x, groups, dim=1)[group_id]",
        connections.take_other_half,
        "no route has groups",
    ),
)

POOL_FIX = (
    "x = F.pad(x, (0, 1, 0, 1), value=float('-inf'))   # right and below only\n"
    "x = F.max_pool2d(x, kernel_size=2, stride=1)"
)

POOLS = (
    _layers(
        "maxpool-3-1-1",
        "MaxPool2d(3, 1, 1) for size=2, stride=1",
        "Darknet's pool of size 2 and stride 1 keeps the size by padding right and below. MaxPool2d(3, stride=1, "
        "padding=1) keeps it too, with windows of nine pixels instead of four.",
        "The pool itself, by many times its spread. Most boxes are lost, the few that stay move by tens of pixels.",
        "Ports of YOLOv2-tiny and v3-tiny that wanted an even padding.",
        POOL_FIX,
        connections.pool_by_three,
        "no pool has size 2 and stride 1",
    ),
    Pitfall(
        "maxpool-zero-padded",
        "Max-pooling padded with zeros",
        "What lies outside must never win. After a leaky activation most values are negative, and a padded 0 wins "
        "over them: the last row and column become 0 there. Exported to ONNX the mistake comes and goes: ONNX "
        "Runtime's optimiser takes the Pad into the MaxPool, where padding means minus infinity, other runtimes do "
        "not.",
        "The pool, in its last row and column only (SPP: all around). Boxes at the right and lower border move by "
        "part of a pixel; elsewhere hardly anything does.",
        "eriklindernoren/PyTorch-YOLOv3 and mmdetection-mini: nn.ZeroPad2d((0, 1, 0, 1)) before MaxPool2d(2, 1).",
        POOL_FIX,
        "network",
        connections.pad_with_zeros,
        idle_if_same(connections.pad_with_zeros, "no pool reads its padding after values that can be negative"),
    ),
    _layers(
        "maxpool-unpadded",
        "Max-pooling without padding",
        "MaxPool2d(2, 1) makes 13 x 13 into 12 x 12. PyTorch then stops at the next concatenation; code with "
        "buffers of fixed size goes on with a last row and column that nobody wrote. Here they are zero.",
        "The pool, in its last row and column (SPP: everywhere, shifted by half the window). Boxes at the right and "
        "lower border change; after an unpadded SPP all boxes do.",
        "MaxPool2d(size, stride) in PyTorch; padding='VALID' in TensorFlow.",
        POOL_FIX,
        connections.leave_unpadded,
        "no pool would become smaller without its padding",
    ),
    _layers(
        "maxpool-padded-left",
        "Max-pooling padded left and above",
        "For an even window the odd pixel of padding lies right and below in Darknet. On the other side everything "
        "after the pool moves by one cell.",
        "The pool, everywhere, as if shifted by one cell right and down. Boxes of the heads after it lose their "
        "score or move towards the lower right by part of a cell.",
        "F.pad(x, (1, 0, 1, 0)); Caffe-style padding.",
        POOL_FIX,
        connections.pad_left,
        "no pool has an uneven padding that it reads",
    ),
)

ACTIVATIONS = (
    _layers(
        "leaky-0.01",
        "leaky with 0.01",
        "Darknet's leaky is 0.1. torch.nn.LeakyReLU() is 0.01, Keras' default is 0.3.",
        "The first layer, by one or two times its spread. A deep network finds nothing any more, a shallow one "
        "loses some boxes and moves the others by pixels.",
        "torch.nn.LeakyReLU() without an argument.",
        "torch.nn.LeakyReLU(0.1, inplace=True)",
        connections.relax_leaky,
        "no layer has activation=leaky",
    ),
    _layers(
        "mish-as-relu",
        "mish or swish computed as ReLU",
        "mish and swish fall below zero before they rise; ReLU does not. Darknet of 2018 knows neither, computes "
        "ReLU, and goes on.",
        "The first layer with such an activation, by a third of its spread; it adds up from layer to layer, and "
        "most boxes are lost.",
        "pjreddie's Darknet of 2018 ('Couldn't find activation function mish, going with ReLU').",
        "torch.nn.Mish()   # swish: torch.nn.SiLU()",
        connections.activate_as_2018,
        "no activation is unknown to Darknet of 2018",
    ),
)

MAPS = (
    _layers(
        "upsample-bilinear",
        "Upsampling bilinear",
        "Darknet repeats each pixel. Interpolating smooths the edges of the map that the fine head was trained on.",
        "The upsampling layer, by a few times its spread; only heads after it change. A few small objects are lost, "
        "the others move by up to two pixels; the coarse head stays exact.",
        "nn.Upsample(scale_factor=2, mode='bilinear') in an early PyTorch tutorial of YOLOv3.",
        "x = F.interpolate(x, scale_factor=stride, mode='nearest')",
        connections.upsample_by(Bilinear),
        "no layer upsamples",
    ),
    _layers(
        "upsample-align-corners",
        "Upsampling bilinear with aligned corners",
        "As bilinear, but the corners of both maps lie on each other, so that the map is also stretched: its "
        "content moves by up to half a cell, most at the borders.",
        "The upsampling layer; only heads after it change. Small objects are lost or move.",
        "F.interpolate(..., mode='bilinear', align_corners=True); older TensorFlow.",
        "x = F.interpolate(x, scale_factor=stride, mode='nearest')",
        connections.upsample_by(BilinearCorners),
        "no layer upsamples",
    ),
    Pitfall(
        "shortcut-wrong-layer",
        "Shortcut from the wrong layer",
        "`from=-3` counts back from the shortcut itself. Counting from the layer before, or counting [net] as a "
        "layer, adds a neighbour; where its shape is the same nothing complains. Here the nearest layer of the "
        "right shape is added.",
        "The first shortcut, by a few times its spread; boxes are lost, false ones appear, the others move.",
        "Ports that keep a list of outputs with the input picture or [net] in it.",
        "source = index + offset if offset < 0 else offset   # index: 0 = first section after [net]\n"
        "x = outputs[index - 1] + outputs[source]",
        "network",
        connections.add_wrong_layer,
        idle_if_same(connections.add_wrong_layer, "no shortcut has a neighbour of the right shape"),
    ),
    _layers(
        "shortcut-without-activation",
        "Shortcut without its activation",
        "A shortcut has an `activation=` of its own, applied after the sum; in ResNets it is leaky or relu, in "
        "YOLOv3 linear.",
        "The first shortcut with an activation, wherever the sum is negative.",
        "Ports made for YOLOv3, where it is always linear; eriklindernoren/PyTorch-YOLOv3.",
        "x = F.leaky_relu(outputs[index - 1] + outputs[source], 0.1)",
        connections.forget_activation,
        "no shortcut has an activation other than linear",
    ),
    _layers(
        "fp16-overflow",
        "Half precision",
        "float16 ends at 65504 and has eleven bits. Weights and outputs rounded to it move everything by a "
        "thousandth; a folded scale over a tiny variance, or a picture not divided by 255, exceeds the end, becomes "
        "infinite, and inf - inf is NaN.",
        "Every layer, from the first on, by a few hundredths of its spread at most; boxes move by hundredths of a "
        "pixel. Where something overflows: Inf, then NaN, and every box of that head vanishes.",
        "TensorRT --fp16, model.half(), OpenVINO's compression, CUDNN_HALF.",
        "assert all(p.abs().max() < 65504 for p in model.parameters())   # after folding\n"
        "model.half()   # keep layers that overflow, and the heads, in float32",
        connections.compute_in_half,
        "the network has nothing but heads",
    ),
)

PITFALLS = (*ROUTES, *POOLS, *ACTIVATIONS, *MAPS)
