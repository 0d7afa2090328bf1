"""A small certificate worked out by hand, names that mean harm, and a reader of HTML, for the tests of the report."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray

from workbench.certificate import Certificate, Gate, identity
from workbench.cfg import parse_cfg
from workbench.comparison import LayerDifference, PictureComparison
from workbench.detections import Detections, match
from workbench.dialects import PJREDDIE
from workbench.model import Model, model_from
from workbench.network import build_network
from workbench.onnx_model import OnnxOptions
from workbench.weights import make_weights

CFG = """[net]
width=32
height=32
channels=3
[convolutional]
filters=14
size=3
pad=1
activation=leaky
[yolo]
mask=0,1
anchors=4,5, 7,8
classes=2
num=2
"""
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&$verdict"
TURNED = "\u202egpj.tac"


def small_model(names: tuple[str, ...] = ("cat", "dog")) -> Model:
    """One convolution and one head, weights all zero."""
    network = build_network(parse_cfg(CFG, "small.cfg"))
    tensors = {
        (layer.index, spec.field): np.zeros(spec.shape, np.float32)
        for layer in network.layers
        for spec in layer.tensors(PJREDDIE)
    }
    return model_from(CFG, make_weights(network, tensors, PJREDDIE), PJREDDIE, names, "small.cfg")


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def compared(name: str, reference: Detections, candidate: Detections, thresh: float = 0.5) -> PictureComparison:
    return PictureComparison(name, thresh, reference, candidate, match(reference, candidate))


ONE = found((50, 40, 20, 20, 0.9, 0), (20, 20, 10, 12, 0.75, 1))
MOVED = found((50.25, 40, 20, 20, 0.875, 0), (80, 60, 10, 12, 0.625, 1))


def certificate_for(model: Model, *gates: Gate, pictures: tuple[PictureComparison, ...] = ()) -> Certificate:
    """Two layers, the second of which is beyond the limit of 2e-4."""
    cfg, weights, dialect, epsilon = identity(model)
    rows = (
        LayerDifference(0, "convolutional", 5, 1e-6, 1e-5, (13, 31, 0), 14336),
        LayerDifference(1, "yolo", 10, 0.5, float("inf"), (0, 1, 2), 14336),
    )
    return Certificate(
        model.network.cfg.source, cfg, weights, dialect, epsilon, "darknet", OnnxOptions(), "f" * 64,
        gates or (Gate("layers", False, float("inf"), 2e-4, "layer 1"),), ("a remark",),
        rows, rows, pictures, {"python": "3"},
    )  # fmt: skip


def picture(width: int = 96, height: int = 80) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 120, np.uint8)


VOID = {"meta", "img", "input", "br", "hr", "link"}
ADDRESSES = {"src", "href", "xlink:href", "srcset", "action", "formaction", "data", "poster", "background", "ping"}


class Page(HTMLParser):
    """Tags that close each other properly, the text by tag, the rows of the tables, and every address."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.addresses: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ADDRESSES]
        if tag not in VOID:
            self.open.append(tag)
            self.inside.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.inside[tag][-1] += data
        if self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data
