"""`antialiasing=` of `[convolutional]` and `[maxpool]`: stride 1 first, then a blur that does the striding.

1 is a 3x3 binomial blur (1 2 1) / 4 in both directions with one pixel of zero padding, 2 a 2x2 mean without padding,
each channel alone (AlexeyAB src/convolutional_layer.c and src/maxpool_layer.c, `l.input_layer`; its weights are
constants and are not in the file). The layers after see the blurred, smaller map. pjreddie's Darknet ignores the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.layers.base import Context, Float32, OnnxScope

if TYPE_CHECKING:
    import torch

BLURS: dict[int, tuple[tuple[float, ...], int]] = {1: ((0.25, 0.5, 0.25), 1), 2: ((0.5, 0.5), 0)}
"""`antialiasing=` -> weights along one direction, and pixels of padding."""


@dataclass(frozen=True)
class Blur:
    """A depthwise blur; `stride` is (vertical, horizontal)."""

    kind: int
    stride: tuple[int, int] = (1, 1)

    @classmethod
    def read(cls, context: Context) -> Blur | None:
        """From `antialiasing=`; None where it is 0 or absent. Darknet takes every value but 2 for 1."""
        kind = context.options.integer("antialiasing", 0)
        return cls(2 if kind == 2 else 1) if kind else None

    @property
    def weights(self) -> Float32:
        """(size, size)."""
        line = np.array(BLURS[self.kind][0], np.float32)
        return np.outer(line, line)

    def output(self, context: Context, h: int, w: int) -> tuple[int, int]:
        """Height and width after blurring; raises CfgError where nothing is left."""
        size, padding = len(BLURS[self.kind][0]), BLURS[self.kind][1]
        out_h = context.size("antialiasing", (h + 2 * padding - size) // self.stride[0] + 1, "height")
        return out_h, context.size("antialiasing", (w + 2 * padding - size) // self.stride[1] + 1, "width")

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) -> blurred."""
        from torch import from_numpy
        from torch.nn.functional import conv2d

        c = y.shape[1]
        weights = from_numpy(self.weights).to(y.device).expand(c, 1, -1, -1)
        return conv2d(y, weights, None, self.stride, BLURS[self.kind][1], groups=c)

    def onnx(self, g: OnnxScope, y: str, channels: int) -> str:
        """The same as a `Conv` with one group for each channel."""
        size, padding = len(BLURS[self.kind][0]), BLURS[self.kind][1]
        weights = g.constant("blur", np.tile(self.weights, (channels, 1, 1, 1)))
        return str(
            g.node(
                "Conv",
                y,
                weights,
                kernel_shape=[size, size],
                strides=list(self.stride),
                pads=[padding] * 4,
                group=channels,
            )
        )
