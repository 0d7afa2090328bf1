"""Time and memory as ratios, each measured side by side in one run, and printed as tables.

    python tests/benchmarks/run.py [--quick] [--only conversion tracing inspect latency]

Nothing here asserts: a goal that is missed is a word in the table. Each measurement is a fresh process; what is
compared runs in turns, and the table shows the median of the rounds' ratios. --quick uses one model of a sixteenth of
the bytes, for which a copy takes milliseconds: it shows that everything runs, and ratios to a copy mean little.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from conversion import measure_conversions, measure_inspect, measure_tracing
from latency import find_models, measure_latency
from networks import SHAPES, Files, residual_detector, small_detector
from report import Row, show
from rich.console import Console

NOTES = """\
copy: shutil.copyfile within one disk; source and target stay in the page cache, nothing waits for the disk.
forward pass: the least of several in each process. in the spread: the goal lies between least and greatest.
time: from after the imports to a ready result. processor: the same ratio in processor time, all threads together.
memory: the peak of resident memory above that after the imports; mapped pages of the file count once they were read.
"""
OUT = Path(__file__).resolve().parents[2] / "out"


@dataclass(frozen=True)
class Plan:
    """What is measured. `converted`: networks by name, as sections; `traced`: those given to PyTorch's exporter too.

    rounds: how often everything is measured in turns. forwards: passes in each round of a latency.
    """

    converted: dict[str, list[str]]
    traced: dict[str, list[str]]
    models: Callable[[Path], dict[str, Files]]
    rounds: int
    forwards: int


def full_plan() -> Plan:
    """248 MB in three shapes; minutes."""
    converted = {name: shape(1.0) for name, shape in SHAPES.items()}
    traced = {"9 layers": small_detector(1.0), "75 layers": residual_detector(1.0)}
    return Plan(converted, traced, partial(find_models, scale=1.0), rounds=3, forwards=8)


def quick_plan() -> Plan:
    """16 MB, one shape; a minute."""

    def first(folder: Path) -> dict[str, Files]:
        models = find_models(folder, 0.25)
        return {name: models[name] for name in list(models)[:1]}

    return Plan({"75 layers": residual_detector(0.25)}, {"9 layers": small_detector(0.25)}, first, rounds=1, forwards=2)


FAMILIES: dict[str, Callable[[Path, Plan], Iterator[Row]]] = {
    "conversion": lambda folder, plan: measure_conversions(folder, plan.converted, plan.rounds),
    "inspect": lambda folder, plan: measure_inspect(folder, plan.converted, 2 * plan.rounds),
    "tracing": lambda folder, plan: measure_tracing(folder, plan.traced),
    "latency": lambda folder, plan: measure_latency(folder, plan.models(folder), min(plan.rounds, 2), plan.forwards),
}


def run(plan: Plan, families: list[str], console: Console) -> list[Row]:
    """Measure, and print each family when it is done; returns the rows. The files lie in out/, all on one disk."""
    OUT.mkdir(exist_ok=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=OUT) as folder:
        for family in families:
            with console.status(f"measuring {family}"):
                measured = list(FAMILIES[family](Path(folder), plan))
            show(measured, console)
            rows.extend(measured)
    return rows


def describe_machine() -> str:
    """Processor, cores and how busy they are: under load, ratios of processor time are the steadier ones."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.machine()}, {os.cpu_count()} cores{load}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models, one round")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="these families alone")
    arguments = parser.parse_args()
    console = Console(width=None if os.isatty(1) else 180)
    console.print(f"before: {describe_machine()}")
    start = time.perf_counter()
    run(quick_plan() if arguments.quick else full_plan(), arguments.only, console)
    console.print(f"\nafter {time.perf_counter() - start:.0f} s: {describe_machine()}")
    console.print(NOTES)


if __name__ == "__main__":
    main()
