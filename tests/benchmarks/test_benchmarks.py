"""The benchmarks run: every family gives its rows for a tiny model. No time is judged here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import conversion
import jobs
import latency
import pytest
import run
from networks import SHAPES, Files, cfg_text, conv, small_detector, write_files, yolo
from report import Row
from rich.console import Console
from series import Ratio, command, interleave

from workbench.cfg import parse_cfg
from workbench.dialects import PJREDDIE
from workbench.ledger import build_ledger
from workbench.network import build_network

TINY = [conv(8, 3, 32), conv(16, 1, activation="mish"), *yolo("0,1,2")]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process: a child would import torch each time."""

    def job(name: str, **arguments: Any) -> dict[str, Any]:
        return jobs.answer(name, arguments)

    monkeypatch.setattr(conversion, "job", job)
    monkeypatch.setattr(latency, "job", job)
    monkeypatch.setattr(latency, "LIBRARY", Path("none"))  # loading it changes the arithmetic of the whole process


def models(folder: Path) -> dict[str, Files]:
    return {"tiny": write_files(cfg_text(TINY, 64), folder / "tiny")}


@pytest.mark.usefixtures("here")
def test_the_table_has_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "OUT", tmp_path)
    plan = run.Plan({"tiny": TINY}, {"tiny": TINY}, models, rounds=2, forwards=1)
    printed = io.StringIO()
    rows = run.run(plan, list(run.FAMILIES), Console(file=printed, width=200))

    whats = [(row.family, row.what.split(" (")[0], row.against) for row in rows]
    assert [what for family, what, _ in whats if family == conversion.TIME] == list(conversion.TIME_GOALS)
    assert [what for family, what, _ in whats if family == conversion.MEMORY] == list(conversion.MEMORY_GOALS)
    assert next(against for family, _, against in whats if family == conversion.INSPECT) == "clock"
    assert [what for family, what, _ in whats if family == conversion.TRACED] == ["PyTorch's exporter"]
    one_thread, more, at_18 = ["traced file", "OpenCV", "our torch module"], ["traced file", "OpenCV"], ["traced file"]
    assert [against for family, _, against in whats if family == latency.LATENCY] == [
        *one_thread,
        *more,
        *at_18,
        *at_18,
    ]
    assert [what for family, what, _ in whats if family == latency.NODES] == ["tiny", "tiny, opset 18"]
    assert all(row.ratio and row.ratio.median > 0 for row in rows if row.family != conversion.MEMORY)
    assert all(family in printed.getvalue() for family in {row.family for row in rows})


def test_a_ratio_is_taken_round_by_round() -> None:
    """6/2, 4/4, 1/2: the median of the ratios is 1, not the ratio of the medians 4/2."""
    ours = [{"wall": wall, "cpu": 1.0} for wall in (6.0, 4.0, 1.0)]
    theirs = [{"wall": wall, "cpu": 2.0} for wall in (2.0, 4.0, 2.0)]
    assert Ratio.of(ours, theirs) == Ratio(1.0, 0.5, 3.0, 0.5)


def test_measurements_take_turns_in_both_directions() -> None:
    order: list[str] = []

    def take(name: str) -> dict[str, Any]:
        order.append(name)
        return {"wall": 1.0, "cpu": 1.0}

    interleave({"a": lambda: take("a"), "b": lambda: take("b")}, 2)
    assert order == ["a", "b", "b", "a"]


def test_a_goal_is_a_word_and_no_failure() -> None:
    ratio = Ratio(2.0, 1.5, 3.0)
    assert [Row("", "", "", ratio, goal).verdict for goal in (2.0, 1.5, 1.4, None)] == [
        "met",
        "in the spread",
        "missed",
        "",
    ]
    at_least = [Row("", "", "", ratio, goal, at_least=True).verdict for goal in (2.0, 3.0, 3.1)]
    assert at_least == ["met", "in the spread", "missed"]
    assert Row("", "", "", None, 1.0).verdict == ""


def test_a_program_that_fails_says_what_it_printed() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)ended with 3:.*broken"):
        command("sh", "-c", "echo broken >&2; exit 3")


@pytest.mark.parametrize("name", SHAPES)
def test_the_three_shapes_hold_the_same_bytes(name: str) -> None:
    network = build_network(parse_cfg(cfg_text(SHAPES[name](1.0))))
    assert build_ledger(network, PJREDDIE).bytes == pytest.approx(248e6, rel=0.01)
    assert len([layer for layer in network.layers if layer.kind == "convolutional"]) in (75, 401, 6)


def test_a_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    text = cfg_text(small_detector(1 / 16))
    first, second = write_files(text, tmp_path / "a"), write_files(text, tmp_path / "b")
    assert first.weights.read_bytes() == second.weights.read_bytes()
