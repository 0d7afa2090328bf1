"""Values -> pieces of HTML. Whatever comes from a file passes through `text` before it reaches the page."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from workbench.figures.labels import visible


def text(value: object) -> str:
    """Escaped for HTML, between tags and inside quoted attributes alike; invisible characters are shown."""
    return html.escape(visible(str(value)), quote=True)


def number(value: float | None) -> str:
    """Three digits, short exponents: `1.23e-5`; a dash for None."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return _short(f"{value:.3g}")


def signed(value: float) -> str:
    """Always three digits and the sign, so that a column reads well; nothing but 0 for an exact zero."""
    return _short(f"{value:+#.3g}".replace("inf", "∞").replace("nan", "NaN")) if value else "0"


def spaced(value: int) -> str:
    """Thousands apart by narrow blanks that do not break."""
    return f"{value:,}".replace(",", "\u202f")


def cell(content: str, value: object = None, kind: str = "") -> str:
    """A `<td>`; content is HTML, `value` what the column sorts by, `kind` its class."""
    attributes = (f' class="{kind}"' if kind else "") + (f' data-value="{text(value)}"' if value is not None else "")
    return f"<td{attributes}>{content}</td>"


def numeric(value: float | None, shown: str | None = None) -> str:
    """A right-aligned cell that sorts by its value."""
    return cell(number(value) if shown is None else shown, value, "n")


def row(cells: Iterable[str], kind: str = "") -> str:
    """A `<tr>` of cells."""
    return f'<tr class="{kind}">' + "".join(cells) + "</tr>" if kind else "<tr>" + "".join(cells) + "</tr>"


def table(caption: str, heads: Sequence[str], rows: Sequence[str], kind: str = "", sortable: bool = False) -> str:
    """A table in a frame that scrolls, and that the keyboard reaches; `heads` starting with `#` are numeric columns."""
    columns = "".join(
        f'<th scope="col"{" class=n" if head.startswith("#") else ""}>{text(head.removeprefix("#"))}</th>'
        for head in heads
    )
    sort = " data-sortable" if sortable else ""
    return (
        f'<div class="frame {kind}" role="region" tabindex="0" aria-label="{text(caption)}"><table{sort}>'
        f"<caption>{text(caption)}</caption><thead><tr>{columns}</tr></thead>\n<tbody>"
        + "\n".join(rows)
        + "</tbody></table></div>"
    )


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A `<dl>`; the second of each pair is HTML."""
    return "<dl>" + "".join(f"<div><dt>{text(term)}</dt><dd>{said}</dd></div>" for term, said in pairs) + "</dl>"


def items(lines: Iterable[object], otherwise: str) -> str:
    """A list, or a sentence where there is nothing to list."""
    entries = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<ul>{entries}</ul>" if entries else f"<p>{text(otherwise)}</p>"


def _short(digits: str) -> str:
    mantissa, mark, exponent = digits.partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else digits
