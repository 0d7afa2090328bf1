"""A stranger's PyTorch module, watched while it computes: in a process of its own, and only when asked to.

Their code is run with this interpreter and all rights of the user; the process apart keeps it from changing the
workbench, it is no protection. Every operation's floating point result is recorded, so that names, hooks and how the
module is written do not matter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbench.diagnosis.evidence import Evidence, Value, coarsest, make_values
from workbench.errors import OptionError, RunnerFailed
from workbench.layers.base import Float32
from workbench.model import Model

TIME_LIMIT_S = 120.0
SCRIPT = Path(__file__).with_name("watch_torch.py")


class ForeignTorch:
    """`module:factory`: the factory gives an nn.Module that takes (1, c, h, w). inputs: what they feed, by picture."""

    def __init__(
        self, spec: str, inputs: Mapping[str, Float32] | None = None, time_limit_s: float = TIME_LIMIT_S
    ) -> None:
        module, _, factory = spec.partition(":")
        if not module or not factory:
            raise OptionError("--torch", "is no module and factory", expected="module:factory", found=spec)
        self.spec, self.inputs, self.time_limit_s = spec, dict(inputs or {}), time_limit_s

    def size(self) -> tuple[int, int] | None:
        """Not told by a module."""
        return None

    def evidence(self, model: Model, pictures: Mapping[str, NDArray[np.uint8]]) -> list[Evidence]:
        """Runs their code once for each picture; raises RunnerFailed where it fails."""
        found = []
        for name, picture in pictures.items():
            given = self.inputs.get(name)
            x = model.preprocessing.apply(picture)[None] if given is None else given
            values = self.watch(x)
            precision = coarsest([v.precision for v in values if v.precision == "float16"])
            remark = f"{self.spec} was run in a process of its own"
            found.append(Evidence(name, picture, x, given is None, values, None, precision, (remark,)))
        return found

    def watch(self, x: Float32) -> tuple[Value, ...]:
        """x (1, c, h, w) -> every result of every operation, in order."""
        with tempfile.TemporaryDirectory(prefix="workbench-torch-") as folder:
            fed, made = Path(folder) / "x.npy", Path(folder) / "values.npz"
            np.save(fed, x)
            path = os.pathsep.join(part for part in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if part)
            try:
                done = subprocess.run(
                    [sys.executable, str(SCRIPT), self.spec, str(fed), str(made)],
                    env={**os.environ, "PYTHONPATH": path},
                    capture_output=True, text=True, timeout=self.time_limit_s, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise RunnerFailed(
                    self.spec, "took too long and was stopped", expected=f"{self.time_limit_s:g} s"
                ) from error
            if not made.is_file():
                words = done.stderr.strip().splitlines()
                raise RunnerFailed(
                    self.spec, "did not run", found=words[-1] if words else f"exit code {done.returncode}"
                )
            with np.load(made, allow_pickle=False) as arrays:
                return make_values([(name[2:], arrays[name], name.startswith("o ")) for name in arrays.files])
