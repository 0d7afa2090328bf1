"""Whether a network fits into the memory of this machine, asked before anything is allocated.

Counted is what must lie in memory at the same time: the input, the outputs that somebody still needs, the tensors.
Engines take more for themselves, so what passes may still be too much; what does not pass can never fit.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from workbench.errors import OptionError
from workbench.network import Network

FLOAT_BYTES = 4
VIEWS = frozenset({"dropout", "empty", "cost", "contrastive"})
"""Layers whose output is their input, in the same memory."""

CGROUP = Path("/sys/fs/cgroup")


def require_memory(network: Network, keep: Collection[int] | None = None, batch: int = 1, tensors: int = 0) -> None:
    """Raise OptionError where running `network` needs more memory than there is.

    keep: layers whose outputs stay until the end, all where None. tensors: bytes of the weights that are copied.
    """
    available = available_bytes()
    needed = peak_activation_bytes(network, keep, batch) + tensors
    if available is None or needed <= available:
        return
    line, what, count = _largest(network)
    raise OptionError(
        f"{network.cfg.source}:{line}",
        f"the network needs more memory than there is at {network.width}x{network.height}, batch {batch}",
        expected=f"at most {in_gigabytes(available)}",
        found=f"{in_gigabytes(needed)}, of which {what} alone has {in_gigabytes(count * FLOAT_BYTES * batch)}",
        next_step="Take a smaller width= and height=, or a machine with more memory.",
    )


def _largest(network: Network) -> tuple[int, str, int]:
    """cfg line, name and number of values of the largest output, the input being one."""
    outputs = [
        (layer.line, f"layer {layer.index} [{layer.kind}]", math.prod(layer.output_shape)) for layer in network.layers
    ]
    image = network.channels * network.height * network.width
    return max([(network.net.line, "the input", image), *outputs], key=lambda output: output[2])


def require_bytes(where: str, what: str, needed: int) -> None:
    """Raise OptionError where `needed` bytes for `what` are more than there is."""
    available = available_bytes()
    if available is not None and needed > available:
        raise OptionError(
            where,
            f"{what} needs more memory than there is",
            expected=f"at most {in_gigabytes(available)}",
            found=in_gigabytes(needed),
        )


def peak_activation_bytes(network: Network, keep: Collection[int] | None = None, batch: int = 1) -> int:
    """Largest number of bytes that the input and the outputs take at one time, in float32.

    An output is forgotten after its last use, but for those in `keep` (all where None).
    """
    kept = {layer.index for layer in network.layers} if keep is None else set(keep)
    last_use, live = network.last_use(), {-1: network.channels * network.height * network.width}
    total = peak = live[-1]
    for layer in network.layers:
        view = layer.kind in VIEWS or (layer.kind == "route" and len(layer.inputs) == 1)
        live[layer.index] = 0 if view else math.prod(layer.output_shape)
        total += live[layer.index]
        peak = max(peak, total)
        for index in {*layer.inputs, layer.index} - kept:
            if index >= 0 and last_use[index] == layer.index:
                total -= live[index]
    return peak * FLOAT_BYTES * batch


def available_bytes() -> int | None:
    """Memory that this process could still get: of the machine, its container and its own limit; None where unknown."""
    limits = [limit for limit in (_free_in_machine(), _free_in_container(), _free_for_process()) if limit is not None]
    return max(min(limits), 0) if limits else None


def in_gigabytes(count: int) -> str:
    """`12.3 GB`."""
    return f"{count / 1e9:.1f} GB"


def _free_in_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return _physical_bytes()


def _physical_bytes() -> int | None:
    with suppress(ImportError, AttributeError, OSError, ValueError):
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _free_in_container() -> int | None:
    """Of a control group, version 2: its limit less what its processes hold (the page cache can be given back)."""
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text())
        held = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return limit - int(held.get("anon", 0)) - int(held.get("shmem", 0))
    return None


def _free_for_process() -> int | None:
    """Of the address space that `ulimit -v` leaves to this process."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            return limit - pages * resource.getpagesize()
    return None
