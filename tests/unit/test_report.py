"""The report read back as text, with an HTML parser: what it says, what it refuses, and what it never asks for."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from report_samples import EVIL, MOVED, ONE, TURNED, Page, certificate_for, compared, found, picture, small_model

from workbench.certificate import Certificate, Gate
from workbench.dialects import ALEXEYAB
from workbench.errors import OptionError
from workbench.figures.labels import visible
from workbench.gates import GATES
from workbench.model import Model, open_model
from workbench.report import render_report, write_report
from workbench.report.markup import number, signed, text
from workbench.report.words import meaning
from workbench.validation import shipped_pictures, validate
from workbench.zoo import data_dir

Pictures = dict[str, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def proved() -> tuple[Certificate, Model, Pictures]:
    """The shipped model with everything that a real validation says."""
    model = open_model(data_dir() / "shapes-tiny3.cfg", data_dir() / "shapes-tiny3.weights")
    pictures = dict(shipped_pictures(1))
    return validate(model, pictures), model, pictures


def test_a_real_report_says_everything(proved: tuple[Certificate, Model, Pictures]) -> None:
    certificate, model, pictures = proved
    page = Page(render_report(certificate, model, pictures))
    (title,) = page.inside["title"][:1]
    assert title == "PASSED: shapes-tiny3.cfg – Darknet Workbench"
    shown = " ".join(page.inside["body"])
    for word in (certificate.cfg_sha256, certificate.weights_sha256, certificate.graph_sha256, certificate.epsilon):
        assert word in shown
    gates = {row[1]: row for row in page.rows if row[0] in ("✓ passed", "✗ FAILED")}
    assert len(gates) == len(certificate.gates) >= 9
    for gate in certificate.gates:
        assert meaning(gate.name) and gate.name + meaning(gate.name) in gates
    layers = [row for row in page.rows if row[-1] in ("✓ within", "✗ beyond")]
    assert [row[0] for row in layers] == [str(layer.index) for layer in certificate.layers]
    network = [row for row in page.rows if row[-1].startswith("0x") or row[-1] == "–"]
    assert len(network) == len(model.network.layers)
    assert all(str(remark) in shown for remark in certificate.remarks)
    assert all(f"{name}" in shown and version in shown for name, version in certificate.versions.items())


def test_every_step_that_can_fail_has_a_meaning() -> None:
    assert all(meaning(step) for step, _ in GATES)
    assert meaning("reference") and not meaning("no such gate")


def test_a_report_asks_nothing_of_anybody(proved: tuple[Certificate, Model, Pictures]) -> None:
    source = render_report(*proved)
    page = Page(source)
    assert {address.split(",")[0] for address in page.addresses if not address.startswith("#")} == {
        "data:image/jpeg;base64"
    }
    targets = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= targets
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form", "audio", "video"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]
    (style,), (script,) = page.inside["style"], page.inside["script"]
    assert not re.search(r"url\(|@import|@font-face", style)
    assert not re.search(r"fetch|import|XMLHttpRequest|WebSocket|innerHTML|eval", script)
    assert "http" not in re.sub(r"http-equiv", "", re.sub(r"data:[^\"]*", "", source))


def test_equal_values_give_an_equal_page() -> None:
    model = small_model()
    certificate = certificate_for(model, pictures=(compared("a.png", ONE, MOVED),))
    one, other = (render_report(certificate, model, {"a.png": picture()}) for _ in range(2))
    assert one == other


# ------------------------------------------------------------------------------------------------ what it says


def test_boxes_are_listed_with_their_offsets_and_the_lone_ones_with_a_symbol() -> None:
    model = small_model()
    page = Page(
        render_report(certificate_for(model, pictures=(compared("a.png", ONE, MOVED),)), model, {"a.png": picture()})
    )
    # class, found by, probabilities, their difference, x, y, width, height of the reference, dx, dy, dw, dh
    assert [
        "cat",
        "both",
        "0.9000",
        "0.8750",
        "-0.0250",
        "50.0",
        "40.0",
        "20.0",
        "20.0",
        "+0.250",
        "0",
        "0",
        "0",
    ] in page.rows
    lost = ["dog", "⊖ reference only", "0.7500", "–", "–", "20.0", "20.0", "10.0", "12.0", *"––––"]
    extra = ["dog", "⊕ candidate only", "–", "0.6250", "–", "80.0", "60.0", "10.0", "12.0", *"––––"]
    assert lost in page.rows and extra in page.rows
    assert ["a.png", "0.5", "2", "2", "1", "1", "0.25", "0.025"] in page.rows
    assert "arrows × 20, the longest is 0.25 px" in page.inside["figcaption"][0]  # 96 / 8 / 0.25 = 48, so 20


def test_the_overlay_draws_every_box_at_its_place() -> None:
    model = small_model()
    page = Page(
        render_report(certificate_for(model, pictures=(compared("a.png", ONE, MOVED),)), model, {"a.png": picture()})
    )
    boxes = {(attrs["x"], attrs["y"], attrs["width"], attrs["height"]) for tag, attrs in page.tags if tag == "rect"}
    for corners in (
        ("40.00", "30.00", "20.00", "20.00"),
        ("40.25", "30.00", "20.00", "20.00"),
        ("75.00", "54.00", "10.00", "12.00"),
    ):
        assert corners in boxes
    (svg,) = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("viewbox") == "0 0 96 80"]
    assert svg["aria-hidden"] == "true", "the table says the same in words"
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [
        "a.png, 96 by 80 pixels, with the boxes of both engines; the table below lists them."
    ]
    said = {entry for entry in page.inside["title"] if ":" in entry}
    assert {"reference: cat 0.90", "candidate: cat 0.88", "reference: ⊖ dog 0.75", "candidate: ⊕ dog 0.62"} <= said


def test_the_verdict_is_a_sentence() -> None:
    model = small_model()
    failed = certificate_for(
        model, Gate("ledger", True), Gate("layers", False, 3.0, 2e-4), Gate("heads", False, 1.0, 2e-5)
    )
    lead = (
        "2 of 3 gates failed: layers, heads. The engines part company at layer 1 [yolo], line 10 of the cfg: "
        "its output is ∞ standard deviations off, 0.0002 are allowed."
    )
    assert lead in render_report(failed, model)
    passed = certificate_for(model, Gate("layers", True, 1e-5, 2e-4))
    assert "this model computes what darknet computes, each number within its limit" in render_report(passed, model)
    nothing = replace(
        certificate_for(model, Gate("reference", False, where="none can")), reference="none", layers=(), graph_sha256=""
    )
    page = render_report(nothing, model)
    assert "Nothing was proved: there was no independent engine to compare with." in page
    assert "No layer was compared." in page and "No boxes were compared." in page and "not written" in page
    assert "FAILED: small.cfg" in page


def test_a_threshold_above_which_nothing_was_found_is_told_so() -> None:
    model = small_model()
    rows = (compared("a.png", found(), found(), 0.5), compared("a.png", ONE, ONE, 0.25))
    page = Page(render_report(certificate_for(model, pictures=rows), model, {"a.png": picture()}))
    assert any("No box above 0.5, in either engine." in said for said in page.inside["p"])
    checked = [attrs["class"] for tag, attrs in page.tags if tag == "input" and "checked" in attrs]
    assert checked == ["see-both", "pick-1"], "the threshold with something to see comes first"
    assert (
        "no box has a partner" in page.inside["figcaption"][0]
        and "no centre moved at all" in page.inside["figcaption"][0]
    )


def test_a_picture_that_was_not_given_is_told_so() -> None:
    model = small_model()
    source = render_report(certificate_for(model, pictures=(compared("a.png", ONE, ONE),)), model)
    assert "The picture itself was not given to the report." in source and "data:image" not in source


def test_of_many_pictures_the_worst_are_shown() -> None:
    model = small_model()
    rows = [compared(f"{i:02}.png", ONE, ONE) for i in range(14)]
    rows[0], rows[13] = compared("00.png", ONE, MOVED), compared("13.png", ONE, MOVED)
    page = Page(
        render_report(certificate_for(model, pictures=tuple(rows)), model, {row.picture: picture() for row in rows})
    )
    assert len(page.inside["article"]) == 12 and {"00.png", "13.png"} <= set(page.inside["h3"])
    assert sum(row[0].endswith(".png") for row in page.rows) == 14
    assert "Shown are the 12 pictures that differ most; 2 more are in the table only." in page.inside["p"]


def test_large_photographs_keep_the_page_small() -> None:
    model = small_model()
    rows = tuple(compared(f"{i}.png", ONE, ONE) for i in range(4))
    photo = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
    source = render_report(certificate_for(model, pictures=rows), model, {row.picture: photo for row in rows})
    assert len(source) < 4 << 20
    assert 'width="2400" height="1800"' in source and 'viewBox="0 0 2400 1800"' in source


def test_the_command_line_is_one_that_the_program_takes(proved: tuple[Certificate, Model, Pictures]) -> None:
    from workbench.cli import validate as command

    certificate, model, _ = proved
    certificate = replace(certificate, options=replace(certificate.options, size=(96, 64)), source="it's.cfg")
    from workbench.report.sections import command_line

    program, name, *arguments = shlex.split(command_line(certificate, model, ["a b.jpg", "$c.jpg"]))
    assert (program, name) == ("workbench", "validate")
    given = command.make_context("validate", arguments).params
    assert given["images"] == (Path("a b.jpg"), Path("$c.jpg")) and given["static"] == "96x64"
    assert (given["dialect"], given["reference"]) == (certificate.dialect, certificate.reference)
    assert (str(given["cfg"]), str(given["weights"])) == ("it's.cfg", "shapes-tiny3.weights")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.234e-5, "1.23e-5"),
        (0.5, "0.5"),
        (float("inf"), "∞"),
        (float("nan"), "nan"),
        (24, "24"),
        (1e-10, "1e-10"),
    ],
)
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0"), (0.3, "+0.300"), (-1.5e-5, "-1.50e-5"), (float("inf"), "+∞")])
def test_changes_carry_their_sign(value: float, shown: str) -> None:
    assert signed(value) == shown


# ------------------------------------------------------------------------------------------------ what it refuses


def test_a_certificate_of_another_model_is_refused(tmp_path: Path) -> None:
    model = small_model()
    other = model.with_dialect(ALEXEYAB)
    with pytest.raises(OptionError, match="report: the certificate speaks of another model or dialect; expected"):
        write_report(certificate_for(model), other, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    for name in ("shapes-tiny3.cfg", "shapes-tiny3.weights"):
        shutil.copy(data_dir() / name, tmp_path)
    model = open_model(tmp_path / "shapes-tiny3.cfg", tmp_path / "shapes-tiny3.weights")
    with pytest.raises(OptionError, match="is also an input"):
        write_report(certificate_for(model), model, tmp_path / "shapes-tiny3.cfg")
    write_report(certificate_for(model), model, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(certificate_for(model), model)


@given(st.text())
def test_escaped_text_is_text_and_nothing_else(value: str) -> None:
    escaped = text(value)
    assert not set(escaped) & set("<>\"'") and html.unescape(escaped) == visible(value)
    escaped.encode("utf-8")


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    model = small_model((EVIL, TURNED))
    names = (EVIL, TURNED, "bytes\udcff.jpg")
    rows = tuple(compared(name, ONE, MOVED) for name in names)
    certificate = certificate_for(model, Gate(EVIL, False, 1.0, 2.0, EVIL, EVIL), pictures=rows)
    certificate = replace(certificate, source=EVIL, remarks=(EVIL,), versions={EVIL: EVIL})
    write_report(certificate, model, tmp_path / "evil.html", {name: picture() for name in names})
    source = (tmp_path / "evil.html").read_text(encoding="utf-8")
    page = Page(source)
    assert page.inside["title"][0] == f"FAILED: {EVIL} – Darknet Workbench"
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert {attrs["src"][:5] for tag, attrs in page.tags if tag == "img" and attrs["src"]} == {"data:"}
    assert "\u202e" not in source and "\\u202egpj.tac" in source and "bytes\\udcff.jpg" in source
