"""What every layer file provides, and what it is given: the contract of this folder.

A layer is one frozen value made from one section. It knows its options, the shape it puts out, its tensors in the
order of the file, how to compute itself in PyTorch and how to write itself as ONNX nodes. Adding a layer to the
workbench is adding one file beside this one with a subclass of `Layer`; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.cfg import Note, Section
from workbench.errors import CfgError
from workbench.options import Options

if TYPE_CHECKING:
    import torch

    from workbench.dialects import Dialect

Shape = tuple[int, int, int]
"""Channels, height, width: Darknet's memory order."""

Float32 = NDArray[np.float32]

LARGEST_OUTPUT = 2**31 - 1
"""Darknet counts the outputs of a layer in a C `int`."""

TRAINING_KEYS = frozenset({"stopbackward", "dontload", "dontloadscales", "burnin_update", "train_only_bn", "onlyforward"})
"""Keys that any section may carry and that never change an output."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a layer in the weights file: its Darknet name and shape; always float32, little endian."""

    field: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of floats."""
        return int(np.prod(self.shape, dtype=np.int64))


class Parameters(Protocol):
    """A layer's tensors in PyTorch, by Darknet's names, with what else the forward pass depends on."""

    dialect: Dialect
    training: bool

    def __getitem__(self, field: str) -> torch.Tensor: ...


class OnnxScope(Protocol):
    """One layer's place in an ONNX graph that is being built; names get the layer's prefix (`013_convolutional/`)."""

    dialect: Dialect
    opset: int
    fold: bool
    size: tuple[int, int] | None
    """Height and width of the network input where they are fixed, None where they stay open."""

    def tensor(self, field: str) -> Float32:
        """The layer's tensor from the weights."""
        ...

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str | None = None, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or a list of names where `outputs` > 1."""
        ...

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a small constant and return its name."""
        ...

    def weight(self, name: str, shape: Sequence[int], make: Callable[[], Float32]) -> str:
        """Add a weight tensor whose values are computed only when the file is written."""
        ...


@dataclass(frozen=True)
class Net:
    """What `[net]` says about the input and the pipeline; `line` is that of the section."""

    width: int
    height: int
    channels: int
    inputs: int
    letter_box: bool
    line: int
    source: str


@dataclass
class Context:
    """What a layer may look at while it is made: its section, the layers before it, the network input."""

    index: int
    options: Options
    net: Net
    previous: Sequence[Layer]
    notes: list[Note] = field(default_factory=list)

    @property
    def section(self) -> Section:
        """The section the layer is made from."""
        return self.options.section

    def shape_of(self, index: int) -> Shape:
        """Output shape of layer `index`; -1 is the network input."""
        return self.previous[index].output_shape if index >= 0 else (self.net.channels, self.net.height, self.net.width)

    @property
    def before(self) -> int:
        """Index of the layer right before this one; -1 for the network input."""
        return self.index - 1

    def references(self, key: str) -> tuple[int, ...]:
        """The layers that `key=` names, as absolute indices; negative numbers count back from here."""
        values = self.options.integers(key)
        if not values:
            raise CfgError(self.section.where(key), f"[{self.section.kind}] needs {key}=", expected="layer numbers such as -1, 8")
        return tuple(self._resolve(key, value) for value in values)

    def _resolve(self, key: str, value: int) -> int:
        index = value if value >= 0 else self.index + value
        if not 0 <= index < self.index:
            raise CfgError(
                self.section.where(key), f"{key}= names layer {value}, which is not before this one",
                expected=f"-{self.index} to -1, or 0 to {self.index - 1}" if self.index else "nothing: this is the first layer",
                found=f"layer {index}", cause="Counting starts at 0 after [net]; a section was added or removed?",
            )
        return index

    def error(self, key: str | None, problem: str, **facts: Any) -> CfgError:
        """A CfgError at the line of `key`, or of the section."""
        return CfgError(self.section.where(key), problem, **facts)

    def size(self, key: str | None, out: int, what: str) -> int:
        """`out` where it is a possible size, else a CfgError."""
        if out < 1:
            raise self.error(key, f"layer {self.index} [{self.section.kind}] has no {what} left", expected="at least 1", found=out,
                             cause="The kernel or stride is larger than what comes in.")
        return out


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of a network. `inputs` are absolute indices, -1 is the network input; shapes are (c, h, w)."""

    kinds: ClassVar[tuple[str, ...]] = ()
    """Section names that this file reads."""
    training_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of this section that steer training only."""
    is_head: ClassVar[bool] = False
    """True where the output is decoded into boxes (`Head`)."""
    any_size: ClassVar[bool] = True
    """False where the parameters depend on the height and width of the input."""

    index: int
    kind: str
    line: int
    inputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape

    @classmethod
    def parse(cls, context: Context) -> Layer:
        """Make the layer from its section; raises CfgError with the line at fault."""
        raise NotImplementedError

    @classmethod
    def common(cls, context: Context, inputs: tuple[int, ...] | None = None) -> dict[str, Any]:
        """The arguments that all layers share; by default the input is the layer before."""
        inputs = (context.before,) if inputs is None else inputs
        return {
            "index": context.index, "kind": cls.kinds[0], "line": context.section.line, "inputs": inputs,
            "input_shapes": tuple(context.shape_of(i) for i in inputs),
        }

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        """The layer's tensors in the order of the weights file."""
        return ()

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        """Compute the output (n, c, h, w) from the inputs, as Darknet does."""
        raise NotImplementedError

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        """Write the same as ONNX nodes; returns the name of the output."""
        raise NotImplementedError

    @property
    def prefix(self) -> str:
        """`013_convolutional`: how the layer is called in every export."""
        return f"{self.index:03d}_{self.kind}"
