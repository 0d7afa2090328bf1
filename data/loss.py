"""What training minimises: how far the raw outputs before the [yolo] layers are from the drawn boxes.

As in Darknet, an anchor is responsible for an object when it fits the object's width and height, in the one cell that
holds the object's centre. The box is judged by CIoU, objectness and classes by binary cross entropy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

FITS = 0.5
"""An anchor is responsible when this IoU of the shapes is reached; the best anchor always is."""

IGNORE = 0.6
"""A box this good that nobody asked for is neither right nor wrong (`ignore_thresh`)."""

BOX_WEIGHT, OBJECT_WEIGHT, CLASS_WEIGHT = 3.0, 1.0, 1.0


@dataclass(frozen=True)
class Head:
    """One [yolo] layer: which raw output it reads, and its options in units of the network input."""

    raw: int
    """Index of the convolution before it."""
    mask: tuple[int, ...]
    anchors: torch.Tensor
    """(6, 2): all anchors' widths and heights relative to the network input, 0 to 1."""
    scale_x_y: float
    classes: int


def head_loss(head: Head, raw: torch.Tensor, boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the loss of one head, a sum over the batch.

    `raw` (n, mask * (5 + classes), h, w) logits, `boxes` (n, 9, 4) relative to the input, `classes` (n, 9), -1 = none.
    """
    n, _, h, w = raw.shape
    raw = raw.view(n, len(head.mask), 5 + head.classes, h, w).permute(0, 1, 3, 4, 2)
    found = decode(head, raw)
    picture, anchor, row, column, truth = assign(head, boxes, classes, h, w)
    cell = (picture, anchor, row, column)
    wanted = torch.zeros(raw.shape[:4])
    wanted[cell] = 1.0
    with torch.no_grad():
        counted = (best_overlap(found, boxes) < IGNORE) | (wanted > 0)
    objectness = (cross_entropy(raw[..., 4], wanted, reduction="none") * counted).sum()
    right_box, right_class = boxes[picture, truth], classes[picture, truth]
    weight = 2.0 - right_box[:, 2] * right_box[:, 3]
    misplaced = ((1.0 - ciou(found[cell], right_box)) * weight).sum()
    one_hot = torch.nn.functional.one_hot(right_class, head.classes).float()
    confused = cross_entropy(raw[cell][:, 5:], one_hot, reduction="sum")
    return BOX_WEIGHT * misplaced + OBJECT_WEIGHT * objectness + CLASS_WEIGHT * confused


def decode(head: Head, raw: torch.Tensor) -> torch.Tensor:
    """Return boxes (n, anchors, h, w, 4) relative to the input from logits (n, anchors, h, w, 5 + classes)."""
    h, w = raw.shape[2:4]
    s = head.scale_x_y
    x = (raw[..., 0].sigmoid() * s - (s - 1) / 2 + torch.arange(w)) / w
    y = (raw[..., 1].sigmoid() * s - (s - 1) / 2 + torch.arange(h)[:, None]) / h
    size = raw[..., 2:4].clamp(max=6.0).exp() * head.anchors[list(head.mask)][:, None, None, :]
    return torch.cat([torch.stack([x, y], dim=-1), size], dim=-1)


def assign(head: Head, boxes: torch.Tensor, classes: torch.Tensor, h: int, w: int) -> Sequence[torch.Tensor]:
    """Return (picture, anchor within the mask, row, column, object) of every responsible anchor, int64 each."""
    common = torch.minimum(boxes[:, :, None, 2:], head.anchors).prod(-1)
    fit = common / (boxes[:, :, None, 2:].prod(-1) + head.anchors.prod(-1) - common)
    responsible = (fit >= FITS) | (fit == fit.amax(-1, keepdim=True))
    responsible &= (classes >= 0)[:, :, None]
    picture, truth, anchor = torch.nonzero(responsible[:, :, list(head.mask)], as_tuple=True)
    centre = boxes[picture, truth]
    column = (centre[:, 0] * w).long().clamp(0, w - 1)
    row = (centre[:, 1] * h).long().clamp(0, h - 1)
    return picture, anchor, row, column, truth


def best_overlap(found: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return for each found box (n, a, h, w, 4) its largest IoU with the picture's objects (n, 9, 4)."""
    flat = found.flatten(1, 3)
    a, b = flat[:, :, None], boxes[:, None]
    sides = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    sides = sides - torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    common = sides.clamp(min=0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common
    return (common / union.clamp(min=1e-9)).amax(-1).view(found.shape[:4])


def ciou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the complete IoU (Zheng et al. 2020) of boxes (m, 4): IoU less distance of centres and distortion."""
    a0, a1, b0, b1 = a[:, :2] - a[:, 2:] / 2, a[:, :2] + a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2
    common = (torch.minimum(a1, b1) - torch.maximum(a0, b0)).clamp(min=0).prod(1)
    iou = common / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - common + 1e-9)
    around = (torch.maximum(a1, b1) - torch.minimum(a0, b0)).square().sum(1) + 1e-9
    apart = (a[:, :2] - b[:, :2]).square().sum(1) / around
    turn = (torch.atan(b[:, 2] / b[:, 3]) - torch.atan(a[:, 2] / (a[:, 3] + 1e-9))) * (2 / math.pi)
    distortion = turn.square()
    with torch.no_grad():
        share = distortion / (1 - iou + distortion + 1e-9)
    return iou - apart - share * distortion
