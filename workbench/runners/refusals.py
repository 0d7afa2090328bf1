"""Why an engine must not be asked about a cfg: tables of what it rejects, and of what it computes wrong in silence.

A reference that would lie is worse than none. Each engine's module holds its table of rules; this file only walks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from workbench.cfg import Cfg, Section
from workbench.dialects import Dialect
from workbench.errors import CfgError
from workbench.layers.base import Layer
from workbench.options import Options
from workbench.runners.engine_cfg import cut_comment

NO_ACTIVATION = "logistic"
"""What a section that should say `activation=` and does not gets, in every fork."""


@dataclass(frozen=True)
class Place:
    """What a rule may look at: a section, the layer made of it (None where it was not built), the model's dialect."""

    section: Section
    layer: Layer | None
    dialect: Dialect

    @property
    def options(self) -> Options:
        return Options(self.section)

    def differs(self, key: str, neutral: float) -> bool:
        """Whether `key=` is there and is another number than `neutral`; what is no number differs too."""
        try:
            return self.options.number(key, neutral) != neutral
        except CfgError:
            return True

    def has(self, key: str) -> bool:
        return key in self.section.options

    def word(self, key: str, default: str = "") -> str:
        """The value as written, without an inline comment."""
        option = self.section.options.get(key)
        return cut_comment(option.value) if option else default

    def items(self, key: str) -> int:
        """How many values the comma separated list holds."""
        return len(self.word(key).rstrip(",").split(",")) if self.has(key) else 0


Test = Callable[[Place], bool]


def words(text: str) -> frozenset[str]:
    """The words of a text between blanks."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Rule:
    """`kind` section names between blanks ("" = all), the `key` at fault ("" = the section itself), and the reason.

    The reason goes on from `cfg:line: key=value `, so it starts with a verb.
    """

    kind: str
    key: str
    test: Test
    reason: str

    def applies(self, place: Place) -> bool:
        return (not self.kind or place.section.kind in self.kind.split()) and self.test(place)


def differs(key: str, neutral: float) -> Test:
    """The common rule: an option that has another value than the one that changes nothing."""
    return lambda place: place.differs(key, neutral)


def has(key: str) -> Test:
    return lambda place: place.has(key)


def find_refusal(
    engine: str, rules: Sequence[Rule], cfg: Cfg, dialect: Dialect, layers: Sequence[Layer] | None = None
) -> str | None:
    """The first place that `engine` cannot run truthfully, in words and with its cfg line, or None."""
    found = list(_refusals(rules, cfg, dialect, layers))
    if not found:
        return None
    more = f" (and {len(found) - 1} more such sections)" if len(found) > 1 else ""
    return f"{engine} cannot run this cfg truthfully: {found[0]}{more}"


def _refusals(rules: Sequence[Rule], cfg: Cfg, dialect: Dialect, layers: Sequence[Layer] | None) -> Iterator[str]:
    for index, section in enumerate(cfg.sections):
        place = Place(section, layers[index] if layers else None, dialect)
        rule = next((rule for rule in rules if rule.applies(place)), None)
        if rule:
            key = rule.key
            subject = f"{key}={place.word(key)}" if place.has(key) else f"[{section.kind}]"
            yield f"{section.where(key)}: {subject} {rule.reason}"
