"""The networks that are measured: cfg texts made here from a few numbers, and seeded weights for them.

Three shapes hold the same bytes (248 MB at scale 1): one like a large detector, one of hundreds of small layers, one of
a few huge ones. So a cost that grows with the number of layers shows as the distance between rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.cfg import parse_cfg
from workbench.dialects import PJREDDIE
from workbench.layers.base import Float32
from workbench.ledger import Header, Span, build_ledger
from workbench.network import Network, build_network
from workbench.weights import make_weights, write_weights

ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319, 60,200, 200,60, 300,300"
CLASSES = 80
HEAD = 3 * (5 + CLASSES)


@dataclass(frozen=True)
class Files:
    """A cfg and its weights on the disk."""

    cfg: Path
    weights: Path

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return self.weights.stat().st_size


def conv(filters: int, size: int, stride: int = 1, activation: str = "leaky", norm: int = 1) -> str:
    """One `[convolutional]` section; with batch normalisation unless `norm` is 0."""
    return (
        f"[convolutional]\nbatch_normalize={norm}\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\n"
        f"activation={activation}\n"
    )


def yolo(mask: str) -> list[str]:
    """The convolution before a head, and the head."""
    return [
        conv(HEAD, 1, activation="linear", norm=0),
        f"[yolo]\nmask={mask}\nanchors={ANCHORS}\nclasses={CLASSES}\nnum=9\n",
    ]


def residual_detector(scale: float, activation: str = "leaky") -> list[str]:
    """75 convolutions: five stages of residual blocks and three heads; 62 million floats at scale 1."""

    def wide(filters: int) -> int:
        return max(8, round(filters * scale / 8) * 8)

    sections, ends = [conv(wide(32), 3, activation=activation)], []
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        sections.append(conv(wide(filters), 3, 2, activation))
        for _ in range(blocks):
            sections += [
                conv(wide(filters // 2), 1, activation=activation),
                conv(wide(filters), 3, activation=activation),
            ]
            sections.append("[shortcut]\nfrom=-3\nactivation=linear\n")
        ends.append(len(sections) - 1)
    for number, (filters, mask) in enumerate(((512, "6,7,8"), (256, "3,4,5"), (128, "0,1,2"))):
        if number:
            sections += [
                "[route]\nlayers=-4\n",
                conv(wide(filters), 1, activation=activation),
                "[upsample]\nstride=2\n",
            ]
            sections.append(f"[route]\nlayers=-1,{ends[-1 - number]}\n")
        for _ in range(3):
            sections += [
                conv(wide(filters), 1, activation=activation),
                conv(wide(2 * filters), 3, activation=activation),
            ]
        sections += yolo(mask)
    return sections


def many_layers(scale: float, layers: int = 400) -> list[str]:
    """A chain of `layers` equal 3x3 convolutions of 131 channels."""
    width = max(8, round(131 * scale))
    return [conv(width, 3, 32), *(conv(width, 3) for _ in range(layers - 1)), *yolo("0,1,2")]


def few_layers(scale: float) -> list[str]:
    """Five convolutions; the largest holds 151 MB at scale 1."""
    sizes = ((1024, 3, 32), (2048, 3, 1), (2048, 3, 1), (1536, 1, 1), (128, 3, 1))
    return [*(conv(max(8, round(filters * scale)), size, stride) for filters, size, stride in sizes), *yolo("0,1,2")]


def small_detector(scale: float, activation: str = "leaky") -> list[str]:
    """Nine convolutions, pools, a route and two heads: 8.9 million floats at scale 1."""

    def wide(filters: int) -> int:
        return max(4, round(filters * scale))

    sections = []
    for filters, stride in ((16, 2), (32, 2), (64, 2), (128, 2), (256, 2), (512, 1)):
        sections += [conv(wide(filters), 3, activation=activation), f"[maxpool]\nsize=2\nstride={stride}\n"]
    sections += [conv(wide(1024), 3, activation=activation), conv(wide(256), 1, activation=activation)]
    sections += [conv(wide(512), 3, activation=activation), *yolo("6,7,8"), "[route]\nlayers=-4\n"]
    sections += [conv(wide(128), 1, activation=activation), "[upsample]\nstride=2\n", "[route]\nlayers=-1,8\n"]
    return [*sections, conv(wide(256), 3, activation=activation), *yolo("3,4,5")]


SHAPES: dict[str, Callable[[float], list[str]]] = {
    "75 layers": residual_detector,
    "400 layers": many_layers,
    "5 layers": few_layers,
}
"""Name in the table -> sections, for a scale of the widths; the bytes grow with its square."""


def cfg_text(sections: Iterable[str], side: int = 416) -> str:
    """The whole cfg with a square input of `side` pixels."""
    return "\n".join([f"[net]\nwidth={side}\nheight={side}\nchannels=3\n", *sections])


def write_files(text: str, stem: Path) -> Files:
    """Write `stem`.cfg and `stem`.weights with seeded values that keep every layer's output near unit scale."""
    files = Files(stem.with_suffix(".cfg"), stem.with_suffix(".weights"))
    files.cfg.write_text(text)
    network = build_network(parse_cfg(text, files.cfg.name))
    write_weights(make_weights(network, draw_tensors(network), PJREDDIE, Header(0, 2, 0, 0)), files.weights)
    return files


def draw_tensors(network: Network, seed: int = 1) -> dict[tuple[int, str], Float32]:
    """One array a tensor of the ledger, the same for the same cfg."""
    rng = np.random.default_rng(seed)
    return {(span.layer, span.field): _draw(rng, span) for span in build_ledger(network, PJREDDIE).spans}


def _draw(rng: np.random.Generator, span: Span) -> Float32:
    if span.field == "weights":
        values = rng.standard_normal(span.shape, np.float32)
        values *= np.float32(np.sqrt(2 / np.prod(span.shape[1:])))
        return values
    low, high = {"rolling_variance": (0.5, 1.5), "scales": (0.5, 1.0)}.get(span.field, (-0.1, 0.1))
    return rng.uniform(low, high, span.shape).astype(np.float32)
