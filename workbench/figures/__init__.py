"""Every view as a still picture: matplotlib Figures for reports, terminals, static notebooks and tests.

Each `draw_…` is a pure function from values to a Figure that belongs to nobody: pyplot is never imported, no window
opens, and `to_png` turns equal figures into equal bytes. Colour is never the only signal: kinds of layers differ in
their marker, the sides of a comparison in their line, boxes without partner in line and symbol.
"""

from __future__ import annotations

from workbench.figures.boxes import draw_detections, draw_match
from workbench.figures.canvas import to_png
from workbench.figures.epsilons import draw_epsilons
from workbench.figures.layers import draw_layers
from workbench.figures.ledger import draw_ledger
from workbench.figures.offsets import draw_offsets

__all__ = ["draw_detections", "draw_epsilons", "draw_layers", "draw_ledger", "draw_match", "draw_offsets", "to_png"]
