"""Boxes on pictures, measured back from the pixels of the PNG: places, colours, labels, and names of strangers."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from figure_samples import found, grey, layer, noise, pixels, rgb, words
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from workbench.detections import match
from workbench.figures import (
    draw_detections,
    draw_layers,
    draw_match,
    to_png,
)
from workbench.figures.canvas import drawable, width_in_ems
from workbench.figures.labels import name_of, visible
from workbench.figures.palette import CANDIDATE, CLASS_COLOURS, REFERENCE, ink_on
from workbench.figures.placing import Plate, place_label

ROOT = Path(__file__).resolve().parents[2]


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


# ------------------------------------------------------------------------------------------------ colours

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
