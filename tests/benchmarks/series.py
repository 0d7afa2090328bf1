"""Runs jobs in turns (A B A B), each in a fresh process, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOBS = Path(__file__).with_name("jobs.py")

Sample = dict[str, Any]
Take = Callable[[], Sample]
"""One measurement: at least `wall` and `cpu` in seconds."""


@dataclass(frozen=True)
class Ratio:
    """A ratio measured several times: median, least and greatest; `cpu` is the median of processor time."""

    median: float
    least: float
    greatest: float
    cpu: float | None = None

    @classmethod
    def of(cls, samples: list[Sample], others: list[Sample], key: str = "wall") -> Ratio:
        """Round by round, samples[i] / others[i]."""
        ratios = [a[key] / b[key] for a, b in zip(samples, others, strict=True)]
        cpu = [a["cpu"] / b["cpu"] for a, b in zip(samples, others, strict=True) if b["cpu"]]
        return cls(statistics.median(ratios), min(ratios), max(ratios), statistics.median(cpu) if cpu else None)


def job(name: str, **arguments: object) -> Sample:
    """Run one job of `jobs.py` in its own process; raises RuntimeError with what it printed where it fails."""
    printed = _run([sys.executable, str(JOBS), name, json.dumps(arguments)])
    sample: Sample = json.loads(printed.splitlines()[-1])
    return sample


def command(*words: str) -> Sample:
    """Run a whole program: seconds of wall and processor from its start to its end."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _run(list(words))
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def _run(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def interleave(takes: Mapping[str, Take], rounds: int) -> dict[str, list[Sample]]:
    """`rounds` measurements of each, in turns; the order is reversed every other round."""
    samples: dict[str, list[Sample]] = {name: [] for name in takes}
    names = list(takes)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            samples[name].append(takes[name]())
    return samples
