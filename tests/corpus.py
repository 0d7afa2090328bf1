"""Runs every cfg of the corpus beside the checkout against its golden values, and writes the table of results.

    python -m tests.corpus [--only TEXT] [--out out]

For each cfg: does it load; do PyTorch and ONNX Runtime agree with each golden layer by layer; does the ONNX file pass
the checker with full shape inference; does it run with another batch (and another size where the network allows it)
and agree with PyTorch there. `tests/unit/test_corpus.py` runs a representative forty of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.cfg import read_cfg
from workbench.compare import scale_of
from workbench.dialects import ALEXEYAB, PJREDDIE, Dialect, infer_dialect
from workbench.errors import WorkbenchError
from workbench.model import Model, open_model
from workbench.network import build_network
from workbench.onnx_model import INPUT, OnnxOptions, build_graph, write_onnx
from workbench.runners.onnxruntime import OnnxRunner, open_session
from workbench.torch_model import build
from workbench.weights import build_ledger, make_weights, write_weights

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDENS: tuple[tuple[str, Dialect, float], ...] = (("golden", ALEXEYAB, 1e-3), ("golden-pjreddie", PJREDDIE, 2e-4))
"""Folder of golden values, the dialect they were computed in, and the limit of max|difference| / std for each layer."""
BETWEEN_LIMIT = 2e-5
"""ONNX Runtime against PyTorch at another batch and size: max|difference| / max|reference|."""


@dataclass(frozen=True)
class Case:
    """One golden: `entry` is its row of INDEX.json; `entry["golden"]` the file with the numbers."""

    cfg: str
    folder: str
    dialect: Dialect
    limit: float
    entry: Mapping[str, Any]
    seed: int
    input_seed: int


@dataclass(frozen=True)
class Agreement:
    """How far an engine is from a golden: worst max|difference| / std, its layer, the first layer beyond the limit."""

    worst: float
    layer: int
    first_bad: int | None
    layers: int

    def __str__(self) -> str:
        return f"{self.layer}" if self.first_bad is None else f"{self.layer}, first beyond the limit {self.first_bad}"


@dataclass
class Row:
    """What was found about one cfg; `agreements` by folder of goldens and engine, `reasons` for whatever is missing."""

    cfg: str
    loads: bool = False
    agreements: dict[str, Agreement] = field(default_factory=dict)
    checker: str = ""
    dynamic: str = ""
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def agrees(self, engine: str) -> bool:
        """With every golden."""
        return all(value.first_bad is None for key, value in self.agreements.items() if key.endswith(engine))

    @property
    def fine(self) -> bool:
        """Nothing to explain."""
        good = all(self.agrees(engine) for engine in ENGINES)
        file_is_good = self.checker == "yes" and self.dynamic.startswith("yes")
        return good and (file_is_good or not self.agreements)

    def markdown(self) -> str:
        """A line of the table."""
        found = [[(k, v) for k, v in self.agreements.items() if k.endswith(engine)] for engine in ENGINES]
        verdicts = [
            ", ".join(f"{'yes' if v.first_bad is None else 'NO'} {v.worst:.0e}" for _, v in group) or "-"
            for group in found
        ]
        worst = max(self.agreements.values(), key=lambda v: v.worst, default=None)
        cells = [
            self.cfg,
            "yes" if self.loads else "NO",
            *verdicts,
            self.checker or "-",
            self.dynamic or "-",
            str(worst) if worst else "-",
            f"{self.seconds:.0f}",
            "; ".join(self.reasons).replace("|", "/"),
        ]
        return f"| {' | '.join(cells)} |"


def cases(shared: Path, section: str = "cfgs") -> list[Case]:
    """Every golden of every fork; `section` "epsilon" for those with tiny variances."""
    found = []
    for folder, dialect, limit in GOLDENS:
        index = json.loads((shared / "oracle" / folder / "INDEX.json").read_text())
        seeds = index["weights_seed"], index["input_seed"]
        found += [
            Case(cfg.removeprefix("cfgs/"), folder, dialect, limit, e, *seeds) for cfg, e in index[section].items()
        ]
    return found


def recipe(shared: Path) -> ModuleType:
    """The oracle's make_weights.py."""
    spec = spec_from_file_location("make_weights", shared / "oracle" / "make_weights.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_case(shared: Path, case: Case, folder: Path) -> Model:
    """The model of a golden, with the weights of the recipe written into `folder`."""
    path, weights, entry = shared / "oracle" / "cfgs" / case.cfg, folder / "golden.weights", case.entry
    size = (entry["width"], entry["height"])
    text = path.read_text(encoding="latin-1")
    recipe(shared).write(text, weights, case.seed, *size, case.dialect.name, entry.get("bn_scale", 1))
    model = open_model(path, weights, dialect=case.dialect, size=size if size[0] else None)
    assert model.weights.sha256 == entry["weights_sha256"], "the recipe made another file than the golden's"
    return model


def open_random(shared: Path, cfg: str, size: tuple[int, int], folder: Path) -> Model:
    """A model without a golden: plausible random weights, in the dialect that the cfg speaks."""
    cfg_file = read_cfg(shared / "oracle" / "cfgs" / cfg)
    network, dialect, path = build_network(cfg_file, *size), infer_dialect(cfg_file)[0], folder / "random.weights"
    rng, tensors = np.random.default_rng(1), {}
    for span in build_ledger(network, dialect).spans:
        values = rng.standard_normal(span.shape, dtype=np.float32)
        if span.field.endswith(("scales", "rolling_variance")):
            values = np.abs(values) + np.float32(0.5)
        elif span.field.endswith("weights"):
            values *= np.float32(np.prod(span.shape[1:]) ** -0.5)
        tensors[span.layer, span.field] = values * np.float32(0.1 if span.field.endswith(("biases", "mean")) else 1)
    write_weights(make_weights(network, tensors, dialect), path)
    return open_model(cfg_file.path or cfg, path, dialect=dialect, size=size)


def case_input(model: Model, case: Case) -> NDArray[np.float32]:
    """The input of a golden as (1, c, h, w)."""
    x = np.random.default_rng(case.input_seed).random(case.entry["input"], dtype=np.float32)
    network = model.network
    return x.reshape(1, network.channels, network.height, network.width)


def compare(shared: Path, case: Case, outputs: Mapping[int, NDArray[np.float32]]) -> Agreement:
    """Every layer that the golden has, but those that it calls degenerate."""
    golden = np.load(shared / "oracle" / case.folder / case.entry["golden"])
    rows = [(i, _layer_difference(golden, i, outputs[i][0])) for i in _comparable(case, golden)]
    worst = max(rows, key=lambda row: row[1])
    bad = next((i for i, difference in rows if not difference <= case.limit), None)
    return Agreement(worst[1], worst[0], bad, len(rows))


def _comparable(case: Case, golden: Mapping[str, Any]) -> list[int]:
    degenerate = set(case.entry.get("degenerate_layers", ()))
    return [i for i in range(len(golden["type"])) if i not in degenerate]


def _layer_difference(golden: Mapping[str, Any], i: int, output: NDArray[np.float32]) -> float:
    """Largest difference over samples, argmax, absmax and, for heads, input and output, over the layer's deviation."""
    y = output.astype(np.float64).ravel()
    n, k = int(np.prod(golden["shape"][i])), golden["samples"].shape[1]
    if y.size != n:
        return float("inf")
    at = np.arange(n) if n <= k else np.arange(k, dtype=np.int64) * (n - 1) // (k - 1)
    differences = [
        np.abs(y[at] - golden["samples"][i, : len(at)]).max(),
        abs(y[golden["argmax"][i]] - golden["argmax_value"][i]),
        abs(np.abs(y).max() - golden["absmax"][i]),
    ]
    for key in (f"raw_{i + 1}", f"out_{i}"):
        if key in golden:
            differences.append(np.abs(y - golden[key].ravel()).max())
    if f"raw_at_{i + 1}" in golden:
        cells = golden[f"raw_at_{i + 1}"]
        differences.append(np.abs(y.reshape(cells.shape[1], -1).T[golden[f"raw_cells_{i + 1}"]] - cells).max())
    worst = float(max(differences) / golden["std"][i])
    return worst if worst == worst else float("inf")


def run_torch(
    model: Model, x: NDArray[np.float32], keep: Sequence[int] | None = None
) -> dict[int, NDArray[np.float32]]:
    """Outputs of the layers in `keep`, all by default."""
    import torch

    layers = range(len(model.network.layers)) if keep is None else keep
    with torch.inference_mode():
        return {i: y.numpy() for i, y in build(model).run(torch.from_numpy(x), layers).items()}


def run_onnx(model: Model, x: NDArray[np.float32]) -> dict[int, NDArray[np.float32]]:
    """Every layer's output from ONNX Runtime, batch normalisation folded."""
    with OnnxRunner(model) as runner:
        return runner.run(x)


ENGINES = {"torch": run_torch, "onnx": run_onnx}


def check_file(model: Model, folder: Path) -> tuple[str, str]:
    """Verdicts on the ONNX file of the raw result: the checker, and another batch and size against PyTorch."""
    import onnx

    path = folder / "raw.onnx"
    graph = build_graph(model, OnnxOptions("raw"))
    write_onnx(graph, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
        onnx.shape_inference.infer_shapes_path(
            str(path), str(folder / "inferred.onnx"), strict_mode=True, data_prop=True
        )
        checker = "yes"
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        checker = f"NO: {str(error).splitlines()[0]}"
    other = another_size(model)
    x = np.random.default_rng(1).random(
        (2, other.network.channels, other.network.height, other.network.width), np.float32
    )
    expected = run_torch(other, x, list(graph.output_layers.values()))
    outputs = open_session(path).run(list(graph.output_layers), {INPUT: x})
    worst = 0.0
    for index, output in zip(graph.output_layers.values(), outputs, strict=True):
        reference = expected[index]
        same = reference.shape == output.shape
        scale = float(np.abs(reference).max()) or scale_of(reference)
        worst = max(worst, float(np.abs(reference - output).max()) / scale) if same else float("inf")
    what = f"batch 2 at {x.shape[3]}x{x.shape[2]}" if other is not model else "batch 2"
    return checker, f"{'yes' if worst <= BETWEEN_LIMIT else 'NO'}, {what} ({worst:.0e})"


def another_size(model: Model) -> Model:
    """The model at a larger size, or itself where it works at one size only."""
    network = model.network
    if not network.any_size:
        return model
    return model.at_size(network.width + network.stride, network.height)


def run_cfg(shared: Path, cfg: str, goldens: Sequence[Case], no_golden: str) -> Row:
    """Everything about one cfg."""
    start, row = time.perf_counter(), Row(cfg)
    try:
        for case in goldens:
            with tempfile.TemporaryDirectory(prefix="corpus-") as name:
                _run_case(shared, case, row, Path(name))
            gc.collect()
        if not goldens:
            row.reasons.append(f"no golden: {no_golden}")
            with tempfile.TemporaryDirectory(prefix="corpus-") as name:
                _run_random(shared, cfg, row, Path(name))
    except (WorkbenchError, MemoryError) as error:
        row.reasons.append(str(error))
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def _run_case(shared: Path, case: Case, row: Row, folder: Path) -> None:
    model = open_case(shared, case, folder)
    row.loads, x = True, case_input(model, case)
    for engine, run in ENGINES.items():
        row.agreements[f"{case.folder}/{engine}"] = compare(shared, case, run(model, x))
    if not row.checker:
        row.checker, row.dynamic = check_file(model, folder)


def _run_random(shared: Path, cfg: str, row: Row, folder: Path) -> None:
    model = open_random(shared, cfg, (128, 128), folder)
    row.loads = True
    row.checker, row.dynamic = check_file(model, folder)


def select(shared: Path, only: str = "") -> list[tuple[str, list[Case], str]]:
    """(cfg, its goldens, why one is missing) of all different networks whose name has `only` in it, the smallest
    first.
    """
    table: dict[str, list[Case]] = {
        str(p.relative_to(shared / "oracle/cfgs")): [] for p in (shared / "oracle/cfgs").glob("*/*.cfg")
    }
    reasons = json.loads((shared / "oracle/golden/INDEX.json").read_text())["no_golden"]
    for case in cases(shared):
        table[case.cfg].append(case)
    twins = {cfg for cfg, goldens in table.items() if any("same_network_as" in case.entry for case in goldens)}
    chosen = [
        (cfg, goldens, reasons.get(f"cfgs/{cfg}", ""))
        for cfg, goldens in table.items()
        if only in cfg and cfg not in twins
    ]
    return sorted(chosen, key=lambda item: max((case.entry["floats"] for case in item[1]), default=0))


def table(rows: Sequence[Row]) -> str:
    """The results as Markdown."""
    head = "| cfg | loads | torch | ONNX | checker | dynamic | worst layer | seconds | |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    return "\n".join([totals(rows), "", head, *(row.markdown() for row in rows), ""])


def totals(rows: Sequence[Row]) -> str:
    """One sentence."""
    with_golden = [row for row in rows if row.agreements]
    agree = {engine: sum(row.agrees(engine) for row in with_golden) for engine in ENGINES}
    return (
        f"{sum(row.loads for row in rows)} of {len(rows)} networks load; of {len(with_golden)} with a golden, "
        f"{agree['torch']} agree in PyTorch and {agree['onnx']} in ONNX Runtime, layer by layer; "
        f"{sum(row.checker == 'yes' for row in rows)} ONNX files pass the checker with full shape inference, "
        f"{sum(row.dynamic.startswith('yes') for row in rows)} run with another batch and size and agree there."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the corpus, write out/corpus.md and out/corpus.json; 1 where something that has a golden disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cfgs with this text in their path")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args(arguments)
    if not SHARED.is_dir():
        sys.exit(f"{SHARED} is not there: the corpus and its goldens lie beside the checkout")
    rows = []
    chosen = select(SHARED, options.only)
    options.out.mkdir(parents=True, exist_ok=True)
    for number, (cfg, goldens, reason) in enumerate(chosen, start=1):
        rows.append(run_cfg(SHARED, cfg, goldens, reason))
        print(f"{number}/{len(chosen)} {rows[-1].markdown()}", flush=True)
        (options.out / "corpus.md").write_text(table(rows))
        (options.out / "corpus.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(totals(rows))
    return int(not all(row.fine for row in rows))


if __name__ == "__main__":
    sys.exit(main())
