"""Words from strangers' files, made fit to be shown: class names, file names, messages. Knows no matplotlib."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

INVISIBLE = frozenset({"Cc", "Cs"})
"""Unicode categories: control characters, and the surrogates that stand for undecodable bytes of a file name."""
TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Marks that make the letters after them run the other way, so that a name reads as another one."""


def name_of(names: Sequence[str], class_id: int) -> str:
    """The class name, or its number where no names were given."""
    return names[class_id] if 0 <= class_id < len(names) else str(class_id)


def visible(text: str) -> str:
    """`text` with white space as blanks and everything that cannot be seen as an escape such as `\\u202e`."""
    return "".join(_show(letter) for letter in text)


def escape_letter(letter: str) -> str:
    """`\\u4eba`, as Python writes it."""
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def _show(letter: str) -> str:
    if letter in "\t\n\r":
        return " "
    hidden = letter in TURNING or unicodedata.category(letter) in INVISIBLE
    return escape_letter(letter) if hidden else letter
