"""The cfg as a reference engine gets it: the same network, written so that every engine reads it the same way.

Darknet dies of CRLF and takes the first of two equal keys, OpenCV takes the last and knows no short section names.
So an engine never sees the user's file, only a temporary one that is written here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from workbench.cfg import Cfg, Section

NET_KEYS = ("width", "height", "channels", "inputs")
"""All of [net] that matters without training; the rest (policy=sgdr, mosaic, …) could only make an engine stop."""

DEFAULTS = {
    "convolutional": {"filters": "1", "size": "1", "stride": "1", "activation": "logistic"},
    "connected": {"output": "1", "activation": "logistic"},
    "maxpool": {"stride": "1"},
    "upsample": {"stride": "2"},
    "reorg": {"stride": "1"},
    "yolo": {"classes": "20", "num": "1"},
    "region": {"classes": "20", "num": "1", "coords": "4"},
}
"""What Darknet takes where the cfg says nothing (src/parser.c); OpenCV takes something else, so it is written out."""

NOT_ACTIVATED = (
    "maxpool",
    "avgpool",
    "route",
    "upsample",
    "dropout",
    "cost",
    "softmax",
    "reorg",
    "crop",
    "yolo",
    "region",
)
"""Sections where Darknet does not read `activation=`; OpenCV applies it to any."""

SPELLING = {"gaussian_yolo": "Gaussian_yolo"}
"""The one section name that Darknet writes with a capital."""


def write_engine_cfg(
    cfg: Cfg, width: int, height: int, channels: int, extra: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """Text with LF line ends, batch 1, the given input size, one value a key, no comments.

    extra: options by section kind that replace those of the cfg, e.g. {"yolo": {"thresh": "0"}}.
    """
    size = {"width": str(width), "height": str(height), "channels": str(channels)}
    net = {key: option.value for key, option in cfg.net.options.items() if key in NET_KEYS}
    lines = ["[net]", *_lines({**net, **size, "batch": "1", "subdivisions": "1"})]
    for section in cfg.sections:
        replaced = (extra or {}).get(section.kind, {})
        lines += ["", f"[{SPELLING.get(section.kind, section.kind)}]", *_lines({**_values(section), **replaced})]
    return "\n".join(lines) + "\n"


def cut_comment(value: str) -> str:
    """`40#32` -> `40`: what every fork makes of it where it expects a number."""
    return re.split(r"[#;]", value, maxsplit=1)[0]


def _values(section: Section) -> dict[str, str]:
    values = {key: option.value for key, option in section.options.items()}
    if section.kind in NOT_ACTIVATED:
        values.pop("activation", None)
    values = {**DEFAULTS.get(section.kind, {}), **values}
    if section.kind == "maxpool":
        values.setdefault("size", values["stride"])
    return values


def _lines(options: Mapping[str, str]) -> list[str]:
    return [f"{key}={cut_comment(value)}" for key, value in options.items() if cut_comment(value)]
