"""How a diagnosis looks in a terminal: the verdict first, then the evidence, then what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from workbench.errors import printable
from workbench.terminal import say, show_table

if TYPE_CHECKING:
    from workbench.diagnosis import Diagnosis
    from workbench.diagnosis.result import Aligned

COLOURS = {"same": "green", "different": "red", "not shown": "bright_black"}
VERDICTS = {
    "nothing wrong": "NOTHING WRONG FOUND",
    "explained": "EXPLAINED",
    "explained in part": "EXPLAINED IN PART",
    "unexplained": "DIFFERENT: no known pitfall explains this",
    "nothing compared": "NOTHING COMPARED: none of their numbers has the size of a layer, a head or boxes",
}


def show_diagnosis(found: Diagnosis) -> None:
    """Everything that was found."""
    if found.aligned:
        show_alignment(found)
    for result in found.results:
        say(printable(f"result  {result}"))
    if found.not_aligned:
        say(printable(f"not aligned: {', '.join(found.not_aligned)}"))
    for text in found.right:
        say(printable(f"right   {text}"))
    if found.fault:
        say(printable(f"first difference: {found.fault}"))
        for detail in found.details:
            say(f"        {detail}")
    for title, part in (("before", found.before), ("after", found.after), ("second", found.second)):
        if part and found.fault:
            say(f"{title:<7} {' + '.join(part.pitfalls) or 'as Darknet computes'}: {printable(part.text)}")
    if found.precision != "float32":
        say(f"note: their arithmetic is {found.precision}; what is smaller than its noise is not seen")
    for remark in found.remarks:
        say(printable(f"note: {remark}"))
    show_verdict(found)


def show_verdict(found: Diagnosis) -> None:
    """The verdict, what cannot be told from it, and the change."""
    names = f": {' + '.join(found.pitfalls)}" if found.pitfalls else ""
    say(f"{VERDICTS[found.verdict]}{names}")
    for tie in found.ties:
        say(f"        this evidence cannot tell it from {' + '.join(tie)}")
    if found.change:
        say(found.change)
        for line in found.code.splitlines():
            say(f"    {line}")


def show_alignment(found: Diagnosis) -> None:
    """One row a layer."""
    columns = (("layer", "left"), ("", "left"), ("theirs", "left"), ("layout", "left"), ("max / std", "right"))
    show_table(columns, [_aligned_row(row) for row in found.aligned])


def _aligned_row(row: Aligned) -> tuple[str, ...]:
    number = "" if row.max_over_std is None else f"{row.max_over_std:.2g}"
    state = click.style(row.state, fg=COLOURS[row.state])
    return row.place, state, printable(row.theirs), row.layout, number
