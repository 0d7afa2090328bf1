"""What every layer file provides, and what it is given: the contract of this folder.

A layer is one frozen value made from one section. It knows its options, the shape it puts out, its tensors in the
order of the file, how to compute itself in PyTorch and how to write itself as ONNX nodes. Adding a layer to the
workbench is adding one file beside this one with a subclass of `Layer`; nothing else changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

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

TRAINING_KEYS = frozenset(
    {"stopbackward", "dontload", "dontloadscales", "burnin_update", "train_only_bn", "onlyforward"}
)
"""Keys that any section may carry and that never change an output."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a layer in the weights file: its Darknet name and shape; always float32, little endian.

    transposed: whether the file holds the matrix (shape[0], the rest) with rows and columns exchanged; "by header"
    where the file's version decides ([connected] matrices).
    """

    field: str
    shape: tuple[int, ...]
    transposed: Literal["never", "by header", "always"] = "never"

    @property
    def count(self) -> int:
        """Number of floats."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class StateSpec:
    """What a recurrent layer remembers from one call to the next: a name and a shape (c, h, w), zero at first."""

    name: str
    shape: Shape


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

    def weight(self, name: str, shape: Sequence[int], make: Callable[[], Float32 | Iterable[Float32]]) -> str:
        """Add a weight tensor whose values are computed only when the file is written, at once or in blocks."""
        ...

    def read_state(self, spec: StateSpec) -> str:
        """The remembered value: a graph input that is zero, of one row, where nothing is given."""
        ...

    def write_state(self, spec: StateSpec, value: str) -> None:
        """Make `value` a graph output: what to give as that input with the next call."""
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
    folder: Path | None = None
    time_steps: int = 1
    dialect: Dialect | None = None
    """The fork whose reading of the cfg shapes the network; only `[reorg] extra=` needs to know."""
    has_size: bool = True
    """False where the network takes `inputs=` plain numbers: then they are the channels of one pixel."""


@dataclass
class Context:
    """What a layer may look at while it is made: its section, the layers before it, the network input."""

    index: int
    options: Options
    net: Net
    previous: Sequence[Layer]
    notes: list[Note] = field(default_factory=list)
    following: Sequence[Section] = ()

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
            raise CfgError(
                self.section.where(key), f"[{self.section.kind}] needs {key}=", expected="layer numbers such as -1, 8"
            )
        return tuple(self._resolve(key, value) for value in values)

    def _resolve(self, key: str, value: int) -> int:
        index = value if value >= 0 else self.index + value
        if not 0 <= index < self.index:
            raise CfgError(
                self.section.where(key),
                f"{key}= names layer {value}, which is not before this one",
                expected=f"-{self.index} to -1, or 0 to {self.index - 1}"
                if self.index
                else "nothing: this is the first layer",
                found=f"layer {index}",
                cause="Counting starts at 0 after [net]; a section was added or removed?",
            )
        return index

    def find_file(self, key: str) -> Path:
        """The file that `key=` names: beside the cfg, in a folder above it, or where the workbench was started.

        Darknet looks only where it was started; cfgs say `tree=data/9k.tree` and mean Darknet's own folder.
        """
        value = Path(self.section.options[key].value)
        above = (self.net.folder, *self.net.folder.parents) if self.net.folder else ()
        folders = [*above, Path.cwd()]
        for path in (folder / name for folder in folders for name in dict.fromkeys((value, Path(value.name)))):
            if path.is_file():
                return path
        raise self.error(
            key,
            f"{key}={value} is not there",
            expected=f"{value.name} beside the cfg, or {value} in a folder above it",
            found=f"nothing in {', '.join(map(str, folders[:2]))}" + (" or above" if above else ""),
            next_step="Copy the file beside the cfg.",
        )

    def is_named_later(self, keys: Mapping[str, str]) -> bool:
        """Whether a later section of a kind in `keys` names this layer in the option that `keys` gives for the kind."""
        for number, section in enumerate(self.following, start=self.index + 1):
            if section.kind in keys:
                values = Options(section).integers(keys[section.kind])
                if self.index in (value if value >= 0 else number + value for value in values):
                    return True
        return False

    def error(self, key: str | None, problem: str, **facts: Any) -> CfgError:
        """A CfgError at the line of `key`, or of the section."""
        return CfgError(self.section.where(key), problem, **facts)

    def size(self, key: str | None, out: int, what: str) -> int:
        """`out` where it is a possible size, else a CfgError."""
        if out < 1:
            raise self.error(
                key,
                f"layer {self.index} [{self.section.kind}] has no {what} left",
                expected="at least 1",
                found=out,
                cause="The kernel or stride is larger than what comes in.",
            )
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
    """False where the parameters, or the meaning of the output, depend on the height and width of what comes in."""
    fixes_size: ClassVar[bool] = False
    """True where the output has the same height and width whatever comes in, as after `[avgpool]`."""
    only_training: ClassVar[bool] = False
    """True where the layer computes nothing at inference and is no result, as `[cost]`."""

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
            "index": context.index,
            "kind": cls.kinds[0],
            "line": context.section.line,
            "inputs": inputs,
            "input_shapes": tuple(context.shape_of(i) for i in inputs),
        }

    def tensors(self, dialect: Dialect) -> tuple[TensorSpec, ...]:
        """The layer's tensors in the order of the weights file."""
        return ()

    @property
    def owner(self) -> int:
        """The layer whose tensors this one computes with: itself, but for `share_index=`."""
        return self.index

    def states(self, dialect: Dialect) -> tuple[StateSpec, ...]:
        """What the layer remembers from call to call; nothing, but for the recurrent ones (`recurrent.py`)."""
        return ()

    def forward(self, p: Parameters, *xs: torch.Tensor) -> torch.Tensor:
        """Compute the output (n, c, h, w) from the inputs, as Darknet does; what is remembered is zero."""
        raise NotImplementedError

    def onnx(self, g: OnnxScope, *xs: str) -> str:
        """Write the same as ONNX nodes; returns the name of the output."""
        raise NotImplementedError

    @property
    def prefix(self) -> str:
        """`013_convolutional`: how the layer is called in every export."""
        return f"{self.index:03d}_{self.kind}"
