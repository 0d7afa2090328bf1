"""Run in a process of its own by `foreign_torch.py`: module:factory, the input, and where to write the values."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

LARGEST_TOTAL_BYTES = 4 << 30


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Copies every floating point result of every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[tuple[str, np.ndarray[Any, Any]]] = []
        self._bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            if tensor.is_floating_point() and tensor.numel() > 1:
                self._bytes += tensor.numel() * 4
                if self._bytes > LARGEST_TOTAL_BYTES:
                    raise MemoryError("their network computes more than can be recorded")
                self.made.append((str(func), to_array(tensor)))
        return result


def to_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy in float32, or float16 where it is that."""
    kind = torch.float16 if tensor.dtype == torch.float16 else torch.float32
    array: np.ndarray[Any, Any] = tensor.detach().to("cpu", kind).numpy().copy()
    return array


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def main(spec: str, fed: str, made: str) -> None:
    """Make the module, run it once, write the values in order; results are written last, marked `o`."""
    name, _, factory = spec.partition(":")
    module = getattr(importlib.import_module(name), factory)()
    if isinstance(module, torch.nn.Module):
        module.eval()
    x = torch.from_numpy(np.load(fed))
    with torch.no_grad(), Recorder() as recorder:
        result = module(x)
    arrays = {f"v {number} {text}": array for number, (text, array) in enumerate(recorder.made)}
    arrays.update({f"o result {number}": to_array(tensor) for number, tensor in enumerate(tensors_in(result))})
    np.savez(made, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
