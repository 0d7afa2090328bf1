"""Colours and markers that all views share, the stills here, the report and its SVG alike. Knows no matplotlib.

Okabe and Ito's colours stay apart for every common kind of colour blindness (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

from dataclasses import dataclass

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#6B7280"
INK, PAPER, FAINT = "#1F2933", "#FFFFFF", "#D5DAE1"

REFERENCE, CANDIDATE = BLUE, ORANGE
CLASS_COLOURS = (ORANGE, SKY, GREEN, YELLOW, VERMILION, PURPLE, BLUE)
ONLY_REFERENCE, ONLY_CANDIDATE = "⊖", "⊕"
"""A box that the candidate lost, and one that it has too many."""


@dataclass(frozen=True)
class KindStyle:
    """How one group of layers is drawn. marker: matplotlib's; path: the same shape as SVG, within -5 to 5."""

    key: str
    label: str
    kinds: frozenset[str]
    colour: str
    marker: str
    path: str


KIND_STYLES = (
    KindStyle("conv", "convolutional", frozenset({"convolutional"}), BLUE, "o", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"),
    KindStyle("pool", "pooling", frozenset({"maxpool", "avgpool", "local_avgpool"}), GREEN, "v", "M-5 -4H5L0 5z"),
    KindStyle("size", "upsample, reorg", frozenset({"upsample", "reorg"}), PURPLE, "^", "M-5 4H5L0 -5z"),
    KindStyle("route", "route", frozenset({"route"}), SKY, "D", "M0 -5L5 0L0 5L-5 0z"),
    KindStyle("join", "shortcut, scale_channels, sam", frozenset({"shortcut", "scale_channels", "sam"}), ORANGE, "s",
              "M-4 -4H4V4H-4z"),
    KindStyle("head", "yolo, region", frozenset({"yolo", "region", "gaussian_yolo"}), VERMILION, "*",
              "M0 -6L1.5 -2L6 -2L2.4 .8L3.7 5L0 2.5L-3.7 5L-2.4 .8L-6 -2L-1.5 -2z"),
    KindStyle("other", "others", frozenset(), GREY, "X", "M-5 -3L-3 -5L0 -2L3 -5L5 -3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0z"),
)  # fmt: skip


def style_of(kind: str) -> KindStyle:
    """The style of a layer's kind; that of the others where it has none of its own."""
    return next((style for style in KIND_STYLES if kind in style.kinds), KIND_STYLES[-1])


def ink_on(colour: str) -> str:
    """White or near black, whichever is easier to read on `#RRGGBB` (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.25 else PAPER


def _channels(colour: str) -> list[float]:
    return [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
