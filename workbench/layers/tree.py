"""The tree of classes that `tree=` of `[softmax]` and `[region]` names: YOLO9000's 9418 classes, from `object` to
breeds.

One line a class: its name and the number of its parent, -1 for the roots. Classes that stand together and share a
parent are a group, and the softmax is taken within each group (pjreddie src/tree.c `read_tree`, src/softmax_layer.c,
src/region_layer.c). A class's probability is the product of its own and of all above it.

In PyTorch and ONNX, groups of one size are gathered into a matrix, so that the thousands of groups need only as many
softmaxes as there are sizes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workbench.errors import CfgError
from workbench.layers.base import Context, Float32, OnnxScope

if TYPE_CHECKING:
    import torch

LARGEST_TREE_BYTES = 16 << 20


@dataclass(frozen=True)
class Tree:
    """parents: of each class, -1 for a root; starts: the first class of each group, in order."""

    parents: tuple[int, ...]

    @classmethod
    def read(cls, context: Context, classes: int) -> Tree | None:
        """The tree that `tree=` names; None without it. Raises CfgError where the file is missing, broken or
        misfits.
        """
        option = context.section.options.get("tree")
        context.options.ignore("tree")
        if option is None or option.value in ("", "0"):
            return None
        path = context.find_file("tree")
        with path.open("rb") as file:
            text = file.read(LARGEST_TREE_BYTES).decode("utf-8", errors="replace")
        tree = cls.parse(text, path.name)
        if len(tree.parents) != classes:
            raise context.error(
                "tree",
                f"{path.name} is not the tree of these classes",
                expected=f"{classes} classes",
                found=f"{len(tree.parents)} lines",
            )
        return tree

    @classmethod
    def parse(cls, text: str, source: str) -> Tree:
        """From the text of the file; raises CfgError with the line at fault."""
        parents: list[int] = []
        for number, line in enumerate(text.splitlines(), start=1):
            match = re.match(r"\s*\S+\s+(-?\d{1,9})\s*$", line)
            parent = int(match.group(1)) if match else None
            if parent is None or not -1 <= parent < len(parents):
                raise CfgError(
                    f"{source}:{number}",
                    "not a line of a tree",
                    expected="a name and the number of an earlier line, or -1",
                    found=repr(line[:60]),
                )
            parents.append(parent)
        if not parents:
            raise CfgError(source, "holds no class", expected="one line a class: name and parent")
        return cls(tuple(parents))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First class of each group."""
        changes = (i for i in range(1, len(self.parents)) if self.parents[i] != self.parents[i - 1])
        return (0, *changes)

    @cached_property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """First and last+1 class of each group."""
        return tuple(zip(self.starts, (*self.starts[1:], len(self.parents)), strict=True))

    @cached_property
    def child_group(self) -> dict[int, int]:
        """Class -> the (last) group of its children."""
        return {self.parents[start]: number for number, start in enumerate(self.starts) if self.parents[start] >= 0}

    @cached_property
    def batches(self) -> tuple[tuple[int, NDArray[np.int64]], ...]:
        """Size of groups -> the classes of all groups of that size, one after the other."""
        table: dict[int, list[int]] = {}
        for start, stop in self.groups:
            table.setdefault(stop - start, []).extend(range(start, stop))
        return tuple((size, np.array(members, np.int64)) for size, members in sorted(table.items()))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """All batches one after the other."""
        return np.concatenate([members for _, members in self.batches])

    @cached_property
    def back(self) -> NDArray[np.int64]:
        """Where each class stands in `order`."""
        return np.argsort(self.order)

    def softmax(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Softmax within each group along `axis`."""
        from torch import cat, from_numpy

        gathered = x.index_select(axis, from_numpy(self.order).to(x.device))
        parts, start = [], 0
        for size, members in self.batches:
            part = gathered.narrow(axis, start, len(members))
            rows = part.reshape(*x.shape[:axis], len(members) // size, size, *x.shape[axis + 1 :])
            parts.append(rows.softmax(axis + 1).flatten(axis, axis + 1))
            start += len(members)
        return cat(parts, axis).index_select(axis, from_numpy(self.back).to(x.device))

    def onnx_softmax(self, g: OnnxScope, x: str, axis: int, rank: int) -> str:
        """The same as nodes; `rank` is the number of dimensions of `x`."""
        gathered = g.node("Gather", x, g.constant("tree_order", self.order, "int64"), axis=axis)
        lengths = [len(members) for _, members in self.batches]
        parts = [gathered]
        if len(lengths) > 1:
            parts = g.node(
                "Split", gathered, g.constant("tree_sizes", lengths, "int64"), outputs=len(lengths), axis=axis
            )
        done = []
        for (size, members), part in zip(self.batches, parts, strict=True):
            shape = [0] * axis + [len(members) // size, size] + [-1] * (rank - axis - 1)
            rows = g.node("Reshape", part, g.constant(f"tree_groups_{size}", shape, "int64"))
            flat = [0] * axis + [len(members)] + [-1] * (rank - axis - 1)
            rows = g.node(
                "Reshape", g.node("Softmax", rows, axis=axis + 1), g.constant(f"tree_flat_{size}", flat, "int64")
            )
            done.append(rows)
        joined = done[0] if len(done) == 1 else g.node("Concat", *done, axis=axis)
        return str(g.node("Gather", joined, g.constant("tree_back", self.back, "int64"), axis=axis))

    def absolute(self, x: Float32) -> Float32:
        """Probabilities within groups (classes,) -> of the classes themselves: times those of everything above."""
        y = x.copy()
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                y[i] *= y[parent]
        return y

    def top(self, x: Float32 | Sequence[float], thresh: float) -> int:
        """The most special class that is still likelier than `thresh`, walking down from the roots as Darknet does.

        pjreddie src/tree.c `hierarchy_top_prediction`, called with what `absolute` gives: the product along the way is
        taken twice, so that it goes down less far than `thresh` says.
        """
        p, group = 1.0, 0
        while True:
            start, stop = self.groups[group]
            best = start + int(np.argmax(x[start:stop]))
            if p * x[best] > thresh:
                p *= float(x[best])
                if best not in self.child_group:
                    return best
                group = self.child_group[best]
            else:
                return best if group == 0 else self.parents[start]
