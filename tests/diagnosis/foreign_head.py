"""What such ports hand out: raw heads in many layouts, or decoded boxes in several conventions; mistakes are flags."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.diagnosis.foreign_net import ForeignNet, Layer, integers, option

V3 = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
RAW_LAYOUTS = ("raw", "raw reversed", "raw anchors last", "raw nhwc", "raw joined", "activated joined")
DECODED_LAYOUTS = ("corners relative", "centre pixels", "centre pixels, entries first", "corners pixels, anchors first")
LAYOUTS = (*RAW_LAYOUTS, *DECODED_LAYOUTS)


class Exported(nn.Module):
    """The network with its results as `layout` says; `front` is what the file does to its input first."""

    def __init__(self, net: ForeignNet, layout: str, front: str = "") -> None:
        super().__init__()
        self.net, self.layout, self.front = net, layout, front

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Whatever `front` wants -> whatever `layout` says."""
        if "nhwc" in self.front:
            x = x.permute(0, 3, 1, 2)
        if "255" in self.front:
            x = x / 255.0
        if "bgr" in self.front:
            x = torch.flip(x, (1,))
        raws = self.net(x)
        heads = [layer for layer in self.net.layers if layer.kind == "yolo"]
        if self.layout in ("raw", "raw reversed"):
            return tuple(raws if self.layout == "raw" else raws[::-1])
        if self.layout == "raw nhwc":
            return tuple(raw.permute(0, 2, 3, 1) for raw in raws)
        cells = [self._cells(head, raw) for head, raw in zip(heads, raws, strict=True)]
        if self.layout == "raw anchors last":
            return tuple(cells)
        if self.layout == "raw joined":
            return (torch.cat([cell.flatten(1, 3) for cell in cells], 1),)
        return self._decoded(heads, cells)

    def _cells(self, head: Layer, raw: Tensor) -> Tensor:
        """(1, c, h, w) -> (1, anchors, h, w, entries)."""
        anchors = len(integers(head.section, "mask"))
        n, c, h, w = raw.shape
        return raw.view(n, anchors, c // anchors, h, w).permute(0, 1, 3, 4, 2)

    def _decoded(self, heads: list[Layer], cells: list[Tensor]) -> tuple[Tensor, ...]:
        mistakes, (width, height) = self.net.mistakes, self.net.size
        if self.layout == "activated joined":
            activated = [self._activated(head, t) for head, t in zip(heads, cells, strict=True)]
            return (torch.cat([torch.cat(parts, -1).flatten(1, 3) for parts in activated], 1),)
        boxes, objectness, classes = [], [], []
        for number, (head, t) in enumerate(zip(heads, cells, strict=True)):
            xy, wh, obj, cls = self._activated(head, t)
            other = heads[len(heads) - 1 - number] if "masks-exchanged" in mistakes else head
            box = self._box(head, other, xy, wh)
            parts = [box, obj, cls]
            if self.layout != "corners pixels, anchors first":
                parts = [part.permute(0, 2, 3, 1, 4) for part in parts]
            for group, part in zip((boxes, objectness, classes), parts, strict=True):
                group.append(part.flatten(1, 3))
        box, obj, cls = (torch.cat(group, 1) for group in (boxes, objectness, classes))
        scores = cls if "probability-without-objectness" in mistakes else obj * cls
        if "objectness-as-probability" in mistakes:
            scores = torch.zeros_like(cls).scatter(2, cls.argmax(2, keepdim=True), obj)
        net = torch.tensor([width, height, width, height], dtype=torch.float32)
        corners = torch.cat([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], 2)
        if self.layout == "corners relative":
            return corners.unsqueeze(2), scores
        if self.layout == "corners pixels, anchors first":
            return corners * net, scores
        if mistakes & {"probability-without-objectness", "objectness-as-probability"}:
            joined = torch.cat([box * net, scores], 2)
        else:
            joined = torch.cat([box * net, obj, cls], 2)
        return (joined.transpose(1, 2) if "entries first" in self.layout else joined,)

    def _activated(self, head: Layer, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mistakes = self.net.mistakes
        xy, wh, obj, cls = t[..., :2], t[..., 2:4], t[..., 4:5], t[..., 5:]
        if "no-sigmoid-on-xy" not in mistakes:
            xy = xy.sigmoid()
        obj, cls = obj.sigmoid(), cls.sigmoid()
        scale = 1.0 if "scale-x-y-ignored" in mistakes else float(option(head.section, "scale_x_y", "1"))
        xy = xy * scale - 0.5 * (scale - 1)
        if "double-sigmoid" in mistakes:
            xy, obj, cls = xy.sigmoid(), obj.sigmoid(), cls.sigmoid()
        return xy, wh, obj, cls

    def _box(self, head: Layer, other: Layer, xy: Tensor, wh: Tensor) -> Tensor:
        """Centre and size relative to the input, (1, anchors, h, w, 4)."""
        mistakes, (width, height) = self.net.mistakes, self.net.size
        _, _, h, w, _ = xy.shape
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([rows, columns] if "grid-transposed" in mistakes else [columns, rows], -1).float()
        centre = (xy + grid) / torch.tensor([w, h])
        anchors = torch.tensor(self._anchors(other))
        if "anchors-swapped" in mistakes:
            anchors = anchors.flip(1)
        if "anchors-in-cells" in mistakes:
            anchors = anchors / torch.tensor([width / w, height / h])
        size = wh.exp() * anchors.view(1, -1, 1, 1, 2) / torch.tensor([width, height])
        return torch.cat([centre, size], -1)

    def _anchors(self, head: Layer) -> list[tuple[float, float]]:
        mistakes = self.net.mistakes
        numbers = [float(part) for part in option(head.section, "anchors", "").replace(" ", "").split(",")]
        table = list(zip(numbers[::2], numbers[1::2], strict=True))
        mask = integers(head.section, "mask")
        finest = min(
            (layer for layer in self.net.layers if layer.kind == "yolo"),
            key=lambda head: min(integers(head.section, "mask")),
        )
        if head is finest and "mask-1-2-3" in mistakes:
            mask = [1, 2, 3]
        if head is finest and "mask-0-1-2" in mistakes:
            mask = [0, 1, 2]
        if "anchors-of-another-cfg" in mistakes:
            table = [(float(w), float(h)) for w, h in V3]
        return [table[i] for i in mask]
