"""`python -m tests.diagnosis.evaluate`: is what was done to a conversion what the diagnosis says? Prints the table.

Foreign ONNX files are traced from plain torch code that makes the mistakes itself, in ten layouts of results, several
conventions of input, three precisions. Options: --quick, --only PART, --seed N, --jobs N.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"shapes-tiny3": (128, 96), "shapes-tiny4": (192, 128)}
"""The shipped models, and the input size (width, height) at which they are tried."""
GROUPS = (
    ("epsilon-", "variance-trick"), ("header-",), ("mask-", "masks-", "anchors-of-another-cfg"), ("heads-",),
    ("upsample-",), ("route-groups-ignored", "route-wrong-half"), ("probability-", "objectness-"), ("maxpool-",),
    ("no-sigmoid-on-xy", "double-sigmoid"), ("weights-before-batchnorm", "batchnorm-pytorch-order"),
)  # fmt: skip
"""Mistakes that exclude each other in one port."""
FRONTS = ("", "", "", "nhwc", "255", "nhwc 255", "bgr", "nhwc 255 bgr")
PRECISIONS = ("float32", "float32", "float16", "int8", "int8 per channel", "int8 dynamic")


@dataclass(frozen=True)
class Case:
    """One foreign file: what was done to it, and how it is written."""

    part: str
    model: str
    mistakes: tuple[str, ...]
    layout: str
    front: str = ""
    precision: str = "float32"
    folded: bool = True


@dataclass(frozen=True)
class Outcome:
    """What the diagnosis said of a case, in one of `KINDS`."""

    case: Case
    kind: str
    said: tuple[str, ...]
    ties: tuple[tuple[str, ...], ...] = ()
    seconds: float = 0.0
    note: str = ""


KINDS = (
    "right",
    "right, not told from others",
    "right as far as visible",
    "in part",
    "no known pitfall",
    "wrong",
    "false accusation",
    "failed",
)


def run_case(case: Case) -> Outcome:
    """One case; what fails on the way is a miss, not the end of the run."""
    try:
        return _run_case(case)
    except Exception as error:  # whatever it was belongs into the table
        return Outcome(case, "failed", (), note=f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _run_case(case: Case) -> Outcome:
    """Write the file, diagnose it, judge the answer."""
    from workbench.diagnosis import ForeignOnnx, diagnose

    model, picture = _model(case.model), _picture()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "theirs.onnx"
        _write(case, path)
        started = time.monotonic()
        found = diagnose(model, ForeignOnnx(path), {"drawn": picture}, limit_s=60)
        seconds = time.monotonic() - started
        truth, said = set(case.mistakes), set(found.pitfalls)
        kind = _judge(truth, said, [set(tie) for tie in found.ties], found.verdict)
        if kind == "in part" and found.verdict in ("explained", "nothing wrong") and said < truth:
            other = Path(folder) / "part.onnx"
            _write(
                Case(case.part, case.model, tuple(sorted(said)), case.layout, case.front, case.precision, case.folded),
                other,
            )
            kind = "right as far as visible" if _same_results(path, other, model, picture) else kind
    return Outcome(case, kind, found.pitfalls, found.ties, seconds, f"{found.verdict}; {found.fault}")


def _judge(truth: set[str], said: set[str], ties: list[set[str]], verdict: str) -> str:
    if not truth:
        return "right" if verdict == "nothing wrong" else "false accusation" if said else "no known pitfall"
    if said == truth:
        return "right, not told from others" if ties else "right"
    if truth in ties:
        return "right, not told from others"
    if said and not said <= truth:
        return "wrong"
    return "in part" if said or verdict == "nothing wrong" else "no known pitfall"


def _model(name: str):  # type: ignore[no-untyped-def]
    from workbench.model import open_model

    return open_model(ROOT / f"data/{name}.cfg", ROOT / f"data/{name}.weights").at_size(*MODELS[name])


def _picture():  # type: ignore[no-untyped-def]
    from workbench.image import load_picture

    return load_picture(ROOT / "data/pictures/shelf-629x317.jpg")


def _write(case: Case, path: Path) -> None:
    from tests.diagnosis.foreign_file import write_foreign
    from tests.diagnosis.foreign_head import Exported
    from tests.diagnosis.foreign_net import ForeignNet
    from workbench.image import load_picture

    model = _model(case.model)
    epsilon = model.dialect.epsilon
    cfg, weights = ROOT / f"data/{case.model}.cfg", ROOT / f"data/{case.model}.weights"
    net = ForeignNet(
        cfg, weights, frozenset(case.mistakes), (epsilon.value, epsilon.inside), MODELS[case.model], case.folded
    )
    pictures = [
        model.preprocessing.apply(load_picture(p))[None] for p in sorted((ROOT / "data/pictures").glob("*.jpg"))
    ]
    factor = 255 if "255" in case.front else 1
    feeds = [(p[:, ::-1] if "bgr" in case.front else p) * factor for p in pictures]
    write_foreign(
        Exported(net, case.layout, case.front),
        path,
        MODELS[case.model],
        case.precision,
        [f.astype("float32") for f in feeds],
    )


def _same_results(one: Path, other: Path, model: object, picture: object) -> bool:
    """Whether two files hand out the same numbers: then no diagnosis can tell them apart."""
    import numpy as np

    from workbench.diagnosis import ForeignOnnx

    x = model.preprocessing.apply(picture)[None]  # type: ignore[attr-defined]
    left, right = ([v.array for v in ForeignOnnx(path).watch(x) if v.is_output] for path in (one, other))
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in zip(left, right, strict=True))


# ------------------------------------------------------------------------------------------ the cases


def tensor_mistakes(name: str) -> list[str]:
    """The pitfalls that change a tensor of this model when switched on, but for half precision, which is no mistake."""
    from workbench.pitfalls import PITFALLS

    model = _model(name)
    stages = ("weights", "network", "decoding")
    return [
        p.name for p in PITFALLS.values() if p.stage in stages and p.idle(model) is None and p.name != "fp16-overflow"
    ]


def layouts_for(mistakes: Iterable[str]) -> list[str]:
    """Layouts in which these mistakes can show: decoding only in decoded results."""
    from tests.diagnosis.foreign_head import DECODED_LAYOUTS, LAYOUTS
    from workbench.pitfalls import PITFALLS

    activated = {"scale-x-y-ignored", "no-sigmoid-on-xy", "double-sigmoid"}
    decoding = {name for name in mistakes if PITFALLS[name].stage == "decoding"}
    if decoding <= activated and decoding:
        return [*DECODED_LAYOUTS, "activated joined"]
    return list(DECODED_LAYOUTS) if decoding else list(LAYOUTS)


def excluded(pair: tuple[str, ...]) -> bool:
    """Whether one port cannot make both mistakes."""
    return any(sum(name.startswith(group) for name in pair) > 1 for group in GROUPS)


def single_cases(rng: random.Random) -> Iterator[Case]:
    """Every mistake on every model where it changes something."""
    for model in MODELS:
        for name in tensor_mistakes(model):
            yield Case("one mistake", model, (name,), rng.choice(layouts_for([name])), folded=rng.random() < 0.5)


def pair_cases(rng: random.Random, count: int) -> Iterator[Case]:
    """Random pairs."""
    everything = [(model, pair) for model in MODELS for pair in itertools.combinations(tensor_mistakes(model), 2)]
    possible = [(model, pair) for model, pair in everything if not excluded(pair)]
    for model, pair in rng.sample(possible, min(count, len(possible))):
        yield Case("two mistakes", model, pair, rng.choice(layouts_for(pair)), folded=rng.random() < 0.5)


def healthy_cases(rng: random.Random, count: int) -> Iterator[Case]:
    """Correct conversions of every kind."""
    from tests.diagnosis.foreign_head import LAYOUTS

    for number in range(count):
        model = list(MODELS)[number % 2]
        layout, precision = LAYOUTS[(number // 2) % len(LAYOUTS)], PRECISIONS[(number // 2) % len(PRECISIONS)]
        yield Case(
            f"healthy, {precision.split()[0]}", model, (), layout, rng.choice(FRONTS), precision, rng.random() < 0.5
        )


@dataclass
class Table:
    """Counts of outcomes by part."""

    outcomes: list[Outcome] = field(default_factory=list)

    def markdown(self) -> str:
        """The table as it stands in the README."""
        parts = list(dict.fromkeys(outcome.case.part for outcome in self.outcomes))
        lines = ["| foreign files | number | " + " | ".join(KINDS) + " |", "|---|---:|" + "---:|" * len(KINDS)]
        for part in parts:
            counts = Counter(outcome.kind for outcome in self.outcomes if outcome.case.part == part)
            lines.append(
                f"| {part} | {sum(counts.values())} | " + " | ".join(str(counts[kind] or "") for kind in KINDS) + " |"
            )
        return "\n".join(lines)

    def misses(self) -> Iterator[str]:
        """Every case that was not answered rightly."""
        for outcome in self.outcomes:
            if not outcome.kind.startswith("right"):
                case = outcome.case
                told = f"{' + '.join(outcome.said) or 'nobody'} ({outcome.note})"
                form = f"{case.model}, {case.layout}, {case.precision} {case.front}".rstrip()
                yield f"- {outcome.kind}: {' + '.join(case.mistakes) or 'healthy'} [{form}]: accused {told}"


def run_all(cases: list[Case], jobs: int) -> Table:
    """Run the cases, some at a time."""
    table = Table()
    with ProcessPoolExecutor(jobs) as pool:
        for number, outcome in enumerate(pool.map(run_case, cases), 1):
            table.outcomes.append(outcome)
            if sys.stderr.isatty() or number % 25 == 0:
                print(f"\r{number}/{len(cases)}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    return table


def make_cases(seed: int, quick: bool, only: str) -> list[Case]:
    """All cases of a run."""
    rng = random.Random(seed)
    cases = [*single_cases(rng), *pair_cases(rng, 12 if quick else 300), *healthy_cases(rng, 12 if quick else 200)]
    if quick:
        cases = [case for number, case in enumerate(cases) if case.part != "one mistake" or number % 6 == 0]
    return [case for case in cases if only in case.part]


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    table = run_all(make_cases(options.seed, options.quick, options.only), options.jobs)
    print(table.markdown())
    print("\n".join(table.misses()))
    slowest = max(table.outcomes, key=lambda outcome: outcome.seconds)
    print(f"slowest diagnosis: {slowest.seconds:.1f} s, {slowest.case}")


if __name__ == "__main__":
    main()
