"""What Darknet of 2018 does not know, as a table: the places where it computes something else without an error.

Measured on Debian's build, cfg by cfg; the parser is pjreddie's src/parser.c. It reads any cfg with exit code 0, so a
second net is cast over what it printed meanwhile (`find_complaint`).
"""

from __future__ import annotations

import re

from workbench.runners.refusals import NO_ACTIVATION, Place, Rule, differs, has, words

NAME = "Darknet of 2018"

SECTIONS = words(
    "shortcut crop cost detection region yolo iseg local convolutional deconvolutional activation logistic l2norm "
    "connected maxpool reorg avgpool dropout normalization batchnorm softmax route upsample crnn gru lstm rnn"
)
"""pjreddie src/parser.c `string_to_layer_type`."""

ACTIVATIONS = words("logistic loggy relu elu selu relie plse hardtan lhtan linear ramp leaky tanh stair")
"""pjreddie src/activations.c `get_activation`."""

ACTIVATED = "convolutional connected local shortcut activation deconvolutional"
DEFORMATIONS = ("bin_output", "sway", "rotate", "stretch", "stretch_sway", "coordconv", "reverse")

IGNORED = "is ignored by it"


def _unknown_activation(place: Place) -> bool:
    default = "linear" if place.section.kind in ("shortcut", "activation") else NO_ACTIVATION
    return place.word("activation", default) not in ACTIVATIONS


RULES = (
    Rule("", "", lambda p: p.section.kind not in SECTIONS, "is unknown to it: it makes an empty layer of the section"),
    Rule("crnn gru lstm rnn", "", lambda p: True, "keeps a state from call to call, and gives no image to compare"),
    Rule(ACTIVATED, "activation", _unknown_activation, "is unknown to it: it computes ReLU instead, without an error"),
    Rule("convolutional maxpool", "stride_x", has("stride_x"), IGNORED),
    Rule("convolutional maxpool", "stride_y", has("stride_y"), IGNORED),
    Rule("convolutional maxpool", "antialiasing", differs("antialiasing", 0), IGNORED),
    Rule("convolutional", "dilation", differs("dilation", 1), IGNORED),
    Rule("convolutional", "share_index", has("share_index"), f"{IGNORED}: it reads weights where the file has none"),
    Rule("convolutional", "cbn", differs("cbn", 0), f"{IGNORED}: it reads no batch normalisation"),
    *(Rule("convolutional", key, differs(key, 0), IGNORED) for key in DEFORMATIONS),
    Rule("maxpool", "maxpool_depth", differs("maxpool_depth", 0), IGNORED),
    Rule("route", "groups", differs("groups", 1), f"{IGNORED}: it takes all channels"),
    Rule("shortcut", "from", lambda p: p.items("from") > 1, "is read up to the comma: it adds the first layer only"),
    Rule("shortcut", "weights_type", lambda p: p.word("weights_type", "none") != "none", IGNORED),
    Rule("yolo", "scale_x_y", differs("scale_x_y", 1), IGNORED),
    Rule("yolo", "new_coords", differs("new_coords", 0), IGNORED),
    Rule("yolo region", "map", has("map"), "names a file, and an engine here gets no file but cfg and weights"),
    Rule("region softmax", "tree", has("tree"), "names a tree file; besides, its tree computes NaN on the CPU"),
    Rule("batchnorm", "", lambda p: p.dialect.stores_batchnorm_biases, "has biases in this dialect, not in its own"),
)

HARMLESS = words(
    # training and the selection of boxes: no layer's output depends on them
    "iou_thresh iou_normalizer cls_normalizer obj_normalizer uc_normalizer delta_normalizer iou_loss nms_kind beta_nms "
    "resize max_delta label_smooth_eps focal_loss counters_per_class objectness_smooth ema_alpha iou_thresh_kind "
    "show_details assisted_excitation grad_centr stream wait_stream burnin_update train_only_bn dropblock "
    "dropblock_size_rel dropblock_size_abs weights_normalizion weights_normalization group_id out_channels"
) | {rule.key for rule in RULES if rule.key}
"""Keys that it may report as unused: the rules above let only values through that change nothing."""

COMPLAINTS = (r"Type not recognized: *(.*)", r"Couldn't find activation function (.*),", r"Unused field: '(\w+) = .*'")


def find_complaint(printed: str) -> str | None:
    """The first line by which Darknet admits that it did not understand the cfg."""
    for line in printed.splitlines():
        for pattern in COMPLAINTS:
            match = re.search(pattern, line)
            if match and not (pattern.startswith("Unused") and match.group(1) in HARMLESS):
                return line.strip()
    return None
