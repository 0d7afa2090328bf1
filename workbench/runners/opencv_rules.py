"""What OpenCV's Darknet reader rejects, and what it computes wrong in silence, as a table.

Measured with OpenCV 4.14 section by section; the reader is modules/dnn/src/darknet/darknet_io.cpp.
"""

from __future__ import annotations

from workbench.runners.refusals import NO_ACTIVATION, Place, Rule, differs, has, words

SECTIONS = words(
    "convolutional connected maxpool avgpool softmax route dropout cost crop reorg region shortcut scale_channels sam "
    "upsample yolo"
)

ACTIVATED = "convolutional connected shortcut scale_channels sam"
ACTIVATIONS = words("linear leaky relu logistic swish mish tanh")

NOT_CONVOLVED = (
    "xnor",
    "binary",
    "cbn",
    "bin_output",
    "sway",
    "rotate",
    "stretch",
    "stretch_sway",
    "coordconv",
    "reverse",
    "dontload",
)

EXTRA = {kind: {"thresh": "0", "nms_threshold": "0"} for kind in ("yolo", "region")}
"""What its decoding reads beyond Darknet's keys: no score below `thresh` comes out (0.2 where absent, and yolov2.cfg
says .6 for training), and boxes are suppressed before we see them. The same thresholds hold for every engine."""

REGION_NMS_THRESH = 0.4
"""Of [region] alone `nms_threshold` is not read: its built-in suppression stays (measured; region_layer.cpp)."""


def _unknown_activation(place: Place) -> bool:
    default = NO_ACTIVATION if place.section.kind in ("convolutional", "connected") else "linear"
    return place.word("activation", default) not in ACTIVATIONS


def _counts_no_pairs(place: Place) -> bool:
    return place.items("anchors") != 2 * place.options.integer("num", 1)


def _is_a_map(place: Place) -> bool:
    return place.layer is not None and place.layer.input_shapes[0][1:] != (1, 1)


IGNORED = "is ignored by it"

RULES = (
    Rule("", "", lambda p: p.section.kind not in SECTIONS, "is unknown to it"),
    Rule(ACTIVATED, "activation", _unknown_activation, "is unknown to it"),
    Rule("convolutional maxpool", "stride_x", has("stride_x"), IGNORED),
    Rule("convolutional maxpool", "stride_y", has("stride_y"), IGNORED),
    Rule("convolutional maxpool", "antialiasing", differs("antialiasing", 0), IGNORED),
    Rule("convolutional", "dilation", differs("dilation", 1), IGNORED),
    Rule("convolutional", "share_index", has("share_index"), f"{IGNORED}: it reads weights where the file has none"),
    Rule(
        "convolutional",
        "batch_normalize",
        lambda p: p.word("batch_normalize", "0") not in ("0", "1"),
        "is taken for 0: it reads no batch normalisation",
    ),
    *(Rule("convolutional", key, differs(key, 0), IGNORED) for key in NOT_CONVOLVED),
    Rule("convolutional", "flipped", differs("flipped", 0), "is rejected by it"),
    Rule("connected", "batch_normalize", differs("batch_normalize", 0), "is read in the wrong order from the weights"),
    Rule("maxpool", "maxpool_depth", differs("maxpool_depth", 0), IGNORED),
    Rule("crop", "", lambda p: True, "shifts its numbering, and every later route= and from= with it"),
    Rule(
        "route",
        "groups",
        lambda p: p.differs("groups", 1) and p.items("layers") > 1,
        "with several layers shifts its numbering, and every later route= and from= with it",
    ),
    Rule("shortcut", "from", lambda p: p.items("from") > 1, "is read up to the comma: it adds the first layer only"),
    Rule("shortcut", "weights_type", lambda p: p.word("weights_type", "none") != "none", IGNORED),
    Rule("shortcut", "alpha", differs("alpha", 1), "is taken from the other operand than Darknet's"),
    Rule("shortcut", "beta", differs("beta", 1), "is rejected by it"),
    Rule("scale_channels", "scale_wh", differs("scale_wh", 0), IGNORED),
    Rule("upsample", "scale", differs("scale", 1), IGNORED),
    Rule("reorg", "reverse", differs("reverse", 0), IGNORED),
    Rule("reorg", "flatten", differs("flatten", 0), IGNORED),
    Rule("reorg", "extra", differs("extra", 0), IGNORED),
    Rule("softmax", "", _is_a_map, "of a whole map is computed pixel by pixel in it"),
    Rule("softmax", "groups", differs("groups", 1), "is rejected by it"),
    Rule("softmax", "temperature", differs("temperature", 1), IGNORED),
    Rule("softmax region", "tree", has("tree"), "is not known to it"),
    Rule("region", "softmax", lambda p: not p.differs("softmax", 0), "is rejected by it: it wants softmax=1"),
    Rule("region", "coords", differs("coords", 4), "is rejected by it: it wants 4"),
    Rule("region yolo", "anchors", _counts_no_pairs, "is rejected by it: it wants exactly num= pairs"),
)
