"""Writing files so that nothing is ever lost: to a temporary name beside the target, renamed when complete."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from workbench.errors import OptionError


@contextmanager
def atomic_write(path: str | Path, *, inputs: Iterable[Path | None] = ()) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends well; never one of `inputs`.

    Raises OptionError where the folder is missing, not writable, or `path` is an input or a folder.
    """
    target = Path(path)
    refuse_input(target, inputs)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise OptionError(
            str(target), "cannot write there", found=error.strerror, next_step="Check the folder."
        ) from error
    try:
        os.close(handle)
        with open(temporary, "wb") as file:  # by name, for libraries that open `file.name` themselves
            yield file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OptionError(
                str(target), "could not be written", found=error.strerror, next_step="Is the disk full?"
            ) from error
        raise


def refuse_input(target: Path, inputs: Iterable[Path | None]) -> None:
    """Raise OptionError where `target` is a folder or one of the files being read."""
    if target.is_dir():
        raise OptionError(str(target), "is a folder", expected="a file name")
    for source in inputs:
        if source is not None and target.exists() and source.exists() and target.samefile(source):
            raise OptionError(
                str(target), "is also an input; an input is never overwritten", next_step="Give another output name."
            )


def sha256_of(path: str | Path) -> str:
    """The file's sha256 as hexadecimal text, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
