"""A part of the page for each picture: overlay, switches, and every box with its offsets in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from workbench.comparison import PictureComparison
from workbench.detections import Detections
from workbench.figures.labels import name_of
from workbench.figures.palette import ONLY_CANDIDATE, ONLY_REFERENCE
from workbench.model import Model
from workbench.report.markup import cell, number, numeric, row, signed, table, text
from workbench.report.overlays import Overlay, to_data_uri

MOST_SHOWN = 12
"""More pictures than these are in the summary table only: the page stays at a few megabytes."""
LONGEST_SIDE = {4: 1280, 8: 960, MOST_SHOWN: 720}
"""Up to so many pictures shown -> longest side in pixels."""
VIEWS = (
    ("both", "both"),
    ("reference", "reference only"),
    ("candidate", "candidate only"),
    ("arrows", "offsets, magnified"),
)
HEADS = (
    "class",
    "found by",
    "#p reference",
    "#p candidate",
    "#Δp",
    "#x",
    "#y",
    "#width",
    "#height",
    "#dx",
    "#dy",
    "#dw",
    "#dh",
)

Pictures = Mapping[str, NDArray[np.uint8]]


def show_pictures(rows: Sequence[PictureComparison], model: Model, pictures: Pictures) -> str:
    """A summary of all pictures, then the overlays, those with the largest differences where there are many."""
    if not rows:
        return "<p>No boxes were compared.</p>"
    groups: dict[str, list[PictureComparison]] = {}
    for comparison in rows:
        groups.setdefault(comparison.picture, []).append(comparison)
    shown = sorted(groups, key=lambda name: _badness(groups[name]), reverse=True)[:MOST_SHOWN]
    side = next(side for count, side in LONGEST_SIDE.items() if len(shown) <= count)
    left_out = len(groups) - len(shown)
    remark = (
        f"<p>Shown are the {len(shown)} pictures that differ most; {left_out} more are in the table only.</p>"
        if left_out
        else ""
    )
    articles = [
        _article(number, groups[name], model, pictures.get(name), side)
        for number, name in enumerate(name for name in groups if name in shown)
    ]
    return _summary(rows) + remark + "\n".join(articles)


def _badness(group: list[PictureComparison]) -> tuple[int, float, int]:
    """Lost and added boxes first, then offsets, then how much there is to see."""
    alone = sum(_alone_count(one) for one in group)
    return alone, max(row.match.max_offset_px for row in group), max(len(row.reference) for row in group)


def _alone_count(one: PictureComparison) -> int:
    return len(one.match.only_reference) + len(one.match.only_candidate)


def _summary(rows: Sequence[PictureComparison]) -> str:
    heads = (
        "picture",
        "#threshold",
        "#reference",
        "#candidate",
        "#only reference",
        "#only candidate",
        "#largest offset, px",
        "#largest Δ probability",
    )
    lines = [
        row([
            cell(text(one.picture)), numeric(one.thresh), numeric(len(one.reference)), numeric(len(one.candidate)),
            numeric(len(one.match.only_reference)), numeric(len(one.match.only_candidate)),
            numeric(one.match.max_offset_px), numeric(one.match.max_dscore),
        ], "bad" if _alone_count(one) else "")
        for one in rows
    ]  # fmt: skip
    return table("Boxes on each picture at each threshold", heads, lines, sortable=True)


def _article(
    place: int, group: list[PictureComparison], model: Model, picture: NDArray[np.uint8] | None, side: int
) -> str:
    name, key = group[0].picture, f"p{place}"
    tables = "".join(f'<div class="at at-{i}">{_boxes(one, model)}</div>' for i, one in enumerate(group))
    if picture is None:
        view = "<p>The picture itself was not given to the report.</p>"
        switches = _thresholds(key, group)
    else:
        overlays = [Overlay(one, model, picture.shape[1], picture.shape[0]) for one in group]
        view = _view(name, overlays, picture, side)
        switches = _choice(key + "-view", "Show", [(f"see-{view}", label) for view, label in VIEWS]) + _thresholds(
            key, group
        )
    return (
        f'<article class="shot" aria-labelledby="{key}-name"><h3 id="{key}-name">{text(name)}</h3>'
        f'<div class="switches">{switches}</div>{view}{tables}</article>'
    )


def _thresholds(key: str, group: list[PictureComparison]) -> str:
    """Chosen at first is the threshold with the most to see: boxes without partner, else boxes."""
    first = max(range(len(group)), key=lambda i: (_alone_count(group[i]), len(group[i].reference)))
    options = [(f"pick-{i}", f"{one.thresh:g}") for i, one in enumerate(group)]
    return _choice(key + "-at", "Probability above", options, first)


def _choice(name: str, legend: str, options: list[tuple[str, str]], first: int = 0) -> str:
    """Radio buttons; the style sheet does the rest, no script takes part."""
    checked = ["" for _ in options]
    checked[first] = " checked"
    buttons = "".join(
        f'<label><input type="radio" name="{name}" class="{kind}"{mark}>{text(label)}</label>'
        for (kind, label), mark in zip(options, checked, strict=True)
    )
    return f"<fieldset><legend>{text(legend)}</legend>{buttons}</fieldset>"


def _view(name: str, overlays: list[Overlay], picture: NDArray[np.uint8], side: int) -> str:
    height, width = picture.shape[:2]
    groups = "".join(overlay.draw(i) for i, overlay in enumerate(overlays))
    scales = "".join(
        f'<span class="at at-{i}">{text(overlay.say_offsets())}</span>' for i, overlay in enumerate(overlays)
    )
    said = f"{name}, {width} by {height} pixels, with the boxes of both engines; the table below lists them."
    image = f'<img src="{to_data_uri(picture, side)}" width="{width}" height="{height}" alt="{text(said)}">'
    return (
        f'<figure><div class="stack">{image}'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{groups}</svg></div>'
        f'<figcaption><span class="line solid"></span>reference <span class="line dashed"></span>candidate '
        f'<span class="line dotted"></span>{ONLY_REFERENCE} only reference, {ONLY_CANDIDATE} only candidate '
        f'<span class="scale">Offsets of the centres: {scales}.</span></figcaption></figure>'
    )  # fmt: skip


def _boxes(one: PictureComparison, model: Model) -> str:
    """Pairs by falling probability, then who has no partner."""
    pairs = one.match.pairs
    order = sorted(range(len(pairs)), key=lambda i: int(pairs.reference[i]))
    lines = [_pair(one, model, i) for i in order]
    lines += [_alone(one.reference, model, int(i), True) for i in one.match.only_reference]
    lines += [_alone(one.candidate, model, int(i), False) for i in one.match.only_candidate]
    if not lines:
        return f"<p>No box above {one.thresh:g}, in either engine.</p>"
    return table(
        f"Boxes above {one.thresh:g} on {one.picture}, in pixels of the picture",
        HEADS,
        lines,
        kind="boxes",
        sortable=True,
    )


def _pair(one: PictureComparison, model: Model, index: int) -> str:
    pairs = one.match.pairs
    mine, theirs = int(pairs.reference[index]), int(pairs.candidate[index])
    cells = [cell(text(name_of(model.names, int(one.reference.classes[mine])))), cell("both")]
    cells += [_score(one.reference, mine), _score(one.candidate, theirs), _change(float(pairs.dscore[index]))]
    cells += _geometry(one.reference, mine) + [_change(float(value)) for value in pairs.offsets[index]]
    return row(cells)


def _alone(detections: Detections, model: Model, index: int, lost: bool) -> str:
    dash = cell("–", kind="n")
    name = cell(text(name_of(model.names, int(detections.classes[index]))))
    score = _score(detections, index)
    found = f"{ONLY_REFERENCE} reference only" if lost else f"{ONLY_CANDIDATE} candidate only"
    scores = (score, dash) if lost else (dash, score)
    return row([name, cell(found), *scores, dash, *_geometry(detections, index), *[dash] * 4], "bad")


def _score(detections: Detections, index: int) -> str:
    score = float(detections.scores[index])
    return numeric(score, f"{score:.4f}")


def _geometry(detections: Detections, index: int) -> list[str]:
    return [
        numeric(value, f"{value:.1f}" if np.isfinite(value) else number(value))
        for value in detections.boxes[index].tolist()
    ]


def _change(value: float) -> str:
    return cell(signed(value), value, "n")
