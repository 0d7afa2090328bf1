"""Reads the text of a `.cfg` file into sections that know their line.

Nothing here knows what a layer is. The rules are Darknet's own (`read_cfg`, `read_option`, `option_find` in
pjreddie src/parser.c, src/option_list.c): blanks vanish, `#` and `;` open a comment line, the first of two
equal keys wins, and numbers are read as far as they are numbers. What Darknet does silently becomes a `Note`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from workbench.errors import CfgError

WRITTEN_WITH_CAPITALS = {"B1", "B2", "workspace_size_limit_MB"}
"""The keys that Darknet itself spells so."""

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
"""What C's `atof` reads of a decimal number."""

LARGEST_FLOAT = 3.4e38
"""Darknet keeps numbers in C `float`; what is larger would be infinite."""

LARGEST_CFG_BYTES = 4 << 20
"""The longest public cfg has 90 kB; what exceeds this is some other file."""

INT_RANGE = range(-(2**31), 2**31)
"""Darknet keeps sizes in C `int`."""

ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
    "lrn": "normalization",
    "deconv": "deconvolutional",
    "local_avg": "local_avgpool",
    "silence": "empty",
}
"""Short section names that both forks accept (pjreddie src/parser.c `string_to_layer_type`)."""


@dataclass(frozen=True)
class Note:
    """Something worth telling that is no error: `where` is `file:line`."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True)
class Option:
    """One `key=value` line."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """One `[section]` with its options; `line` is 1-based, `kind` lower case without alias."""

    kind: str
    line: int
    source: str
    options: dict[str, Option] = field(default_factory=dict)

    def where(self, key: str | None = None) -> str:
        """`file:line` of the option `key`, or of the section where it has none."""
        line = self.options[key].line if key in self.options else self.line
        return f"{self.source}:{line}"


@dataclass(frozen=True)
class Cfg:
    """A whole file: `[net]` first, then one section a layer."""

    source: str
    text: str
    net: Section
    sections: tuple[Section, ...]
    notes: tuple[Note, ...]
    path: Path | None = None


def read_cfg(path: str | Path) -> Cfg:
    """Read and parse a `.cfg` file; raises CfgError with the path and line."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_CFG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CfgError(str(path), "cannot read the cfg", found=reason, next_step="Check the path.") from error
    return replace(parse_cfg(_decode(data, path.name), path.name), path=path.absolute())


def parse_cfg(text: str, source: str = "cfg") -> Cfg:
    """Parse the text of a `.cfg`; `source` names it in errors and notes."""
    notes: list[Note] = []
    sections = list(_sections(text, source, notes))
    if not sections:
        raise CfgError(source, "no section in the file", expected="[net] and layers", found=f"{len(text)} characters")
    if sections[0].kind != "net":
        first = sections[0]
        raise CfgError(
            first.where(),
            "the first section must be [net]",
            expected="[net] or [network]",
            found=f"[{first.kind}]",
            next_step="Add a [net] section with width=, height= and channels=.",
        )
    if len(sections) == 1:
        raise CfgError(f"{source}:{sections[0].line}", "no layer follows [net]", expected="at least one layer section")
    for extra in sections[1:]:
        if extra.kind == "net":
            raise CfgError(extra.where(), "a second [net]", expected="one", cause="Two cfgs joined into one file?")
    return Cfg(source, text, sections[0], tuple(sections[1:]), tuple(notes))


def _decode(data: bytes, source: str) -> str:
    if len(data) > LARGEST_CFG_BYTES:
        raise CfgError(source, "too large for a cfg", expected=f"at most {LARGEST_CFG_BYTES} bytes", found="more")
    if b"\0" in data:
        raise CfgError(
            source,
            "holds zero bytes",
            expected="text",
            found=f"a zero byte at {data.index(0):#x}",
            cause="A .weights file given as cfg?",
            next_step="The order is: cfg first, weights second.",
        )
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")


def _sections(text: str, source: str, notes: list[Note]) -> Iterator[Section]:
    current: Section | None = None
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        line = re.sub(r"\s", "", raw)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            if current:
                yield current
            current = _open_section(line, raw, number, source, notes)
        else:
            _add_option(current, line, raw, number, source, notes)
    if current:
        yield current


def _open_section(line: str, raw: str, number: int, source: str, notes: list[Note]) -> Section:
    where = f"{source}:{number}"
    match = re.match(r"\[([^\[\]=]+)\](.*)", line)
    if not match:
        raise CfgError(where, "not a section header", expected="[name]", found=_quote(raw))
    name, junk = match.groups()
    if junk:
        notes.append(
            Note(
                where, f"{_quote(junk)} after the section header is ignored here; Darknet does not know such a section"
            )
        )
    if name != name.lower() and name != "Gaussian_yolo":
        notes.append(Note(where, f"[{name}] is read as [{name.lower()}]; Darknet knows only the lower case name"))
    kind = name.lower()
    return Section(ALIASES.get(kind, kind), number, source)


def _add_option(section: Section | None, line: str, raw: str, number: int, source: str, notes: list[Note]) -> None:
    where = f"{source}:{number}"
    key, equals, value = line.partition("=")
    if section is None:
        raise CfgError(where, "text before the first section", expected="[net]", found=_quote(raw))
    if not equals or not key:
        raise CfgError(
            where,
            "neither a section, a comment nor key=value",
            expected="key=value",
            found=_quote(raw),
            next_step="Darknet skips such a line with a message; mend or remove it.",
        )
    if key != key.lower() and key not in WRITTEN_WITH_CAPITALS:
        notes.append(Note(where, f"{key}= is read as {key.lower()}=; Darknet would not find it"))
    key = key.lower()
    if key in section.options:
        first = section.options[key]
        notes.append(
            Note(
                where,
                f"{key}={_clip(value)} is ignored: line {first.line} says {key}={_clip(first.value)}, "
                "and the first one wins, as in Darknet",
            )
        )
    else:
        section.options[key] = Option(key, value, number)


class Options:
    """Typed access to one section's options, remembering which keys were asked for and what had to be said."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.asked: set[str] = set()
        self.notes: list[Note] = []

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
            self._note(key, f"{key}={_clip(value)} is read as {_clip(word)}; Darknet would not know it")
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
                found=_quote(value),
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
                found=_quote(value),
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
                f"{key}={_clip(option.value)} in [{self.section.kind}] is read by nobody; "
                "a typing error, or a key of another fork",
            )
            for key, option in self.section.options.items()
            if key not in self.asked
        ]

    def _list(self, key: str, pattern: re.Pattern[str]) -> Iterator[str]:
        if key not in self:
            return
        value = self.section.options[key].value
        for word in value.rstrip(",").split(","):
            match = pattern.match(word)
            if not match:
                raise CfgError(
                    self.section.where(key),
                    f"{key}= needs numbers between commas",
                    found=_quote(value),
                    cause=f"{_quote(word)} is none.",
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
                found=_clip(self.section.options[key].value),
            )
        return value

    def _finite(self, key: str, text: str) -> float:
        value = float(text)
        if abs(value) > LARGEST_FLOAT:
            raise CfgError(
                self.section.where(key),
                f"{key}= is out of range",
                expected=f"at most {LARGEST_FLOAT:g}",
                found=_clip(text),
            )
        return value

    def _mention_junk(self, key: str, value: str, used: str) -> None:
        junk = value[len(used) :]
        if junk:
            told = f"{key}={_clip(value)} is read as {_clip(used)}"
            self._note(key, f"{told}; {_quote(junk)} is ignored, as Darknet does")

    def _note(self, key: str, text: str) -> None:
        note = Note(self.section.where(key), text)
        if note not in self.notes:
            self.notes.append(note)


def _clip(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _quote(text: str) -> str:
    return repr(_clip(text.strip()))
