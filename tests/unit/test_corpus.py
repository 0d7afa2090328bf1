"""A representative forty of the corpus: every kind of layer, both forks' goldens, and those where the epsilon decides.

`make corpus` runs all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus import ENGINES, Row, run_cfg, select, table
from oracle import FORKS, find_golden, list_goldens

NETWORKS = {
    # small detectors: one to three heads, groups, one-channel and non-square inputs
    "dog-qiuqiu/yoloface-50k": "56x56 and depthwise",
    "dog-qiuqiu/yolo-fastest-1.1": "depthwise, dropout",
    "dog-qiuqiu/yolo-fastest-1.1_body": "non-square",
    "dog-qiuqiu/yoloface-500k": "three heads",
    "AlexeyAB/yolov3-tiny": "two heads",
    "AlexeyAB/yolov3-tiny_3l": "three heads",
    "AlexeyAB/yolov4-tiny": "route groups, scale_x_y",
    "AlexeyAB/yolov7-tiny": "SPP",
    "AlexeyAB/yolov3-tiny-prn": "shortcuts of unequal channels",
    "AlexeyAB/yolov4-tiny_contrastive": "local_avgpool, contrastive",
    "AlexeyAB/yolov3-tiny_occlusion_track": "crnn in a detector",
    "AlexeyAB/enet-coco": "scale_channels, swish",
    "WongKinYiu/yolov4-tiny": "route_lhalf",
    # YOLOv1 and v2
    "AlexeyAB/yolov2-tiny": "region",
    "AlexeyAB/tiny-yolo-voc": "region",
    "AlexeyAB/tiny-yolo_xnor": "xnor, bin_output",
    "AlexeyAB/yolov3-tiny_xnor": "xnor",
    "AlexeyAB/xyolo.test": "batchnorm, detection, xnor",
    "AlexeyAB/tiny-coco": "local or connected, detection",
    # classifiers
    "AlexeyAB/cifar": "crop, dropout, cost",
    "AlexeyAB/cifar.test": "temperature",
    "AlexeyAB/darknet": "padding=",
    "AlexeyAB/darknet19": "classifier",
    "AlexeyAB/tiny": "classifier",
    "AlexeyAB/writing": "no head at all",
    "AlexeyAB/go.test": "one-channel 19x19",
    "pjreddie/go": "reorg extra=",
    "pjreddie/resnet18": "shortcuts of unequal sizes",
    "WongKinYiu-CSP/resnet10": "shortcuts of unequal sizes",
    "AlexeyAB/extraction": "connected",
    "AlexeyAB/efficientnet-lite3": "relu6, inline comments",
    # recurrent
    "AlexeyAB/rnn": "rnn",
    "pjreddie/rnn": "rnn",
    "AlexeyAB/gru": "gru",
    "AlexeyAB/lstm.train": "lstm",
    "AlexeyAB/crnn.train": "crnn of numbers",
}
EPSILON = [(fork, cfg) for fork in FORKS for cfg in ("AlexeyAB/darknet19", "AlexeyAB/rnn", "AlexeyAB/yolov3-tiny")]


def assert_fine(row: Row) -> None:
    assert row.loads and row.file_is_good, row.markdown()
    assert all(agreement.first_bad is None for agreement in row.agreements.values()), row.markdown()


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, shared: Path) -> None:
    goldens = [g for fork in FORKS for g in list_goldens(shared, fork) if g.cfg == f"cfgs/{name}.cfg"]
    row = run_cfg(shared, f"{name}.cfg", goldens)
    assert_fine(row)
    assert {key.partition("/")[2] for key in row.agreements} == (set(ENGINES) if goldens else set())


@pytest.mark.parametrize(("fork", "cfg"), EPSILON)
def test_epsilon(fork: str, cfg: str, shared: Path) -> None:
    assert_fine(run_cfg(shared, cfg, [find_golden(shared, fork, cfg, "epsilon")]))


def test_every_network_is_in_the_table_once(shared: Path) -> None:
    rows = select(shared)
    assert len(rows) == 219
    assert sum(bool(goldens) for _, goldens, _ in rows) == 213
    assert all(goldens or reason for _, goldens, reason in rows)


def test_a_cfg_that_cannot_be_converted_says_why(shared: Path) -> None:
    cfg, _, reason = next(row for row in select(shared) if "yolov3-spp-matrix" in row[0])
    row = run_cfg(shared, cfg, [], reason)
    assert not row.loads
    assert row.reasons[1] == (
        "yolov3-spp-matrix.cfg:927: layer 115 (line 829) has other weights; expected 256 filters 256x3x3, found 256 "
        "filters 128x3x3. AlexeyAB's Darknet stops here too; share_index= counts from a cfg with other layers?"
    )
    assert table([row]).splitlines()[-1].startswith("| WongKinYiu-CSP/yolov3-spp-matrix.cfg | NO |")
