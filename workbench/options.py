"""Values of a section's options, read as C reads them: numbers as far as they are numbers, and never silently.

Darknet's `atoi` and `atof` take `40#32` for 40 and a word for 0 (pjreddie src/option_list.c `option_find_int`). Here
the first becomes a Note, the second a CfgError; so does what would not fit into C's `int` and `float`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.cfg import Note, Section, clip, quote
from workbench.errors import CfgError

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
"""What C's `atof` reads of a decimal number."""

LARGEST_FLOAT = 3.4e38
"""Darknet keeps numbers in C `float`; what is larger would be infinite."""

LARGEST_LIST = 4096
"""Numbers in one list: public cfgs have up to 80."""

INT_RANGE = range(-(2**31), 2**31)
"""Darknet keeps sizes in C `int`."""


class Options:
    """Typed access to one section's options, remembering which keys were asked for and what had to be said."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.asked: set[str] = set()
        self._notes: dict[Note, None] = {}

    @property
    def notes(self) -> list[Note]:
        """What had to be said, each once, in order."""
        return list(self._notes)

    def __contains__(self, key: str) -> bool:
        self.asked.add(key)
        return key in self.section.options

    def text(self, key: str, default: str) -> str:
        """The value as text, lower case, without an inline comment; a note where Darknet would not know the word."""
        if key not in self:
            return default
        value = self.section.options[key].value
        word = re.split(r"[#;]", value, maxsplit=1)[0].lower()
        if word != value:
            self._note(key, f"{key}={clip(value)} is read as {clip(word)}; Darknet would not know it")
        return word

    def integer(self, key: str, default: int, least: int | None = None, most: int | None = None) -> int:
        """The value as C's `atoi` reads it: the leading number counts, the rest is noted."""
        if key not in self:
            return default
        value = self.section.options[key].value
        match = re.match(r"[+-]?[0-9]+", value)
        if not match:
            raise CfgError(
                self.section.where(key),
                f"{key}= needs a whole number",
                found=quote(value),
                cause="Darknet's atoi would read it as 0.",
            )
        self._mention_junk(key, value, match.group())
        return self._bounded(key, int(match.group()) if len(match.group()) < 12 else 10**12, least, most)

    def number(self, key: str, default: float) -> float:
        """The value as C's `atof` reads it."""
        if key not in self:
            return default
        value = self.section.options[key].value
        match = NUMBER.match(value)
        if not match:
            raise CfgError(
                self.section.where(key),
                f"{key}= needs a number",
                found=quote(value),
                cause="Darknet's atof would read it as 0.",
            )
        self._mention_junk(key, value, match.group())
        return self._finite(key, match.group())

    def numbers(self, key: str) -> tuple[float, ...]:
        """A comma separated list of numbers; empty where the key is absent."""
        return tuple(self._finite(key, word) for word in self._list(key, NUMBER))

    def integers(self, key: str) -> tuple[int, ...]:
        """A comma separated list of whole numbers; empty where the key is absent."""
        values = tuple(int(word) for word in self._list(key, re.compile(r"[+-]?[0-9]{1,11}")))
        for value in values:
            self._bounded(key, value, None, None)
        return values

    def ignore(self, *keys: str) -> None:
        """Mark keys that steer training only, so that they are not reported as unread."""
        self.asked.update(keys)

    def unread(self) -> list[Note]:
        """One note for each key that nobody asked for."""
        return [
            Note(
                self.section.where(key),
                f"{key}={clip(option.value)} in [{self.section.kind}] is read by nobody; "
                "a typing error, or a key of another fork",
            )
            for key, option in self.section.options.items()
            if key not in self.asked
        ]

    def _list(self, key: str, pattern: re.Pattern[str]) -> Iterator[str]:
        if key not in self:
            return
        value = self.section.options[key].value
        if value.count(",") > LARGEST_LIST:
            raise CfgError(
                self.section.where(key),
                f"{key}= has too many numbers",
                expected=f"at most {LARGEST_LIST}",
                found=value.count(",") + 1,
            )
        for word in value.rstrip(",").split(","):
            match = pattern.match(word)
            if not match:
                raise CfgError(
                    self.section.where(key),
                    f"{key}= needs numbers between commas",
                    found=quote(value),
                    cause=f"{quote(word)} is none.",
                )
            self._mention_junk(key, word, match.group())
            yield match.group()

    def _bounded(self, key: str, value: int, least: int | None, most: int | None) -> int:
        low = INT_RANGE.start if least is None else least
        high = INT_RANGE.stop - 1 if most is None else most
        if not low <= value <= high:
            raise CfgError(
                self.section.where(key),
                f"{key}= is out of range",
                expected=f"{low} to {high}",
                found=clip(self.section.options[key].value),
            )
        return value

    def _finite(self, key: str, text: str) -> float:
        value = float(text)
        if abs(value) > LARGEST_FLOAT:
            raise CfgError(
                self.section.where(key),
                f"{key}= is out of range",
                expected=f"at most {LARGEST_FLOAT:g}",
                found=clip(text),
            )
        return value

    def _mention_junk(self, key: str, value: str, used: str) -> None:
        junk = value[len(used) :]
        if junk:
            told = f"{key}={clip(value)} is read as {clip(used)}"
            self._note(key, f"{told}; {quote(junk)} is ignored, as Darknet does")

    def _note(self, key: str, text: str) -> None:
        self._notes[Note(self.section.where(key), text)] = None
