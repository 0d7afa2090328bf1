"""One tree of errors that a person can meet.

Each says where it happened, what was expected, what was found, the likely cause and the next step, in one line.
The command line prints that line and leaves with `exit_code`; nothing else is ever shown for bad input.

    WorkbenchError
    ├── CfgError          a .cfg that cannot be read as a network
    ├── WeightsError      a .weights file that does not fit its cfg, or holds values no network can use
    ├── PictureError      a picture that cannot be read
    ├── OptionError       a call or command line that asks for something impossible
    ├── ToolMissing       a program or package that this step needs is not installed
    ├── ReferenceRefused  a reference engine cannot run this cfg truthfully, and says so
    ├── RunnerFailed      an engine died, hung, or answered nonsense
    ├── DownloadError     a sample could not be fetched, or is not what it should be
    └── NotProved         the model did not pass, so it is not exported (exit code 1)
"""

from __future__ import annotations

LONGEST_PART = 1000
"""Characters of one part of a sentence: a file may hold megabytes where a word is expected."""


def printable(text: str, most: int = LONGEST_PART) -> str:
    """One line that steers no terminal: control characters and broken Unicode escaped, cut after `most` characters."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class WorkbenchError(Exception):
    """Base of every error here: `where: problem; expected …, found …. cause next_step`."""

    exit_code = 2

    def __init__(
        self,
        where: str,
        problem: str,
        *,
        expected: object = None,
        found: object = None,
        cause: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.where, self.problem = where, problem
        self.expected, self.found = expected, found
        self.cause, self.next_step = cause, next_step
        super().__init__(self._sentence())

    def inside(self, where: str) -> WorkbenchError:
        """The same error with a place around its own, such as the file that holds the cfg."""
        facts = {"expected": self.expected, "found": self.found, "cause": self.cause, "next_step": self.next_step}
        return type(self)(f"{where}: {self.where}", self.problem, **facts)  # type: ignore[arg-type]

    def _sentence(self) -> str:
        facts = [
            f"{word} {printable(str(value))}"
            for word, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        text = f"{printable(self.where)}: {printable(self.problem)}" + (f"; {', '.join(facts)}" if facts else "")
        return " ".join([text.rstrip(".") + ".", *(printable(part) for part in (self.cause, self.next_step) if part)])


class CfgError(WorkbenchError):
    """A .cfg that cannot be read as a network; `where` is `file:line`."""


class WeightsError(WorkbenchError):
    """A .weights file that does not fit its cfg; `where` names the file, layer, field and bytes."""


class PictureError(WorkbenchError):
    """A picture that cannot be decoded."""


class OptionError(WorkbenchError):
    """A call or command line that asks for something impossible."""


class ToolMissing(WorkbenchError):
    """A program or package that this step needs is not installed."""


class ReferenceRefused(WorkbenchError):
    """A reference engine cannot run this cfg truthfully; running it anyway would give wrong numbers silently."""


class RunnerFailed(WorkbenchError):
    """An engine died, exceeded its time limit, or answered with something unusable."""


class DownloadError(WorkbenchError):
    """A sample could not be fetched, or its sha256 is not the recorded one."""


class NotProved(WorkbenchError):
    """The model did not pass its gates; `--unvalidated` is the explicit word that exports it anyway."""

    exit_code = 1
