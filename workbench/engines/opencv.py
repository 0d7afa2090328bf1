"""Drives OpenCV's dnn module, inside the child process of `runners/worker.py`; never import it elsewhere.

OpenCV splits a Darknet section into several layers of its own; this file finds the last of each, whose output is the
section's output, and turns the decoded rows of its region layer into boxes with OpenCV's own suppression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from workbench.engines.serve import Arrays, Command, Fields

OUTSIDE = {"leaky", "relu", "logistic", "swish", "mish", "tanh"}
"""Layers whose name carries the index of the section plus one: OpenCV counts the section first, then activates it."""

REGION_OUTPUT = "detection_out"


def open_engine() -> Mapping[str, Command]:
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise RuntimeError(f"OpenCV {cv2.__version__} has no readNetFromDarknet")
    engine = _OpenCv()
    return {"load": engine.load, "run": engine.run, "detect": engine.detect}


class _OpenCv:
    def __init__(self) -> None:
        self.net: Any = None
        self.names: list[str] = []
        self.heads: list[int] = []

    def load(self, fields: Fields, _: Arrays) -> tuple[Fields, Arrays]:
        """cfg, weights: paths. kinds: the section names after [net]."""
        self.net = cv2.dnn.readNetFromDarknet(fields["cfg"], fields["weights"])
        self.net.enableFusion(False)
        self.net.enableWinograd(False)  # three times the rounding noise in deep layers of yolov3-tiny
        self.names = name_outputs(self.net.getLayerNames(), fields["kinds"])
        self.heads = [index for index, kind in enumerate(fields["kinds"]) if kind in ("yolo", "region")]
        return {"version": cv2.__version__, "names": self.names}, {}

    def run(self, _: Fields, arrays: Arrays) -> tuple[Fields, Arrays]:
        """x: float32 (n, c, h, w). One array a layer; heads are absent, their output here is decoded boxes."""
        wanted = [index for index in range(len(self.names)) if index not in self.heads]
        samples = [self._forward(x, wanted) for x in arrays["x"]]
        return {}, {str(index): np.concatenate([sample[k] for sample in samples]) for k, index in enumerate(wanted)}

    def detect(self, fields: Fields, arrays: Arrays) -> tuple[Fields, Arrays]:
        """x: float32 (c, h, w), the network input. Rows x, y, w, h (relative to the input), score, class."""
        decoded = np.concatenate(self._forward(arrays["x"], self.heads))
        return {}, {"rows": select(decoded, fields["thresh"], fields["nms"], fields["nms_thresh"])}

    def _forward(self, x: NDArray[np.float32], indices: Sequence[int]) -> list[NDArray[np.float32]]:
        self.net.setInput(x[None])
        return [np.array(output, np.float32) for output in self.net.forward([self.names[i] for i in indices])]


def name_outputs(names: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """For each section the name of its last OpenCV layer, e.g. conv_3, bn_3, leaky_4 -> leaky_4 for section 3.

    Raises ValueError when a section has none or a name belongs to none: then this OpenCV names otherwise.
    """
    last: dict[int, str] = {}
    for name in names:
        if name == REGION_OUTPUT:
            last[list(kinds).index("region")] = name
            continue
        word, _, number = name.rpartition("_")
        last[int(number) - (word in OUTSIDE)] = name
    if sorted(last) != list(range(len(kinds))):
        raise ValueError(f"OpenCV's layer names do not fit the {len(kinds)} sections of the cfg: {', '.join(names)}")
    return [last[index] for index in range(len(kinds))]


def select(decoded: NDArray[np.float32], thresh: float, nms: str, nms_thresh: float) -> NDArray[np.float32]:
    """Rows x, y, w, h, score, class from decoded rows x, y, w, h, objectness, probabilities…"""
    decoded = decoded[decoded[:, 4] > np.float32(thresh)]
    if nms == "obj":
        decoded = decoded[_suppress(decoded, decoded[:, 4], thresh, nms_thresh)]
    rows = [np.empty((0, 6), np.float32)]
    for index, scores in enumerate(decoded[:, 5:].T):
        keep = np.flatnonzero(scores > np.float32(thresh))
        if nms == "sort":
            keep = keep[_suppress(decoded[keep], scores[keep], thresh, nms_thresh)]
        rows.append(np.column_stack([decoded[keep, :4], scores[keep], np.full(len(keep), index)]).astype(np.float32))
    return np.concatenate(rows)


def _suppress(
    rows: NDArray[np.float32], scores: NDArray[np.float32], thresh: float, nms_thresh: float
) -> NDArray[np.intp]:
    """Indices kept by cv2.dnn.NMSBoxes. Overlap does not change when x and y are scaled apart, so relative boxes do."""
    if not len(rows):
        return np.empty(0, np.intp)
    boxes = rows[:, :4].astype(np.float64)
    corners = np.column_stack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]])
    kept = cv2.dnn.NMSBoxes(corners.tolist(), scores.tolist(), thresh, nms_thresh)
    return np.asarray(kept, np.intp).ravel()
