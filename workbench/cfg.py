"""Reads the text of a `.cfg` file into sections that know their line.

Nothing here knows what a layer is. The rules are Darknet's own (`read_cfg`, `read_option`, `option_find` in
pjreddie src/parser.c, src/option_list.c): blanks vanish, `#` and `;` open a comment line, the first of two
equal keys wins, and what Darknet does silently becomes a `Note`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from workbench.errors import CfgError
from workbench.files import is_endless

WRITTEN_WITH_CAPITALS = {"B1", "B2", "workspace_size_limit_MB"}
"""The keys that Darknet itself spells so."""

LARGEST_CFG_BYTES = 1 << 20
"""The longest public cfg has 90 kB; what exceeds this is some other file."""

LARGEST_LAYERS = 4096
"""The deepest public cfg has 400; what exceeds this is no network, and would only take minutes to refuse."""

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
    if is_endless(path):
        raise CfgError(str(path), "is not a regular file", expected="a .cfg on disk", found="a device or pipe")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_CFG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CfgError(str(path), "cannot read the cfg", found=reason, next_step="Check the path.") from error
    return replace(parse_cfg(_decode(data, path.name), path.name), path=path.absolute())


def parse_cfg(text: str, source: str = "cfg") -> Cfg:
    """Parse the text of a `.cfg`; `source` names it in errors and notes."""
    if len(text) > LARGEST_CFG_BYTES:
        raise _too_large(source)
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
    if len(sections) > 1 + LARGEST_LAYERS:
        raise CfgError(
            sections[1 + LARGEST_LAYERS].where(),
            "too many layers",
            expected=f"at most {LARGEST_LAYERS}",
            found=len(sections) - 1,
            cause="Many cfgs joined into one file, or no cfg at all?",
        )
    for extra in sections[1:]:
        if extra.kind == "net":
            raise CfgError(extra.where(), "a second [net]", expected="one", cause="Two cfgs joined into one file?")
    return Cfg(source, text, sections[0], tuple(sections[1:]), tuple(notes))


def _too_large(source: str) -> CfgError:
    return CfgError(source, "too large for a cfg", expected=f"at most {LARGEST_CFG_BYTES} bytes", found="more")


def _decode(data: bytes, source: str) -> str:
    if b"\0" in data:  # asked before the size: most weights are larger than any cfg, and this says more
        raise CfgError(
            source,
            "holds zero bytes",
            expected="text",
            found=f"a zero byte at {data.index(0):#x}",
            cause="A .weights file given as cfg?",
            next_step="The order is: cfg first, weights second.",
        )
    if len(data) > LARGEST_CFG_BYTES:
        raise _too_large(source)
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
        raise CfgError(where, "not a section header", expected="[name]", found=quote(raw))
    name, junk = match.groups()
    if junk:
        notes.append(
            Note(where, f"{quote(junk)} after the section header is ignored here; Darknet does not know such a section")
        )
    if name != name.lower() and name != "Gaussian_yolo":
        notes.append(Note(where, f"[{name}] is read as [{name.lower()}]; Darknet knows only the lower case name"))
    kind = name.lower()
    return Section(ALIASES.get(kind, kind), number, source)


def _add_option(section: Section | None, line: str, raw: str, number: int, source: str, notes: list[Note]) -> None:
    where = f"{source}:{number}"
    key, equals, value = line.partition("=")
    if section is None:
        raise CfgError(where, "text before the first section", expected="[net]", found=quote(raw))
    if not equals or not key:
        raise CfgError(
            where,
            "neither a section, a comment nor key=value",
            expected="key=value",
            found=quote(raw),
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
                f"{key}={clip(value)} is ignored: line {first.line} says {key}={clip(first.value)}, "
                "and the first one wins, as in Darknet",
            )
        )
    else:
        section.options[key] = Option(key, value, number)


def clip(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def quote(text: str) -> str:
    return repr(clip(text.strip()))
