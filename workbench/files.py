"""Writing files so that nothing is ever lost: to a temporary name beside the target, renamed when complete."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from workbench.errors import OptionError

if TYPE_CHECKING:
    from concurrent.futures import Future

Piece = bytes | bytearray | memoryview

SMALL_BYTES = 1 << 14
MOST_BEHIND = 8
"""Pieces that wait to be hashed: memory that is held."""


@contextmanager
def atomic_write(path: str | Path, *, inputs: Iterable[Path | None] = ()) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends well; never one of `inputs`.

    Raises OptionError where the folder is missing, not writable, or `path` is an input or a folder.
    """
    target = Path(path)
    refuse_input(target, inputs)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except (OSError, ValueError) as error:
        raise _cannot_write(target, getattr(error, "strerror", None) or str(error)) from error
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
    """Raise OptionError where `target` is a folder, lies in none, or is one of the files being read."""
    if os.path.isdir(target):
        raise OptionError(str(target), "is a folder", expected="a file name")
    if not os.path.isdir(target.parent):
        raise _cannot_write(target, os.strerror(errno.ENOENT))
    for source in inputs:
        if source is not None and os.path.exists(target) and os.path.exists(source) and target.samefile(source):
            raise OptionError(
                str(target), "is also an input; an input is never overwritten", next_step="Give another output name."
            )


def _cannot_write(target: Path, reason: str) -> OptionError:
    return OptionError(str(target), "cannot write there", found=reason, next_step="Check the folder.")


def is_endless(path: str | Path) -> bool:
    """Whether `path` is a pipe or a device: waiting for its end may take for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False  # opening it will tell what is wrong
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def write_hashed(file: BinaryIO, pieces: Iterable[Piece], hashed: bool = True) -> str:
    """Write the pieces one after the other and return their sha256 as hexadecimal text; "" where not `hashed`.

    The hash is computed in a thread, a few pieces behind: it takes longer than all the rest.
    """
    if not hashed:
        file.writelines(pieces)
        return ""
    from concurrent.futures import ThreadPoolExecutor  # brings logging, which `inspect` does without

    digest = hashlib.sha256()
    behind: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "sha256") as hasher:
        for piece in _join_small(pieces):
            behind.append(hasher.submit(digest.update, piece))
            file.write(piece)
            if len(behind) > MOST_BEHIND:
                behind.popleft().result()
    return digest.hexdigest()


def _join_small(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same bytes, small pieces put together: handing one over costs as much as hashing some kilobytes."""
    small = bytearray()
    for piece in pieces:
        if len(piece) < SMALL_BYTES:
            small += piece
        else:
            yield from (small, piece) if small else (piece,)
            small = bytearray()
    if small:
        yield small


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
