"""Engines that run a model: torch, ONNX Runtime, real Darknet, OpenCV. All keep one contract, so that a comparison
never knows which is which. A reference states what it cannot run truthfully, and refuses it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Detections
from workbench.dialects import Epsilon
from workbench.errors import OptionError, ReferenceRefused, ToolMissing
from workbench.layers.base import Float32
from workbench.model import Model

RUNNERS = {
    "torch": "workbench.runners.torch",
    "onnxruntime": "workbench.runners.onnxruntime",
    "darknet": "workbench.runners.darknet",
    "opencv": "workbench.runners.opencv",
}
REFERENCES = ("darknet", "opencv")
"""Independent engines, the most faithful first."""


class Runner(Protocol):
    """An opened engine with a model in it; also a context manager that closes it."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> Model: ...

    @property
    def epsilon(self) -> Epsilon | None:
        """The batch normalisation this engine computes; None where it follows the model's dialect."""
        ...

    def run(self, x: Float32) -> dict[int, Float32]:
        """x float32 (n, c, h, w), 0 to 1 -> output (n, c, h, w) of every layer the engine can show."""
        ...

    def detect(self, picture: NDArray[np.uint8], thresh: float) -> Detections:
        """Picture uint8 (H, W, 3) RGB -> detections with a probability above `thresh`, as this engine makes them."""
        ...

    def close(self) -> None:
        """Let go of processes and files."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(self, *exception: object) -> None: ...


def open_runner(name: str, model: Model) -> Runner:
    """Open the engine `name` with `model`; raises OptionError, ToolMissing or ReferenceRefused."""
    if name not in RUNNERS:
        raise OptionError("runner", "unknown engine", expected=", ".join(RUNNERS), found=repr(name))
    runner: Runner = import_module(RUNNERS[name]).open_runner(model)
    return runner


def refusal(name: str, model: Model) -> str | None:
    """Why the reference `name` cannot run `model` truthfully; None where it can."""
    try:
        reason: str | None = import_module(RUNNERS[name]).refusal(model)
    except ToolMissing as error:
        return str(error)
    return reason


def choose_reference(model: Model, wanted: str = "auto") -> tuple[str, list[str]]:
    """The reference to compare with, and why the ones before it were passed over.

    Raises ReferenceRefused with all reasons where none can run the model truthfully.
    """
    names = REFERENCES if wanted == "auto" else (wanted,)
    passed_over: list[str] = []
    for name in names:
        if name not in REFERENCES:
            raise OptionError(
                "reference", "unknown reference", expected="auto, " + ", ".join(REFERENCES), found=repr(name)
            )
        reason = refusal(name, model)
        if reason is None:
            return name, passed_over
        passed_over.append(f"{name}: {reason}")
    raise ReferenceRefused(
        model.network.cfg.source,
        "no reference can run this cfg truthfully",
        found="; ".join(passed_over),
        next_step="Without a reference nothing is proved; --unvalidated exports all the same and says so in the file.",
    )
