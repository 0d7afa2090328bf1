"""A table: one row a measurement, what it was measured against, the goal, and whether it is met."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from series import Ratio

COLOURS = {"met": "green", "in the spread": "yellow", "missed": "red"}


@dataclass(frozen=True)
class Row:
    """`ratio` of `what` to `against`; `goal` is the largest (or with `at_least`, the smallest) that is wished for."""

    family: str
    what: str
    against: str
    ratio: Ratio | None
    goal: float | None = None
    at_least: bool = False
    unit: str = "x"
    detail: str = ""

    @property
    def verdict(self) -> str:
        """Whether the median reaches the goal, or the goal lies within the spread; empty where there is none."""
        if self.goal is None or self.ratio is None:
            return ""
        sign = -1 if self.at_least else 1
        median, *ends = (sign * value for value in (self.ratio.median, self.ratio.least, self.ratio.greatest))
        goal = sign * self.goal
        return "met" if median <= goal else "in the spread" if min(ends) <= goal else "missed"


def show(rows: Iterable[Row], console: Console | None = None) -> None:
    """Print all rows; a goal that is missed is no failure of the program."""
    console = console or Console(width=None if os.isatty(1) else 150)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("measured", "left"), ("against", "left"), ("median", "right"), ("least to greatest", "right"),
        ("processor", "right"), ("goal", "right"), ("", "left"), ("", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name == "measured")  # type: ignore[arg-type]
    family = None
    for row in rows:
        if row.family != family:
            table.add_row()
            table.add_row(f"[bold]{row.family}[/bold]")
            family = row.family
        table.add_row(*_cells(row))
    console.print(table)


def _cells(row: Row) -> tuple[str, ...]:
    r, u = row.ratio, row.unit
    if r is None:
        return (row.what, row.against, "-", "", "", "", "", row.detail)
    goal = "" if row.goal is None else f"{'≥' if row.at_least else '≤'} {row.goal:g}{u}"
    mark = f"[{COLOURS[row.verdict]}]{row.verdict}[/]" if row.verdict else ""
    cpu = "" if r.cpu is None else f"{r.cpu:.2f}{u}"
    return (
        row.what,
        row.against,
        f"{r.median:.2f}{u}",
        f"{r.least:.2f} to {r.greatest:.2f}",
        cpu,
        goal,
        mark,
        row.detail,
    )
