"""Train the shipped detectors from nothing: `python -m data.train`, or with the names of some of them.

The cfg beside this file is the network, PyTorch computes, and the workbench's own writer makes the `.weights` file.
Scenes, first weights and order of presentation come from one seed; the last bits may differ between processors.

The weights that ship were made by `train` below, in 4 epochs of 5000 scenes (254 and 377 seconds of one core), but from
an earlier draft of the scenes, with objects from 0.12 of the picture's side on and weaker contrasts, and with 1 as the
seed of the first weights. Training again therefore gives other weights of the same kind, not these.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from data.draw import held_out
from data.evaluate import measure_map
from data.loss import Head, head_loss
from data.scenes import SceneSet, draw_scenes
from workbench.cfg import read_cfg
from workbench.dialects import ALEXEYAB, PJREDDIE
from workbench.layers.yolo import Yolo
from workbench.model import Model, model_from, open_model
from workbench.network import Network, build_network
from workbench.runners import choose_reference, open_runner
from workbench.torch_model import DarknetModule, build
from workbench.weights import Header, Span, build_ledger, make_weights, write_weights

FOLDER = Path(__file__).parent

DIALECTS = {"shapes-tiny3": PJREDDIE, "shapes-tiny4": ALEXEYAB}
"""What is trained, and as which fork computes it."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn."""

    seed: int = 20180914
    scenes: int = 5000
    epochs: int = 4
    batch: int = 32
    learning_rate: float = 6e-3
    weight_decay: float = 5e-3
    threads: int = 2

    @property
    def steps(self) -> int:
        """Updates of the weights in all."""
        return self.scenes // self.batch * self.epochs


def make_model(name: str, seed: int) -> Model:
    """Return the untrained model of `data/NAME.cfg`: seeded random weights, neutral batch normalisation."""
    network, dialect = build_network(read_cfg(FOLDER / f"{name}.cfg")), DIALECTS[name]
    rng = np.random.Generator(np.random.PCG64([seed, len(network.layers)]))
    spans = build_ledger(network, dialect).spans
    tensors = {(span.layer, span.field): _first_values(rng, network, span) for span in spans}
    names = tuple((FOLDER / f"{name}.names").read_text(encoding="utf-8").splitlines())
    return model_from(network.cfg.text, make_weights(network, tensors, dialect), dialect, names, f"{name}.cfg")


def _first_values(rng: np.random.Generator, network: Network, span: Span) -> NDArray[np.float32]:
    """Return a tensor to start from: He's normal distribution for weights, ones and zeros for the rest."""
    feeds_head = isinstance(network.layers[span.layer + 1], Yolo)
    if span.field == "weights":
        spread = 0.01 if feeds_head else math.sqrt(2.0 / math.prod(span.shape[1:]))
        return rng.normal(0.0, spread, span.shape).astype(np.float32)
    values = np.full(span.shape, 1.0 if span.field in ("scales", "rolling_variance") else 0.0, np.float32)
    if feeds_head:
        values.reshape(3, -1)[:, 4] = -4.0  # most cells hold no object
    return values


def find_heads(network: Network) -> list[Head]:
    """Return what the loss must know about each [yolo] layer."""
    layers = [layer for layer in network.layers if isinstance(layer, Yolo)]
    pixels = {number: anchor for layer in layers for number, anchor in zip(layer.mask, layer.anchors, strict=True)}
    anchors = torch.tensor([pixels[number] for number in sorted(pixels)]) / torch.tensor(
        [network.width, network.height]
    )
    return [Head(layer.inputs[0], layer.mask, anchors, layer.scale_x_y, layer.classes) for layer in layers]


def train(model: Model, scenes: SceneSet, schedule: Schedule, progress: Progress) -> Model:
    """Return the model trained on `scenes` with AdamW, its learning rate rising for a while and then falling to 0."""
    torch.manual_seed(schedule.seed)
    rng = np.random.Generator(np.random.PCG64(schedule.seed))
    heads = find_heads(model.network)
    module = build(model, [head.raw for head in heads], trainable=True)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(_parameter_groups(module, schedule), lr=schedule.learning_rate)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.learning_rate, schedule.steps, pct_start=0.15)
    task, mean = progress.add_task(f"train {model.network.cfg.source}", total=schedule.steps, note=""), 0.0
    for _ in range(schedule.epochs):
        for step, (pictures, boxes, classes) in enumerate(scenes.batches(schedule.batch, rng)):
            outputs = module(pictures.contiguous(memory_format=torch.channels_last))
            losses = [head_loss(head, raw, boxes, classes) for head, raw in zip(heads, outputs, strict=True)]
            loss = torch.stack(losses).sum() / (classes >= 0).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0)
            optimizer.step()
            rate.step()
            mean = loss.item() if step == 0 else mean * 0.98 + loss.item() * 0.02
            progress.update(task, advance=1, note=f"loss {mean:.3f}")
    return _read_back(model, module, schedule)


def _parameter_groups(module: DarknetModule, schedule: Schedule) -> list[dict[str, object]]:
    """Only the convolutions' weights decay: decaying scales would make channels die."""
    weights = [p for p in module.parameters() if p.ndim == 4]
    rest = [p for p in module.parameters() if p.ndim != 4]
    return [{"params": weights, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _read_back(model: Model, module: DarknetModule, schedule: Schedule) -> Model:
    """Return the model with the module's tensors, and the number of pictures it has seen in the header."""
    state = module.state_dict()
    tensors = {
        (span.layer, span.field): np.ascontiguousarray(state[f"{span.layer:03d}_{span.kind}.{span.field}"].numpy())
        for span in model.weights.ledger.spans
    }
    header = Header(0, 2, 5, schedule.steps * schedule.batch)
    weights = make_weights(model.network, tensors, model.dialect, header)
    return model_from(model.cfg_text, weights, model.dialect, model.names, model.network.cfg.source)


def train_and_write(names: Sequence[str], schedule: Schedule, folder: Path, console: Console) -> None:
    """Draw the scenes once, train every model on them, write `NAME.weights` into `folder`, and print mAP and times."""
    torch.set_num_threads(schedule.threads)
    models = [make_model(name, schedule.seed) for name in names]
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("draw scenes", total=schedule.scenes, note="")
        inputs = [model.preprocessing for model in models]
        sets = draw_scenes(schedule.scenes, inputs, lambda _: progress.advance(task))
        for name, model, scenes in zip(names, models, sets, strict=True):
            start = time.monotonic()
            weights = train(model, scenes, schedule, progress).weights
            minutes = (time.monotonic() - start) / 60
            write_weights(weights, folder / f"{name}.weights")
            console.print(f"{name}.weights: {weights.ledger.bytes} bytes, trained in {minutes:.1f} minutes")
    for name in names:
        report(name, folder, console)


def report(name: str, folder: Path, console: Console) -> None:
    """Print mAP@.5 on 200 held-out scenes, measured by the first engine that can run the model truthfully."""
    model = open_model(FOLDER / f"{name}.cfg", folder / f"{name}.weights", dialect=DIALECTS[name])
    engine, _ = choose_reference(model)
    with open_runner(engine, model) as runner:
        console.print(f"{name}: mAP@.5 {measure_map(runner, held_out(200)):.4f} on 200 held-out scenes, by {engine}")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which of {', '.join(DIALECTS)}; all by default")
    parser.add_argument("--epochs", type=int, default=Schedule.epochs, help="how often every scene is shown")
    parser.add_argument("--scenes", type=int, default=Schedule.scenes, help="how many scenes are drawn")
    parser.add_argument("--threads", type=int, default=Schedule.threads, help="processor cores")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the .weights files")
    given = parser.parse_args()
    schedule = Schedule(scenes=given.scenes, epochs=given.epochs, threads=given.threads)
    for name in set(given.names) - set(DIALECTS):
        parser.error(f"no such model: {name}; there are {', '.join(DIALECTS)}")
    train_and_write(given.names or list(DIALECTS), schedule, given.out, Console())


if __name__ == "__main__":
    main()
