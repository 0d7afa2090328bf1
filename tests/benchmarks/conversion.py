"""Time and memory from `.weights` to a torch module and to an ONNX file, against a plain copy of the file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from networks import Files, cfg_text, write_files
from report import Row
from series import Ratio, Sample, command, interleave, job

TIME, MEMORY, TRACED, INSPECT = (
    "time of a conversion",
    "peak memory",
    "torch.onnx.export(dynamo=True), raw heads",
    "workbench inspect, start to end",
)


GOALS_FROM_BYTES = 200e6
"""The goals speak of 250 MB; to copy a small file takes milliseconds, and the table shows the ratios alone."""

TIME_GOALS: dict[str, float | None] = {
    "torch module": 3.0,
    "torch module, every weight read": None,
    "ONNX file": 8.0,
    "ONNX file behind a certificate": 8.0,
}
MEMORY_GOALS = {"torch module, every weight read": 1.3, "ONNX file": 2.5}


def measure_conversions(folder: Path, sections: Mapping[str, list[str]], rounds: int) -> Iterator[Row]:
    """Each network: seconds against a copy, bytes against the file."""
    memory = []
    for name, text in sections.items():
        files = write_files(cfg_text(text), folder / "converted")
        takes = _takes(files, folder)
        samples = interleave(takes, rounds)
        size, counts = f"{name}, {files.size / 1e6:.0f} MB", files.size >= GOALS_FROM_BYTES
        for what, goal in TIME_GOALS.items():
            ratio = Ratio.of(samples[what], samples["copy"])
            yield Row(TIME, f"{what} ({size})", "copy", ratio, goal if counts else None)
        for what, limit in MEMORY_GOALS.items():
            sample = takes[what](watch=True)
            memory.append(_memory_row(f"{what} ({size})", sample, files.size, limit if counts else None))
    yield from memory


def _takes(files: Files, folder: Path) -> dict[str, Callable[..., Sample]]:
    """Name -> take one sample; with `watch=True` the anonymous memory too."""
    source = {"cfg": str(files.cfg), "weights": str(files.weights)}
    onnx = {**source, "target": str(folder / "out.onnx")}
    certificate = job("certify", **onnx)
    return {
        "copy": partial(job, "copy", source=str(files.weights), target=str(folder / "copy.weights")),
        "torch module": partial(job, "torch_module", **source),
        "torch module, every weight read": partial(job, "torch_module", **source, touch=True),
        "ONNX file": partial(job, "onnx_file", **onnx),
        "ONNX file behind a certificate": partial(job, "onnx_file", **onnx, certificate=certificate),
    }


def _memory_row(what: str, sample: Sample, size: int, goal: float | None) -> Row:
    ratio = sample["peak"] / size
    detail = f"anonymous {sample['anonymous'] / size:.2f}x, the rest are pages of the mapped file"
    return Row(MEMORY, what, "file", Ratio(ratio, ratio, ratio), goal, detail=detail)


def measure_tracing(folder: Path, sections: Mapping[str, list[str]]) -> Iterator[Row]:
    """Seconds of PyTorch's exporter for one second of ours, once: it takes long enough to be steady."""
    for name, text in sections.items():
        files = write_files(cfg_text(text), folder / "traced")
        told = {"cfg": str(files.cfg), "weights": str(files.weights), "target": str(folder / "traced.onnx")}
        theirs, ours = job("traced_file", **told), job("direct_file", **told)
        what = f"PyTorch's exporter ({name}, {files.size / 1e6:.0f} MB)"
        detail = f"{theirs['wall']:.1f} s and {ours['wall']:.2f} s"
        yield Row(TRACED, what, "ours", Ratio.of([theirs], [ours]), 10.0, at_least=True, detail=detail)


def measure_inspect(folder: Path, sections: Mapping[str, list[str]], rounds: int) -> Iterator[Row]:
    """Seconds from start to end, in their own right and beside a Python that imports numpy and nothing else."""
    second = [{"wall": 1.0, "cpu": 1.0}] * rounds
    for name, text in sections.items():
        files = write_files(cfg_text(text), folder / "inspected")
        words = (sys.executable, "-m", "workbench", "inspect", str(files.cfg), str(files.weights))
        takes = {"inspect": partial(command, *words), "numpy": partial(command, sys.executable, "-c", "import numpy")}
        samples = interleave(takes, rounds)
        size = f"{name}, {files.size / 1e6:.0f} MB"
        yield Row(INSPECT, size, "clock", Ratio.of(samples["inspect"], second), 0.5, unit=" s")
        yield Row(INSPECT, size, "python -c 'import numpy'", Ratio.of(samples["inspect"], samples["numpy"]))
