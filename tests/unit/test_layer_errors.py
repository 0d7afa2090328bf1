"""What a layer refuses, in which words, and at which line."""

from __future__ import annotations

import pytest
from slow_layers import net

from workbench.cfg import parse_cfg
from workbench.errors import CfgError
from workbench.network import build_network

SMALL = net(4, 8, 8)
REFUSED = [
    (
        "[convolutional]\nfilters=6\ngroups=4\n",
        "a.cfg:7: groups=4 divides neither; expected a divisor of 4 inputs and 6 filters, found 4.",
    ),
    (
        "[convolutional]\nsize=9\n",
        "a.cfg:6: layer 0 [convolutional] has no height left; expected at least 1, found 0. The kernel or "
        "stride is larger than what comes in.",
    ),
    (
        "[convolutional]\nactivation=mesh\n",
        "a.cfg:6: activation=mesh is not known; expected elu, gelu, ",
    ),
    (
        "[maxpool]\nsize=11\npadding=0\n",
        "a.cfg:6: layer 0 [maxpool] has no height left; expected at least 1, found -2. The kernel or stride "
        "is larger than what comes in.",
    ),
    (
        "[maxpool]\nsize=2\npadding=4\n",
        "a.cfg:7: whole windows would lie outside the picture; expected padding below 3, found 4.",
    ),
    (
        "[route]\n",
        "a.cfg:5: [route] needs layers=; expected layer numbers such as -1, 8.",
    ),
    (
        "[maxpool]\n[route]\nlayers=-2\n",
        "a.cfg:7: layers= names layer -2, which is not before this one; expected -1 to -1, or 0 to 0, found "
        "layer -1. Counting starts at 0 after [net]; a section was added or removed?",
    ),
    (
        "[maxpool]\n[route]\nlayers=1\n",
        "a.cfg:7: layers= names layer 1, which is not before this one; expected -1 to -1, or 0 to 0, found "
        "layer 1. Counting starts at 0 after [net]; a section was added or removed?",
    ),
    (
        "[shortcut]\nfrom=-1\n",
        "a.cfg:6: from= names layer -1, which is not before this one; expected nothing: this is the first "
        "layer, found layer -1. Counting starts at 0 after [net]; a section was added or removed?",
    ),
    (
        "[maxpool]\nstride=2\n[maxpool]\nstride=2\n[route]\nlayers=-1,-2\n",
        "a.cfg:10: layer 0 has another size than layer 1; expected 2x2, found 4x4. A route can only join maps"
        " of one size.",
    ),
    (
        "[maxpool]\n[route]\nlayers=-1\ngroups=3\n",
        "a.cfg:8: 4 channels of layer 0 cannot be cut in 3 groups.",
    ),
    (
        "[maxpool]\n[route]\nlayers=-1\ngroups=2\ngroup_id=2\n",
        "a.cfg:9: no such group; expected 0 to 1, found 2.",
    ),
    (
        "[convolutional]\n[avgpool]\n[scale_channels]\nfrom=0\n[sam]\nfrom=1\n",
        "a.cfg:10: layer 1 has another shape than the layer before; expected (1, 8, 8), found (1, 1, 1).",
    ),
    (
        "[convolutional]\nfilters=2\n[scale_channels]\nfrom=0\n",
        "a.cfg:8: the layer before does not fit layer 0; expected (2, 1, 1), found (2, 8, 8).",
    ),
    (
        "[reorg]\nstride=3\n",
        "a.cfg:6: 4 channels cannot be cut in 9 parts; expected a multiple of 9, found 4.",
    ),
    (
        "[convolutional]\nfilters=9\n[reorg]\nstride=3\n",
        "a.cfg:8: a 8x8 map cannot be cut by 3; expected multiples of 3, found 8x8.",
    ),
    (
        "[softmax]\ngroups=3\n",
        "a.cfg:6: 256 values cannot be cut in 3 groups.",
    ),
    (
        "[upsample]\nstride=0\n",
        "a.cfg:6: an upsample that makes the map smaller is not supported; expected 1 or more, found 0.",
    ),
    (
        "[yolo]\nanchors=1,2\nclasses=2\n",
        "a.cfg:5: [yolo] needs 1 x (5 + 2) channels from layer -1; expected filters=7, found filters=4. "
        "classes=, mask= or num= was changed without the filters= above.",
    ),
    (
        "[convolutional]\nfilters=6\n[yolo]\nanchors=1,2\nclasses=1\nnms_kind=soft\n",
        "a.cfg:10: nms_kind=soft is not known; expected default, greedynms, diounms, cornersnms, found soft.",
    ),
    (
        "[region]\nclasses=2\n",
        "a.cfg:5: [region] needs 1 x (5 + 2) channels from layer -1; expected filters=7, found filters=4. "
        "classes=, mask= or num= was changed without the filters= above.",
    ),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[words[7:50] for _, words in REFUSED])
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(CfgError) as caught:
        build_network(parse_cfg(SMALL + text, "a.cfg"))
    assert str(caught.value) == words or (words.endswith(", ") and str(caught.value).startswith(words))


@pytest.mark.parametrize(
    ("anchors", "remark", "kept"),
    [
        ("1,2,3,4,5,6", "anchors= has 6 numbers, num=2 needs 4; the rest is ignored", ((1, 2), (3, 4))),
        ("1,2,3", "anchors= has 3 numbers, num=2 needs 4; the missing ones are 0.5, as in Darknet", ((1, 2), (3, 0.5))),
    ],
)
def test_too_many_and_too_few_anchors(anchors: str, remark: str, kept: tuple[tuple[float, float], ...]) -> None:
    text = SMALL + f"[convolutional]\nfilters=12\nactivation=linear\n[yolo]\nnum=2\nclasses=1\nanchors={anchors}\n"
    network = build_network(parse_cfg(text, "a.cfg"))
    assert network.heads[0].anchors == kept
    assert f"a.cfg:11: {remark}" in [str(note) for note in network.notes]
