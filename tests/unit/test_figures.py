"""Still pictures, measured back: from the pixels of the PNG or from the artists, against numbers worked out by hand."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from numpy.typing import NDArray
from PIL import Image

from workbench.cfg import parse_cfg
from workbench.compare import LayerDifference
from workbench.detections import Detections, match
from workbench.dialects import PJREDDIE, Epsilon
from workbench.figures import (
    draw_detections,
    draw_epsilons,
    draw_layers,
    draw_ledger,
    draw_match,
    draw_offsets,
    to_png,
)
from workbench.figures.canvas import drawable, width_in_ems
from workbench.figures.labels import name_of, visible
from workbench.figures.offsets import magnification
from workbench.figures.palette import CANDIDATE, CLASS_COLOURS, KIND_STYLES, REFERENCE, ink_on, style_of
from workbench.figures.placing import Plate, place_label
from workbench.figures.scale import scale_for
from workbench.ledger import build_ledger
from workbench.network import build_network

ROOT = Path(__file__).resolve().parents[2]


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """What the PNG really holds, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(to_png(figure))).convert("RGB"))


def words(figure: Figure) -> list[str]:
    """Every text of the figure and of its axes."""
    return [text.get_text() for owner in (figure, *figure.axes) for text in owner.texts]


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 90, np.uint8)


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Rows of centre x, centre y, width, height, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def layer(index: int, kind: str, over_std: float, line: int = 0) -> LayerDifference:
    return LayerDifference(index, kind, line or 10 * index + 1, over_std / 2, over_std, (0, 0, 0), 64)


# ------------------------------------------------------------------------------------------------ the canvas


def test_pyplot_is_never_loaded() -> None:
    program = (
        "import sys, numpy as np; from workbench.figures import *; from workbench.detections import Detections;"
        "to_png(draw_detections(np.zeros((9, 9, 3), np.uint8), Detections(np.ones((1, 4)), np.ones(1), np.zeros(1))));"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False"]


def test_what_the_user_set_changes_no_byte_and_is_left_as_it_was() -> None:
    rows = [layer(0, "convolutional", 1e-6), layer(1, "yolo", 1e-3)]
    plain = to_png(draw_layers(rows, 2e-4, "title"))
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30, "path.simplify": False}):
        before = dict(mpl.rcParams)
        changed = to_png(draw_layers(rows, 2e-4, "title"))
        assert dict(mpl.rcParams) == before
    assert changed == plain
    assert Image.open(io.BytesIO(plain)).info.keys() <= {"dpi"}, "neither date nor version"


# ------------------------------------------------------------------------------------------------ boxes


@pytest.mark.parametrize(("width", "height"), [(1, 1), (33, 20), (417, 299), (640, 427)])
def test_without_boxes_the_picture_comes_out_bit_for_bit(width: int, height: int) -> None:
    picture = noise(width, height)
    np.testing.assert_array_equal(pixels(draw_detections(picture, found())), picture)


def test_a_box_lies_where_its_numbers_say() -> None:
    image = pixels(draw_detections(grey(640, 400), found((300, 200, 200, 100, 0.625, 1)), ("cat", "dog")))
    is_line = (image == rgb(CLASS_COLOURS[1])).all(axis=2)
    rows, columns = np.flatnonzero(is_line[:, 300]), np.flatnonzero(is_line[200])
    # Centre 300, 200, size 200 x 100: corners at x 200 and 400, y 150 and 250; a line of two pixels covers them.
    assert {199, 200} == set(columns[columns < 300]) and {399, 400} == set(columns[columns > 300])
    assert {149, 150} == set(rows[rows < 200]) and {249, 250} == set(rows[rows > 200])


def test_labels_say_class_and_probability() -> None:
    figure = draw_detections(
        grey(640, 400), found((300, 200, 200, 100, 0.625, 1), (90, 90, 40, 40, 0.5, 7)), ("cat", "dog")
    )
    assert sorted(words(figure)) == ["7 0.50", "dog 0.62"]


def test_pairs_are_solid_and_dashed_and_lone_boxes_dotted_with_a_symbol() -> None:
    reference = found((100, 200, 80, 80, 0.9, 0), (300, 200, 80, 80, 0.8, 0))
    candidate = found((100, 200, 80, 80, 0.9, 0), (500, 200, 80, 80, 0.7, 0))
    figure = draw_match(grey(640, 400), reference, candidate, match(reference, candidate), ("cat",))
    assert sorted(words(figure)) == ["cat 0.90", "⊕ cat 0.70", "⊖ cat 0.80"]
    bottom = pixels(figure)[240]  # the lower edge of every box: centre 200, height 80
    blue, orange = (bottom == rgb(REFERENCE)).all(axis=1), (bottom == rgb(CANDIDATE)).all(axis=1)
    pair, lost, extra = slice(70, 130), slice(270, 330), slice(470, 530)
    assert blue[pair].sum() > 15 and orange[pair].sum() > 15, "dashes of the candidate on the reference's line"
    assert blue[lost].any() and not orange[lost].any()
    assert orange[extra].any() and not blue[extra].any()
    for dotted in (blue[lost], orange[extra]):
        # a dot is 3.2 pixels long, the gap 4.8: seven or eight of them in 60 pixels
        assert np.count_nonzero(np.diff(dotted.astype(int)) == 1) in (7, 8)


def test_boxes_that_are_nowhere_are_left_out() -> None:
    nowhere = found((np.nan, 10, 5, 5, 0.9, 0), (10, np.inf, 5, 5, 0.8, 0), (10, 10, 6, 6, 0.7, 0))
    figure = draw_match(grey(40, 40), nowhere, nowhere, match(nowhere, nowhere))
    assert words(figure) == ["0 0.70"]
    assert pixels(figure).shape == (40, 40, 3)


@pytest.mark.parametrize("name", ["$\\frac{1}{", "人", "a\nb", "\u202egod", "\udcff", "_^{", "\x00", "e\u0301"])
def test_any_class_name_can_be_drawn(name: str) -> None:
    figure = draw_detections(grey(200, 100), found((100, 60, 50, 50, 0.5, 0)), (name,))
    (text,) = words(figure)
    assert pixels(figure).shape == (100, 200, 3)
    assert "\n" not in text and "\u202e" not in text and text.endswith(" 0.50")


def test_letters_that_the_font_lacks_are_told() -> None:
    assert drawable("人 dog") == "\\u4eba dog"
    assert drawable("🐕") == "\\U0001f415"
    assert visible("god\u202egod\x07\t.") == "god\\u202egod\\u0007 ."


def test_width_of_letters_is_what_matplotlib_draws() -> None:
    figure = Figure(dpi=100)
    text = figure.text(0, 0, "truck 0.62 W", fontsize=720, fontfamily="DejaVu Sans")  # 1000 pixels an em
    drawn = text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width
    assert width_in_ems("truck 0.62 W") == pytest.approx(drawn / 1000, rel=0.02)


def test_a_class_without_name_is_its_number() -> None:
    assert [name_of(("cat",), i) for i in (-1, 0, 1)] == ["-1", "cat", "1"]


@given(st.lists(st.tuples(st.integers(-50, 250), st.integers(-50, 150), st.integers(5, 60)), max_size=12))
def test_labels_stay_inside_and_apart_while_there_is_room(boxes: list[tuple[int, int, int]]) -> None:
    taken: list[Plate] = []
    canvas = np.zeros((400, 260), int)
    for x, y, width in boxes:
        plate = place_label((x, y), (width, 10), (260, 400), taken)
        taken.append(plate)
        canvas[int(plate.top) : int(plate.top) + 10, int(plate.left) : int(plate.left) + width] += 1
    assert canvas.sum() == sum(10 * width for _, _, width in boxes), "all of every plate lies in the picture"
    assert canvas.max(initial=0) <= 1


def test_a_label_larger_than_the_picture_stays_at_its_corner() -> None:
    assert place_label((5, 5), (100, 20), (40, 10), []) == Plate(0, 0, 100, 20)


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


# Machado, Oliveira, Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# severity 1.0: protanopia, deuteranopia, tritanopia; on linear RGB.
BLINDNESS = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
)


def linear(colour: str) -> NDArray[np.float64]:
    c = np.array(rgb(colour)) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("matrix", BLINDNESS, ids=["protanopia", "deuteranopia", "tritanopia"])
def test_reference_and_candidate_differ_for_every_eye(matrix: tuple[tuple[float, ...], ...]) -> None:
    blue, orange = (np.clip(np.array(matrix) @ linear(colour), 0, 1) ** (1 / 2.2) for colour in (REFERENCE, CANDIDATE))
    assert np.linalg.norm(blue - orange) > 0.4


@pytest.mark.parametrize("colour", [*CLASS_COLOURS, REFERENCE, CANDIDATE])
def test_labels_are_readable_on_their_plate(colour: str) -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    dark, light = sorted((linear(c) @ weights + 0.05) for c in (colour, ink_on(colour)))
    assert light / dark > 3.8  # WCAG asks 3 of large letters; vermilion and purple reach no more with any ink


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
