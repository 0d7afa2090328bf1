"""Charts of layers, offsets, bytes and epsilon, read back from their artists against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from figure_samples import found, grey, layer, pixels, words
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from workbench.cfg import parse_cfg
from workbench.detections import match
from workbench.dialects import PJREDDIE, Epsilon
from workbench.figures import (
    draw_epsilons,
    draw_layers,
    draw_ledger,
    draw_offsets,
)
from workbench.figures.offsets import magnification
from workbench.figures.palette import KIND_STYLES, style_of
from workbench.figures.scale import scale_for
from workbench.ledger import build_ledger
from workbench.network import build_network

# ------------------------------------------------------------------------------------------------ layers


def test_every_layer_stands_at_its_difference_under_its_kind() -> None:
    rows = [
        layer(0, "convolutional", 3e-6),
        layer(1, "maxpool", 0),
        layer(2, "convolutional", 5e-6),
        layer(3, "yolo", 1e-5),
    ]
    figure = draw_layers(rows, 2e-4)
    (axes,) = figure.axes
    marks = [artist for artist in axes.collections if isinstance(artist, PathCollection)]
    points = {str(artist.get_label()): np.asarray(artist.get_offsets()).tolist() for artist in marks}
    # 3e-6 lies in the decade from 1e-6, so an exact zero stands one decade lower, at 1e-7.
    assert points["convolutional"] == [[0, 3e-6], [2, 5e-6]]
    assert points["pooling"] == [[1, pytest.approx(1e-7)]]
    assert points["yolo, region"] == [[3, 1e-5]]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "1e-6", "1e-5", "1e-4", "1e-3", "∞"]
    assert axes.get_yscale() == "log" and "limit 0.0002" in words(figure)
    assert not any("first divergence" in text for text in words(figure))


def test_the_first_layer_beyond_the_limit_is_named_not_the_worst() -> None:
    rows = [
        layer(0, "convolutional", 1e-6),
        layer(4, "route", 3e-4, line=77),
        layer(5, "yolo", 0.5),
        layer(6, "yolo", np.inf),
    ]
    (said,) = [text for text in words(draw_layers(rows, 2e-4)) if "first divergence" in text]
    assert said == "first divergence: layer 4 route\ncfg line 77, 0.0003 std"


@pytest.mark.parametrize("values", [[], [0.0], [np.inf], [np.nan, 0.0], [1e-300, 1e300], [5e-324]])
def test_odd_differences_can_be_drawn(values: list[float]) -> None:
    rows = [layer(i, "convolutional", value) for i, value in enumerate(values)]
    assert pixels(draw_layers(rows, 2e-4)).shape == (420, 960, 3)
    assert pixels(draw_layers(rows)).shape == (420, 960, 3)


@given(st.lists(st.floats(1e-12, 1e12), min_size=1), st.floats(1e-9, 1))
def test_the_scale_holds_all_values_between_zero_and_infinity(values: list[float], limit: float) -> None:
    scale = scale_for(values, limit)
    heights = [scale.fraction(value) for value in (0.0, *sorted(values), float("inf"))]
    assert heights == sorted(heights) and heights[0] == 0 and heights[-1] == 1
    assert scale.fraction(float("nan")) == 1
    assert all(0 < scale.fraction(value) < 1 for value in (*values, limit))
    powers = [np.log10(tick) for tick in scale.ticks]
    assert powers == pytest.approx(np.round(powers)) and 4 <= len(powers) <= 16
    assert (scale.ticks[0], scale.ticks[-1]) == (scale.floor, scale.ceiling)


def test_kinds_differ_in_shape_and_not_by_colour_alone() -> None:
    assert (
        len({style.marker for style in KIND_STYLES}) == len({style.path for style in KIND_STYLES}) == len(KIND_STYLES)
    )
    assert style_of("maxpool").label == "pooling" and style_of("softmax").label == "others"


# ------------------------------------------------------------------------------------------------ offsets


def test_arrows_are_the_offsets_times_the_scale_that_is_written() -> None:
    reference = found((100, 100, 60, 60, 0.9, 0), (300, 200, 60, 60, 0.8, 0), (500, 300, 60, 60, 0.7, 0))
    candidate = found((100.5, 100, 60, 60, 0.9, 0), (300, 199.75, 60, 60, 0.8, 0), (500, 300, 61, 60, 0.7, 0))
    figure = draw_offsets(grey(640, 400), reference, match(reference, candidate))
    (quiver,) = [artist for artist in figure.axes[0].collections if isinstance(artist, Quiver)]
    # The longest is 0.5 px; an eighth of 640 px is 80, so 100 is the largest of 1, 2, 5 · 10^n that stays below 160.
    assert sorted(zip(np.asarray(quiver.U).tolist(), np.asarray(quiver.V).tolist(), strict=True)) == [(0, -25), (50, 0)]
    assert "3 matched boxes, arrows × 100: the longest is 0.5 pixels of the picture" in words(figure)
    (dots,) = [artist for artist in figure.axes[0].collections if isinstance(artist, PathCollection)]
    assert np.asarray(dots.get_offsets()).tolist() == [[500, 300]], "its centre did not move, only its width"


def test_offsets_say_when_there_is_nothing_to_show() -> None:
    one, other = found((100, 100, 60, 60, 0.9, 0)), found((400, 100, 60, 60, 0.9, 0))
    assert "1 matched boxes, none moved" in words(draw_offsets(grey(640, 40), one, match(one, one)))
    nobody = draw_offsets(grey(640, 40), one, match(one, other))
    assert "No box has a partner" in words(nobody)
    assert pixels(nobody).shape == (150, 720, 3)


@given(st.floats(1e-9, 1e6), st.integers(16, 10000))
def test_magnification_makes_the_longest_arrow_visible_and_fit(largest: float, width: int) -> None:
    shown = magnification(largest, width) * largest
    assert width / 20.1 < shown <= width / 8 * (1 + 1e-9)


@pytest.mark.parametrize("largest", [0.0, float("inf"), float("nan")])
def test_nothing_to_magnify(largest: float) -> None:
    assert magnification(largest, 640) == 1


# ------------------------------------------------------------------------------------------------ bytes, epsilon

CFG = """[net]
width=8
height=8
channels=3
[convolutional]
batch_normalize=1
filters=2
size=3
pad=1
activation=leaky
[convolutional]
filters=5
size=1
activation=linear
"""


def lanes(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Field -> (start, stop) in bytes of every bar in its lane."""
    (axes,) = figure.axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for bars in (artist for artist in axes.collections if isinstance(artist, PolyCollection)):
        box = bars.get_paths()[0].get_extents()
        found[names[round((box.y0 + box.y1) / 2)]].append((box.x0, box.x1))
    return found


def test_every_span_lies_at_its_bytes() -> None:
    figure = draw_ledger(build_ledger(build_network(parse_cfg(CFG)), PJREDDIE))
    # header 20; 4 times 2 floats; 2·3·3·3 = 54 floats; then 5 biases and 5·2 weights.
    assert lanes(figure) == {
        "header": [(0, 20)], "biases": [(20, 28), (268, 288)], "scales": [(28, 36)], "rolling_mean": [(36, 44)],
        "rolling_variance": [(44, 52)], "weights": [(52, 268), (288, 328)],
    }  # fmt: skip
    assert "328 bytes, 7 tensors" in words(figure)
    assert "0 convolutional" in words(figure) and "1" in words(figure), "names where there is room for them"
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels() if tick.get_position()[0] >= 0]
    assert ticks[:3] == ["0x0\n0", "0x40\n64", "0x80\n128"]


def test_a_file_that_ends_too_early_is_marked() -> None:
    ledger = build_ledger(build_network(parse_cfg(CFG)), PJREDDIE)
    assert "file ends at 0x100 " in words(draw_ledger(ledger, size_bytes=256))
    assert not any("ends" in text for text in words(draw_ledger(ledger, size_bytes=328)))


def test_a_window_shows_only_its_bytes() -> None:
    figure = draw_ledger(build_ledger(build_network(parse_cfg(CFG)), PJREDDIE), window=(28, 52))
    assert lanes(figure) == {"scales": [(28, 36)], "rolling_mean": [(36, 44)], "rolling_variance": [(44, 52)]}
    assert figure.axes[0].get_xlim() == (28, 52)


def test_epsilon_lines_are_the_arithmetic_by_hand() -> None:
    epsilons = {"outside": Epsilon(1e-6, inside=False), "inside": Epsilon(1e-5, inside=True)}
    figure = draw_epsilons(np.array([0, 1e-6, 2, np.nan, 1e-13], np.float32), epsilons)
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in figure.axes[0].lines}
    assert list(lines) == ["outside: sqrt(variance) + 1e-06", "inside: sqrt(variance + 1e-05)"]
    for line, expected in zip(lines.values(), (1e-3, 11**0.5 - 1), strict=True):
        # at a variance of 1e-6: (1e-3 + 1e-6) / 1e-3 - 1, and sqrt((1e-6 + 1e-5) / 1e-6) - 1
        assert np.interp(-6, np.log10(line[:, 0]), np.log10(line[:, 1])) == pytest.approx(np.log10(expected), abs=2e-3)
    said = "rolling_variance: 3 of 5 channels are positive, 1 of them below 1e-12"
    assert figure.axes[1].get_xlabel() == said
    assert pixels(figure).shape == (430, 760, 3)
