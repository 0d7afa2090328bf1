"""The far side of `runners/worker.py`: `python serve.py ENGINE MEMORY_LIMIT_BYTES` in a private folder.

Questions arrive as JSON lines on stdin, answers leave as JSON lines on what was stdout; arrays travel as .npy files in
the current folder. Whatever the engine itself prints goes to stderr, which the near side keeps in a file.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Fields = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
Command = Callable[[Fields, Arrays], "tuple[Fields, Arrays]"]

ENGINES = ("darknet", "opencv")
"""Files of this folder with `open_engine() -> Mapping[str, Command]`."""


def main(engine: str, memory_limit_bytes: int) -> None:
    """Serve questions until stdin ends; then remove the folder, which nobody else does if the near side was killed."""
    answers = _take_stdout()
    _limit(memory_limit_bytes)
    try:
        commands = runpy.run_path(str(Path(__file__).with_name(f"{engine}.py")))["open_engine"]()
        for count, line in enumerate(sys.stdin, start=1):
            answers.write(json.dumps(_answer(commands, json.loads(line), count)).encode() + b"\n")
            answers.flush()
    except BrokenPipeError:  # the near side ended while we computed
        os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())  # so that closing it at exit does not fail again
    shutil.rmtree(Path.cwd(), ignore_errors=True)


def _answer(commands: Mapping[str, Command], question: Fields, count: int) -> Fields:
    arrays = {key: _take(name) for key, name in question["arrays"].items()}
    try:
        fields, results = commands[question["command"]](question["fields"], arrays)
    except Exception as error:  # cv2.error derives from it; the near side raises it again, with the engine's name
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    names = {key: _put(array, f"answer-{count}-{key}.npy") for key, array in results.items()}
    return {"fields": fields, "arrays": names}


def _take(name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.load(name, allow_pickle=False)
    os.unlink(name)
    return array


def _put(array: NDArray[Any], name: str) -> str:
    np.save(name, array, allow_pickle=False)
    return name


def _take_stdout() -> IO[bytes]:
    """Keep the real stdout for answers alone, and send file descriptor 1, where C prints, to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _limit(memory_bytes: int) -> None:
    """Address space as told, and no core files; nothing where the system has no such limits."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        bound = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
