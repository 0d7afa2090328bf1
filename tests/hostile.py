"""Damage for files: small networks of every kind of layer, and hypothesis strategies that make them wrong.

A `Damage` is a plain value (what is done, where, with what), so that hypothesis can shrink it to the one that matters.
`apply_damage` gives the damaged bytes; nothing here knows what the workbench makes of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import strategies as st

NET = "[net]\nwidth=16\nheight=16\nchannels=3\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=leaky\n"


def section(text: str) -> str:
    """`yolo classes=2 num=3` -> a section of a cfg, one option a line."""
    kind, *options = text.split()
    return "\n".join([f"[{kind}]", *options, ""])


def network(*sections: str, net: str = NET) -> str:
    """A cfg: `conv` stands for the common convolution, anything else is for `section`."""
    return net + "".join(CONV if text == "conv" else section(text) for text in sections)


SMALL = {
    "detector": network(
        "conv", "maxpool size=2 stride=2", "conv", "route layers=-1,-2", "upsample stride=2",
        "convolutional filters=4 size=3 stride=2 groups=4 dilation=2 pad=1 activation=mish",
        "convolutional filters=14 size=1 activation=linear",
        "yolo mask=0,1 anchors=4,5,6,7,8,9 classes=2 num=3 scale_x_y=1.05 nms_kind=greedynms beta_nms=0.6",
    ),
    "residual": network(
        "conv", "conv", "shortcut from=-2 activation=linear", "avgpool",
        "convolutional filters=8 size=1 activation=logistic", "scale_channels from=-3", "sam from=-4",
        "dropout probability=.5", "empty", "activation activation=swish", "route_lhalf layers=-1",
        "route layers=-1 groups=2 group_id=1", "batchnorm", "implicit filters=4", "contrastive classes=2",
    ),
    "region": network(
        "conv", "reorg stride=2", "reorg3d stride=2", "local_avgpool size=2 stride=1",
        "convolutional filters=14 size=1 activation=linear",
        "region anchors=1,2,3,4 classes=2 coords=4 num=2 softmax=1",
    ),
    "classifier": network(
        "crop crop_height=8 crop_width=8 flip=0", "conv", "maxpool size=3 stride=2 padding=1",
        "local filters=4 size=3 stride=1 pad=1 activation=relu", "connected output=8 activation=elu", "avgpool",
        "softmax groups=2 temperature=2", "cost type=sse",
    ),
    "recurrent": network(
        "rnn output=8 hidden=6 batch_normalize=1 activation=leaky", "gru output=8 batch_normalize=1 tanh=1",
        "lstm output=8 batch_normalize=1", "softmax", net="[net]\ninputs=12\ntime_steps=2\n",
    ),
    "sequence": network(
        "crnn output=4 hidden=4 size=3 pad=1 batch_normalize=1 activation=leaky",
        "conv_lstm output=4 size=3 pad=1 peephole=1 batch_normalize=1 activation=leaky",
    ),
    "gaussian": network(
        "conv", "convolutional filters=22 size=1 activation=linear",
        "gaussian_yolo mask=0,1 anchors=4,5,6,7 classes=2 num=2 yolo_point=left_top",
    ),
    "yolo1": network(
        "conv", "dropout", "connected output=48 activation=linear",
        "detection classes=2 coords=4 side=2 num=2 softmax=1 sqrt=1",
    ),
    "signs": network(
        "conv", "convolutional xnor=1 bin_output=1 batch_normalize=1 filters=8 size=3 pad=1 activation=leaky",
        "convolutional binary=1 batch_normalize=1 filters=8 size=3 pad=1 activation=leaky",
        "convolutional antialiasing=1 batch_normalize=1 filters=8 size=3 stride=2 pad=1 activation=leaky",
        "maxpool size=2 stride=2 antialiasing=1", "maxpool maxpool_depth=1 out_channels=4",
        "convolutional filters=3 size=1 activation=relu",
        "convolutional share_index=0 batch_normalize=1 filters=8 size=3 pad=1 activation=leaky",
        "shortcut from=-1,-2 weights_type=per_channel weights_normalization=softmax", "local_avgpool size=2 stride=1",
    ),
}  # fmt: skip
"""Networks that open, of a few thousand floats."""

NUMBERS = (
    "0 -0 -1 1 2 3 7 64 1024 16384 65536 1048576 16777216 2147483647 2147483648 -2147483648 4294967296 "
    "99999999999999999999 1e309 -1e309 1e38 3.5e38 1e-46 nan inf -inf 0x10 1.5 .5 - + . e5 1e 1e+ 40#32 3;4 "
    "1,2,3 , ,, 1,,2 -1,-2 -1,-1,-1 0,1,2,3 1,2,3,4,5,6,7,8 5,5"
).split()
STRANGE = "= ==1 ² ٤٢ １６ 😀 leaky mish none linear relu6 [[[[ ] [net] ../../etc/passwd %s%n {0}".split()
WORDS = (*NUMBERS, *STRANGE, "", "1 2 3", "\x1b[31mred", "\u202e1", "a" * 3000, "9" * 3000, "-1," * 3000)
KEYS = (
    "width height channels inputs filters size stride stride_x stride_y pad padding groups group_id dilation "
    "activation batch_normalize layers from mask anchors classes num coords softmax output temperature reverse alpha "
    "beta scale_x_y new_coords nms_kind beta_nms crop_height crop_width probability letter_box share_index "
    "antialiasing weights_type weights_normalization tree background xnor hidden steps time_steps filler"
).split()
SECTIONS = (
    "net network convolutional conv maxpool max route upsample yolo region shortcut connected local avgpool avg "
    "softmax cost dropout crop reorg reorg3d sam scale_channels batchnorm implicit empty activation deconvolutional "
    "rnn gru lstm crnn conv_lstm normalization l2norm logistic iseg detection gaussian_yolo nonsense"
).split()


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong: `what` is done at `at` (taken modulo the length) with `word`."""

    what: str
    at: int
    word: str


CFG_DAMAGES = (
    "delete line", "double line", "swap lines", "value", "value", "value", "key", "section", "add option", "add option",
    "add section", "cut", "join lines", "garble", "repeat to the end", "comment",
)  # fmt: skip
LINE = st.integers(0, 400)


def cfg_damages() -> st.SearchStrategy[list[Damage]]:
    """One to four things wrong with a cfg."""
    one = st.builds(Damage, st.sampled_from(CFG_DAMAGES), LINE, st.sampled_from((*WORDS, *KEYS, *SECTIONS)))
    return st.lists(one, min_size=1, max_size=4)


def damage_cfg(text: str, damages: list[Damage]) -> str:
    """The text with all of it done, in order."""
    for damage in damages:
        text = "\n".join(_damage_lines(text.split("\n"), damage))
    return text


def _damage_lines(lines: list[str], damage: Damage) -> list[str]:
    at = damage.at % len(lines)
    head, line, tail = lines[:at], lines[at], lines[at + 1 :]
    key, _, value = line.partition("=")
    word = damage.word
    replaced = {
        "delete line": [],
        "double line": [line, line],
        "swap lines": [*tail[:1], line],
        "value": [f"{key}={word}"],
        "key": [f"{word}={value}"],
        "section": [f"[{word}]"],
        "add option": [line, f"{KEYS[damage.at % len(KEYS)]}={word}"],
        "add section": [line, f"[{word}]"],
        "cut": [line[: len(line) // 2]],
        "join lines": [line + "".join(tail[:1])],
        "garble": [line[: len(line) // 2] + word + line[len(line) // 2 :]],
        "repeat to the end": [line, *tail],
        "comment": [f";{line}"],
    }[damage.what]
    rest = {"swap lines": tail[1:], "join lines": tail[1:], "cut": [] if damage.at % 3 == 0 else tail}
    return [*head, *replaced, *rest.get(damage.what, tail)]


FLOATS = (float("nan"), float("inf"), float("-inf"), 1e-40, -1e-40, -1e-46, -1.0, 3e38, -3e38, 0.0, -0.0, 1e-30)
HEADERS = (-(2**31), -1, 0, 1, 2, 3, 999, 1000, 1001, 2**31 - 1)
WEIGHT_DAMAGES = (
    "flip", "cut", "cut", "extend", "header", "float", "float", "float", "all floats", "zeros", "head of it",
)  # fmt: skip


def weight_damages() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    """One to three things wrong with a weights file: what, where, and which of a table or how many bytes."""
    one = st.tuples(st.sampled_from(WEIGHT_DAMAGES), st.integers(0, 1 << 16), st.integers(0, 255))
    return st.lists(one, min_size=1, max_size=3)


def damage_weights(data: bytes, damages: list[tuple[str, int, int]]) -> bytes:
    """The bytes with all of it done, in order."""
    for what, at, number in damages:
        buffer = bytearray(data) or bytearray(1)
        place = at % len(buffer)
        aligned = min(20 + at % max(len(buffer) - 20, 1) // 4 * 4, max(len(buffer) - 4, 0))
        floats = struct.pack("<f", FLOATS[number % len(FLOATS)])
        if what == "flip":
            buffer[place] ^= number or 255
        elif what == "cut":
            del buffer[place:]
        elif what == "head of it":
            del buffer[number % 25 :]
        elif what == "extend":
            buffer += bytes([number]) * (1 + at % 5000)
        elif what == "header":
            buffer[(at % 5) * 4 : (at % 5) * 4 + 4] = struct.pack("<i", HEADERS[number % len(HEADERS)])
        elif what == "float":
            buffer[aligned : aligned + 4] = floats
        elif what == "all floats":
            buffer[20:] = floats * ((len(buffer) - 20) // 4)
        else:
            buffer[place : place + number] = bytes(number)
        data = bytes(buffer)
    return data
