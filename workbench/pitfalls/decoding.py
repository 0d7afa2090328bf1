"""Pitfalls of turning the heads' numbers into boxes: anchors, masks, the grid, sigmoids, probabilities."""

from __future__ import annotations

from collections.abc import Callable

from workbench.model import Model
from workbench.pitfalls import heads
from workbench.pitfalls.base import Change, Pitfall, changing, idle_if_same

GRIDS = ("yolo", "gaussian_yolo", "region")

ANCHOR_FIX = (
    "anchors = torch.tensor(section.anchors).view(-1, 2)[section.mask]   # (w, h), pixels of the network input\n"
    "wh = t[..., 2:4].exp() * anchors / torch.tensor([net_w, net_h])"
)

BOX_FIX = (
    "t = head.view(n, anchors, 5 + classes, h, w)\n"
    "rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')\n"
    "xy = t[:, :, :2].sigmoid() * s - (s - 1) / 2             # s = scale_x_y, 1 where the cfg says nothing\n"
    "x, y = (columns + xy[:, :, 0]) / w, (rows + xy[:, :, 1]) / h\n"
    "score = t[:, :, 4:5].sigmoid() * t[:, :, 5:].sigmoid()   # objectness times class"
)

COORDS_FIX = (
    "if section.new_coords:      # the convolution before already has activation=logistic\n"
    "    wh = (2 * t[:, :, 2:4]) ** 2 * anchors\n"
    "else:\n"
    "    t[:, :, :2], t[:, :, 4:] = t[:, :, :2].sigmoid(), t[:, :, 4:].sigmoid()\n"
    "    wh = t[:, :, 2:4].exp() * anchors"
)


def _pitfall(
    name: str,
    title: str,
    text: str,
    looks_like: str,
    seen_in: str,
    fix: str,
    apply: Callable[[Model], Model],
    reason: str,
) -> Pitfall:
    return Pitfall(name, title, text, looks_like, seen_in, fix, "decoding", apply, idle_if_same(apply, reason))


def _heads(
    name: str, title: str, text: str, looks_like: str, seen_in: str, fix: str, change: Change, reason: str
) -> Pitfall:
    return _pitfall(name, title, text, looks_like, seen_in, fix, changing(change), reason)


NO_YOLO = "the network has no [yolo] head"

ANCHORS = (
    _pitfall(
        "masks-exchanged",
        "Masks of the heads exchanged",
        "Each head decodes with the anchors of the other one: the coarse grid with small anchors, the fine grid "
        "with large ones. The same comes of giving the heads' outputs to the decoder in the other order.",
        "No layer differs. Centres and scores are right, sizes are wrong by a factor of two to ten, so that "
        "suppression no longer finds twins.",
        "Ports that list masks from small to large and heads from coarse to fine.",
        ANCHOR_FIX,
        heads.exchange_masks,
        "the network has no two [yolo] heads with masks of equal length",
    ),
    _pitfall(
        "mask-1-2-3",
        "Masks 1,2,3 for the fine head",
        "yolov4-tiny's fine head says mask=1,2,3, yolov3-tiny's says 0,1,2. Taking the one for the other shifts "
        "every anchor by one.",
        "No layer differs. The coarse head is exact. Boxes of the fine head keep centre and score; width and height "
        "are 1.4 to 2.4 times too large.",
        "Ports of yolov4-tiny's cfg used for v3-tiny.",
        ANCHOR_FIX,
        lambda model: heads.use_mask(model, (1, 2, 3)),
        "the fine head has mask=1,2,3 itself, or no mask of three",
    ),
    _pitfall(
        "mask-0-1-2",
        "Masks 0,1,2 for the fine head",
        "The reverse: correcting yolov4-tiny's strange mask=1,2,3, which is how it was trained.",
        "No layer differs. The coarse head is exact. Boxes of the fine head keep centre and score; width and height "
        "are 1.4 to 2.4 times too small.",
        "Ports that take mask=1,2,3 for a slip.",
        ANCHOR_FIX,
        lambda model: heads.use_mask(model, (0, 1, 2)),
        "the fine head has mask=0,1,2 itself, or no mask of three",
    ),
    _pitfall(
        "anchors-of-another-cfg",
        "Anchors of another cfg",
        "A detector trained on one's own objects has anchors of its own. Decoding with those of yolov3.cfg "
        "(yolov4.cfg, where these are the model's own) keeps every centre and makes every size wrong.",
        "No layer differs. Centres and scores are right; width and height are each off by a factor that depends on "
        "the anchor.",
        "Samples with COCO's anchors written into the source.",
        ANCHOR_FIX,
        heads.use_other_anchors,
        NO_YOLO,
    ),
    _heads(
        "anchors-swapped",
        "Width and height of the anchors exchanged",
        "anchors= is a list of w,h pairs. Read as (h, w) a standing person gets a lying box.",
        "No layer differs. Centres and scores are right; slim boxes are wide and wide ones slim by the square of "
        "the anchor's ratio, square ones stay.",
        "Ports with numpy's (rows, columns) in mind.",
        ANCHOR_FIX,
        heads.swap_anchors,
        "all anchors are squares, or there are none",
    ),
    _pitfall(
        "anchors-in-cells",
        "Anchors in the wrong unit",
        "YOLOv2's anchors count grid cells, YOLOv3's count pixels of the network input. Dividing by the stride, and "
        "not multiplying with it again, leaves boxes the size of a dot.",
        "No layer differs. Centres and scores are right; width and height are too small by the head's stride, 32 or "
        "16.",
        "Ports with scaled_anchors = anchors / stride.",
        ANCHOR_FIX,
        heads.divide_anchors,
        "no head has anchors",
    ),
)

GRID = (
    _heads(
        "grid-transposed",
        "Grid transposed",
        "Cell i lies in row i / w, column i % w. With both exchanged the picture's boxes are mirrored at its diagonal.",
        "No layer differs. Scores and sizes are right; x and y of the cell are exchanged, only objects near the "
        "diagonal stay.",
        "torch.meshgrid with indexing='xy' for 'ij'; view(n, a, 5 + c, w, h).",
        BOX_FIX,
        heads.mix_heads(heads.TransposedGrid, *GRIDS),
        "the network has no head with a grid",
    ),
    _heads(
        "scale-x-y-ignored",
        "scale_x_y ignored",
        "YOLOv4 stretches the sigmoid of x and y around 0.5 by scale_x_y, 1.05 to 2, so that centres can reach the "
        "border of their cell.",
        "The head. Each centre moves towards the middle of its cell, by up to (scale_x_y - 1) / 2 of a cell; sizes "
        "and scores are right.",
        "pjreddie's Darknet of 2018, ports of YOLOv3.",
        BOX_FIX,
        heads.ignore_scale,
        "no head has scale_x_y other than 1",
    ),
    _heads(
        "new-coords-ignored",
        "new_coords ignored",
        "Scaled YOLOv4 has its sigmoid in the convolution before the head, and (2w)^2 for exp(w). Decoding as in "
        "YOLOv3 applies a second sigmoid, which leaves 0.5 to 0.73 of everything.",
        "The head. Every cell has an objectness of at least 0.5: thousands of boxes, centres in the middle of their "
        "cells.",
        "pjreddie's Darknet of 2018, ports of YOLOv3 and v4.",
        COORDS_FIX,
        heads.ignore_new_coords,
        "no head has new_coords=1",
    ),
    _heads(
        "no-sigmoid-on-xy",
        "No sigmoid on x and y",
        "The network's raw x and y, from about -5 to 5, taken for a place inside the cell.",
        "The head, in x and y. Boxes move by up to several cells, right in size and score.",
        "Decoders made for outputs that are activated already.",
        BOX_FIX,
        heads.mix_heads(heads.RawCentre, "yolo"),
        NO_YOLO,
    ),
    _heads(
        "double-sigmoid",
        "Sigmoid twice",
        "The [yolo] layer's output is activated; a decoder that activates again squeezes everything into 0.5 to 0.73.",
        "The head. Every cell has an objectness of at least 0.5 and every class a probability of at least 0.25: at "
        "a threshold of 0.25 all boxes of all classes, at 0.5 hardly any.",
        "Exports that end behind the [yolo] layer, with a decoder made for raw outputs.",
        COORDS_FIX,
        heads.mix_heads(heads.DoubleSigmoid, "yolo"),
        NO_YOLO,
    ),
)

SCORES = (
    _heads(
        "probability-without-objectness",
        "Probability without the objectness",
        "Darknet's probability is objectness times class. The class alone is always higher.",
        "No layer differs. All scores are too high, and boxes appear that the threshold should have kept out. Every "
        "box is one that Darknet computes too; but the ranking is another, and suppression may keep a neighbour.",
        "Ports that filter by objectness and then report the class.",
        BOX_FIX,
        heads.mix_heads(heads.ClassOnly, *GRIDS),
        "the network has no head with a grid",
    ),
    _heads(
        "objectness-as-probability",
        "Objectness taken for the probability",
        "The box's objectness is reported with its likeliest class.",
        "No layer differs. All scores are too high, and a second class of the same box is missing. Every box is one "
        "that Darknet computes too; but suppression may keep a neighbour.",
        "OpenCV's early samples; drawing code that prints the confidence of the box.",
        BOX_FIX,
        heads.mix_heads(heads.ObjectnessOnly, *GRIDS),
        "the network has no head with a grid",
    ),
)

PITFALLS = (*ANCHORS, *GRID, *SCORES)
