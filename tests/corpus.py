"""Runs every cfg of the corpus beside the checkout against its golden values, and writes the table of results.

    python tests/corpus.py [--only TEXT] [--out out]

For each cfg: does it load; do PyTorch and ONNX Runtime agree with each golden layer by layer; does the ONNX file pass
the checker with full shape inference; does it run with another batch (and another size where the network allows it)
and agree with PyTorch there. `tests/unit/test_corpus.py` runs a representative forty.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from oracle import FORKS, Golden, list_goldens

from workbench.cfg import read_cfg
from workbench.dialects import infer_dialect
from workbench.errors import WorkbenchError
from workbench.model import Model, open_model
from workbench.network import build_network
from workbench.onnx_model import INPUT, OnnxOptions, build_graph, write_onnx
from workbench.runners.onnxruntime import OnnxRunner, open_session
from workbench.runners.torch import TorchRunner
from workbench.torch_model import build
from workbench.weights import build_ledger, make_weights, write_weights

SHARED = Path(__file__).resolve().parents[2] / "shared"
ENGINES = {"torch": TorchRunner, "onnx": OnnxRunner}
BETWEEN_LIMIT = 2e-5
"""ONNX Runtime against PyTorch at another batch and size: max|difference| / max|reference| of each output."""
HEAD = ("cfg", "loads", "torch", "ONNX", "checker", "dynamic", "worst layer", "seconds", "why")


@dataclass(frozen=True)
class Agreement:
    """How far an engine is from a golden: worst max|difference| / std, its layer, the first layer beyond the limit."""

    worst: float
    layer: int
    first_bad: int | None
    layers: int


@dataclass
class Row:
    """What was found about one cfg; `agreements` by fork and engine, `reasons` for whatever is missing."""

    cfg: str
    loads: bool = False
    agreements: dict[str, Agreement] = field(default_factory=dict)
    checker: str = ""
    dynamic: str = ""
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def of(self, engine: str) -> list[Agreement]:
        """With each golden."""
        return [value for key, value in self.agreements.items() if key.endswith(engine)]

    def agrees(self, engine: str) -> bool:
        """With every golden there is, and there is one."""
        found = self.of(engine)
        return bool(found) and all(agreement.first_bad is None for agreement in found)

    @property
    def file_is_good(self) -> bool:
        """The ONNX file."""
        return self.checker == "yes" and self.dynamic.startswith("yes")

    @property
    def fine(self) -> bool:
        """Nothing disagrees, and whatever is missing has its reason."""
        return (all(self.agrees(engine) for engine in ENGINES) and self.file_is_good) or bool(self.reasons)

    def markdown(self) -> str:
        """A line of the table."""
        verdicts = (
            ", ".join(f"{'yes' if a.first_bad is None else 'NO'} {a.worst:.0e}" for a in self.of(e)) for e in ENGINES
        )
        worst = max(self.agreements.values(), key=lambda a: a.worst, default=None)
        cells = (
            self.cfg,
            "yes" if self.loads else "NO",
            *verdicts,
            self.checker,
            self.dynamic,
            str(worst.layer if worst.first_bad is None else worst.first_bad) if worst else "",
            f"{self.seconds:.0f}",
            "; ".join(self.reasons).replace("|", "/"),
        )
        return f"| {' | '.join(cells)} |"


def run_cfg(shared: Path, cfg: str, goldens: Sequence[Golden], no_golden: str = "") -> Row:
    """Everything about one cfg; the first golden's model also makes the ONNX file."""
    start, row = time.perf_counter(), Row(cfg)
    try:
        for number, golden in enumerate(goldens):
            _run_golden(golden, row, with_file=number == 0)
            gc.collect()
        if not goldens:
            row.reasons.append(f"no golden: {no_golden}")
            model = random_model(shared / "oracle" / "cfgs" / cfg, (128, 128))
            row.loads = True
            row.checker, row.dynamic = check_file(model)
    except (WorkbenchError, MemoryError) as error:
        row.reasons.append(str(error))
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def _run_golden(golden: Golden, row: Row, with_file: bool) -> None:
    model, x = golden.model(), golden.input()
    row.loads = True
    for name, engine in ENGINES.items():
        with engine(model) as runner:
            verdict = golden.check(runner.run(x))
        worst = max(verdict.rows, key=lambda layer: layer.over_std)
        bad = verdict.first_bad.index if verdict.first_bad else None
        fork = next(key for key, value in FORKS.items() if value == golden.fork)
        row.agreements[f"{fork}/{name}"] = Agreement(worst.over_std, worst.index, bad, len(verdict.rows))
    if with_file:
        row.checker, row.dynamic = check_file(model)


def random_model(cfg: Path, size: tuple[int, int]) -> Model:
    """A model without a golden: plausible random weights, in the dialect that the cfg speaks."""
    text = read_cfg(cfg)
    dialect = infer_dialect(text)[0]
    network, rng, tensors = build_network(text, *size, dialect), np.random.default_rng(1), {}
    for span in build_ledger(network, dialect).spans:
        values = rng.standard_normal(span.shape, dtype=np.float32)
        if span.field.endswith(("scales", "rolling_variance")):
            values = np.abs(values) + np.float32(0.5)
        elif span.field.endswith("weights"):
            values *= np.float32(np.prod(span.shape[1:]) ** -0.5)
        tensors[span.layer, span.field] = values * np.float32(0.1 if span.field.endswith(("biases", "mean")) else 1)
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        path = Path(folder) / "random.weights"
        write_weights(make_weights(network, tensors, dialect), path)
        return open_model(cfg, path, dialect=dialect, size=size)


def check_file(model: Model) -> tuple[str, str]:
    """Verdicts on the ONNX file of the raw result: the checker, and another batch and size against PyTorch."""
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        path = Path(folder) / "raw.onnx"
        graph = build_graph(model, OnnxOptions("raw"))
        write_onnx(graph, path)
        checker = _check(path)
        session = open_session(path)
    other = another_size(model)
    shape = (2, other.network.channels, other.network.height, other.network.width)
    x = np.random.default_rng(1).random(shape, np.float32)
    outputs = session.run(list(graph.output_layers), {INPUT: x})
    worst = max(map(_relative, _run_torch(other, x, list(graph.output_layers.values())), outputs))
    what = f"batch 2 at {shape[3]}x{shape[2]}" if other is not model else "batch 2"
    return checker, f"{'yes' if worst <= BETWEEN_LIMIT else 'NO'}, {what}"


def _check(path: Path) -> str:
    try:
        onnx.checker.check_model(str(path), full_check=True)
        onnx.shape_inference.infer_shapes_path(str(path), str(path.with_suffix(".inferred")), True, True, True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return f"NO: {str(error).splitlines()[0]}"
    return "yes"


def _run_torch(model: Model, x: NDArray[np.float32], layers: list[int]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        outputs = build(model).run(torch.from_numpy(x), layers)
    return [outputs[i].numpy() for i in layers]


def _relative(reference: NDArray[Any], output: NDArray[Any]) -> float:
    if reference.shape != output.shape:
        return float("inf")
    return float(np.abs(reference - output).max() / (np.abs(reference).max() or 1))


def another_size(model: Model) -> Model:
    """The model at a larger size, or itself where it works at one size only."""
    network = model.network
    if not network.any_size:
        return model
    return model.at_size(network.width + network.stride, network.height)


def select(shared: Path, only: str = "") -> list[tuple[str, list[Golden], str]]:
    """(cfg, its goldens, why there is none) of every different network with `only` in its path, the smallest first."""
    folder = shared / "oracle" / "cfgs"
    table: dict[str, list[Golden]] = {str(path.relative_to(folder)): [] for path in folder.glob("*/*.cfg")}
    for golden in (golden for fork in FORKS for golden in list_goldens(shared, fork)):
        table[golden.cfg.removeprefix("cfgs/")].append(golden)
    reasons = json.loads((shared / "oracle" / "golden" / "INDEX.json").read_text())["no_golden"]
    twins = {cfg for cfg, goldens in table.items() if any("same_network_as" in g.entry for g in goldens)}
    chosen = ((cfg, goldens, reasons.get(f"cfgs/{cfg}", "")) for cfg, goldens in table.items())
    different = (row for row in chosen if only in row[0] and row[0] not in twins)
    return sorted(different, key=lambda row: max((golden.entry["floats"] for golden in row[1]), default=0))


def table(rows: Sequence[Row]) -> str:
    """The results as Markdown."""
    lines = (f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}", *(row.markdown() for row in rows))
    return "\n".join((totals(rows), "", *lines, ""))


def totals(rows: Sequence[Row]) -> str:
    """The sentence that summarises the table."""
    with_golden = [row for row in rows if row.agreements]
    torch_, onnx_ = (sum(row.agrees(engine) for row in with_golden) for engine in ENGINES)
    return (
        f"{sum(row.loads for row in rows)} of {len(rows)} networks load. Of the {len(with_golden)} with golden values, "
        f"{torch_} agree in PyTorch and {onnx_} in ONNX Runtime, every layer. "
        f"{sum(row.file_is_good for row in rows)} ONNX files pass the checker with full shape inference and agree with "
        "PyTorch at another batch, and at another size where the network allows it."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the corpus, write corpus.md and corpus.json; 1 where something that has a golden disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cfgs with this text in their path")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args(arguments)
    if not SHARED.is_dir():
        sys.exit(f"{SHARED} is not there: the corpus and its goldens lie beside the checkout")
    rows: list[Row] = []
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
