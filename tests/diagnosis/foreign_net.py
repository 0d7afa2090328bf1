"""A port of Darknet as somebody else would write it: plain torch, its own reading of the weights, every mistake a flag.

Nothing of the workbench is used but the parser of the cfg's text. `mistakes` are the names of the mistakes to make; an
empty set is a healthy conversion. The arithmetic of the batch normalisation is given, because it is the fork's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.cfg import Section, read_cfg

HEADERS = {f"header-{size}": size for size in (12, 16, 20, 24)}
EPSILONS = {
    "epsilon-1e-5-inside": (1e-5, True), "epsilon-1e-6-inside": (1e-6, True), "epsilon-1e-6-outside": (1e-6, False),
    "epsilon-1e-3": (1e-3, True), "epsilon-none": (0.0, True),
}  # fmt: skip
OF_2018 = ("mish", "swish", "relu6", "hard_mish")


def option(section: Section, key: str, default: str) -> str:
    """The text behind `key=`."""
    return section.options[key].value if key in section.options else default


def integers(section: Section, key: str) -> list[int]:
    """`1, 2, 3` as numbers."""
    return [int(part) for part in option(section, key, "").replace(" ", "").split(",") if part]


class Layer:
    """What the port knows of a layer before it has weights."""

    def __init__(
        self, section: Section, index: int, shapes: list[tuple[int, int, int]], mistakes: frozenset[str]
    ) -> None:
        self.section, self.index, self.mistakes = section, index, mistakes
        self.kind = section.kind
        before = shapes[-1]
        self.before = before
        self.sources = [n if n >= 0 else index + n for n in integers(section, "layers") + integers(section, "from")]
        if "route-reversed" in mistakes and self.kind == "route":
            self.sources.reverse()
        if "shortcut-wrong-layer" in mistakes and self.kind == "shortcut":
            meant = self.sources[0]
            twins = [i for i in range(index) if i != meant and shapes[i + 1] == shapes[meant + 1]]
            self.sources[0] = min(twins, key=lambda i: (abs(i - meant), i)) if twins else meant
        self.stride = int(option(section, "stride", "2" if self.kind == "upsample" else "1"))
        self.size = int(option(section, "size", "1" if self.kind == "convolutional" else str(self.stride)))
        self.shape = getattr(self, f"_{self.kind}")(before, [shapes[i + 1] for i in self.sources])

    def _convolutional(self, before: tuple[int, int, int], _: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        self.groups = int(option(self.section, "groups", "1"))
        self.filters = int(option(self.section, "filters", "1"))
        self.pad = (
            self.size // 2 if option(self.section, "pad", "0") == "1" else int(option(self.section, "padding", "0"))
        )
        self.bn = option(self.section, "batch_normalize", "0") == "1"
        h, w = ((n + 2 * self.pad - self.size) // self.stride + 1 for n in before[1:])
        return self.filters, h, w

    def _maxpool(self, before: tuple[int, int, int], _: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        c, h, w = before
        self.padding = int(option(self.section, "padding", str(self.size - 1)))
        return c, *((n + self.padding - self.size) // self.stride + 1 for n in (h, w))  # type: ignore[return-value]

    def _upsample(self, before: tuple[int, int, int], _: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        return before[0], before[1] * self.stride, before[2] * self.stride

    def _route(self, _: tuple[int, int, int], sources: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        self.groups, self.group = int(option(self.section, "groups", "1")), int(option(self.section, "group_id", "0"))
        if "route-groups-ignored" in self.mistakes:
            self.groups, self.group = 1, 0
        if "route-wrong-half" in self.mistakes:
            self.group = (self.group + 1) % self.groups
        return sum(c // self.groups for c, _, _ in sources), *sources[0][1:]

    def _shortcut(self, before: tuple[int, int, int], _: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        return before

    _yolo = _dropout = _shortcut


class ForeignNet(nn.Module):
    """The whole network; `forward` gives the raw heads, in the order of the cfg."""

    def __init__(
        self,
        cfg: Path,
        weights: Path,
        mistakes: frozenset[str],
        epsilon: tuple[float, bool],
        size: tuple[int, int],
        folded: bool,
    ) -> None:
        super().__init__()
        parsed = read_cfg(cfg)
        self.mistakes, self.folded, self.size = mistakes, folded, size
        self.epsilon = next((EPSILONS[name] for name in sorted(mistakes & EPSILONS.keys())), epsilon)
        shapes = [(int(option(parsed.net, "channels", "3")), size[1], size[0])]
        self.layers: list[Layer] = []
        for index, section in enumerate(parsed.sections):
            self.layers.append(Layer(section, index, shapes, mistakes))
            shapes.append(self.layers[-1].shape)
        self._read(np.fromfile(weights, "<f4"), Path(weights).read_bytes()[:20])

    # ------------------------------------------------------------------------------------------ the weights file

    def _read(self, floats: np.ndarray, head: bytes) -> None:
        major, minor = np.frombuffer(head, "<i4", 2)
        size = 20 if major * 10 + minor >= 2 else 16
        size = next((HEADERS[name] for name in sorted(self.mistakes & HEADERS.keys())), size)
        self._floats, self._at = torch.from_numpy(floats), size // 4
        for layer, fields in self._reading_order():
            for field in fields:
                shape = self._shape(layer, field)
                self.register_buffer(f"l{layer.index}_{field}", self._take(shape, field))
        for layer in self.layers:
            if layer.kind == "convolutional" and layer.bn:
                self._fold(layer)

    def _reading_order(self) -> Iterator[tuple[Layer, tuple[str, ...]]]:
        """Layers and their tensors as this port reads them, one after the other."""
        convolutions = [layer for layer in self.layers if layer.kind == "convolutional"]
        branches = [self._branch(head) for head in self.layers if head.kind == "yolo"]
        inside = [layer for branch in branches for layer in branch]
        if "heads-last" in self.mistakes:
            convolutions = [layer for layer in convolutions if layer not in inside] + inside
        if "heads-reversed" in self.mistakes:
            opposite = {branch[0].index: other for branch, other in zip(branches, branches[::-1], strict=True)}
            starts, order = set(opposite), []
            for layer in convolutions:
                if layer.index in starts:
                    order.extend(opposite[layer.index])
                elif layer not in inside:
                    order.append(layer)
            convolutions = order
        if "blocks-exchanged" in self.mistakes:
            convolutions = self._exchange(convolutions)
        for layer in convolutions:
            yield layer, self._fields(layer)

    def _branch(self, head: Layer) -> list[Layer]:
        """The convolutions before a head that only it depends on."""
        readers = {n: 0 for n in range(-1, len(self.layers))}
        for layer in self.layers:
            for source in layer.sources if layer.kind == "route" else [layer.index - 1, *layer.sources]:
                readers[source] += 1
        found, index = [], head.index - 1
        while readers[index] == 1 and self.layers[index].kind == "convolutional":
            found.insert(0, self.layers[index])
            index -= 1
        return found

    def _exchange(self, layers: list[Layer]) -> list[Layer]:
        order: list[Layer] = []
        while layers:
            pair, layers = layers[:2], layers[2:]
            same = len(pair) == 2 and all(
                self._fields(pair[0]) == self._fields(pair[1]) and self._shape(pair[0], f) == self._shape(pair[1], f)
                for f in self._fields(pair[0])
            )
            if same:
                order += pair[::-1]
            else:
                order, layers = order + pair[:1], pair[1:] + layers
        return order

    def _fields(self, layer: Layer) -> tuple[str, ...]:
        if not layer.bn:
            return "beta", "weight"
        if "weights-before-batchnorm" in self.mistakes:
            return "weight", "beta", "gamma", "mean", "var"
        if "batchnorm-pytorch-order" in self.mistakes:
            return "gamma", "beta", "mean", "var", "weight"
        return "beta", "gamma", "mean", "var", "weight"

    def _shape(self, layer: Layer, field: str) -> tuple[int, ...]:
        return (
            (layer.filters, layer.before[0] // layer.groups, layer.size, layer.size)
            if field == "weight"
            else (layer.filters,)
        )

    def _take(self, shape: tuple[int, ...], field: str) -> Tensor:
        count = int(np.prod(shape))
        values = self._floats[self._at : self._at + count]
        values = torch.cat([values, torch.zeros(count - len(values))]).clone()
        self._at += count
        if field != "weight":
            return values
        n, c, k, _ = shape
        for name, stored, order in (
            ("kernel-cnkk", (c, n, k, k), (1, 0, 2, 3)), ("kernel-kkcn", (k, k, c, n), (3, 2, 0, 1)),
            ("kernel-nkkc", (n, k, k, c), (0, 3, 1, 2)), ("kernel-columns-first", (n, c, k, k), (0, 1, 3, 2)),
        ):  # fmt: skip
            if name in self.mistakes:
                values = values.reshape(stored).permute(order).contiguous().reshape(-1)
        return values.reshape(shape)

    # ------------------------------------------------------------------------------------------ the computation

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (1, c, h, w) -> raw heads (1, anchors * (5 + classes), h, w)."""
        outputs: list[Tensor] = []
        heads: list[Tensor] = []
        for layer in self.layers:
            before = outputs[-1] if outputs else x
            outputs.append(getattr(self, f"_{layer.kind}")(layer, before, outputs))
            if layer.kind == "yolo":
                heads.append(before)
        return heads

    def tensor(self, layer: Layer, field: str) -> Tensor:
        """A tensor of a layer."""
        found: Tensor = getattr(self, f"l{layer.index}_{field}")
        return found

    def _convolutional(self, layer: Layer, x: Tensor, _: list[Tensor]) -> Tensor:
        weight, beta = self.tensor(layer, "weight"), self.tensor(layer, "beta")
        if not layer.bn:
            y = F.conv2d(x, weight, beta, layer.stride, layer.pad, 1, layer.groups)
            return self._activate(layer, y)
        if self.folded:
            weight, beta = self.tensor(layer, "folded"), self.tensor(layer, "shift")
            return self._activate(layer, F.conv2d(x, weight, beta, layer.stride, layer.pad, 1, layer.groups))
        gamma, mean, root = (self.tensor(layer, field) for field in ("gamma", "mean", "root"))
        y = F.conv2d(x, weight, None, layer.stride, layer.pad, 1, layer.groups)
        return self._activate(layer, F.batch_norm(y, mean, root * root, gamma, beta, False, 0.0, 0.0))

    def _fold(self, layer: Layer) -> None:
        """The divisor of the batch normalisation, and the convolution with it folded in."""
        weight, beta, gamma, mean, variance = (
            self.tensor(layer, f) for f in ("weight", "beta", "gamma", "mean", "var")
        )
        variance = torch.where(variance.abs() < 1.2e-38, torch.zeros(()), variance)
        value, inside = self.epsilon
        if "variance-trick" in self.mistakes:
            variance, value, inside = (variance.sqrt() + 1e-6) ** 2 - 1e-5, 1e-5, True
        root = (variance + value).sqrt() if inside else variance.sqrt() + value
        factor = gamma.double() / root.double()
        self.register_buffer(f"l{layer.index}_root", root)
        self.register_buffer(f"l{layer.index}_folded", (weight * factor.view(-1, 1, 1, 1)).float())
        self.register_buffer(f"l{layer.index}_shift", (beta - mean * factor).float())

    def _activate(self, layer: Layer, y: Tensor) -> Tensor:
        name = option(layer.section, "activation", "linear" if layer.kind == "shortcut" else "logistic").lower()
        if "mish-as-relu" in self.mistakes and name in OF_2018:
            name = "relu"
        if name == "mish":
            return y * torch.tanh(F.softplus(y))
        slope = 0.01 if "leaky-0.01" in self.mistakes else 0.1
        return {
            "linear": lambda: y, "leaky": lambda: F.leaky_relu(y, slope), "relu": lambda: F.relu(y),
            "relu6": lambda: F.relu6(y), "swish": lambda: y * y.sigmoid(), "logistic": lambda: y.sigmoid(),
        }[name]()  # fmt: skip

    def _maxpool(self, layer: Layer, x: Tensor, _: list[Tensor]) -> Tensor:
        size, stride, before = layer.size, layer.stride, layer.padding // 2
        after = layer.padding - before
        never_negative = "mish" not in self._activation_before(layer) and "leaky" not in self._activation_before(layer)
        if "maxpool-3-1-1" in self.mistakes and (size, stride) == (2, 1):
            return F.max_pool2d(x, 3, 1, 1)
        if "maxpool-unpadded" in self.mistakes:
            if min(x.shape[2:]) < size:  # a window larger than the map: such a port leaves its buffer as it was
                return torch.zeros_like(x)
            y = F.max_pool2d(x, size, stride)
            return F.pad(y, (0, layer.shape[2] - y.shape[3], 0, layer.shape[1] - y.shape[2]))
        if "maxpool-padded-left" in self.mistakes and before != after:
            reads = (layer.shape[1] - 1) * stride + size - before > layer.before[1]
            before, after = (after, before) if reads or before else (before, after)
        if "maxpool-zero-padded" in self.mistakes and not never_negative:
            return F.max_pool2d(F.pad(x, (before, after, before, after)), size, stride)
        return F.max_pool2d(F.pad(x, (before, after, before, after), value=float("-inf")), size, stride)

    def _activation_before(self, layer: Layer) -> str:
        index = layer.index - 1
        while index >= 0 and self.layers[index].kind in ("maxpool", "route", "upsample"):
            sources = self.layers[index].sources
            index = sources[0] if sources else index - 1
        return option(self.layers[index].section, "activation", "linear").lower()

    def _upsample(self, layer: Layer, x: Tensor, _: list[Tensor]) -> Tensor:
        if "upsample-bilinear" in self.mistakes:
            return F.interpolate(x, scale_factor=layer.stride, mode="bilinear", align_corners=False)
        if "upsample-align-corners" in self.mistakes:
            return F.interpolate(x, size=layer.shape[1:], mode="bilinear", align_corners=True)
        return F.interpolate(x, scale_factor=layer.stride, mode="nearest")

    def _route(self, layer: Layer, _: Tensor, outputs: list[Tensor]) -> Tensor:
        parts = [torch.chunk(outputs[i], layer.groups, 1)[layer.group] for i in layer.sources]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _shortcut(self, layer: Layer, x: Tensor, outputs: list[Tensor]) -> Tensor:
        y = x + outputs[layer.sources[0]]
        return y if "shortcut-without-activation" in self.mistakes else self._activate(layer, y)

    def _dropout(self, layer: Layer, x: Tensor, _: list[Tensor]) -> Tensor:
        return x

    _yolo = _dropout
