"""Sample models by name: two that ship with the workbench, and well-known ones that are fetched once and kept.

A fetched file is used only if it has its recorded sha256, wherever it came from: the network, the cache, or a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from workbench.download import Report, copy, download, verify, write
from workbench.errors import DownloadError, OptionError, ToolMissing
from workbench.files import sha256_of
from workbench.samples import SAMPLES, Sample, SampleFile, SamplePaths

Progress = Callable[[int, int], None]


def samples() -> tuple[Sample, ...]:
    """Return every sample model, those that ship with the workbench first."""
    return SAMPLES


def data_dir() -> Path:
    """Return the folder of shipped models and pictures; raises ToolMissing where it is not there."""
    return _shipped_dir("data")


def notebooks_dir() -> Path:
    """Return the folder of shipped notebooks; raises ToolMissing where it is not there."""
    return _shipped_dir("notebooks")


def _shipped_dir(name: str) -> Path:
    """Inside an installed wheel `_name` in the package, in a clone `name` beside it."""
    package = Path(__file__).resolve().parent
    for folder in (package / f"_{name}", package.parent / name):
        if folder.is_dir():
            return folder
    raise ToolMissing(str(package), f"the shipped {name} are missing", next_step="Install darknet-workbench again.")


def fetch(
    name: str, *, into: Path | None = None, source: Path | None = None, progress: Progress | None = None
) -> SamplePaths:
    """Return where the files of the sample `name` lie, after fetching those that are not there yet.

    They are kept in `into`, by default in the user's cache; the shipped models stay where they are unless `into` is
    given. With `source`, a folder, nothing is downloaded: files are taken from it or from the folders in it.
    `progress(done_bytes, total_bytes)` is called as bytes arrive. No existing file is ever overwritten.

    Raises OptionError for an unknown name; DownloadError where a file cannot be had, is not the recorded one, or cannot
    be written, and OptionError where a copy cannot.
    """
    sample = find_sample(name)
    if sample.shipped and into is None:
        return sample.paths(data_dir())
    folder = into if into is not None else user_cache_path("darknet-workbench") / sample.name
    before = 0
    for file in sample.files:
        _obtain(file, folder / file.name, source, _report(progress, before, sample.size_bytes))
        before += file.size_bytes
    return sample.paths(folder)


def find_sample(name: str) -> Sample:
    """Return the sample called `name`; raises OptionError, listing all names, where there is none."""
    for sample in SAMPLES:
        if sample.name == name:
            return sample
    raise OptionError(name, "no such sample", expected=f"one of {', '.join(sample.name for sample in SAMPLES)}")


def _report(progress: Progress | None, before: int, total: int) -> Report:
    return lambda done: progress(before + done, total) if progress else None


def _obtain(file: SampleFile, target: Path, source: Path | None, report: Report) -> None:
    if not file.sha256:
        write(target, (data_dir() / file.name).read_bytes())
    elif target.exists():
        verify(target, file.accepted, "Nothing is overwritten: move it away and run the same command again.")
    elif file.text:
        write(target, file.text.encode())
    elif source is not None:
        copy(_find(file, source), target, file.accepted)
    else:
        download(file.addresses, target, sha256=file.sha256, size_bytes=file.size_bytes, report=report)
    report(file.size_bytes)


def _find(file: SampleFile, source: Path) -> Path:
    """Return the recorded file from `source` or a folder in it, else one of that name, to be refused."""
    ending = Path(file.name).suffix
    there = sorted((*source.glob(f"*{ending}"), *source.glob(f"*/*{ending}")), key=lambda path: path.name != file.name)
    for path in there:
        # Copies of a text may lack its last newline. Only files of about that size are worth reading.
        if abs(path.stat().st_size - file.size_bytes) <= 1 and sha256_of(path) in file.accepted:
            return path
    if there and there[0].name == file.name:
        return there[0]
    problem, step = f"no {file.name} there or in the folders in it", f"It comes from {file.addresses[0]}."
    raise DownloadError(str(source), problem, next_step=step)
