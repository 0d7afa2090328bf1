"""Third-party native code lives in a process of its own, and this is the near side of it.

Darknet leaves with exit code 0 when a file is missing, aborts on a wrong cfg and changes the floating point mode of
whoever loads it; OpenCV may bring its own threads. So an engine runs in a child (`engines/serve.py`) that is asked one
thing at a time, has a time and a memory limit, and is judged only by the answer it gives: never by its exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import RunnerFailed

TIME_LIMIT_S = 300.0
"""For one question. yolov4 at 608x608 needs about 30 s on one slow core."""

INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
INHERITED_PREFIXES = ("OMP_", "GOMP_", "OPENBLAS_", "MKL_", "BLIS_", "OPENCV_")

STDERR_FILE = "stderr.txt"
SERVE = Path(__file__).resolve().parents[1] / "engines" / "serve.py"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Answer:
    """What the engine said: plain `fields`, and `arrays` (writable, private to the caller)."""

    fields: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


class EngineError(RunnerFailed):
    """The engine lives and answered with an error of its own, whose text is `found`."""


class Worker:
    """One engine in one child process; a context manager.

    engine: one of `engines.serve.ENGINES`. where: the name that errors start with. time_limit_s: for each question;
    the process group is killed when it passes. memory_limit_bytes: address space of the child, None for all memory
    of the machine.
    """

    def __init__(
        self,
        engine: str,
        *,
        where: str | None = None,
        time_limit_s: float = TIME_LIMIT_S,
        memory_limit_bytes: int | None = None,
    ) -> None:
        self.where, self.time_limit_s = where or engine, time_limit_s
        self.folder = Path(tempfile.mkdtemp(prefix=f"workbench-{engine}-"))
        limit = physical_memory_bytes() if memory_limit_bytes is None else memory_limit_bytes
        self._process = _start(engine, self.folder, limit)
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._lock = threading.Lock()
        self._count = 0
        self._finalizer = weakref.finalize(self, _clean_up, self._process, self.folder)
        assert self._process.stdout is not None
        threading.Thread(target=_pump, args=(self._process.stdout, self._answers), daemon=True).start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the child and remove its folder; harmless when repeated."""
        self._finalizer()

    def ask(self, command: str, arrays: Mapping[str, NDArray[Any]] | None = None, **fields: object) -> Answer:
        """Put one question and wait for its answer.

        Raises EngineError when the engine reports an error, RunnerFailed when it dies or exceeds the time limit;
        after the latter the worker is closed.
        """
        with self._lock:
            if not self._finalizer.alive:
                raise RunnerFailed(self.where, "the engine is closed", next_step="Open a new runner.")
            self._count += 1
            try:
                self._send({"command": command, "fields": fields, "arrays": self._save(arrays or {})})
                answer = self._receive(command)
            except BaseException:
                self.close()  # an answer that arrives late would be taken for that of the next question
                raise
        if "error" in answer:
            raise EngineError(self.where, f"{command} was refused by the engine", found=answer["error"])
        return Answer(answer["fields"], {key: self._open(name) for key, name in answer["arrays"].items()})

    def stderr(self) -> str:
        """Everything the engine printed so far."""
        try:
            return (self.folder / STDERR_FILE).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _save(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
        names = {}
        for key, array in arrays.items():
            names[key] = f"question-{self._count}-{key}.npy"
            np.save(self.folder / names[key], np.ascontiguousarray(array), allow_pickle=False)
        return names

    def _open(self, name: str) -> NDArray[Any]:
        """Map the file copy-on-write and unlink it: its memory is given back when the array goes."""
        path = self.folder / name
        mapped = np.load(path, mmap_mode="c" if os.name == "posix" else None, allow_pickle=False)
        path.unlink()
        return np.asarray(mapped)

    def _send(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died(question["command"]) from None

    def _receive(self, command: str) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self.time_limit_s)
        except queue.Empty:
            raise RunnerFailed(
                self.where,
                f"{command} took too long and was stopped",
                expected=f"an answer within {self.time_limit_s:g} s",
                found="none",
                cause=self._last_words(),
                next_step="Raise the time limit, or try a smaller input.",
            ) from None
        if not line:
            raise self._died(command)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _died(self, command: str) -> RunnerFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        return RunnerFailed(
            self.where,
            f"the engine died during {command}",
            expected="an answer",
            found=describe_exit(self._process.returncode),
            cause=self._last_words(),
        )

    def _last_words(self, lines: int = 3) -> str:
        said = [line.strip() for line in self.stderr().splitlines() if line.strip()]
        return "It printed last: " + " | ".join(said[-lines:]) if said else "It printed nothing."


def describe_exit(code: int | None) -> str:
    """How a process ended, in words: `exit status 3`, `signal SIGSEGV`."""
    if code is None:
        return "a process that neither answers nor ends"
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def physical_memory_bytes() -> int | None:
    """Memory of this machine, or None where the system does not say."""
    if not hasattr(os, "sysconf"):
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def clean_environment() -> dict[str, str]:
    """What the child inherits: paths and thread counts; numbers are written the C way in its locale."""
    kept = {key: value for key, value in os.environ.items() if key in INHERITED or key.startswith(INHERITED_PREFIXES)}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _start(engine: str, folder: Path, memory_limit_bytes: int | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SERVE), engine, str(memory_limit_bytes or 0)]
    with (folder / STDERR_FILE).open("wb") as stderr:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=os.name == "posix",
        )


def _pump(stream: IO[bytes], answers: queue.Queue[bytes]) -> None:
    """Hand over line by line, then the empty bytes of the end."""
    with contextlib.suppress(ValueError, OSError):  # closed under our hands by _clean_up
        while line := stream.readline():
            answers.put(line)
    answers.put(b"")


def _clean_up(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill the group, reap the child, remove the folder. Must not refer to the Worker, so that it can be freed."""
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
    shutil.rmtree(folder, ignore_errors=True)
