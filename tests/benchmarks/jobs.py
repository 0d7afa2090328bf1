"""What one child process does: a single job, timed from after its imports until its result is ready.

    python jobs.py JOB {"argument": ...}

prints one line of JSON. A fresh process a measurement, so that no peak of memory and no cache of Python is left from
the one before. The timed part is the function that the job returns; everything before it is preparation.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")

Job = Callable[[], object]


def _import_layers() -> None:
    """The layers' files are imported by the first cfg that is read."""
    from workbench.layers import layer_classes

    layer_classes()


def copy(source: str, target: str) -> Job:
    """The yardstick: a plain copy of the file, within one disk; the source is in the page cache."""
    import shutil

    return lambda: shutil.copyfile(source, target)


def torch_module(cfg: str, weights: str, touch: bool = False) -> Job:
    """cfg and weights -> module; with `touch`, every weight is read once as well."""
    from workbench.model import open_model
    from workbench.torch_model import build

    _import_layers()

    def run() -> object:
        module = build(open_model(cfg, weights))
        return [float(tensor.sum()) for tensor in module.state_dict().values()] if touch else module

    return run


def onnx_file(cfg: str, weights: str, target: str, certificate: dict[str, Any] | None = None) -> Job:
    """cfg and weights -> ONNX file, as `workbench convert` writes it; with a certificate, its graph is hashed too."""
    from workbench.certificate import Certificate, Gate
    from workbench.exporters import export
    from workbench.exporters import onnx as _onnx  # noqa: F401
    from workbench.model import open_model
    from workbench.onnx_model import OnnxOptions

    _import_layers()

    def run() -> object:
        gates = (Gate("benchmark", True),)
        proved = Certificate(**certificate, options=OnnxOptions(), gates=gates) if certificate else None
        return export(open_model(cfg, weights), target, proved, unvalidated=proved is None)

    return run


def certify(cfg: str, weights: str, target: str) -> dict[str, Any]:
    """What a certificate says about the identity of a model and its graph; stands in for a validation."""
    from workbench.certificate import identity
    from workbench.model import open_model
    from workbench.onnx_model import build_graph, write_onnx

    model = open_model(cfg, weights)
    graph_sha256 = write_onnx(build_graph(model), target)
    fields = ("cfg_sha256", "weights_sha256", "dialect", "epsilon")
    told = dict(zip(fields, identity(model), strict=True))
    return {**told, "graph_sha256": graph_sha256, "source": "benchmark", "reference": "none"}


def direct_file(cfg: str, weights: str, target: str) -> Job:
    """The direct builder: raw heads, at the opset that PyTorch writes."""
    from workbench.model import open_model
    from workbench.onnx_model import OnnxOptions, build_graph, write_onnx

    _import_layers()
    return lambda: write_onnx(build_graph(open_model(cfg, weights), OnnxOptions("raw", 18)), target)


def traced_file(cfg: str, weights: str, target: str) -> Job:
    """`torch.onnx.export(dynamo=True)` of the torch module, raw heads."""
    import onnxscript  # noqa: F401

    from workbench.model import open_model
    from workbench.traced import export_traced

    _import_layers()
    return lambda: export_traced(open_model(cfg, weights), target)


JOBS: dict[str, Callable[..., Job]] = {
    job.__name__: job for job in (copy, torch_module, onnx_file, direct_file, traced_file)
}


def measure(job: Job, watch: bool = False) -> dict[str, float]:
    """Run `job`: seconds of wall and of processor, bytes of memory above what the imports needed.

    watch: also sample the anonymous memory each millisecond, which the mapped pages of the file are no part of.
    """
    before = _reset_peak()
    sampler = _Sampler() if watch else None
    wall, cpu = time.perf_counter(), time.process_time()
    result = job()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    anonymous = sampler.stop() if sampler else 0
    after = _memory()
    del result
    return {
        "wall": wall,
        "cpu": cpu,
        "peak": after["VmHWM"] - before["VmRSS"],
        "anonymous": anonymous - before["RssAnon"],
    }


def _memory() -> dict[str, int]:
    """VmRSS, VmHWM (its peak) and RssAnon in bytes; zeros where the system is not Linux."""
    keys = ("VmRSS", "VmHWM", "RssAnon")
    if not STATUS.exists():
        return dict.fromkeys(keys, 0)
    lines = (line.split() for line in STATUS.read_text().splitlines())
    found = {words[0].rstrip(":"): words[1] for words in lines if len(words) > 1}
    return {key: int(found[key]) * 1024 for key in keys}


def _reset_peak() -> dict[str, int]:
    """Make the peak start from here (Documentation/filesystems/proc.rst: 5 resets VmHWM)."""
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")
    return _memory()


class _Sampler:
    """The largest RssAnon seen until `stop`."""

    def __init__(self) -> None:
        self._largest, self._done = _memory()["RssAnon"], threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self._largest = max(self._largest, _memory()["RssAnon"])

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return max(self._largest, _memory()["RssAnon"])


def answer(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Do the job `name` here and now."""
    if name == "certify":
        return certify(**arguments)
    if name == "forward":
        from forward import time_forwards

        return time_forwards(**arguments)
    watch = arguments.pop("watch", False)
    return measure(JOBS[name](**arguments), watch)


def main() -> None:
    """Flush what libraries printed, then the answer as the last line."""
    told = json.dumps(answer(sys.argv[1], json.loads(sys.argv[2])))
    sys.stdout.flush()
    os.write(1, f"\n{told}\n".encode())


if __name__ == "__main__":
    main()
