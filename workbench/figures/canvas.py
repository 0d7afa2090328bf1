"""An empty Figure and its way to PNG bytes, apart from pyplot and from the user's matplotlibrc."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import LoadFlags

from workbench.figures.labels import escape_letter, visible
from workbench.figures.palette import FAINT, INK, PAPER

P = ParamSpec("P")
R = TypeVar("R")

DPI = 100
FONT = "DejaVu Sans"
STYLE: dict[Any, Any] = {
    "font.family": FONT, "font.size": 9, "text.color": INK, "text.parse_math": False, "text.usetex": False,
    "figure.facecolor": PAPER, "savefig.facecolor": "auto", "axes.facecolor": PAPER, "axes.edgecolor": FAINT,
    "axes.labelcolor": INK, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.color": FAINT,
    "grid.linewidth": 0.5, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
"""Names come from files of strangers: `parse_math` off, so that a class called `$x` is no formula."""


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run `draw` in matplotlib's defaults and the style above; what the caller had set comes back afterwards."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of `width` x `height` pixels with a canvas of its own."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


@styled
def to_png(figure: Figure) -> bytes:
    """The figure as PNG at its own size; equal figures give equal bytes: neither date nor version is written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    return buffer.getvalue()


def drawable(text: str) -> str:
    """`text` in the letters that the font has; others as `\\u4eba`, so that they are told and not a hollow box."""
    return "".join(letter if ord(letter) in _letters() else escape_letter(letter) for letter in visible(text))


def width_in_ems(text: str) -> float:
    """How wide `text` is in the font, in multiples of the font size; letters that it lacks count as a square."""
    return sum(_advance(letter) for letter in text)


@cache
def _advance(letter: str) -> float:
    if ord(letter) not in _letters():
        return 1.0
    font = font_manager.get_font(font_manager.findfont(FONT))
    return font.load_char(ord(letter), LoadFlags.NO_SCALE).horiAdvance / font.units_per_EM


@cache
def _letters() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())
