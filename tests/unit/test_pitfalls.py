"""Each pitfall does what its text says, on the shipped models and on a small network that has a place for every one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pytest
from engine_models import random_input
from pitfall_models import Picture, detect, first_difference, load_shipped_pictures, open_menagerie, open_shipped

from workbench.detections import Detections, match
from workbench.errors import OptionError
from workbench.model import Model
from workbench.pitfalls import PITFALLS, STAGES, find_pitfall, switch_on

SHIPPED = ("shapes-tiny3", "shapes-tiny4")

# The first layer that differs on the same input, in shapes-tiny3 and shapes-tiny4; None: none does; "idle": no effect.
FIRST: dict[str, tuple[int | str | None, int | str | None]] = {
    "epsilon-1e-5-inside": (0, "idle"),
    "epsilon-1e-6-outside": ("idle", 0),
    "epsilon-1e-3": (0, 0),
    "header-12": (0, 0),
    "header-16": (0, 0),
    "header-20": ("idle", "idle"),
    "header-24": (0, 0),
    "weights-before-batchnorm": (0, 0),
    "batchnorm-pytorch-order": (0, 0),
    "heads-last": (15, 26),
    "heads-reversed": (15, 26),
    "blocks-exchanged": ("idle", 4),
    "kernel-cnkk": (0, 0),
    "kernel-kkcn": (0, 0),
    "kernel-nkkc": (0, 0),
    "kernel-columns-first": (0, 0),
    "route-reversed": (21, 6),
    "route-groups-ignored": ("idle", 3),
    "route-wrong-half": ("idle", 3),
    "maxpool-3-1-1": (12, "idle"),
    "maxpool-zero-padded": (12, 19),
    "maxpool-unpadded": (12, 19),
    "maxpool-padded-left": (12, "idle"),
    "leaky-0.01": (0, "idle"),
    "mish-as-relu": ("idle", 0),
    "upsample-bilinear": (20, 31),
    "upsample-align-corners": (20, 31),
    "shortcut-wrong-layer": (11, "idle"),
    "shortcut-without-activation": ("idle", "idle"),
    "fp16-overflow": (0, 0),
    "letterbox": ("idle", None),
    "stretch": (None, "idle"),
    "letterbox-uncorrected": (None, "idle"),
    "stretch-corrected-as-letterbox": (None, None),
    "scale-x-y-ignored": ("idle", 28),
    "no-sigmoid-on-xy": (17, 28),
    "double-sigmoid": (17, 28),
    "new-coords-ignored": ("idle", "idle"),
    "masks-exchanged": (None, None),
    "mask-1-2-3": (None, None),
    "mask-0-1-2": ("idle", "idle"),
    "anchors-swapped": (None, None),
    "grid-transposed": (None, None),
    "probability-without-objectness": (None, None),
    "nms-missing": (None, None),
    "nms-kind-ignored": ("idle", None),
    "bgr": (None, None),
}

NOTHING_LEFT = (
    "header-12 header-16 header-24 weights-before-batchnorm batchnorm-pytorch-order heads-last heads-reversed "
    "kernel-cnkk kernel-kkcn kernel-nkkc hwc masks-exchanged anchors-in-cells boxes-in-network-pixels"
).split()
NOTHING_MOVES = "nms-missing nms-thresh-0.7 nms-thresh-0.2 letterbox-tidy-margin epsilon-1e-6-inside".split()

# Boxes lost in percent (least, most) and new ones per box (least, most).
EFFECTS: dict[str, tuple[float, float, float, float]] = {
    "bgr": (20, 80, 0.1, 1),
    "not-divided": (85, 100, 5, 50),
    "imagenet-normalised": (5, 60, 0.1, 1),
    "stretch": (5, 60, 0.05, 1),
    "letterbox": (5, 60, 0.05, 1),
    "letterbox-uncorrected": (15, 70, 0.15, 0.7),
    "stretch-corrected-as-letterbox": (20, 80, 0.2, 0.9),
    "mish-as-relu": (40, 100, 0, 1),
    "route-wrong-half": (90, 100, 0, 5),
    "route-groups-ignored": (100, 100, 0, 0),
    "blocks-exchanged": (90, 100, 0, 5),
    "maxpool-padded-left": (10, 80, 0.1, 2),
    "leaky-0.01": (3, 100, 0, 1),
    "grid-transposed": (60, 100, 0.6, 3),
    "double-sigmoid": (0, 30, 30, 1000),
    "no-sigmoid-on-xy": (20, 90, 0.5, 5),
    "nms-missing": (0, 0, 1, 20),
    "nms-across-classes": (1, 40, 0, 0.1),
    "probability-without-objectness": (0, 10, 0.02, 1),
}


@cache
def shipped(name: str) -> tuple[Model, dict[str, Picture], dict[str, Detections]]:
    model, pictures = open_shipped(name), load_shipped_pictures()
    return model, pictures, {key: detect(model, picture) for key, picture in pictures.items()}


@cache
def faulty_boxes(name: str, pitfall: str) -> dict[str, Detections]:
    model, pictures, _ = shipped(name)
    model = switch_on(model, pitfall)
    return {key: detect(model, picture) for key, picture in pictures.items()}


def compared(name: str, pitfall: str) -> tuple[int, int, int, Any]:
    """Boxes of the healthy model, kept ones, new ones, and the offsets of the kept (n, 4)."""
    truth, found = shipped(name)[2], faulty_boxes(name, pitfall)
    matches = [match(truth[key], found[key]) for key in truth]
    kept, new = (
        sum(len(part) for part in parts) for parts in ([m.pairs for m in matches], [m.only_candidate for m in matches])
    )
    return sum(map(len, truth.values())), kept, new, np.concatenate([m.pairs.offsets for m in matches])


def places(table: Iterable[str], idle_too: bool = False) -> list[tuple[str, str]]:
    """Shipped model and pitfall, without those that are idle on it."""
    pairs = [
        (name, pitfall, FIRST.get(pitfall, (None, None))[i]) for pitfall in table for i, name in enumerate(SHIPPED)
    ]
    return [(name, pitfall) for name, pitfall, first in pairs if idle_too or first != "idle"]


# ------------------------------------------------------------------------------------------------------ registry


def test_every_pitfall_tells_all_about_itself() -> None:
    for name, pitfall in PITFALLS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9.]+)*", name) and name == pitfall.name
        assert pitfall.stage in STAGES
        for words in (pitfall.title, pitfall.text, pitfall.looks_like, pitfall.seen_in):
            assert words and words == " ".join(words.split()), name
        compile(pitfall.fix, name, "exec")
    assert len({pitfall.text for pitfall in PITFALLS.values()}) > 60


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"unknown pitfall; expected epsilon-1e-5-inside, .*, found 'leaky'"):
        find_pitfall("leaky")


@pytest.mark.parametrize("name", PITFALLS)
def test_the_model_given_stays_as_it_is_and_idle_means_no_change(name: str) -> None:
    model = open_menagerie()
    network, spans = model.network, model.weights.ledger.spans
    x, reason = random_input(model), PITFALLS[name].idle(model)
    faulty = switch_on(model, name)
    assert model.network is network and model.weights.ledger.spans == spans
    if reason:
        assert first_difference(model, faulty, x, 0.0) is None
        assert (faulty.preprocessing.letterbox, faulty.nms) == (model.preprocessing.letterbox, model.nms)


@pytest.mark.parametrize("name", [n for n, p in PITFALLS.items() if p.stage == "network"])
def test_every_mistake_in_the_network_finds_a_place_in_the_menagerie(name: str) -> None:
    model = open_menagerie()
    assert PITFALLS[name].idle(model) is None
    assert first_difference(model, switch_on(model, name), random_input(model)) is not None


# ------------------------------------------------------------------------------------------------ shipped models


@pytest.mark.parametrize(("name", "pitfall"), places(FIRST, idle_too=True))
def test_the_first_layer_that_differs_on_a_shipped_model(name: str, pitfall: str) -> None:
    model, pictures, _ = shipped(name)
    expected = FIRST[pitfall][SHIPPED.index(name)]
    reason = PITFALLS[pitfall].idle(model)
    assert (reason is not None) == (expected == "idle"), reason
    first = first_difference(
        model, switch_on(model, pitfall), model.preprocessing.apply(pictures["meadow-640x427"])[None]
    )
    assert first == (None if expected == "idle" else expected)


@pytest.mark.parametrize(("name", "pitfall"), places(NOTHING_LEFT))
def test_of_these_no_true_box_is_left(name: str, pitfall: str) -> None:
    assert compared(name, pitfall)[1] == 0


@pytest.mark.parametrize(("name", "pitfall"), places(NOTHING_MOVES))
def test_of_these_all_boxes_stay(name: str, pitfall: str) -> None:
    boxes, kept, _, offsets = compared(name, pitfall)
    assert kept == boxes
    assert np.abs(offsets).max() < 0.01


@pytest.mark.parametrize(("name", "pitfall"), places(EFFECTS))
def test_boxes_are_lost_and_found_as_the_text_says(name: str, pitfall: str) -> None:
    boxes, kept, new, _ = compared(name, pitfall)
    least, most, least_new, most_new = EFFECTS[pitfall]
    assert least <= 100 * (boxes - kept) / boxes <= most
    assert least_new <= new / boxes <= most_new


@pytest.mark.parametrize("name", SHIPPED)
def test_resizing_by_the_nearest_pixel_moves_boxes_to_the_lower_right(name: str) -> None:
    offsets = compared(name, "resize-nearest")[3]
    assert offsets[:, 0].mean() > 0.3 and offsets[:, 1].mean() > 0.3
    assert np.abs(compared(name, "resize-half-pixel")[3][:, :2].mean(0)).max() < 0.3


@pytest.mark.parametrize("name", SHIPPED)
def test_boxes_in_network_pixels_are_all_there_at_the_scale_of_the_network(name: str) -> None:
    model, pictures, truth = shipped(name)
    found = faulty_boxes(name, "boxes-in-network-pixels")
    for key, picture in pictures.items():
        place = model.preprocessing.placement(picture.shape[1], picture.shape[0])
        net = np.array([model.network.width, model.network.height] * 2)
        np.testing.assert_allclose(found[key].boxes, place.to_network(truth[key].boxes) * net, atol=1e-3)
        np.testing.assert_array_equal(found[key].scores, truth[key].scores)


def test_scale_x_y_ignored_moves_centres_by_at_most_a_part_of_a_cell_and_nothing_else() -> None:
    """1.05: at most 0.025 cells of 16 network pixels, in a picture of 640 in 192."""
    offsets = compared("shapes-tiny4", "scale-x-y-ignored")[3]
    assert 0.1 < np.abs(offsets[:, :2]).max() < 0.025 * 16 * 640 / 192
    assert np.abs(offsets[:, 2:]).max() < 1e-3
